/** The registry's `access` entry: what reaches a cluster and what may be done there. Never read by internet-facing functions. */
import * as z from "zod";

const base64 = z.string().regex(/^[A-Za-z0-9+/=\s]+$/, "expected base64");

/** How the functions prove who they are to a cluster's API server. */
const authSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("token"), token: z.string().min(1) }),
  z.strictObject({ kind: z.literal("clientCertificate"), certificateData: base64, keyData: base64 }),
]);

/** Link-local and cloud-metadata hosts: a stored entry must not make a function send a credential there. */
const FORBIDDEN_HOST = /^(169\.254\.|\[?fe[89ab][0-9a-f]:|\[?fd00:ec2:|0\.0\.0\.0$|metadata\.|instance-data\.)/i;

function isAcceptedServer(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.protocol !== "https:" || url.username !== "" || url.password !== "") return false;
  return url.search === "" && url.hash === "" && !FORBIDDEN_HOST.test(url.hostname);
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
