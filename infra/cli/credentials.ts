/** How the functions are to reach a cluster, from what the command line says: reads the files that it names, once. */
import type * as z from "zod";
import type { accessSchema, ClusterAccess } from "../../shared/clusters/access.ts";
import type { Credentials } from "./cluster-options.ts";
import { CommandError } from "./errors.ts";

/** An entry before it is checked; without a mode. */
export type Reach = Pick<z.input<typeof accessSchema>, "server" | "certificateAuthorityData" | "auth">;

export interface CredentialsDeps {
  /** The text of a file, or of standard input for `-`. */
  readonly readText: (file: string) => Promise<string>;
  /** The current context when it is undefined. */
  readonly readContext: (context: string | undefined) => { readonly access: ClusterAccess };
}

export async function readReach(credentials: Credentials, { readText, readContext }: CredentialsDeps): Promise<Reach> {
  switch (credentials.kind) {
    case "eks": {
      const { clusterName, region, roleArn } = credentials;
      if (region === undefined) throw new CommandError("--eks needs --eks-region, or --region: where the cluster is");
      return { auth: { kind: "eks", clusterName, region, ...(roleArn === undefined ? {} : { roleArn }) } };
    }
    case "context": {
      const { server, certificateAuthorityData, auth } = readContext(credentials.context).access;
      return { server, certificateAuthorityData, auth };
    }
    case "token": {
      const token = (await readText(credentials.file)).trim();
      const source = credentials.file === "-" ? "standard input" : credentials.file;
      if (token === "" || /\s/.test(token)) throw new CommandError(`${source} holds no token: one word is expected`);
      return { ...(await readTarget(credentials, readText)), auth: { kind: "token", token } };
    }
    case "clientCertificate": {
      const target = await readTarget(credentials, readText);
      const certificateData = await readPem(credentials.certificate, "CERTIFICATE", readText);
      const keyData = await readPem(credentials.key, "PRIVATE KEY", readText);
      return { ...target, auth: { kind: "clientCertificate", certificateData, keyData } };
    }
  }
}

async function readTarget(
  { server, certificateAuthority }: { readonly server: string; readonly certificateAuthority: string | undefined },
  readText: CredentialsDeps["readText"],
): Promise<Pick<Reach, "server" | "certificateAuthorityData">> {
  if (certificateAuthority === undefined) return { server };
  return { server, certificateAuthorityData: await readPem(certificateAuthority, "CERTIFICATE", readText) };
}

/** PEM in base64, as kubeconfigs and webhook configurations have it. */
export async function readPem(
  file: string,
  label: "CERTIFICATE" | "PRIVATE KEY",
  readText: CredentialsDeps["readText"],
): Promise<string> {
  const text = await readText(file);
  // A key may be of a kind that stands before the words.
  if (!new RegExp(`-----BEGIN ([A-Z]+ )?${label}-----`).test(text)) {
    throw new CommandError(`${file} holds no PEM: a block that begins with -----BEGIN ${label}----- is expected`);
  }
  return Buffer.from(text).toString("base64");
}
