/** What `add` and `rotate` have in common: where the functions are called, what the cluster is given for it, and how a secret is told. */
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { type EventSource, type Identity, type KubernetesObject, manifestsFor } from "../kubernetes/manifests.ts";
import type { ManifestWishes, Source } from "./cluster-options.ts";
import { type CredentialsDeps, readPem } from "./credentials.ts";
import { CommandError } from "./errors.ts";
import type { RegistryStore } from "./registry-store.ts";
import type { Secrets } from "./secrets.ts";

/** Where the functions are called from a cluster. */
export interface Endpoint {
  /** Without a slash at its end. */
  readonly address: string;
  /** PEM in base64; undefined for a certificate of a public authority. */
  readonly caBundle: string | undefined;
}

export interface RegisterDeps extends CredentialsDeps {
  readonly store: RegistryStore;
  readonly connect: (access: ClusterAccess) => Connection;
  /** What a running `npm start` listens at; undefined when the registry is not its own. */
  readonly session: () => Promise<Endpoint | undefined>;
}

export interface Outcome {
  /** Manifests, or what became of them. */
  readonly stdout: string;
  /** Everything else, a line each. */
  readonly stderr: readonly string[];
  readonly exitCode: number;
}

/** From the command line, else of the local session; undefined when neither tells. */
export async function findEndpoint(
  { endpoint, caBundle }: ManifestWishes,
  { readText, session }: RegisterDeps,
): Promise<Endpoint | undefined> {
  const own = caBundle === undefined ? undefined : await readPem(caBundle, "CERTIFICATE", readText);
  if (endpoint !== undefined) return { address: endpoint, caBundle: own };
  const running = await session();
  return running === undefined ? undefined : { ...running, ...(own === undefined ? {} : { caBundle: own }) };
}

export function missingEndpoint(what: string): CommandError {
  return new CommandError(
    `--endpoint is missing: the https address of the deployed API, which ${what} needs (without events: --source none)`,
  );
}

/** Those that are set up by objects of Kubernetes. */
export function sourcesInCluster(sources: readonly Source[]): readonly EventSource[] {
  return sources.filter((source) => source === "admission" || source === "knative");
}

export interface GivenObjects {
  readonly name: string;
  readonly sources: readonly Source[];
  readonly users: boolean;
  readonly identity: Identity;
  readonly namespaces: readonly string[] | undefined;
  readonly endpoint: Endpoint | undefined;
  readonly secrets: Secrets;
}

/** Everything that the cluster is given, in the order of applying. */
export function objectsOf(given: GivenObjects): readonly KubernetesObject[] {
  const { name, users, identity, namespaces, endpoint, secrets } = given;
  const sources = sourcesInCluster(given.sources);
  const [first] = sources;
  if (first !== undefined && endpoint === undefined) throw missingEndpoint(`the source ${first}`);
  return manifestsFor({
    cluster: name,
    endpoint: endpoint?.address ?? "",
    ...(endpoint?.caBundle === undefined ? {} : { caBundle: endpoint.caBundle }),
    ...(secrets.path === undefined ? {} : { pathToken: secrets.path }),
    identity,
    ...(namespaces === undefined ? {} : { namespaces }),
    sources,
    users,
  });
}

interface Told {
  readonly name: string;
  readonly endpoint: Endpoint | undefined;
  /** A secret that stands in them was shown there, or went straight to the cluster. */
  readonly objects: readonly KubernetesObject[];
}

/** Each secret that stands in no object, with who needs it. */
export function tellSecrets(secrets: Secrets, { name, endpoint, objects }: Told): readonly string[] {
  const text = JSON.stringify(objects);
  const events = `${endpoint?.address ?? "https://…"}/clusters/${name}/events`;
  const reviews = `${endpoint?.address ?? "https://…"}/clusters/${name}/admission`;
  const lines = [
    [secrets.path, `address of admission reviews: ${reviews}/`],
    [secrets.bearer, `bearer token for ${events}: `],
    [secrets.standardWebhooks, `key of Standard Webhooks for ${events}: `],
  ].flatMap(([secret, what]) => (secret === undefined || text.includes(secret) ? [] : [`  ${what}${secret}`]));
  return lines.length === 0 ? [] : ["secrets, shown this once:", ...lines];
}

/** Lines of standard output. */
export function printed(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}
