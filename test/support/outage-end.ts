/** What is not as it should be when everything has come to rest: of each pool, and of what pools leave behind. */
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, REVISION_LABEL } from "../../shared/planning/names.ts";
import { conditionOf, controllerUidOf, isTerminating, type KubeObject } from "./objects.ts";
import type { Namespace } from "./world.ts";

const UNFINISHED = ["create", "delete", "restart", "waitUntil"] as const;

interface Everything {
  readonly pools: readonly KubeObject[];
  readonly machines: readonly KubeObject[];
  readonly instances: readonly KubeObject[];
  readonly revisions: readonly KubeObject[];
}

/** Empty when there are exactly these pools and each is exactly what its spec says. */
export async function mismatchesOf(namespace: Namespace, names: readonly string[]): Promise<readonly string[]> {
  const [pools, machines, instances, revisions, dataVolumes, claims, pods] = await Promise.all([
    namespace.list("apis/pool.kubevirt.io/v1beta1", "virtualmachinepools"),
    namespace.list("apis/kubevirt.io/v1", "virtualmachines"),
    namespace.list("apis/kubevirt.io/v1", "virtualmachineinstances"),
    namespace.list("apis/apps/v1", "controllerrevisions"),
    namespace.list("apis/cdi.kubevirt.io/v1beta1", "datavolumes"),
    namespace.list("api/v1", "persistentvolumeclaims"),
    namespace.list("api/v1", "pods"),
  ]);
  const seen = { pools, machines, instances, revisions };
  const missing = names.filter((name) => pools.every(({ metadata }) => metadata.name !== name));
  return [
    ...missing.map((name) => `pool ${name} is missing`),
    ...[...pools, ...machines, ...instances, ...revisions, ...dataVolumes, ...claims, ...pods]
      .filter(isTerminating)
      .map((object) => `${describe(object)} is on its way out`),
    ...strays("machine", machines, pools),
    ...strays("revision", revisions, pools),
    ...strays("instance", instances, machines),
    ...strays("disk", dataVolumes, machines),
    ...strays("volume claim", claims, [...dataVolumes, ...machines]),
    ...strays("pod", pods, instances),
    ...pools.flatMap((pool) => wrongsOf(pool, seen)),
  ];
}

function describe({ kind = "", metadata }: KubeObject): string {
  return `${kind} ${metadata.name}`.trim();
}

/** Those whose owner does not exist. */
function strays(what: string, objects: readonly KubeObject[], owners: readonly KubeObject[]): readonly string[] {
  const uids = new Set(owners.map(({ metadata }) => metadata.uid));
  return objects
    .filter((object) => !object.metadata.ownerReferences.some(({ uid }) => uids.has(uid)))
    .map(({ metadata }) => `${what} ${metadata.name} belongs to nothing that exists`);
}

function wrongsOf(pool: KubeObject, { machines, instances, revisions }: Everything): readonly string[] {
  const { name, uid, annotations, generation } = pool.metadata;
  const spec = fieldOf(pool, "spec");
  const own = machines.filter((machine) => controllerUidOf(machine) === uid);
  const guests = instances.filter((guest) => own.some(({ metadata }) => metadata.uid === controllerUidOf(guest)));
  const wanted = typeof spec["replicas"] === "number" ? spec["replicas"] : 1;
  const ready = own.filter((machine) => conditionOf(machine, "Ready")?.status === "True");
  const claim: unknown = parseJson(annotations[CLAIM_ANNOTATION] ?? "{}");
  const { replicas, readyReplicas, conditions } = pool.status ?? {};
  const wrong: string[] = [];
  const expect = (what: string, is: unknown, should: unknown) => {
    if (JSON.stringify(is) !== JSON.stringify(should))
      wrong.push(`${name}: ${what} is ${JSON.stringify(is)}, not ${JSON.stringify(should)}`);
  };
  expect("the number of machines", own.length, wanted);
  expect("the number of ready machines", ready.length, wanted);
  expect("the number of instances", guests.length, wanted);
  expect("status", { replicas, readyReplicas }, { replicas: wanted, readyReplicas: wanted });
  expect(
    "conditions",
    (conditions ?? []).map(({ reason, message }) => `${reason}: ${message}`),
    [],
  );
  expect("the claim's generation", isRecord(claim) ? claim["generation"] : undefined, generation);
  expect(
    "what is claimed",
    UNFINISHED.filter((field) => isRecord(claim) && claim[field] !== undefined),
    [],
  );
  wrong.push(...rolloutWrongs(pool, { own, guests }));
  const named = new Set([...own, ...guests].map(({ metadata }) => metadata.labels[REVISION_LABEL]));
  const mine = revisions.filter((revision) => controllerUidOf(revision) === uid).map(({ metadata }) => metadata.name);
  for (const label of named) if (!mine.includes(label ?? "")) wrong.push(`${name}: revision ${label} does not exist`);
  // Machines of an unmanaged pool keep theirs, which go with the next template, not with the machines.
  if (recordAt(spec, "updateStrategy")["unmanaged"] !== undefined) return wrong;
  // Older ones go once there is one of the template in force, which comes with its first machine.
  const rollout = isRecord(claim) ? recordAt(claim, "rollout")["revisions"] : undefined;
  if (!Array.isArray(rollout) || !mine.some((revision) => revision === rollout[0])) return wrong;
  const unnamed = mine.filter((revision) => !named.has(revision));
  if (unnamed.length > 1) wrong.push(`${name}: revisions ${unnamed.join(", ")} are named by nothing`);
  return wrong;
}

/** Machines that are updated have the template, and, where they are restarted, so have their instances. */
function rolloutWrongs(
  pool: KubeObject,
  { own, guests }: { readonly own: readonly KubeObject[]; readonly guests: readonly KubeObject[] },
): readonly string[] {
  const spec = fieldOf(pool, "spec");
  const strategy = recordAt(spec, "updateStrategy");
  if (isRecord(strategy["unmanaged"])) return [];
  const template = recordAt(spec, "virtualMachineTemplate");
  const ofMachine = recordAt(recordAt(template, "metadata"), "annotations")["edited"];
  const ofGuest = recordAt(recordAt(recordAt(recordAt(template, "spec"), "template"), "metadata"), "annotations");
  const disks = sizesOf(recordAt(template, "spec"));
  const wrong: string[] = [];
  for (const machine of own) {
    const { name, annotations } = machine.metadata;
    const inside = recordAt(recordAt(recordAt(fieldOf(machine, "spec"), "template"), "metadata"), "annotations");
    if (sizesOf(fieldOf(machine, "spec")) !== disks) wrong.push(`${name} has other disks than its template`);
    const isCurrent = annotations["edited"] === ofMachine && inside["edited"] === ofGuest["edited"];
    if (!isCurrent) wrong.push(`${name} has another template`);
  }
  if (isRecord(strategy["opportunistic"])) return wrong;
  for (const { metadata } of guests)
    if (metadata.annotations["edited"] !== ofGuest["edited"]) wrong.push(`${metadata.name} runs another template`);
  return wrong;
}

function sizesOf(spec: Readonly<Record<string, unknown>>): string {
  const { dataVolumeTemplates } = spec;
  const list: readonly unknown[] = Array.isArray(dataVolumeTemplates) ? dataVolumeTemplates : [];
  return JSON.stringify(list.map((entry) => recordAt(isRecord(entry) ? entry : {}, "spec")));
}

function fieldOf(object: KubeObject, field: "spec"): Readonly<Record<string, unknown>> {
  const value = object[field];
  return isRecord(value) ? value : {};
}

function recordAt(object: Readonly<Record<string, unknown>>, field: string): Readonly<Record<string, unknown>> {
  const value = object[field];
  return isRecord(value) ? value : {};
}
