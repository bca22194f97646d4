/** Disks that outlive their machine: who owns them when, what says so, and when a kept one is taken again. */
import { describe, expect, it } from "vitest";
import { diskNamesOf } from "../../shared/planning/disks.ts";
import type { Disk, Vm } from "../../shared/planning/model.ts";
import { poolSpecSchema } from "../../shared/planning/model.ts";
import { GUARDED_ANNOTATION, KEPT_ANNOTATION, KEPT_FOR_LABEL, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { type Plan, planPass } from "../../shared/planning/plan.ts";
import {
  aClaim,
  aDisk,
  anObservation,
  anOwner,
  aPool,
  aRollout,
  aSpec,
  aVm,
  aVmSpec,
  aVmUid,
  type DiskOverrides,
  type Json,
  LABELS,
  NAMESPACE_UID,
  type ObservationOverrides,
  type PoolOverrides,
  type VmOverrides,
} from "../support/builders.ts";
import { ACTING, createsOf, deletesOf, kindsOf, namesOf, planOf } from "./plans.ts";

const size = (storage: string) => ({ resources: { requests: { storage } } });
const STORAGE = { storage: size("1Gi") };
/** The template of a machine with one disk, as the pool's spec and as a machine has it. */
const templates = (name: string, spec: Json = STORAGE) => [{ metadata: { name }, spec }];
const volumes = (name: string) => [{ name: "root", dataVolume: { name } }];
const templateOf = (disk: Json = STORAGE) => ({
  metadata: { labels: LABELS },
  spec: {
    runStrategy: "Always",
    template: { metadata: {}, spec: { domain: {}, volumes: volumes("data") } },
    dataVolumeTemplates: templates("data", disk),
  },
});

const PROACTIVE = { scaleInStrategy: { proactive: { statePreservation: "Offline" } } };
const KEEPING: readonly (readonly [string, Json])[] = [
  ["Offline", PROACTIVE],
  ["Online", { scaleInStrategy: { proactive: { statePreservation: "Online" } } }],
  ["opportunistic Offline", { scaleInStrategy: { opportunistic: { statePreservation: "Offline" } } }],
  ["opportunistic Online", { scaleInStrategy: { opportunistic: { statePreservation: "Online" } } }],
];
const DISABLED = { scaleInStrategy: { proactive: { statePreservation: "Disabled" } } };

function aDiskPool(spec: Json = PROACTIVE, overrides: PoolOverrides = {}) {
  const wanted = aSpec({ replicas: 1, virtualMachineTemplate: templateOf(), ...spec });
  return aPool({ spec: wanted, claim: aClaim({ rollout: aRollout(wanted, "web-1") }), ...overrides });
}

/** A pool that keeps disks, and whose template asks for this one. */
function aPoolOf(disk: Json) {
  return aDiskPool({ ...PROACTIVE, virtualMachineTemplate: templateOf(disk) });
}

/** A machine with the disk `data-<ordinal>`, and what notes that its disks are guarded. */
function aDiskVm(ordinal: number, { disk = STORAGE, ...overrides }: VmOverrides & { readonly disk?: Json } = {}): Vm {
  const template = { metadata: {}, spec: { domain: {}, volumes: volumes(`data-${ordinal}`) } };
  const spec = aVmSpec("web-1", { template, dataVolumeTemplates: templates(`data-${ordinal}`, disk) });
  return aVm(ordinal, { spec, ...overrides });
}

const MARKED = (ordinal: number) => ({ annotations: { [GUARDED_ANNOTATION]: `data-${ordinal}` } });

interface Setting extends ObservationOverrides {
  readonly of?: readonly (readonly [number, readonly Disk[]])[];
}

/** Plans with these disks read, by the ordinal of their machine. */
function planWith({ of = [], ...overrides }: Setting): Plan {
  const disks = new Map(of.map(([ordinal, list]) => [aVmUid(ordinal), list]));
  return planOf({ pool: aDiskPool(), disks, namespaceUid: NAMESPACE_UID, keptDisks: [], ...overrides });
}

const changesOf = ({ actions }: Plan) => actions.flatMap((action) => (action.kind === "changeDisk" ? [action] : []));
const marksOf = ({ actions }: Plan) => actions.flatMap((action) => (action.kind === "markVm" ? [action.disks] : []));
const guard = { apiVersion: "v1", kind: "Namespace", name: "default", uid: NAMESPACE_UID };

describe("the disks of a machine that lives", () => {
  it.each(KEEPING)("get the namespace as a second owner with %s, and the machine says so (D06)", (_what, spec) => {
    const plan = planWith({ pool: aDiskPool(spec), vms: [aDiskVm(0)], of: [[0, [aDisk(0)]]] });
    expect(kindsOf(plan)).toEqual(["changeDisk", "markVm"]);
    expect(changesOf(plan)).toMatchObject([
      {
        released: false,
        metadata: {
          ownerReferences: [{ kind: "VirtualMachine", uid: aVmUid(0) }, guard],
          labels: { [KEPT_FOR_LABEL]: "web" },
          annotations: { [KEPT_ANNOTATION]: expect.stringContaining('"machine":"web-0"') },
        },
      },
    ]);
    expect(marksOf(plan)).toEqual(["data-0"]);
  });

  it.each<[string, Json]>([
    ["Disabled", DISABLED],
    ["no strategy", {}],
    ["unmanaged", { scaleInStrategy: { unmanaged: {} } }],
  ])("are left alone with %s", (_what, spec) => {
    expect(planWith({ pool: aDiskPool(spec), vms: [aDiskVm(0)] })).toMatchObject({ needs: [], actions: [] });
  });

  it("are not looked at again once the machine says that they are guarded", () => {
    expect(planWith({ vms: [aDiskVm(0, MARKED(0))] })).toMatchObject({ needs: [], actions: [], reasons: [] });
  });

  it("are looked at again when the machine has others", () => {
    const vm = aDiskVm(0, { annotations: { [GUARDED_ANNOTATION]: "other-0" } });
    expect(planWith({ vms: [vm] }).needs).toMatchObject([{ read: "disks" }]);
  });

  it("lose the guard, and the machine its note, when they are not to be kept any more", () => {
    const plan = planWith({
      pool: aDiskPool(DISABLED),
      vms: [aDiskVm(0, MARKED(0))],
      of: [[0, [aDisk(0, { guarded: true })]]],
    });
    expect(changesOf(plan)).toMatchObject([
      { metadata: { ownerReferences: [{ uid: aVmUid(0) }], labels: { [KEPT_FOR_LABEL]: null } } },
    ]);
    expect(marksOf(plan)).toEqual([null]);
  });

  it("lose nothing but the guard: other owners of theirs stay, however like a guard they look", () => {
    const others = [
      { apiVersion: "v1", kind: "ConfigMap", name: "default", uid: "config-map" },
      { apiVersion: "example.com/v1", kind: "Namespace", name: "default", uid: "other-group" },
      { ...guard, uid: "controlling", controller: true },
    ];
    const disk = aDisk(0, { guarded: true });
    const owned = { ...disk, owners: [...disk.owners, ...others] };
    for (const terminating of [false, true]) {
      const vms = [aDiskVm(0, { ...MARKED(0), terminating })];
      const [change] = changesOf(planWith({ pool: aDiskPool(DISABLED), vms, of: [[0, [owned]]] }));
      expect(change?.metadata).toEqual({
        ownerReferences: [expect.objectContaining({ uid: aVmUid(0) }), ...others],
        labels: { [KEPT_FOR_LABEL]: null },
        annotations: { [KEPT_ANNOTATION]: null },
      });
    }
  });

  it("are left alone while the spec that names them is not known", () => {
    const vm = aDiskVm(0, { ...MARKED(0), spec: null });
    expect(planWith({ pool: aDiskPool(DISABLED), vms: [vm] })).toMatchObject({ needs: [], actions: [] });
  });

  it("are noted in the order of their names", () => {
    const spec = aVmSpec("web-1", { dataVolumeTemplates: [...templates("more-0"), ...templates("data-0")] });
    const disks = [aDisk(0), { ...aDisk(0), name: "more-0" }];
    expect(marksOf(planWith({ vms: [aVm(0, { spec })], of: [[0, disks]] }))).toEqual(["data-0 more-0"]);
  });

  it("are waited for while KubeVirt has not made or taken them", () => {
    for (const disks of [[], [aDisk(0, { vmUid: null, guarded: true })]])
      expect(planWith({ vms: [aDiskVm(0)], of: [[0, disks]] }).actions).toEqual([]);
  });

  it("are noted from the first guard on, so that none stays for ever", () => {
    const spec = aVmSpec("web-1", { dataVolumeTemplates: [...templates("data-0"), ...templates("more-0")] });
    const pool = aDiskPool();
    const first = planWith({ pool, vms: [aVm(0, { spec })], of: [[0, [aDisk(0)]]] });
    expect(marksOf(first)).toEqual([""]);
    const annotations = { [GUARDED_ANNOTATION]: "" };
    const guarded = [aDisk(0, { guarded: true })];
    expect(planWith({ pool, vms: [aVm(0, { spec, annotations })], of: [[0, guarded]] }).actions).toEqual([]);
    const flipped = planWith({ pool: aDiskPool(DISABLED), vms: [aVm(0, { spec, annotations })], of: [[0, guarded]] });
    expect(kindsOf(flipped)).toEqual(["changeDisk", "markVm"]);
  });

  it("are not touched when another controls them", () => {
    const foreign = aDisk(0, { vmUid: "another" });
    expect(changesOf(planWith({ vms: [aDiskVm(0)], of: [[0, [foreign]]] }))).toEqual([]);
  });

  it("are not read in vain where the namespace may not be read, and the pool says so", () => {
    const plan = planWith({ vms: [aDiskVm(0)], namespaceUid: "" });
    expect(plan).toMatchObject({ needs: [], actions: [] });
    expect(plan.reasons.join()).toContain("the pool's namespace may not be read");
  });

  it("are read only when it is known whether the namespace can guard them", () => {
    expect(planOf({ pool: aDiskPool(), vms: [aDiskVm(0)] }).needs).toEqual([{ read: "namespace" }]);
  });

  it("are read for fifty machines at a time", () => {
    const vms = Array.from({ length: 80 }, (_, ordinal) => aDiskVm(ordinal));
    const [need] = planWith({ pool: aDiskPool({ ...PROACTIVE, replicas: 80 }), vms }).needs;
    expect(need?.read === "disks" && need.vms.length).toBe(50);
  });
});

const STATES: readonly (readonly [string, Json])[] = [
  ["of the right size", {}],
  ["that is too large", { replicas: 0 }],
  ["that is paused", { paused: true }],
  ["of opportunistic scale in", { scaleInStrategy: { opportunistic: { statePreservation: "Offline" } } }],
];

describe("the disks of a machine on its way out", () => {
  const leaving = aDiskVm(0, { terminating: true });

  it.each(STATES)("let go of it before its finalizer goes, in a pool %s (D06 D10)", (_what, spec) => {
    const plan = planWith({
      pool: aDiskPool({ ...PROACTIVE, ...spec }),
      vms: [leaving],
      of: [[0, [aDisk(0, { guarded: true })]]],
    });
    expect(kindsOf(plan).slice(0, 2)).toEqual(["changeDisk", "dropVmFinalizer"]);
    expect(changesOf(plan)).toMatchObject([{ released: true, metadata: { ownerReferences: [guard] } }]);
  });

  it("need no word when they let go", () => {
    expect(planWith({ vms: [leaving], of: [[0, [aDisk(0)]]] }).reasons).toEqual([]);
  });

  it("are changed only where there is something to change", () => {
    const vm = aDiskVm(0, { terminating: true, ...MARKED(0) });
    const disks = [aDisk(0, { guarded: true }), { ...aDisk(0), name: "more-0" }];
    const plan = planWith({ pool: aDiskPool(DISABLED), vms: [vm], of: [[0, disks]] });
    expect(changesOf(plan).map(({ disk }) => disk.name)).toEqual(["data-0"]);
  });

  it("say what they were made from though the template makes none now", () => {
    const pool = aPool({ spec: aSpec({ replicas: 1, ...PROACTIVE }) });
    const [change] = changesOf(planWith({ pool, vms: [leaving], of: [[0, [aDisk(0)]]] }));
    expect(JSON.stringify(change?.metadata)).toContain("template");
  });

  it("let go of it though nothing guarded them", () => {
    const plan = planWith({ vms: [leaving], of: [[0, [aDisk(0)]]] });
    expect(changesOf(plan)).toMatchObject([{ metadata: { ownerReferences: [], labels: { [KEPT_FOR_LABEL]: "web" } } }]);
  });

  it("are read before anything is done about it", () => {
    expect(planWith({ vms: [leaving] })).toMatchObject({
      actions: [],
      needs: [{ read: "disks", vms: [{ name: "web-0" }] }],
    });
  });

  it("are read and let go of it where the namespace may not be read, too", () => {
    const blind = { vms: [leaving], namespaceUid: "" };
    expect(planWith(blind).needs).toMatchObject([{ read: "disks", vms: [{ name: "web-0" }] }]);
    for (const disks of [[], [aDisk(0)]]) {
      const plan = planWith({ ...blind, of: [[0, disks]] });
      expect(changesOf(plan)).toMatchObject(disks.map(() => ({ released: true, metadata: { ownerReferences: [] } })));
      expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
    }
  });

  it("are looked for in its whole spec where only metadata are known", () => {
    const plan = planWith({ vms: [aDiskVm(0, { terminating: true, spec: null })] });
    expect(plan.needs).toMatchObject([{ read: "specs", vms: [{ name: "web-0" }] }]);
  });

  it("hold it when its spec cannot be read, and it says so", () => {
    const vm = aDiskVm(0, { terminating: true, spec: null });
    const seen = anObservation({ pool: aDiskPool({ ...PROACTIVE, replicas: 0 }), vms: [vm] });
    const plan = planPass({ ...seen, specless: new Set([vm.uid]) }, ACTING);
    expect([plan.needs, plan.actions]).toEqual([[], []]);
    expect(plan.reasons.join()).toContain("web-0 is held: its spec cannot be read");
  });

  it("are no longer its own when the garbage collector was quicker", () => {
    const plan = planWith({ vms: [leaving], of: [[0, [aDisk(0, { vmUid: null, guarded: true })]]] });
    expect(kindsOf(plan)).toContain("dropVmFinalizer");
    expect(changesOf(plan)).toEqual([]);
  });

  it("go with it when they are not kept, guards and all", () => {
    const vm = aDiskVm(0, { terminating: true, ...MARKED(0) });
    const plan = planWith({ pool: aDiskPool(DISABLED), vms: [vm], of: [[0, [aDisk(0, { guarded: true })]]] });
    expect(changesOf(plan)).toMatchObject([{ released: false, metadata: { ownerReferences: [{ uid: aVmUid(0) }] } }]);
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it("cost no look when they are not kept and were never guarded", () => {
    const plan = planWith({ pool: aDiskPool({ ...DISABLED, replicas: 0 }), vms: [leaving] });
    expect([plan.needs, namesOf(plan, "dropVmFinalizer")]).toEqual([[], ["web-0"]]);
  });

  it("are kept also when its labels left the pool meanwhile", () => {
    const vm = aDiskVm(0, { terminating: true, labels: { app: "gone" } });
    const plan = planWith({ pool: aDiskPool({ ...PROACTIVE, replicas: 0 }), vms: [vm], of: [[0, [aDisk(0)]]] });
    expect(kindsOf(plan)).toEqual(["changeDisk", "releaseVm"]);
    expect(changesOf(plan)).toMatchObject([{ released: true }]);
  });
});

describe("the disks of a machine that leaves the pool alive", () => {
  it("lose the guard before it is released: outside the pool they go with it", () => {
    const vm = aDiskVm(0, { labels: { app: "gone" }, ...MARKED(0) });
    const plan = planWith({
      pool: aDiskPool({ ...PROACTIVE, replicas: 0 }),
      vms: [vm],
      of: [[0, [aDisk(0, { guarded: true })]]],
    });
    expect(kindsOf(plan)).toEqual(["changeDisk", "releaseVm"]);
    expect(changesOf(plan)).toMatchObject([{ released: false, metadata: { ownerReferences: [{ uid: aVmUid(0) }] } }]);
  });

  it("cost no look when nothing guards them", () => {
    const vm = aDiskVm(0, { labels: { app: "gone" } });
    expect(kindsOf(planWith({ pool: aDiskPool({ ...PROACTIVE, replicas: 0 }), vms: [vm] }))).toEqual(["releaseVm"]);
  });

  it("are not touched when somebody detached it, as it is not the pool's any more", () => {
    const vm = aDiskVm(0, { pool: null, ...MARKED(0) });
    expect(kindsOf(planWith({ pool: aDiskPool({ ...PROACTIVE, replicas: 0 }), vms: [vm] }))).toEqual([
      "dropVmFinalizer",
    ]);
  });
});

describe("the disks of a machine that somebody detached while it was on its way out", () => {
  it("go with it, but for those that have a second owner, as it is not the pool's any more", () => {
    const vm = aDiskVm(0, { pool: null, terminating: true });
    const plan = planWith({ pool: aDiskPool({ ...PROACTIVE, replicas: 0 }), vms: [vm], of: [[0, [aDisk(0)]]] });
    expect(kindsOf(plan)).toEqual(["dropVmFinalizer"]);
  });
});

describe("a pool that is deleted while disks are kept (D06 D41)", () => {
  const deleting = (finalizers: readonly string[] = []) =>
    aDiskPool(PROACTIVE, { deleting: true, finalizers: [POOL_FINALIZER, ...finalizers] });

  it("deletes its machines itself in the background, and frees none before its disks", () => {
    const plan = planWith({
      pool: deleting(),
      vms: [aDiskVm(0), aDiskVm(1, { terminating: true })],
      of: [[1, [aDisk(1)]]],
    });
    expect(kindsOf(plan)).toEqual(["changeDisk", "dropVmFinalizer", "deleteVm"]);
    expect([namesOf(plan, "dropVmFinalizer"), deletesOf(plan)]).toEqual([["web-1"], ["web-0"]]);
  });

  it("leaves deleting to the collector in the foreground", () => {
    expect(kindsOf(planWith({ pool: deleting(["foregroundDeletion"]), vms: [aDiskVm(0)] }))).toEqual([]);
  });

  it("frees live machines that are orphaned", () => {
    expect(kindsOf(planWith({ pool: deleting(["orphan"]), vms: [aDiskVm(0)] }))).toEqual(["dropVmFinalizer"]);
  });

  it("goes when its machines are gone", () => {
    expect(kindsOf(planWith({ pool: deleting(), vms: [] }))).toEqual(["dropPoolFinalizer"]);
  });
});

describe("a kept disk", () => {
  interface Kept extends DiskOverrides {
    /** Its template as the machine had it, and as the pool had it then. */
    readonly made?: Json;
    readonly asked?: Json;
  }

  /** As the machine of the ordinal left it. */
  function keptBy(ordinal: number, { made = STORAGE, asked = made, ...overrides }: Kept = {}): Disk {
    const leaving = aDiskVm(ordinal, { disk: made, terminating: true });
    const plan = planWith({ pool: aPoolOf(asked), vms: [leaving], of: [[ordinal, [aDisk(ordinal)]]] });
    const { annotations } = JSON.parse(JSON.stringify(changesOf(plan)[0]?.metadata));
    const labels = { [KEPT_FOR_LABEL]: "web" };
    return aDisk(ordinal, { vmUid: null, guarded: true, annotations, labels, ...overrides });
  }
  const other = aPoolOf({ storage: size("9Gi") });

  it("is asked for before a machine with disks is made", () => {
    expect(planOf({ pool: aDiskPool() }).needs).toEqual([{ read: "keptDisks" }]);
  });

  it("waits for the machine of its ordinal, which takes it when it fits", () => {
    const plan = planWith({ keptDisks: [keptBy(0)] });
    expect([createsOf(plan), plan.announcements]).toEqual([[0], []]);
  });

  it("rules its ordinal out when the template has changed, and the pool says so (D41)", () => {
    const plan = planWith({ pool: other, keptDisks: [keptBy(0)] });
    expect(createsOf(plan)).toEqual([1]);
    expect(plan.announcements).toMatchObject([
      { type: "Warning", reason: "KeptDiskUnfit", message: expect.stringContaining("data-0") },
    ]);
  });

  it.each<[string, Disk]>([
    ["a machine uses it", keptBy(0, { vmUid: aVmUid(7) })],
    ["nothing says what it was made from", aDisk(0, { vmUid: null })],
    ["its note is garbled", aDisk(0, { vmUid: null, annotations: { [KEPT_ANNOTATION]: "{" } })],
  ])("rules nothing out when %s", (_what, disk) => {
    expect(createsOf(planWith({ pool: other, keptDisks: [disk] }))).toEqual([0]);
  });

  it("rules its ordinal out when it was kept for another pool, and the pool says so", () => {
    const kept = JSON.stringify({ pool: "other", machine: "other-0" });
    const disk = aDisk(0, { vmUid: null, annotations: { [KEPT_ANNOTATION]: kept } });
    const plan = planWith({ keptDisks: [disk] });
    expect(createsOf(plan)).toEqual([1]);
    expect(plan.announcements).toMatchObject([{ message: expect.stringContaining("was kept for pool other") }]);
  });

  it("rules its ordinal out when the pool keeps no disks any more, for it would go with the machine", () => {
    const plan = planWith({ pool: aDiskPool(DISABLED), keptDisks: [keptBy(0)] });
    expect(createsOf(plan)).toEqual([1]);
    expect(plan.announcements).toMatchObject([
      { reason: "KeptDiskUnfit", message: expect.stringContaining("spec.scaleInStrategy keeps none now") },
    ]);
  });

  it("is taken to fit when nothing says what it was made from, as the reference does", () => {
    const kept = JSON.stringify({ pool: "web", machine: "web-0" });
    const disk = aDisk(0, { vmUid: null, annotations: { [KEPT_ANNOTATION]: kept } });
    expect(createsOf(planWith({ keptDisks: [disk] }))).toEqual([0]);
  });

  it("is compared with the template of its own name and of its machine's number", () => {
    const two = (suffix: string) => [
      ...templates(`data${suffix}`),
      ...templates(`more${suffix}`, { storage: size("2Gi") }),
    ];
    const template = templateOf();
    const pool = (replicas: number) =>
      aDiskPool({
        ...PROACTIVE,
        replicas,
        virtualMachineTemplate: { ...template, spec: { ...template.spec, dataVolumeTemplates: two("") } },
      });
    const filledIn = two("-3").map((one) => ({ ...one, spec: { ...one.spec, storageClassName: "fast" } }));
    const vm = aVm(3, { terminating: true, spec: aVmSpec("web-1", { dataVolumeTemplates: filledIn }) });
    const disks = ["data-3", "more-3"].map((name) => ({ ...aDisk(3), name }));
    const left = changesOf(planWith({ pool: pool(4), vms: [vm], of: [[3, disks]] }));
    const keptDisks = left.map(({ disk, metadata }) => {
      const { annotations } = JSON.parse(JSON.stringify(metadata));
      return { ...disk, owners: [], annotations };
    });
    const vms = [0, 1, 2].map((ordinal) => aDiskVm(ordinal, MARKED(ordinal)));
    expect(keptDisks).toHaveLength(2);
    expect(createsOf(planWith({ pool: pool(4), vms, keptDisks }))).toEqual([3]);
  });

  it("is of interest only to a pool whose machines have disks", () => {
    expect(planOf({ pool: aPool({ spec: aSpec({ replicas: 1 }) }) }).needs).toEqual([]);
  });

  const importOf = (http: Json) => ({ ...STORAGE, source: { http } });
  const classed = (storageClassName: string) => ({ storage: { ...size("1Gi"), storageClassName } });
  it.each<{ it: string; made?: Json; asked?: Json; wanted: Json; fits: boolean }>([
    { it: "fits the same size in other words", wanted: { storage: size("1024Mi") }, fits: true },
    {
      it: "fits though the cluster filled in the storage class, which the template leaves open",
      made: classed("fast"),
      asked: STORAGE,
      wanted: STORAGE,
      fits: true,
    },
    {
      it: "fits though the cluster filled in the storage class and its size is in other words",
      made: { storage: { ...size("1024Mi"), storageClassName: "fast" } },
      asked: STORAGE,
      wanted: STORAGE,
      fits: true,
    },
    {
      it: "fits though KubeVirt wrote its machine without the template's zeros",
      made: importOf({ url: "u" }),
      asked: importOf({ url: "u", secretRef: "" }),
      wanted: importOf({ url: "u", secretRef: "" }),
      fits: true,
    },
    {
      it: "does not fit a template that it was not made from",
      made: classed("fast"),
      asked: classed("slow"),
      wanted: classed("slow"),
      fits: false,
    },
    { it: "does not fit a template of another form", made: { pvc: {} }, asked: STORAGE, wanted: STORAGE, fits: false },
    { it: "does not fit another storage class", made: classed("fast"), wanted: classed("slow"), fits: false },
    { it: "does not fit a storage class where it had none", wanted: classed("slow"), fits: false },
  ])("$it", ({ wanted, fits, ...kept }) => {
    expect(createsOf(planWith({ pool: aPoolOf(wanted), keptDisks: [keptBy(0, kept)] }))).toEqual([fits ? 0 : 1]);
  });
});

describe("the disks that a spec names", () => {
  it("are those of templates, DataVolumes and claims, each once", () => {
    const { virtualMachineTemplate } = poolSpecSchema.parse(
      aSpec({
        virtualMachineTemplate: {
          spec: {
            dataVolumeTemplates: templates("data"),
            template: {
              spec: {
                volumes: [
                  ...volumes("data"),
                  ...volumes("shared"),
                  { name: "c", persistentVolumeClaim: { claimName: "claim" } },
                ],
              },
            },
          },
        },
      }),
    );
    expect(diskNamesOf(virtualMachineTemplate.spec)).toEqual({
      templates: ["data"],
      dataVolumes: ["data", "shared"],
      claims: ["data", "claim"],
    });
  });

  it("are none where its template says nothing", () => {
    expect(diskNamesOf({ template: {} })).toEqual({ templates: [], dataVolumes: [], claims: [] });
  });

  it("keep the owners that are not the machine", () => {
    const owners = [
      anOwner(aVmUid(0), { kind: "VirtualMachine", apiVersion: "kubevirt.io/v1" }),
      { ...anOwner("backup"), controller: false },
    ];
    const disk = { ...aDisk(0), owners: owners as unknown as Disk["owners"] };
    const plan = planWith({ vms: [aDiskVm(0, { terminating: true })], of: [[0, [disk]]] });
    expect(changesOf(plan)).toMatchObject([{ metadata: { ownerReferences: [{ uid: "backup" }] } }]);
  });
});
