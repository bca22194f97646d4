/** Which requests an observation sends, for a settled pool and for each need of the plan. */
import { describe, expect, it } from "vitest";
import type { ApiResponse } from "../../shared/clusters/connection.ts";
import { type LookOptions, lookAt } from "../../shared/clusters/observe.ts";
import { EMPTY_LEDGER } from "../../shared/planning/claim.ts";
import { CLAIM_ANNOTATION, GUARDED_ANNOTATION, POOL_FINALIZER, REVISION_LABEL } from "../../shared/planning/names.ts";
import type { ActionKind } from "../../shared/planning/plan.ts";
import {
  aCluster,
  aWire,
  linesOf,
  networkError,
  ok,
  on,
  queryOf,
  type Reply,
  type Route,
  refusal,
} from "../support/transport.ts";
import {
  aClaimText,
  aList,
  aPool,
  aSettledPool,
  aVm,
  DATE,
  INSTANCES,
  NAMESPACE,
  NOW,
  type PoolFields,
  poolPath,
  REVISIONS,
  VMS,
} from "../support/transport-objects.ts";

const KUBEVIRTS = "/apis/kubevirt.io/v1/kubevirts";
const DATA_VOLUMES = `/apis/cdi.kubevirt.io/v1beta1/namespaces/${NAMESPACE}/datavolumes`;
const CLAIMS = `/api/v1/namespaces/${NAMESPACE}/persistentvolumeclaims`;
/** As a proxy answers, and an API server that does not serve the kind. */
const PAGE: ApiResponse = { status: 404, headers: {}, body: "404 page not found", bytes: 20 };
const LIMITS = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };

/** Looks once at the pool, in a cluster that answers so. */
async function look(pool: object, routes: readonly Route[], options: Partial<LookOptions> = {}) {
  const wire = aWire(on(`GET ${poolPath()}`, ok(pool, DATE)), ...routes);
  const { cluster } = aCluster(wire, { cache: { poolVersion: "v1beta1" } });
  const place = { namespace: NAMESPACE, name: "web" };
  const result = await lookAt(cluster, place, {
    wide: false,
    ledger: EMPTY_LEDGER,
    limits: LIMITS,
    now: () => NOW,
    ...options,
  });
  return { result, wire, lines: linesOf(wire) };
}

const actionsOf = ({ result }: Awaited<ReturnType<typeof look>>): readonly ActionKind[] | string =>
  result.kind === "planned" ? result.plan.actions.map(({ kind }) => kind) : JSON.stringify(result);

const vms = (...machines: readonly object[]) => on(`GET ${VMS}`, aList(machines));
const template = (spec: object, more: object = {}) => ({
  virtualMachineTemplate: {
    metadata: { labels: { app: "web" } },
    spec: { running: true, template: { metadata: { labels: { app: "web" } }, spec }, ...more },
  },
});

/** A machine with its whole spec. */
function aWholeVm(ordinal: number, { spec = {}, more = {}, metadata = {}, created = false } = {}) {
  const vm = aVm(ordinal);
  const whole = { running: true, template: { metadata: { labels: { app: "web" } }, spec }, ...more };
  return { ...vm, metadata: { ...vm.metadata, ...metadata }, spec: whole, status: { ...vm.status, created } };
}

function aRevision(name: string, spec: unknown, uid = "uid-web") {
  const owner = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    name: "web",
    uid,
    controller: true,
  };
  const metadata = {
    name,
    namespace: NAMESPACE,
    uid: `uid-of-${name}`,
    resourceVersion: "7",
    ownerReferences: [owner],
  };
  return { metadata, revision: 1, data: spec };
}

function anInstance(ordinal: number, revision: string) {
  const { uid, name } = aVm(ordinal).metadata;
  const owner = { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name, uid, controller: true };
  const labels = { [REVISION_LABEL]: revision };
  return {
    metadata: {
      name,
      namespace: NAMESPACE,
      uid: `vmi-${ordinal}`,
      resourceVersion: "6",
      creationTimestamp: "2026-05-01T10:00:00Z",
      labels,
      ownerReferences: [owner],
    },
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  };
}

describe("a settled pool", () => {
  it.each<[string, object]>([
    ["by default", {}],
    ["that updates by opportunity", { updateStrategy: { opportunistic: {} } }],
    ["that is not updated", { updateStrategy: { unmanaged: {} } }],
    [
      "whose disks are kept, of machines that have none",
      { scaleInStrategy: { proactive: { statePreservation: "Offline" } } },
    ],
  ])("costs two requests, three with the wide look (%s)", async (_what, strategies) => {
    const spec = { ...aPool().spec, ...strategies };
    const pool = aSettledPool({ spec });
    const narrow = await look(pool, [vms(aWholeVm(0))]);
    expect(narrow.lines).toEqual([`GET ${poolPath()}`, `GET ${VMS}`]);
    expect(actionsOf(narrow)).toEqual([]);
    const wide = await look(pool, [vms(aWholeVm(0))], { wide: true });
    expect(wide.lines).toHaveLength(3);
    expect(actionsOf(wide)).toEqual([]);
  });

  it("costs two requests also when its disks are guarded", async () => {
    const disks = { dataVolumeTemplates: [{ metadata: { name: "data" }, spec: {} }] };
    const spec = {
      ...aPool().spec,
      ...template({}, disks),
      scaleInStrategy: { proactive: { statePreservation: "Offline" } },
    };
    const more = { dataVolumeTemplates: [{ metadata: { name: "data-0" }, spec: {} }] };
    const vm = aWholeVm(0, { more, metadata: { annotations: { [GUARDED_ANNOTATION]: "data-0" } } });
    const { lines } = await look(aSettledPool({ spec }), [vms(vm)]);
    expect(lines).toHaveLength(2);
  });
});

describe("half a picture", () => {
  const unnamed = { ...aWholeVm(0), metadata: {} };
  /** Answers for the pool's machines, and for those of the whole namespace. */
  const lists = (selected: ApiResponse, all: ApiResponse) =>
    on(`GET ${VMS}`, (request) => (queryOf(request)["labelSelector"] === undefined ? all : selected));

  it.each<[string, ApiResponse, ApiResponse]>([
    ["the pool's machines cannot be read", refusal(500, "InternalError"), aList([aVm(0)])],
    ["the namespace's machines cannot be read", aList([aWholeVm(0)]), refusal(500, "InternalError")],
    ["one of the pool's machines has no name", aList([aWholeVm(0), unnamed]), aList([aVm(0)])],
    ["one of the namespace's machines has no name", aList([aWholeVm(0)]), aList([aVm(0), unnamed])],
  ])("decides nothing: %s", async (_what, selected, all) => {
    const { result } = await look(aSettledPool({ replicas: 2 }), [lists(selected, all)], { wide: true });
    expect(result).toMatchObject({ kind: "unreadable", what: "the list of VMs" });
  });
});

/** Generation 2 of the pool, which no pass has rolled out yet. */
function aNewEdition(spec: object, fields: PoolFields = {}) {
  const annotations = { [CLAIM_ANNOTATION]: aClaimText({ generation: 2 }) };
  return aPool({ generation: 2, annotations, finalizers: [POOL_FINALIZER], spec, ...fields });
}

describe("a roll-out", () => {
  const spec = template({ domain: { cpu: { cores: 2 } } });
  const old = aRevision("web-1", aPool().spec);
  const next = aRevision("web-2", { ...aPool().spec, ...spec });

  it("reads the revisions that machines name, the pool's own, and their instances", async () => {
    const routes = [
      vms(aWholeVm(0)),
      on(`GET ${REVISIONS}/web-1`, ok(old)),
      on(`GET ${REVISIONS}/web-2`, refusal(404, "NotFound")),
      on(`GET ${REVISIONS}`, aList([old])),
      on(`GET ${INSTANCES}`, aList([anInstance(0, "web-1")])),
    ];
    const seen = await look(aNewEdition(spec), routes);
    expect(seen.lines).toEqual([
      `GET ${poolPath()}`,
      `GET ${VMS}`,
      ...["/web-1", "/web-2", ""].map((tail) => `GET ${REVISIONS}${tail}`),
      `GET ${INSTANCES}`,
    ]);
    expect(
      queryOf(seen.wire.sent.at(-1) ?? { method: "GET", path: "", signal: AbortSignal.abort() })["labelSelector"],
    ).toBe(`${REVISION_LABEL} in (web-1)`);
    expect(actionsOf(seen)).toEqual(["writeClaim", "createRevision", "updateVm"]);
  });

  const moved = (more: object = {}) => ({
    ...aWholeVm(0, { created: true, metadata: { labels: { app: "web", [REVISION_LABEL]: "web-2" } } }),
    ...more,
  });
  const routesOf = (machine: object, instances: Reply, ...more: readonly Route[]) => [
    vms(machine),
    on(`GET ${REVISIONS}/web-2`, ok(next)),
    on(`GET ${REVISIONS}/web-1`, ok(old)),
    on(`GET ${REVISIONS}`, aList([old, next])),
    on(`GET ${INSTANCES}`, instances),
    ...more,
  ];

  it("asks for no revision without a name, which a label may be", async () => {
    const machine = aWholeVm(0, { metadata: { labels: { app: "web", [REVISION_LABEL]: "" } } });
    const { result, lines } = await look(aNewEdition(spec), [
      vms(machine),
      on(`GET ${REVISIONS}/web-2`, ok(next)),
      on(`GET ${REVISIONS}`, aList([next])),
      on(`GET ${INSTANCES}`, aList([])),
    ]);
    expect(lines).not.toContain(`GET ${REVISIONS}/`);
    expect(result.kind).toBe("planned");
  });

  it("reads one by one the instances that hide from the list", async () => {
    const hidden = { ...anInstance(0, "web-1"), metadata: { ...anInstance(0, "web-1").metadata, labels: {} } };
    const seen = await look(aNewEdition(spec), routesOf(moved(), aList([]), on(`GET ${INSTANCES}/web-0`, ok(hidden))));
    expect(seen.lines.at(-1)).toBe(`GET ${INSTANCES}/web-0`);
    expect(actionsOf(seen)).toEqual(["writeClaim", "restartInstance"]);
  });

  it("leaves out instances of machines that are not the pool's", async () => {
    const stranger = anInstance(7, "web-1");
    const seen = await look(
      aNewEdition(spec),
      routesOf(aWholeVm(0, { metadata: { labels: { app: "web", [REVISION_LABEL]: "web-2" } } }), aList([stranger])),
    );
    expect(seen.result.kind === "planned" && seen.result.seen.instances).toEqual([]);
  });

  const sized = (guest: string) => template({ domain: { memory: { guest } } });
  const small = aRevision("web-1", { ...aPool().spec, ...sized("1Gi") });
  const large = aRevision("web-2", { ...aPool().spec, ...sized("2Gi") });
  /** The machine has its new size, its guest not yet. */
  const RESIZED: readonly Route[] = [
    vms(
      aWholeVm(0, {
        spec: { domain: { memory: { guest: "2Gi" } } },
        created: true,
        metadata: { labels: { app: "web", [REVISION_LABEL]: "web-2" } },
      }),
    ),
    on(`GET ${REVISIONS}/web-2`, ok(large)),
    on(`GET ${REVISIONS}/web-1`, ok(small)),
    on(`GET ${REVISIONS}`, aList([small, large])),
    on(`GET ${INSTANCES}`, aList([anInstance(0, "web-1")])),
  ];

  it.each<[string, Reply, boolean]>([
    ["LiveUpdate", aList([{ spec: { configuration: { vmRolloutStrategy: "LiveUpdate" } } }]), true],
    [
      "Stage",
      aList([
        { spec: { configuration: { vmRolloutStrategy: "Stage" } }, status: { observedKubeVirtVersion: "v1.9.0" } },
      ]),
      false,
    ],
    ["nothing, installed by nobody", aList([]), false],
    ["nothing, of version 1.4", aList([{ status: { observedKubeVirtVersion: "v1.4.2" } }]), false],
    ["nothing, of version 1.5", aList([{ status: { observedKubeVirtVersion: "v1.5.0" } }]), true],
    ["what we may not read", refusal(403, "Forbidden"), false],
  ])("asks how running guests are changed only when one could be: %s", async (_what, reply, live) => {
    const seen = await look(aNewEdition(sized("2Gi")), [...RESIZED, on(`GET ${KUBEVIRTS}`, reply)]);
    expect(seen.lines.filter((line) => line === `GET ${KUBEVIRTS}`)).toHaveLength(1);
    expect(seen.result.kind === "planned" && seen.result.seen.liveUpdates).toBe(live);
  });

  it.each<[string, Reply]>([
    ["is overloaded", refusal(503, "ServiceUnavailable")],
    ["asks for patience", refusal(429, "TooManyRequests")],
    ["does not know us", refusal(401, "Unauthorized")],
    ["is reset", networkError("ECONNRESET")],
    ["answers half", ok("half an ans")],
    ["answers with a page", PAGE],
    ["has no such list", refusal(404, "NotFound")],
    ["describes its installation wrongly", aList([{ spec: { configuration: { vmRolloutStrategy: 1 } } }])],
  ])("restarts no guest that may be updated live while the cluster %s", async (_what, reply) => {
    const { result } = await look(aNewEdition(sized("2Gi")), [...RESIZED, on(`GET ${KUBEVIRTS}`, reply)]);
    expect(result).toMatchObject({ kind: "unreadable", what: "the list of KubeVirt installations" });
  });

  it("asks for no instances by a revision whose name no label can be", async () => {
    const [longest, long] = ["8".repeat(59), "9".repeat(60)].map((number) => aRevision(`web-${number}`, aPool().spec));
    const seen = await look(aNewEdition(spec), [
      vms(aWholeVm(0)),
      on(`GET ${REVISIONS}/web-1`, ok(old)),
      on(`GET ${REVISIONS}/web-2`, refusal(404, "NotFound")),
      on(`GET ${REVISIONS}`, aList([old, longest ?? {}, long ?? {}])),
      on(`GET ${INSTANCES}`, aList([anInstance(0, "web-1")])),
    ]);
    expect(seen.wire.sent.map((request) => queryOf(request)["labelSelector"]).at(-1)).toBe(
      `${REVISION_LABEL} in (web-1,web-${"8".repeat(59)})`,
    );
    expect(seen.result.kind).toBe("planned");
  });

  it.each<[string, Route]>([
    ["instances", on(`GET ${INSTANCES}`, refusal(403, "Forbidden"))],
    ["revisions", on(`GET ${REVISIONS}`, refusal(500, "InternalError"))],
  ])("decides nothing by half a picture: %s cannot be read", async (_what, broken) => {
    const seen = await look(aNewEdition(spec), [broken, ...routesOf(moved(), aList([]))]);
    expect(seen.result.kind).toBe("unreadable");
  });
});

describe("kept disks", () => {
  const disks = { dataVolumeTemplates: [{ metadata: { name: "data" }, spec: {} }] };
  const keeping = {
    ...aPool().spec,
    ...template({}, disks),
    scaleInStrategy: { proactive: { statePreservation: "Offline" } },
  };
  const more = { dataVolumeTemplates: [{ metadata: { name: "data-0" }, spec: {} }] };
  const owner = {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    name: "web-0",
    uid: "vm-0-of-web",
    controller: true,
  };
  const disk = ok({
    metadata: { name: "data-0", namespace: NAMESPACE, uid: "d", resourceVersion: "4", ownerReferences: [owner] },
  });
  const space = on(`GET /api/v1/namespaces/${NAMESPACE}`, ok({ metadata: { name: NAMESPACE, uid: "ns" } }));

  it("are read with the namespace before they are guarded: of a DataVolume not also its claim", async () => {
    const seen = await look(aSettledPool({ spec: keeping }), [
      vms(aWholeVm(0, { more })),
      space,
      on(`GET ${DATA_VOLUMES}/data-0`, disk),
    ]);
    expect(seen.lines.slice(2).toSorted()).toEqual(
      [`GET /api/v1/namespaces/${NAMESPACE}`, `GET ${DATA_VOLUMES}/data-0`].toSorted(),
    );
    expect(actionsOf(seen)).toEqual(["changeDisk", "markVm"]);
  });

  it("are claims where there is no DataVolume of the name, or no CDI", async () => {
    const routes = [
      vms(aWholeVm(0, { more })),
      space,
      on(`GET ${DATA_VOLUMES}/data-0`, refusal(404, "NotFound")),
      on(`GET ${CLAIMS}/data-0`, disk),
    ];
    expect(actionsOf(await look(aSettledPool({ spec: keeping }), routes))).toEqual(["changeDisk", "markVm"]);
  });

  it("are not read in vain where the namespace may not be read", async () => {
    const routes = [vms(aWholeVm(0, { more })), on(`GET /api/v1/namespaces/${NAMESPACE}`, refusal(403, "Forbidden"))];
    const seen = await look(aSettledPool({ spec: keeping }), routes);
    expect([seen.lines.length, actionsOf(seen)]).toEqual([3, []]);
  });

  it("stop the pass when they cannot be read, and so hold the machine that goes", async () => {
    const leaving = aWholeVm(0, { more, metadata: { deletionTimestamp: "2026-05-01T11:59:00Z" } });
    const seen = await look(aSettledPool({ spec: keeping }), [
      vms(leaving),
      on(`GET ${DATA_VOLUMES}/data-0`, refusal(403, "Forbidden")),
    ]);
    expect(seen.result.kind).toBe("unreadable");
  });

  /** Looks before the first machine is made, for disks that wait for it. */
  const lookForKept = (dataVolumes: Reply, claims: Reply) => {
    const annotations = { [CLAIM_ANNOTATION]: aClaimText() };
    return look(aPool({ annotations, finalizers: [POOL_FINALIZER], spec: keeping }), [
      vms(),
      on(`GET ${REVISIONS}/web-1`, refusal(404, "NotFound")),
      on(`GET ${DATA_VOLUMES}`, dataVolumes),
      on(`GET ${CLAIMS}`, claims),
      on(`GET ${INSTANCES}`, aList([])),
    ]);
  };

  it.each<[string, Reply, Reply]>([
    ["the claims are answered with a page", PAGE, PAGE],
    ["the claims are said not to be there", aList([]), refusal(404, "NotFound")],
    ["the DataVolumes may not be read", refusal(403, "Forbidden"), aList([])],
  ])("that wait are not taken for none: %s", async (_what, dataVolumes, claims) => {
    const { result } = await lookForKept(dataVolumes, claims);
    expect(result).toMatchObject({ kind: "unreadable", what: "the list of kept disks" });
  });

  it.each<[string, Reply]>([
    ["has no DataVolumes", aList([])],
    ["has no CDI", PAGE],
  ])("that wait are looked for by their label before a machine is made, in a cluster that %s", async (_what, reply) => {
    const seen = await lookForKept(reply, aList([]));
    const asked = seen.wire.sent.filter(({ path }) => path.startsWith(DATA_VOLUMES) || path.startsWith(CLAIMS));
    expect(asked.map((request) => queryOf(request)["labelSelector"])).toEqual([
      "vmpool-functions/kept-for",
      "vmpool-functions/kept-for",
    ]);
    expect(actionsOf(seen)).toEqual(["writeClaim", "createRevision", "createVm"]);
  });
});

it("reads whole, in a pool that is deleted, only the machines on their way out whose disks are kept", async () => {
  const spec = { ...aPool().spec, scaleInStrategy: { proactive: { statePreservation: "Offline" } } };
  const leaving = aWholeVm(0, { metadata: { deletionTimestamp: "2026-05-01T11:59:00Z" } });
  const { spec: _spec, status: _status, ...bare } = leaving;
  const pool = aSettledPool({ spec, deletionTimestamp: "2026-05-01T11:59:00Z" });
  const seen = await look(pool, [vms(bare, aVm(1)), on(`GET ${VMS}/web-0`, ok(leaving))]);
  expect(seen.lines).toEqual([`GET ${poolPath()}`, `GET ${VMS}`, `GET ${VMS}/web-0`]);
  expect(actionsOf(seen)).toEqual(["dropVmFinalizer", "deleteVm"]);
});
