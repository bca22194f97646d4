/** Kubeconfig files with everything embedded; what kubectl and kube-controller-manager read. */
import { stringify } from "yaml";
import type { ServerAccess } from "../../../shared/clusters/access.ts";
import type { KeyPair } from "./certificates.ts";
import { writeAtomically } from "./files.ts";

/** Full access to the API server as the owner of `client`. */
export function accessFor(server: string, ca: KeyPair, client: KeyPair): ServerAccess {
  return {
    server,
    certificateAuthorityData: base64(ca.certificate),
    auth: { kind: "clientCertificate", certificateData: base64(client.certificate), keyData: base64(client.key) },
    mode: "act",
  };
}

/** Writes a kubeconfig with the one context `local`, readable by its owner alone. */
export async function writeKubeconfig(path: string, access: ServerAccess, user: string): Promise<void> {
  const { server, certificateAuthorityData, auth } = access;
  const credentials =
    auth.kind === "token"
      ? { token: auth.token }
      : { "client-certificate-data": auth.certificateData, "client-key-data": auth.keyData };
  const kubeconfig = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "local", cluster: { server, "certificate-authority-data": certificateAuthorityData } }],
    users: [{ name: user, user: credentials }],
    contexts: [{ name: "local", context: { cluster: "local", user } }],
    "current-context": "local",
  };
  await writeAtomically(path, stringify(kubeconfig, { lineWidth: 0 }), 0o600);
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}
