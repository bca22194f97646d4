/**
 * The garbage collector as explicit steps: what it could do next, each step atomic, none done unless it is taken. Follows
 * kube-controller-manager: dangling owners, foreground deletion with blockOwnerDeletion, orphaning.
 */
import type { MemoryCluster } from "./cluster.ts";
import type { Kind } from "./kinds.ts";
import { finalizersOf, isTerminating, type KubeObject, type Owner, ownersOf } from "./objects.ts";
import type { Random } from "./random.ts";

const ACTOR = "garbage-collector";
const FOREGROUND = "foregroundDeletion";
const ORPHAN = "orphan";

export interface Step {
  /** For people, and for a stable order. */
  readonly label: string;
  take(): void;
}

interface Node {
  readonly kind: Kind;
  readonly object: KubeObject;
}

interface Graph {
  readonly cluster: MemoryCluster;
  readonly byUid: ReadonlyMap<string, Node>;
  /** By the UID of the owner. */
  readonly dependents: ReadonlyMap<string, readonly Node[]>;
}

/** What the collector could do now; empty when it is at rest. */
export function garbageSteps(cluster: MemoryCluster): readonly Step[] {
  const graph = graphOf(cluster);
  return [...graph.byUid.values()].flatMap((node) => [...collectSteps(graph, node), ...ownerSteps(graph, node)]);
}

/** Takes steps until there is none, always the first or, with `random`, any: where things end can depend on the order. */
export function collectGarbage(cluster: MemoryCluster, random?: Random): void {
  for (let steps = garbageSteps(cluster); steps.length > 0; steps = garbageSteps(cluster)) {
    steps[random === undefined ? 0 : random.int(steps.length)]?.take();
  }
}

function graphOf(cluster: MemoryCluster): Graph {
  const byUid = new Map<string, Node>();
  const dependents = new Map<string, Node[]>();
  for (const kind of cluster.kinds) {
    if (!kind.isCollected) continue;
    for (const object of cluster.store.list(kind)) {
      const node = { kind, object };
      byUid.set(object.metadata.uid, node);
      for (const { uid } of ownersOf(object)) dependents.set(uid, [...(dependents.get(uid) ?? []), node]);
    }
  }
  return { cluster, byUid, dependents };
}

/** What follows from the owners of an object: nothing while one of them lives. */
function collectSteps(graph: Graph, node: Node): Step[] {
  const { object } = node;
  const owners = ownersOf(object);
  if (owners.length === 0 || (isTerminating(object) && !finalizersOf(object).includes(FOREGROUND))) return [];
  const waits = (owner: Owner) => isWaiting(graph.byUid.get(owner.uid)?.object);
  const solid = owners.filter((owner) => graph.byUid.has(owner.uid) && !waits(owner));
  if (solid.length === owners.length || isTerminating(object)) return [];
  if (solid.length > 0) return [patchStep(graph, node, { ownerReferences: solid }, "drop owners that are gone")];
  const hasDependents = (graph.dependents.get(object.metadata.uid) ?? []).length > 0;
  return [deleteStep(graph, node, owners.some(waits) && hasDependents ? "Foreground" : policyOf(object))];
}

/** The owner is being deleted and waits for its dependents. */
function isWaiting(owner: KubeObject | undefined): boolean {
  return owner !== undefined && isTerminating(owner) && finalizersOf(owner).includes(FOREGROUND);
}

function policyOf(object: KubeObject): "Orphan" | "Foreground" | "Background" {
  const finalizers = finalizersOf(object);
  if (finalizers.includes(ORPHAN)) return "Orphan";
  return finalizers.includes(FOREGROUND) ? "Foreground" : "Background";
}

/** What an object that is being deleted owes to its dependents. */
function ownerSteps(graph: Graph, node: Node): Step[] {
  const { object } = node;
  if (!isTerminating(object)) return [];
  const { uid } = object.metadata;
  const dependents = graph.dependents.get(uid) ?? [];
  const finalizers = finalizersOf(object);
  if (finalizers.includes(ORPHAN)) {
    const [next] = dependents;
    if (next === undefined) return [dropFinalizer(graph, node, ORPHAN)];
    const kept = ownersOf(next.object).filter((owner) => owner.uid !== uid);
    return [patchStep(graph, next, { ownerReferences: kept }, "orphan")];
  }
  if (!finalizers.includes(FOREGROUND)) return [];
  const blocks = ({ object: { metadata } }: Node) =>
    metadata.ownerReferences?.some((owner) => owner.uid === uid && owner.blockOwnerDeletion === true) === true;
  return dependents.some(blocks) ? [] : [dropFinalizer(graph, node, FOREGROUND)];
}

function dropFinalizer(graph: Graph, node: Node, finalizer: string): Step {
  const finalizers = finalizersOf(node.object).filter((name) => name !== finalizer);
  return patchStep(graph, node, { finalizers }, `drop ${finalizer}`);
}

function pathOf({ kind, object: { metadata } }: Node): string {
  const root = kind.group === "" ? `/api/${kind.versions[0]}` : `/apis/${kind.group}/${kind.versions[0]}`;
  return `${root}/namespaces/${metadata.namespace}/${kind.plural}/${metadata.name}`;
}

function patchStep({ cluster }: Graph, node: Node, metadata: object, why: string): Step {
  const { uid, resourceVersion } = node.object.metadata;
  const body = { metadata: { ...metadata, uid, resourceVersion } };
  const path = pathOf(node);
  return {
    label: `${why}: ${node.kind.kind} ${node.object.metadata.name}`,
    take: () =>
      void cluster.answer({ method: "PATCH", path, body, contentType: "application/merge-patch+json" }, ACTOR),
  };
}

function deleteStep({ cluster }: Graph, node: Node, propagationPolicy: string): Step {
  const { uid, resourceVersion } = node.object.metadata;
  const body = { propagationPolicy, preconditions: { uid, resourceVersion } };
  return {
    label: `collect ${node.kind.kind} ${node.object.metadata.name} (${propagationPolicy})`,
    take: () => void cluster.answer({ method: "DELETE", path: pathOf(node), body }, ACTOR),
  };
}
