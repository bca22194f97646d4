/** The registry's `access` entry: what reaches a cluster and what may be done there. Never read by internet-facing functions. */
import { BlockList, isIP } from "node:net";
import * as z from "zod";

const base64 = z.string().regex(/^[A-Za-z0-9+/=\s]+$/, "expected base64");

/** How the functions prove who they are to a cluster's API server. */
const authSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("token"), token: z.string().min(1) }),
  z.strictObject({ kind: z.literal("clientCertificate"), certificateData: base64, keyData: base64 }),
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

function isAcceptedServer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.protocol !== "https:" || url.username !== "" || url.password !== "") return false;
  return url.search === "" && url.hash === "" && !isForbiddenHost(url.hostname);
}

/** `hostname` as URL normalises it: IPv6 in brackets, IPv4 in dotted decimals whatever it was written as. */
function isForbiddenHost(hostname: string): boolean {
  const address = hostname.replace(/^\[|\]$/g, "");
  const family = isIP(address);
  if (family === 0) return FORBIDDEN_NAME.test(hostname);
  return FORBIDDEN_ADDRESSES.check(address, family === 4 ? "ipv4" : "ipv6");
}

export const accessSchema = z.strictObject({
  server: z
    .string()
    .refine(isAcceptedServer, "expected an https URL without credentials, query, link-local or metadata address"),
  certificateAuthorityData: base64.optional(),
  auth: authSchema,
  /** `observe` plans and reports but writes nothing; `act` does what it plans. */
  mode: z.enum(["observe", "act"]).default("observe"),
  /** Serve only these namespaces; all of them when absent. */
  namespaces: z.array(z.string().min(1)).min(1).max(500).optional(),
});

/** How to reach one cluster, with which credentials, and whether to act there. */
export type ClusterAccess = z.infer<typeof accessSchema>;
