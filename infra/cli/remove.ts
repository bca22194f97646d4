/** `npm run cluster -- remove`: takes a cluster out of the registry, and on demand what was applied to it. */
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { OWN_NAMESPACE } from "../../shared/events/changes.ts";
import type { KubernetesObject } from "../kubernetes/manifests.ts";
import { deleteObjects, identityOf, nameOfObject, requireRights } from "./cluster-objects.ts";
import type { RemoveOptions } from "./cluster-options.ts";
import { describeReach } from "./entries.ts";
import { CommandError } from "./errors.ts";
import { type Outcome, objectsOf, printed, type RegisterDeps } from "./registration.ts";
import { unknownCluster } from "./registry-store.ts";

export interface RemoveDeps extends RegisterDeps {
  /** Asks a person; undefined when nobody can be asked. */
  readonly confirm: (question: string) => Promise<boolean | undefined>;
}

export async function runRemove(options: RemoveOptions, deps: RemoveDeps): Promise<Outcome> {
  const { name, yes } = options;
  const { store } = deps;
  const access = await store.access(name);
  const webhook = await store.webhook(name);
  // What an add or a remove has left that was cut off is removed, too.
  if (access === undefined && webhook === undefined) throw await unknownCluster(name, store);
  const where = access === undefined ? "half a registration" : describeReach(access);
  if (!yes) {
    const answer = await deps.confirm(`Remove ${name} (${where}) from ${store.place}?`);
    if (answer === undefined)
      throw new CommandError(`nobody can be asked here: --yes removes ${name} without a question`);
    if (!answer) return { stdout: "", stderr: [`${name} stays`], exitCode: 1 };
  }
  const rights = options.apply ? deps.readContext(options.rights.context).access : undefined;
  if (rights !== undefined && access !== undefined) await requireRights(name, { access, rights }, deps.connect);
  await store.remove(name);
  const twin = await twinOf(name, where, store);
  const told = `${name} (${where}) is removed from ${store.place}; functions that run forget it within five minutes`;
  if (twin !== undefined)
    return { stdout: "", stderr: [told, `what the cluster was given stays: ${twin} is the same cluster`], exitCode: 0 };
  const objects = access === undefined ? [] : givenTo(name, access, webhook);
  if (rights === undefined) {
    const left = ["what the cluster was given goes by", ...deleteCommands(objects)];
    return { stdout: "", stderr: [told, ...(objects.length === 0 ? [] : left)], exitCode: 0 };
  }
  const connection = deps.connect(rights);
  try {
    const { lines, failures } = await deleteObjects(connection, objects);
    return { stdout: printed(lines), stderr: [told, ...failures], exitCode: failures.length === 0 ? 0 : 1 };
  } finally {
    await connection.close();
  }
}

/** Another name under which the same cluster is registered: what it was given has the same names for both. */
async function twinOf(name: string, where: string, store: RegisterDeps["store"]): Promise<string | undefined> {
  for (const other of await store.names()) {
    // What cannot be read may be it, too, and nobody knows.
    const access = other === name ? undefined : await store.access(other).catch(() => undefined);
    if (access !== undefined && describeReach(access) === where) return other;
  }
  return undefined;
}

/** Whatever `add` may have given to the cluster, by whatever options. A namespace that is not named for the functions alone is somebody else's. */
function givenTo(
  name: string,
  access: ClusterAccess,
  webhook: ClusterWebhook | undefined,
): readonly KubernetesObject[] {
  const objects = objectsOf({
    name,
    sources: ["admission", ...(webhook?.oidc === undefined ? [] : (["knative"] as const))],
    users: true,
    identity: identityOf(access).identity,
    namespaces: access.namespaces,
    endpoint: { address: "https://unused.invalid", caBundle: undefined },
    secrets: { path: "unused" },
  });
  return objects.filter(({ kind, metadata }) => kind !== "Namespace" || metadata.name === OWN_NAMESPACE);
}

/** One for the cluster, and one for each namespace that stays. */
function deleteCommands(objects: readonly KubernetesObject[]): readonly string[] {
  const gone = objects.filter(({ kind }) => kind === "Namespace").map(({ metadata }) => metadata.name);
  const places = [...new Set(objects.map(({ metadata }) => metadata.namespace))];
  return places
    .filter((place) => place === undefined || !gone.includes(place))
    .map((place) => {
      const names = objects.filter(({ metadata }) => metadata.namespace === place).map(nameOfObject);
      return `  kubectl delete --ignore-not-found${place === undefined ? "" : ` -n ${place}`} ${names.join(" ")}`;
    });
}
