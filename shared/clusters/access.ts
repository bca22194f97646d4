/** The registry's `access` entry: what reaches a cluster and what may be done there. Never read by internet-facing functions. */
import { BlockList, isIP } from "node:net";
import * as z from "zod";

const base64 = z.string().regex(/^[A-Za-z0-9+/=\s]+$/, "expected base64");
/** STS of every partition whose tokens EKS takes has a name that is made of the region. */
const REGION = /^[a-z]{2}(-[a-z]{2,12}){1,3}-\d{1,2}$/;

/** A cluster of EKS, from which its address and authority are asked; the token is signed with the functions' own credentials. */
const eksAuthSchema = z.strictObject({
  kind: z.literal("eks"),
  clusterName: z.string().regex(/^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$/, "expected the name of a cluster of EKS"),
  region: z.string().regex(REGION, "expected a region, such as eu-central-1"),
  /** Assumed first; both the cluster is described and the token signed with it. */
  roleArn: z
    .string()
    .regex(/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]{1,512}$/, "expected the ARN of a role")
    .optional(),
});
export type EksAuth = z.infer<typeof eksAuthSchema>;

/** How the functions prove who they are to a cluster's API server. */
const authSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("token"), token: z.string().min(1) }),
  z.strictObject({ kind: z.literal("clientCertificate"), certificateData: base64, keyData: base64 }),
  eksAuthSchema,
]);

/** Link-local and cloud-metadata addresses: a stored entry must not make a function send a credential there. */
const FORBIDDEN_ADDRESSES = new BlockList();
FORBIDDEN_ADDRESSES.addSubnet("169.254.0.0", 16, "ipv4");
FORBIDDEN_ADDRESSES.addSubnet("0.0.0.0", 8, "ipv4");
FORBIDDEN_ADDRESSES.addAddress("100.100.100.200", "ipv4");
FORBIDDEN_ADDRESSES.addAddress("168.63.129.16", "ipv4");
FORBIDDEN_ADDRESSES.addSubnet("fe80::", 10, "ipv6");
FORBIDDEN_ADDRESSES.addSubnet("fd00:ec2::", 32, "ipv6");
FORBIDDEN_ADDRESSES.addSubnet("64:ff9b::a9fe:0", 112, "ipv6");
FORBIDDEN_ADDRESSES.addSubnet("::a9fe:0", 112, "ipv6");
FORBIDDEN_ADDRESSES.addAddress("::", "ipv6");
const FORBIDDEN_NAME = /^(metadata|instance-data)(\.|$)/i;

/** Whether a function may call there on the word of a registration, or of an issuer: https, verified, and no address of the cloud that runs the functions. */
export function isAcceptedServer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.protocol !== "https:" || url.username !== "" || url.password !== "") return false;
  return url.search === "" && url.hash === "" && !isForbiddenHost(url.hostname);
}

/** `hostname` as URL normalises it: IPv6 in brackets, IPv4 in dotted decimals whatever it was written as. */
function isForbiddenHost(hostname: string): boolean {
  const address = hostname.replace(/^\[|\]$/g, "");
  return isIP(address) === 0 ? FORBIDDEN_NAME.test(hostname) : isForbiddenAddress(address);
}

/** Of an IPv4 or IPv6 address as a resolver gives it. */
export function isForbiddenAddress(address: string): boolean {
  return FORBIDDEN_ADDRESSES.check(address, isIP(address) === 4 ? "ipv4" : "ipv6");
}

const EXPECTED_SERVER = "expected an https URL without credentials, query, link-local or metadata address";

/** What every entry says, however the cluster is reached. */
export interface Permission {
  /** `observe` plans and reports but writes nothing; `act` does what it plans. */
  readonly mode: "observe" | "act";
  /** Serve only these namespaces; all of them when absent. */
  readonly namespaces?: string[] | undefined;
}

/** A cluster at an address that the entry names. */
export interface ServerAccess extends Permission {
  readonly server: string;
  readonly certificateAuthorityData?: string | undefined;
  readonly auth: Exclude<z.infer<typeof authSchema>, EksAuth>;
}

/** A cluster whose address and authority are those that EKS tells: an entry cannot say otherwise. */
export interface EksAccess extends Permission {
  readonly server?: undefined;
  readonly certificateAuthorityData?: undefined;
  readonly auth: EksAuth;
}

/** How to reach one cluster, with which credentials, and whether to act there. */
export type ClusterAccess = ServerAccess | EksAccess;

/** `auth.kind` decides whether `server` must be there (`token`, `clientCertificate`) or must not (`eks`). */
export const accessSchema = z
  .strictObject({
    server: z.string(EXPECTED_SERVER).refine(isAcceptedServer, EXPECTED_SERVER).optional(),
    certificateAuthorityData: base64.optional(),
    auth: authSchema,
    mode: z.enum(["observe", "act"]).default("observe"),
    namespaces: z.array(z.string().min(1)).min(1).max(500).optional(),
  })
  .transform((entry, context): ClusterAccess => {
    const { server, certificateAuthorityData, auth, ...permission } = entry;
    const refuse = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (auth.kind === "eks") {
      const told = "EKS tells it: leave it out";
      if (server !== undefined) refuse("server", told);
      if (certificateAuthorityData !== undefined) refuse("certificateAuthorityData", told);
      return { auth, ...permission };
    }
    if (server === undefined) {
      refuse("server", EXPECTED_SERVER);
      return z.NEVER;
    }
    const authority = certificateAuthorityData === undefined ? {} : { certificateAuthorityData };
    return { server, ...authority, auth, ...permission };
  });
