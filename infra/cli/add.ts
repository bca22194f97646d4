/** `npm run cluster -- add` and `credentials`: registers a cluster, and changes how it is reached. */
import { setTimeout as sleep } from "node:timers/promises";
import type * as z from "zod";
import { accessSchema, type ClusterAccess } from "../../shared/clusters/access.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { OWN_GROUP, OWN_NAMESPACE } from "../../shared/events/changes.ts";
import { isRecord, recordOf } from "../../shared/planning/json.ts";
import { type Identity, knativeSender } from "../kubernetes/manifests.ts";
import { applyObjects, checkRights, formatObjects, identityOf } from "./cluster-objects.ts";
import type { AddOptions, CredentialsOptions } from "./cluster-options.ts";
import { readReach } from "./credentials.ts";
import { describeReach } from "./entries.ts";
import { CommandError } from "./errors.ts";
import {
  type Endpoint,
  findEndpoint,
  missingEndpoint,
  type Outcome,
  objectsOf,
  printed,
  type RegisterDeps,
  tellSecrets,
} from "./registration.ts";
import { checkEntry, unknownCluster } from "./registry-store.ts";
import { makeSecrets, newWebhook, secretKindsOf } from "./secrets.ts";

const GOOGLE = "https://accounts.google.com";
/** Of one request to the cluster. */
const REQUEST_TIMEOUT_MS = 15_000;
/** Until the control plane has made the token of a ServiceAccount. */
const TOKEN_TIMEOUT_MS = 30_000;
const POLL_MS = 250;

/**
 * Writes the entry in mode `observe`. Prints what the cluster needs, or applies it first, so that nothing is registered that
 * the cluster has refused: then the same command can be run again.
 */
export async function runAdd(options: AddOptions, deps: RegisterDeps): Promise<Outcome> {
  const { name, sources, apply, serviceAccount } = options;
  const { store } = deps;
  if (!options.replace) await refuseSecond(name, deps);
  const reach = await readReach(options.credentials, deps);
  if (serviceAccount && reach.auth.kind === "eks") throw new CommandError(NO_ACCOUNT);
  const namespaces = options.namespaces === undefined ? {} : { namespaces: [...options.namespaces] };
  const entry = { ...reach, ...namespaces, mode: "observe" as const };
  const access = readAccess(name, entry);
  const endpoint = await findEndpoint(options, deps);
  const { identity, note } = serviceAccount ? OWN_ACCOUNT : identityOf(access);
  const secrets = makeSecrets(secretKindsOf(sources));
  const oidc = await oidcOf(options, { endpoint, identity, access, deps });
  const objects = objectsOf({ ...options, identity, endpoint, secrets });
  const webhook = newWebhook(secrets, oidc);
  const foreseen = serviceAccount ? ({ kind: "token", token: FORESEEN_TOKEN } as const) : entry.auth;
  store.check(name, { access: { ...entry, auth: foreseen }, webhook });

  const given = apply ? await give(options, { access, objects, deps }) : undefined;
  if (given !== undefined && given.failures.length > 0) {
    const advice = `${name} is not registered: mend what was refused, then run the same command again`;
    return { stdout: printed(given.lines), stderr: [...given.failures, advice], exitCode: 1 };
  }
  const auth = given?.token === undefined ? entry.auth : ({ kind: "token", token: given.token } as const);
  await store.write(name, { access: { ...entry, auth }, webhook }, { isNew: !options.replace });
  const stderr = [
    `${name} (${describeReach(entry)}) is registered in ${store.place}, in mode observe: passes plan and report, and write nothing`,
    ...(note === undefined ? [] : [`note: ${note}`]),
    ...(given?.isSame === false ? [`note: ${UNSURE}`] : []),
    ...(access.auth.kind === "eks" ? [`note: ${ACCESS_ENTRY}`] : []),
    ...tellSecrets(secrets, { name, endpoint, objects }),
  ];
  return { stdout: given === undefined ? formatObjects(objects) : printed(given.lines), stderr, exitCode: 0 };
}

const OWN_ACCOUNT: ReturnType<typeof identityOf> = {
  identity: { kind: "serviceAccount", namespace: OWN_NAMESPACE },
  note: undefined,
};
/** In the place of the one that is still to be made; as long as those of a ServiceAccount are. */
const FORESEEN_TOKEN = "x".repeat(1_024);
const NO_ACCOUNT =
  "--service-account registers a token, and the context is of a cluster of EKS, where tokens are signed with AWS credentials: leave it out, and give the functions' role an access entry (docs/clusters.md)";
const UNSURE = "whether the kubeconfig leads to the registered cluster could not be told";
const ACCESS_ENTRY = `EKS lets the functions in by an access entry of their role with the Kubernetes group ${OWN_GROUP} (docs/clusters.md)`;

/** A registration without the half that senders need is what an add has left that was cut off: it is finished by another one. */
async function refuseSecond(name: string, { store }: RegisterDeps): Promise<void> {
  const access = await store.access(name);
  if (access === undefined) return;
  throw new CommandError(
    `${name} is registered already (${describeReach(access)}): --replace registers it anew, with new secrets and in mode observe; rotate changes the secrets alone, credentials how it is reached`,
  );
}

/** As the functions will read it. */
function readAccess(name: string, entry: z.input<typeof accessSchema>): ClusterAccess {
  checkEntry(name, { access: entry });
  return accessSchema.parse(entry);
}

interface OidcParts {
  readonly endpoint: Endpoint | undefined;
  readonly identity: Identity;
  readonly access: ClusterAccess;
  readonly deps: RegisterDeps;
}

/** Who signs the senders' tokens, for whom and in whose name; undefined when no sender comes so. */
async function oidcOf(options: AddOptions, parts: OidcParts): Promise<ClusterWebhook["oidc"]> {
  const { name, sources, oidc } = options;
  const source = sources.find((one) => one === "knative" || one === "gke" || one === "oidc");
  if (source === undefined) return undefined;
  const { endpoint, identity } = parts;
  const address = endpoint?.address;
  const audience = oidc.audience ?? (address === undefined ? undefined : `${address}/clusters/${name}/events`);
  if (audience === undefined) throw missingEndpoint(`the source ${source}`);
  if (source === "knative") {
    const sender = knativeSender({ cluster: name, endpoint: address ?? "", identity });
    const issuer = oidc.issuer ?? (await askIssuer(options, parts));
    return { issuer, audience: oidc.audience ?? sender.audience, subject: oidc.subject ?? sender.subject };
  }
  const { subject, issuer = GOOGLE } = oidc;
  if (subject === undefined) throw new CommandError("--oidc-subject is missing: the `sub` of the sender's tokens");
  return { issuer, audience, subject };
}

/** A cluster tells who signs its tokens to whoever may ask. */
async function askIssuer(options: AddOptions, { access, deps }: OidcParts): Promise<string> {
  const asking = options.apply ? rightsOf(options, deps) : access;
  const connection = deps.connect(asking);
  try {
    const path = "/.well-known/openid-configuration";
    const answer = await connection.send({ method: "GET", path, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    const issuer = isRecord(answer.body) ? answer.body["issuer"] : undefined;
    if (typeof issuer === "string") return issuer;
  } catch {
    // It is said below what to do.
  } finally {
    await connection.close();
  }
  throw new CommandError(
    "--oidc-issuer is missing: kubectl get --raw /.well-known/openid-configuration tells the cluster's own",
  );
}

/** A person's: of --context, else of the context that is registered, else of the current one. */
function rightsOf({ credentials, rights }: AddOptions, { readContext }: RegisterDeps): ClusterAccess {
  const context = rights.context ?? (credentials.kind === "context" ? credentials.context : undefined);
  return readContext(context).access;
}

interface Giving {
  readonly access: ClusterAccess;
  readonly objects: Parameters<typeof applyObjects>[1];
  readonly deps: RegisterDeps;
}

/** Applies the objects with the person's rights, and reads the token that they make, if there is to be one. */
async function give(options: AddOptions, { access, objects, deps }: Giving) {
  const own = rightsOf(options, deps);
  const isSame = await checkRights({ access, rights: own }, deps.connect);
  const connection = deps.connect(own);
  try {
    const sent = await applyObjects(connection, objects);
    const token = options.serviceAccount && sent.failures.length === 0 ? await readToken(connection) : undefined;
    return { ...sent, isSame, token };
  } finally {
    await connection.close();
  }
}

/** The control plane writes it into the Secret a moment after that was made. */
async function readToken({ send }: Connection): Promise<string> {
  const path = `/api/v1/namespaces/${OWN_NAMESPACE}/secrets/${OWN_GROUP}`;
  const signal = AbortSignal.timeout(TOKEN_TIMEOUT_MS);
  while (!signal.aborted) {
    const answer = await send({ method: "GET", path, signal });
    const token = recordOf(isRecord(answer.body) ? answer.body["data"] : undefined)["token"];
    if (typeof token === "string" && token !== "") return Buffer.from(token, "base64").toString("utf8");
    await sleep(POLL_MS);
  }
  throw new CommandError(
    `the Secret ${OWN_NAMESPACE}/${OWN_GROUP} got no token within ${TOKEN_TIMEOUT_MS / 1_000} s: does kube-controller-manager run? Run the same command again`,
  );
}

/** Changes how a registered cluster is reached; its secrets, namespaces and mode stay, unless it is another cluster now. */
export async function runCredentials(options: CredentialsOptions, deps: RegisterDeps): Promise<Outcome> {
  const { name } = options;
  const { store } = deps;
  const before = await store.access(name);
  if (before === undefined) throw await unknownCluster(name, store);
  const reach = await readReach(options.credentials, deps);
  const isSame = describeReach(reach) === describeReach(before) && accountOf(reach) === accountOf(before);
  const mode = isSame ? before.mode : "observe";
  const namespaces = before.namespaces === undefined ? {} : { namespaces: before.namespaces };
  const access = readAccess(name, { ...reach, ...namespaces, mode });
  await store.write(name, { access: { ...reach, ...namespaces, mode } });
  const { note } = identityOf(access);
  const account = accountOf(before);
  const was = `${describeReach(before)}${account === undefined ? "" : ` of the account ${account}`}`;
  const moved = `it was ${was}: its mode is observe now, until npm run cluster -- mode ${name} act`;
  const stderr = [
    `${name} (${describeReach(reach)}) has new credentials, which functions that run take up within five minutes; mode ${mode}`,
    ...(isSame ? [] : [`note: ${moved}`]),
    ...(note === undefined ? [] : [`note: ${note}`]),
  ];
  return { stdout: "", stderr, exitCode: 0 };
}

/** Of AWS, as far as the entry names one: each may have a cluster of that name. */
function accountOf({ auth }: Pick<ClusterAccess, "auth">): string | undefined {
  return auth.kind === "eks" ? auth.roleArn?.split(":")[4] : undefined;
}
