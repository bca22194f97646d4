import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalJson, isRecord } from "../../shared/planning/json.ts";
import { type Move, mergePatchOf, moveVm } from "../../shared/planning/merge.ts";
import { type PoolSpec, poolFieldsSchema, poolSpecSchema, type Vm } from "../../shared/planning/model.ts";
import { POOL_FINALIZER, REVISION_LABEL, REVOKED_ANNOTATION } from "../../shared/planning/names.ts";
import { canonicalText } from "../../shared/planning/semantic.ts";
import { buildVm } from "../../shared/planning/template.ts";
import { applyMergePatch } from "../simulation/patches.ts";
import { aPool, aSpec, aVm, deepFreeze, type Json, KUBEVIRT_FINALIZER, LABELS } from "../support/builders.ts";

const ORDINAL = 3;
const NEW = "web-2";

/** A VM as far as a move changes it. */
interface Movable {
  readonly metadata: { readonly labels: Json; readonly annotations: Json };
  readonly spec: Json;
}

function specOf(vmSpec: Json, metadata: Json = { labels: LABELS }, spec: Json = {}): PoolSpec {
  const virtualMachineTemplate = { metadata, spec: { template: {}, ...vmSpec } };
  return deepFreeze(poolSpecSchema.parse(aSpec({ virtualMachineTemplate, ...spec })));
}

/** The machine as a pool creates it from a template. */
function built(spec: PoolSpec, revision = "web-1"): Vm {
  const origin = { pool: aPool(), spec, poolApiVersion: "pool.kubevirt.io/v1beta1", ordinal: ORDINAL, revision };
  const { metadata, spec: vmSpec } = buildVm(origin);
  return deepFreeze(aVm(ORDINAL, { ...metadata, owners: metadata.ownerReferences, revision, spec: vmSpec }));
}

/** The VM after the move, as the API server patches it. */
function moved(vm: Vm, move: Pick<Move, "base" | "target"> & Partial<Move>): Vm {
  const patch = moveVm(vm, { ordinal: ORDINAL, revision: NEW, ...move });
  const from: Movable = { metadata: { labels: vm.labels, annotations: vm.annotations }, spec: vm.spec ?? {} };
  const applied = applyMergePatch(from, patch);
  if (!applied.ok || !isRecord(applied.value)) throw new Error("the patch is malformed");
  const { metadata, spec } = poolFieldsSchema.shape.virtualMachineTemplate.parse(applied.value);
  return { ...vm, labels: metadata?.labels ?? {}, annotations: metadata?.annotations ?? {}, spec };
}

/** All of a VM that a move can change, as one text: same text, same VM to KubeVirt. */
function textOf({ labels, annotations, spec }: Vm): string {
  return canonicalText({ labels, annotations, spec }, []);
}

interface Row {
  readonly it: string;
  /** Undefined when the revision is lost. */
  readonly base: Json | undefined;
  readonly vm: Json;
  readonly target: Json;
  readonly becomes: Json;
}

/** The spec of the guest after the move. */
function guestAfter({ base, vm, target }: Pick<Row, "base" | "vm" | "target">): unknown {
  const machine = deepFreeze(aVm(ORDINAL, { spec: { runStrategy: "Always", template: { spec: vm } } }));
  const of = (spec: Json) => specOf({ runStrategy: "Always", template: { spec } });
  return moved(machine, { base: base && of(base), target: of(target) }).spec?.template.spec;
}

/** Rows whose difference is below `domain`, or `domain.devices`. */
const inDomain = (row: Row): Row => wrapped(row, (domain) => ({ domain }));
const inDevices = (row: Row): Row => wrapped(row, (devices) => ({ domain: { devices } }));
function wrapped(row: Row, wrap: (value: Json) => Json): Row {
  const { it: name, base, vm, target, becomes } = row;
  return { it: name, base: base && wrap(base), vm: wrap(vm), target: wrap(target), becomes: wrap(becomes) };
}
const RAM = { memory: { guest: "1Gi" } } as const;
const MORE = { memory: { guest: "2Gi" } } as const;

const KEPT: readonly Row[] = [
  inDomain({
    it: "the firmware's UUID and serial that KubeVirt or its user gave it (D28)",
    base: RAM,
    vm: { ...RAM, firmware: { uuid: "u", serial: "s" } },
    target: MORE,
    becomes: { ...MORE, firmware: { uuid: "u", serial: "s" } },
  }),
  inDomain({
    it: "what its user set where the template comes to write a zero that says nothing",
    base: { cpu: { threads: 1 } },
    vm: { cpu: { threads: 1, cores: 4 } },
    target: { cpu: { threads: 2, cores: 0 } },
    becomes: { cpu: { threads: 2, cores: 4 } },
  }),
  inDomain({
    it: "the firmware's UUID and serial though the template changes them (D28)",
    base: { firmware: { uuid: "u", serial: "s" } },
    vm: { firmware: { uuid: "u", serial: "s" } },
    target: { firmware: { uuid: "v", serial: "t", bootloader: { bios: {} } } },
    becomes: { firmware: { uuid: "u", serial: "s", bootloader: { bios: {} } } },
  }),
  inDomain({
    it: "the firmware's UUID and serial though the template drops its firmware (D28)",
    base: { firmware: { uuid: "u", bootloader: { efi: {} } } },
    vm: { firmware: { uuid: "u", serial: "s", bootloader: { efi: {} } } },
    target: {},
    becomes: { firmware: { uuid: "u", serial: "s" } },
  }),
  inDevices({
    it: "MAC addresses assigned by others (D28)",
    base: { interfaces: [{ name: "n", bridge: {} }] },
    vm: { interfaces: [{ name: "n", bridge: {}, macAddress: "02:00:00:00:00:01" }] },
    target: { interfaces: [{ name: "n", masquerade: {}, model: "virtio" }, { name: "m" }] },
    becomes: {
      interfaces: [{ name: "n", macAddress: "02:00:00:00:00:01", masquerade: {}, model: "virtio" }, { name: "m" }],
    },
  }),
  {
    it: "hot-plugged volumes behind those of the template (D28)",
    base: { volumes: [{ name: "root", containerDisk: { image: "a" } }] },
    vm: {
      volumes: [
        { name: "root", containerDisk: { image: "a" } },
        { name: "hot", dataVolume: { name: "d" } },
      ],
    },
    target: {
      volumes: [
        { name: "seed", secret: {} },
        { name: "root", containerDisk: { image: "b" } },
      ],
    },
    becomes: {
      volumes: [
        { name: "seed", secret: {} },
        { name: "root", containerDisk: { image: "b" } },
        { name: "hot", dataVolume: { name: "d" } },
      ],
    },
  },
  inDevices({
    it: "the disks of hot-plugged volumes (D28)",
    base: { disks: [{ name: "root" }, { name: "seed" }] },
    vm: { disks: [{ name: "hot", disk: { bus: "scsi" } }, { name: "root" }, { name: "seed" }] },
    target: { disks: [{ name: "root", bootOrder: 1 }] },
    becomes: {
      disks: [
        { name: "root", bootOrder: 1 },
        { name: "hot", disk: { bus: "scsi" } },
      ],
    },
  }),
  {
    it: "hot-plugged volumes though the template drops its own",
    base: { volumes: [{ name: "root" }] },
    vm: { volumes: [{ name: "root" }, { name: "hot" }] },
    target: {},
    becomes: { volumes: [{ name: "hot" }] },
  },
  {
    it: "a list that the template does not change",
    base: { tolerations: [{ key: "a" }], hostname: "x" },
    vm: { tolerations: [{ key: "a" }, { key: "user" }], hostname: "x" },
    target: { tolerations: [{ key: "a" }], hostname: "y" },
    becomes: { tolerations: [{ key: "a" }, { key: "user" }], hostname: "y" },
  },
  {
    it: "what its user removed and the template does not change",
    base: { nodeSelector: { zone: "a" }, volumes: [{ name: "a" }, { name: "b" }], hostname: "x" },
    vm: { volumes: [{ name: "b" }], hostname: "x" },
    target: { nodeSelector: { zone: "a" }, volumes: [{ name: "a" }, { name: "b", secret: {} }], hostname: "y" },
    becomes: { volumes: [{ name: "b", secret: {} }], hostname: "y" },
  },
  {
    it: "a map without the keys that its user removed and the template does not change",
    base: { nodeSelector: { zone: "a", disk: "ssd" } },
    vm: { hostname: "x" },
    target: { nodeSelector: { zone: "a", disk: "nvme" } },
    becomes: { hostname: "x", nodeSelector: { disk: "nvme" } },
  },
  inDomain({
    it: "what KubeVirt filled in",
    base: { cpu: { cores: 1 } },
    vm: { cpu: { cores: 1, model: "host-model" }, machine: { type: "q35" }, resources: {} },
    target: { cpu: { cores: 2 } },
    becomes: { cpu: { cores: 2, model: "host-model" }, machine: { type: "q35" }, resources: {} },
  }),
  inDomain({
    it: "a size that the template only writes differently",
    base: { memory: { guest: "1Gi", maxGuest: "4Gi" } },
    vm: { memory: { guest: "3Gi", maxGuest: "4096Mi" } },
    target: { memory: { guest: "1024Mi", maxGuest: "4096Mi" } },
    becomes: { memory: { guest: "3Gi", maxGuest: "4096Mi" } },
  }),
  inDevices({
    it: "another choice of its user where the template changes something else",
    base: { disks: [{ name: "d", disk: { bus: "virtio" } }] },
    vm: { disks: [{ name: "d", cdrom: { bus: "sata" } }] },
    target: { disks: [{ name: "d", disk: { bus: "virtio" }, bootOrder: 1 }] },
    becomes: { disks: [{ name: "d", cdrom: { bus: "sata" }, bootOrder: 1 }] },
  }),
];

const DROPPED: readonly Row[] = [
  inDomain({
    it: "an object of which only zeros are left that say nothing",
    base: { cpu: { cores: 2, threads: 0 } },
    vm: { cpu: { cores: 2, threads: 0 } },
    target: {},
    becomes: {},
  }),
  {
    it: "a volume",
    base: { volumes: [{ name: "a" }, { name: "b", containerDisk: { image: "i" } }] },
    vm: { volumes: [{ name: "a" }, { name: "b", containerDisk: { image: "i", imagePullPolicy: "Always" } }] },
    target: { volumes: [{ name: "a" }] },
    becomes: { volumes: [{ name: "a" }] },
  },
  {
    it: "its last volume",
    base: { volumes: [{ name: "a" }], hostname: "x" },
    vm: { volumes: [{ name: "a" }], hostname: "x" },
    target: { hostname: "x" },
    becomes: { hostname: "x" },
  },
  {
    it: "a toleration",
    base: { tolerations: [{ key: "a" }, { key: "b" }] },
    vm: { tolerations: [{ key: "a" }, { key: "b" }] },
    target: { tolerations: [{ key: "b" }] },
    becomes: { tolerations: [{ key: "b" }] },
  },
  {
    it: "all tolerations, also those that its user added to the same list",
    base: { tolerations: [{ key: "a" }] },
    vm: { tolerations: [{ key: "a" }, { key: "user" }], hostname: "x" },
    target: {},
    becomes: { hostname: "x" },
  },
  {
    it: "the keys of a map, and leaves those of others",
    base: { nodeSelector: { zone: "a", disk: "ssd" } },
    vm: { nodeSelector: { zone: "a", disk: "ssd", user: "x" } },
    target: {},
    becomes: { nodeSelector: { user: "x" } },
  },
  {
    it: "a key that every JavaScript object seems to have",
    base: { nodeSelector: { constructor: "a", zone: "a" } },
    vm: { nodeSelector: { constructor: "a", zone: "a", toString: "user" } },
    target: { nodeSelector: { zone: "a" } },
    becomes: { nodeSelector: { zone: "a", toString: "user" } },
  },
  inDomain({
    it: "the fields of an object, and leaves those of others",
    base: { cpu: { cores: 2, sockets: 1 } },
    vm: { cpu: { cores: 2, sockets: 1, model: "host-passthrough" } },
    target: {},
    becomes: { cpu: { model: "host-passthrough" } },
  }),
  inDomain({ it: "a choice", base: { rng: {} }, vm: { rng: {} }, target: {}, becomes: {} }),
  inDomain({ it: "a value by writing null", base: RAM, vm: RAM, target: { memory: null }, becomes: {} }),
  { it: "what its user removed before", base: { hostname: "x" }, vm: {}, target: {}, becomes: {} },
];

const CONFLICTS: readonly Row[] = [
  inDomain({
    it: "a value that its user changed too",
    base: RAM,
    vm: { memory: { guest: "8Gi" } },
    target: MORE,
    becomes: MORE,
  }),
  inDomain({
    it: "a value that its user removed",
    base: { cpu: { cores: 1, model: "m" } },
    vm: {},
    target: { cpu: { cores: 2, model: "m" } },
    becomes: { cpu: { cores: 2, model: "m" } },
  }),
  {
    it: "a volume that its user unplugged, as a whole",
    base: { volumes: [{ name: "a", containerDisk: { image: "i" } }] },
    vm: { volumes: [] },
    target: { volumes: [{ name: "a", containerDisk: { image: "j" } }] },
    becomes: { volumes: [{ name: "a", containerDisk: { image: "j" } }] },
  },
  {
    it: "a volume of the name of a hot-plugged one",
    base: {},
    vm: { volumes: [{ name: "data", dataVolume: { name: "hot", hotpluggable: true } }] },
    target: { volumes: [{ name: "data", containerDisk: { image: "i" } }] },
    becomes: { volumes: [{ name: "data", containerDisk: { image: "i" } }] },
  },
  inDevices({
    it: "a MAC address that the template itself changes",
    base: { interfaces: [{ name: "n", macAddress: "02:00:00:00:00:01" }] },
    vm: { interfaces: [{ name: "n", macAddress: "02:00:00:00:00:02" }] },
    target: { interfaces: [{ name: "n", macAddress: "02:00:00:00:00:03" }] },
    becomes: { interfaces: [{ name: "n", macAddress: "02:00:00:00:00:03" }] },
  }),
  {
    it: "a list without names",
    base: { tolerations: [{ key: "a" }] },
    vm: { tolerations: [{ key: "a" }, { key: "user" }] },
    target: { tolerations: [{ key: "b" }] },
    becomes: { tolerations: [{ key: "b" }] },
  },
  {
    it: "a list in which the VM has a name twice",
    base: { volumes: [{ name: "a" }] },
    vm: { volumes: [{ name: "a" }, { name: "a" }, { name: "hot" }] },
    target: { volumes: [{ name: "b" }] },
    becomes: { volumes: [{ name: "b" }] },
  },
  ...[
    [{ key: "a" }, { key: "b" }],
    [{ name: 1 }, { name: 1, key: "b" }],
    [{ key: "a" }, null],
  ].map(([old, other]) => ({
    it: `a list of one element that has no name, such as ${JSON.stringify(other)}`,
    base: { tolerations: [old] },
    vm: { tolerations: [{ ...old, effect: "user" }] },
    target: { tolerations: [other] },
    becomes: { tolerations: [other] },
  })),
  {
    it: "a list where its user left a hole",
    base: { tolerations: [{ name: "a" }] },
    vm: { tolerations: [null] },
    target: { tolerations: [{ name: "b" }] },
    becomes: { tolerations: [{ name: "b" }] },
  },
  {
    it: "an object in place of something else, and something else in place of an object",
    base: { affinity: [], probe: { port: 80 } },
    vm: { affinity: { podAffinity: {} }, probe: { port: 80, user: 1 } },
    target: { affinity: { nodeAffinity: {} }, probe: "none" },
    becomes: { affinity: { nodeAffinity: {} }, probe: "none" },
  },
  {
    it: "an object where its user put something else",
    base: { affinity: { nodeAffinity: {} } },
    vm: { affinity: [] },
    target: { affinity: { podAffinity: {} } },
    becomes: { affinity: { podAffinity: {} } },
  },
];

const LOST: readonly Row[] = [
  {
    it: "keeps all that is only the VM's",
    base: undefined,
    vm: {
      nodeSelector: { user: "x" },
      volumes: [{ name: "old" }],
      domain: { ...RAM, firmware: { uuid: "u" }, machine: { type: "q35" } },
    },
    target: { hostname: "x", domain: { cpu: { cores: 2 }, firmware: { serial: "s" } } },
    becomes: {
      nodeSelector: { user: "x" },
      volumes: [{ name: "old" }],
      hostname: "x",
      domain: { ...RAM, firmware: { uuid: "u", serial: "s" }, machine: { type: "q35" }, cpu: { cores: 2 } },
    },
  },
  {
    it: "lays the target's values over it, lists by name likewise",
    base: undefined,
    vm: { volumes: [{ name: "hot" }, { name: "root", containerDisk: { image: "a" } }], tolerations: [{ key: "user" }] },
    target: { volumes: [{ name: "root", containerDisk: { image: "b" } }], tolerations: [{ key: "a" }] },
    becomes: {
      volumes: [{ name: "root", containerDisk: { image: "b" } }, { name: "hot" }],
      tolerations: [{ key: "a" }],
    },
  },
  {
    it: "leaves one source to a volume and to cloud-init",
    base: undefined,
    vm: {
      volumes: [
        { name: "root", containerDisk: { image: "a" } },
        { name: "seed", cloudInitNoCloud: { userData: "#cloud-config", networkData: "n" } },
      ],
    },
    target: {
      volumes: [
        { name: "root", dataVolume: { name: "d" } },
        { name: "seed", cloudInitNoCloud: { secretRef: { name: "s" } } },
      ],
    },
    becomes: {
      volumes: [
        { name: "root", dataVolume: { name: "d" } },
        { name: "seed", cloudInitNoCloud: { secretRef: { name: "s" }, networkData: "n" } },
      ],
    },
  },
  inDomain({
    it: "leaves one boot loader to the firmware",
    base: undefined,
    vm: { firmware: { bootloader: { bios: {} } } },
    target: { firmware: { bootloader: { efi: {} } } },
    becomes: { firmware: { bootloader: { efi: {} } } },
  }),
];

function itMoves(rows: readonly Row[]): void {
  for (const row of rows) it(row.it, () => expect(guestAfter(row)).toEqual(row.becomes));
}

describe("a VM that moves to a new template keeps", () => itMoves(KEPT));
describe("a VM loses what the template drops:", () => itMoves(DROPPED));
describe("in a conflict the template wins:", () => itMoves(CONFLICTS));
describe("a VM whose revision is lost", () => itMoves(LOST));

interface RunState {
  readonly it: string;
  readonly base: Json | undefined;
  readonly vm: Json;
  readonly target: Json;
  readonly becomes: Json;
}

const RUN_STATES: readonly RunState[] = [
  ...[
    { set: { running: true }, stopped: { running: false } },
    { set: { running: false }, stopped: { running: true } },
    { set: { runStrategy: "Always" }, stopped: { runStrategy: "Halted" } },
    { set: { runStrategy: "Halted" }, stopped: { runStrategy: "Always" } },
    { set: { runStrategy: "Once" }, stopped: { runStrategy: "Halted" } },
    { set: { runStrategy: "RerunOnFailure" }, stopped: { runStrategy: "Halted" } },
    { set: { runStrategy: "Manual" }, stopped: { runStrategy: "Halted" } },
    { set: { runStrategy: "WaitAsReceiver" }, stopped: { runStrategy: "Always" } },
  ].flatMap(({ set, stopped }) => [
    {
      it: `stays ${JSON.stringify(stopped)} of ${JSON.stringify(set)} as start or stop set it (D28)`,
      base: set,
      vm: stopped,
      target: set,
      becomes: stopped,
    },
    {
      it: `stays ${JSON.stringify(stopped)} of ${JSON.stringify(set)} though the template changes it (D28)`,
      base: set,
      vm: stopped,
      target: { runStrategy: "Special" },
      becomes: stopped,
    },
    {
      it: `follows the template from ${JSON.stringify(set)} when nobody touched it`,
      base: set,
      vm: set,
      target: { runStrategy: "Special" },
      becomes: { runStrategy: "Special" },
    },
  ]),
  {
    it: "is never in both fields when the template goes from one to the other",
    base: { runStrategy: "Always" },
    vm: { runStrategy: "Always" },
    target: { running: false },
    becomes: { running: false },
  },
  {
    it: "is untouched when it only stands in the other field",
    base: { running: true },
    vm: { runStrategy: "Always" },
    target: { runStrategy: "Manual" },
    becomes: { runStrategy: "Manual" },
  },
  {
    it: "keeps its field when the template does not change",
    base: { running: true },
    vm: { runStrategy: "Always" },
    target: { running: true },
    becomes: { runStrategy: "Always" },
  },
  {
    it: "stays as the VM has it when the revision is lost",
    base: undefined,
    vm: { running: false },
    target: { runStrategy: "Always" },
    becomes: { running: false },
  },
  {
    it: "is the template's when the revision is lost and the VM has none",
    base: undefined,
    vm: {},
    target: { runStrategy: "Always" },
    becomes: { runStrategy: "Always" },
  },
];

/** The VM's own part of the spec after the move. */
function ownAfter({ base, vm, target }: Omit<RunState, "it" | "becomes">): Json {
  const machine = deepFreeze(aVm(ORDINAL, { spec: { template: {}, ...vm } }));
  const { template: _, ...own } =
    moved(machine, { base: base && specOf(base), target: specOf(target) }).spec ?? specOf({});
  return own;
}

describe("the run state", () => {
  for (const { becomes, it: name, ...row } of RUN_STATES) it(name, () => expect(ownAfter(row)).toEqual(becomes));
});

const small = { name: "small", kind: "VirtualMachineInstancetype" } as const;
const large = { name: "large", kind: "VirtualMachineInstancetype" } as const;

const MATCHERS: readonly RunState[] = [
  {
    it: "keeps the revision that KubeVirt wrote when the template does not change it (D28)",
    base: small,
    vm: { ...small, revisionName: "r" },
    target: small,
    becomes: { ...small, revisionName: "r" },
  },
  {
    it: "loses the revision of the old one when the template changes it",
    base: small,
    vm: { ...small, revisionName: "r" },
    target: large,
    becomes: large,
  },
  {
    it: "is the template's when its user changed it too",
    base: small,
    vm: { name: "mine", revisionName: "r" },
    target: large,
    becomes: large,
  },
  {
    it: "is its user's when the template does not change it",
    base: small,
    vm: { name: "mine", revisionName: "r" },
    target: small,
    becomes: { name: "mine", revisionName: "r" },
  },
  {
    it: "keeps what KubeVirt inferred when the template does not change it",
    base: { inferFromVolume: "root" },
    vm: { name: "inferred", kind: "k", revisionName: "r" },
    target: { inferFromVolume: "root" },
    becomes: { name: "inferred", kind: "k", revisionName: "r" },
  },
  {
    it: "keeps its revision when the base is lost and name and kind are the same",
    base: undefined,
    vm: { name: "small", kind: "virtualmachineinstancetype", revisionName: "r" },
    target: small,
    becomes: { ...small, revisionName: "r" },
  },
  {
    it: "loses its revision when the template changes to what its user had chosen before",
    base: small,
    vm: { ...large, revisionName: "r" },
    target: large,
    becomes: large,
  },
  {
    it: "loses its revision when the base is lost and the name is another",
    base: undefined,
    vm: { ...small, revisionName: "r" },
    target: large,
    becomes: large,
  },
  {
    it: "is the template's when the base is lost and neither has a name",
    base: undefined,
    vm: { inferFromVolume: "old", inferFromVolumeFailurePolicy: "Ignore" },
    target: { inferFromVolume: "root" },
    becomes: { inferFromVolume: "root" },
  },
  {
    it: "loses its revision when the base is lost and the kind is another",
    base: undefined,
    vm: { name: "small", revisionName: "r" },
    target: small,
    becomes: small,
  },
];

describe("an instancetype or preference", () => {
  for (const { it: name, base, vm, target, becomes } of MATCHERS) {
    it(name, () => {
      for (const field of ["instancetype", "preference"]) {
        const row = { base: base && { [field]: base }, vm: { [field]: vm }, target: { [field]: target } };
        expect(ownAfter(row)).toEqual({ [field]: becomes });
      }
    });
  }

  it("goes with the template's, its revision too", () =>
    expect(
      ownAfter({ base: { instancetype: small }, vm: { instancetype: { ...small, revisionName: "r" } }, target: {} }),
    ).toEqual({}));

  it("stays when the base is lost and the template has none", () =>
    expect(ownAfter({ base: undefined, vm: { preference: small }, target: {} })).toEqual({ preference: small }));

  it("of no kind is of the cluster's", () => {
    const vm = { preference: { name: "p", kind: "VirtualMachineClusterPreference", revisionName: "r" } };
    const becomes = ownAfter({ base: undefined, vm, target: { preference: { name: "p" } } });
    expect(becomes).toEqual(vm);
    const empty = { name: "p", kind: "" };
    const next = ownAfter({ base: undefined, vm, target: { preference: empty } });
    expect(next).toEqual(vm);
  });
});

describe("labels and annotations", () => {
  const withMetadata = (metadata: Json) =>
    specOf(
      { template: { metadata } },
      { ...metadata, labels: { ...LABELS, ...(isRecord(metadata["labels"]) ? metadata["labels"] : {}) } },
    );
  const base = withMetadata({ labels: { a: "1", b: "1", c: "1" }, annotations: { x: "1", y: "1" } });
  const target = withMetadata({ labels: { a: "2", c: "1" }, annotations: { x: "2", z: "1" } });
  const has = { labels: { b: "1", c: "user", u: "user" }, annotations: { x: "1", y: "1", u: "user" } } as const;
  const becomes = {
    labels: { a: "2", c: "user", u: "user", [REVISION_LABEL]: NEW },
    annotations: { x: "2", u: "user", z: "1" },
  };

  it("of the VM merge key by key (D28)", () => {
    const vm = aVm(ORDINAL, { ...has, spec: { template: {} } });
    const { labels, annotations } = moved(vm, { base, target });
    expect({ labels, annotations }).toEqual(becomes);
  });

  it("of the instance merge key by key (D28)", () => {
    const vm = aVm(ORDINAL, { spec: { template: { metadata: has } } });
    expect(moved(vm, { base, target }).spec?.template.metadata).toEqual(becomes);
  });

  it("that the template drops go", () => {
    const plain = withMetadata({});
    const vm = built(base);
    expect(moved(vm, { base, target: plain })).toMatchObject({
      labels: { ...LABELS, [REVISION_LABEL]: NEW },
      annotations: {},
      spec: { template: { metadata: { labels: { [REVISION_LABEL]: NEW } } } },
    });
    expect(moveVm(vm, { base, target: plain, ordinal: ORDINAL, revision: NEW }).metadata).toEqual({
      labels: { a: null, b: null, c: null, [REVISION_LABEL]: NEW },
      annotations: { x: null, y: null },
    });
  });

  it("follow a template that has none, and one that had none", () => {
    const virtualMachineTemplate = { spec: { template: {} } };
    const bare = deepFreeze(poolSpecSchema.parse(aSpec({ virtualMachineTemplate })));
    const made = { ...LABELS, [REVISION_LABEL]: NEW };
    expect(moved(built(base), { base, target: bare })).toMatchObject({
      labels: { [REVISION_LABEL]: NEW },
      annotations: {},
    });
    expect(moved(built(bare), { base: bare, target: specOf({}) }).labels).toEqual(made);
  });

  it("follow the template under any name, also that of what identifies a machine", () => {
    const of = (value: string) => withMetadata({ labels: { "firmware/uuid": value } });
    expect(moved(built(of("1")), { base: of("1"), target: of("2") }).labels).toMatchObject({ "firmware/uuid": "2" });
  });

  it("of ours stay, whatever the template says of them", () => {
    const [ours, theirs] = [{ [REVOKED_ANNOTATION]: "nonce" }, { [REVOKED_ANNOTATION]: "forged" }];
    const of = (annotations: Json) => specOf({}, { labels: LABELS, annotations });
    const vm = aVm(ORDINAL, { annotations: ours, spec: { template: {} } });
    for (const move of [
      { base: of(theirs), target: of({}) },
      { base: of({}), target: of(theirs) },
      { base: undefined, target: of(theirs) },
    ]) {
      expect(moved(vm, move).annotations).toEqual(ours);
    }
  });

  it("name the target's revision on the VM and on its instance, though a template forges it", () => {
    const forged = withMetadata({ labels: { [REVISION_LABEL]: "forged" } });
    const { labels, spec } = moved(built(base), { base: forged, target: forged });
    expect([labels[REVISION_LABEL], spec?.template.metadata?.labels?.[REVISION_LABEL]]).toEqual([NEW, NEW]);
  });

  it("that its user took from the VM and the template still has stay away", () => {
    const vm = aVm(ORDINAL, { labels: LABELS, spec: { template: {} } });
    expect(moved(vm, { base, target: base }).labels).toEqual({ ...LABELS, [REVISION_LABEL]: NEW });
  });
});

describe("the patch of a move", () => {
  const disk = (size: string) => ({
    dataVolumeTemplates: [
      { metadata: { name: "disk" }, spec: { storage: { resources: { requests: { storage: size } } } } },
    ],
    template: { spec: { volumes: [{ name: "v", dataVolume: { name: "disk" } }] } },
  });

  it("holds only the labels when only the revision is new", () => {
    const base = specOf({ runStrategy: "Always", ...disk("1Gi") });
    const labels = { [REVISION_LABEL]: NEW };
    expect(moveVm(built(base), { base, target: base, ordinal: ORDINAL, revision: NEW })).toEqual({
      metadata: { labels },
      spec: { template: { metadata: { labels } } },
    });
  });

  it("is empty when nothing changes", () => {
    const base = specOf({ runStrategy: "Always", ...disk("1Gi") });
    expect(moveVm(built(base), { base, target: base, ordinal: ORDINAL, revision: "web-1" })).toEqual({});
  });

  it("is empty when the VM already is what the target makes, however that is written", () => {
    const of = (spec: Json) => specOf({ running: true, template: { spec } });
    const base = of({ domain: { memory: { guest: "1Gi" } }, nodeSelector: { a: "1", b: "1" } });
    const target = of({ domain: { memory: { guest: "2Gi" } }, nodeSelector: { a: "1" }, volumes: [] });
    const spec = { running: true, template: { spec: { domain: { devices: {}, memory: { guest: "2048Mi" } } } } };
    const vm = aVm(ORDINAL, { spec, revision: NEW });
    expect(moved(vm, { base, target }).spec?.template.spec).toEqual(spec.template.spec);
  });

  it("is empty for a VM whose spec was not read", () =>
    expect(
      moveVm(aVm(ORDINAL, { spec: null }), { base: undefined, target: specOf({}), ordinal: ORDINAL, revision: NEW }),
    ).toEqual({}));

  it("has no finalizers and no owners", () => {
    const vm = { ...built(specOf({})), finalizers: [POOL_FINALIZER, KUBEVIRT_FINALIZER] };
    const { metadata } = moveVm(vm, {
      base: undefined,
      target: specOf({ running: true }),
      ordinal: ORDINAL,
      revision: NEW,
    });
    expect(Object.keys(metadata ?? {})).toEqual(["labels"]);
  });

  it("keeps the index of DataVolumes and merges their templates by name (D29)", () => {
    const base = specOf(disk("1Gi"));
    const user = { metadata: { name: "user" } };
    const vm = built(base);
    const spec = {
      ...vm.spec,
      template: vm.spec?.template ?? {},
      dataVolumeTemplates: [...(vm.spec?.dataVolumeTemplates ?? []), user],
    };
    const after = moved({ ...vm, spec }, { base, target: specOf(disk("2Gi")) });
    expect(after.spec?.dataVolumeTemplates).toMatchObject([
      { metadata: { name: `disk-${ORDINAL}` }, spec: { storage: { resources: { requests: { storage: "2Gi" } } } } },
      user,
    ]);
  });

  it("removes with null and has lists whole", () =>
    expect(
      mergePatchOf({ a: 1, b: { c: 1, d: 1 }, e: [1, 2], f: null }, { b: { c: 2, d: 1 }, e: [1], g: { h: null } }),
    ).toEqual({
      a: null,
      b: { c: 2 },
      e: [1],
      g: {},
    }));
});

const few = <T>(values: fc.Arbitrary<T>) => fc.option(values, { nil: undefined, freq: 2 });
const digit = fc.constantFrom("1", "2");
const stringMap = fc.dictionary(fc.constantFrom("a", "b", "c"), digit, { maxKeys: 3 });
const named = (names: readonly string[], rest: Record<string, fc.Arbitrary<unknown>>) =>
  fc.uniqueArray(fc.record({ name: fc.constantFrom(...names), ...rest }, { requiredKeys: ["name"] }), {
    selector: ({ name }) => name,
    maxLength: 3,
  });
const metadataOf = fc.record({ labels: stringMap, annotations: stringMap }, { requiredKeys: [] });
const volumes = fc.uniqueArray(
  fc
    .tuple(
      fc.constantFrom("root", "seed", "data"),
      fc.oneof(
        fc.record({ containerDisk: fc.record({ image: digit }) }),
        fc.record({ dataVolume: fc.record({ name: fc.constantFrom("disk", "other") }) }),
        fc.record({ cloudInitNoCloud: fc.record({ secretRef: fc.record({ name: digit }) }) }),
      ),
    )
    .map(([name, source]) => ({ name, ...source })),
  { selector: ({ name }) => name, maxLength: 3 },
);
const devices = fc.record(
  {
    disks: named(["root", "seed", "data"], { bootOrder: fc.integer({ min: 1, max: 2 }), disk: fc.constant({}) }),
    interfaces: named(["n", "m"], { macAddress: digit, masquerade: fc.constant({}) }),
    rng: fc.constant({}),
  },
  { requiredKeys: [] },
);
const domain = fc.record(
  {
    cpu: fc.record({ cores: fc.nat(2), sockets: fc.nat(2) }, { requiredKeys: [] }),
    memory: fc.record({ guest: fc.constantFrom("1Gi", "1024Mi", "2Gi") }),
    resources: fc.record({ requests: fc.dictionary(fc.constantFrom("cpu", "memory"), digit) }),
    devices,
    firmware: fc.record({ bootloader: fc.constantFrom({ bios: {} }, { efi: { secureBoot: false } }) }),
  },
  { requiredKeys: ["devices"] },
);
const guest = fc.record(
  {
    domain,
    volumes,
    nodeSelector: stringMap,
    tolerations: fc.array(fc.record({ key: digit }), { maxLength: 2 }),
    affinity: fc.constantFrom({ nodeAffinity: {} }, { podAffinity: { list: [{ labelSelector: {} }] } }),
    hostname: fc.constantFrom("x", "y", null),
  },
  { requiredKeys: ["domain"] },
);
const runState = fc.oneof(
  fc.record({ running: fc.boolean() }),
  fc.record({ runStrategy: fc.constantFrom("Always", "Halted", "Manual", "Once") }),
);
const aTemplate: fc.Arbitrary<PoolSpec> = fc
  .record({
    metadata: metadataOf,
    run: runState,
    own: fc.record(
      {
        instancetype: fc.record({ name: digit, kind: digit }, { requiredKeys: ["name"] }),
        preference: few(fc.record({ name: digit })),
        updateVolumesStrategy: fc.constantFrom("Replacement", "Migration"),
        dataVolumeTemplates: fc.constantFrom([], [{ metadata: { name: "disk" }, spec: { storage: {} } }]),
      },
      { requiredKeys: [] },
    ),
    template: fc.record({ metadata: metadataOf, spec: guest }),
    nameGeneration: fc.constantFrom({}, { appendIndexToSecretRefs: true }),
  })
  .map(({ metadata, run, own, template, nameGeneration }) =>
    specOf(
      { ...run, ...own, template },
      { ...metadata, labels: { ...LABELS, ...metadata.labels } },
      { nameGeneration },
    ),
  );

/** What a user and KubeVirt add to a machine: nothing that a template of these properties has. */
function withAdditions(vm: Vm): Vm {
  const { template, ...spec } = vm.spec ?? specOf({}).virtualMachineTemplate.spec;
  const domainThere = recordAt(template.spec, "domain");
  const devicesThere = recordAt(domainThere, "devices");
  const disks = [{ name: "hot" }, ...listAt(devicesThere, "disks")];
  const firmware = { ...recordAt(domainThere, "firmware"), uuid: "u", serial: "s" };
  return deepFreeze({
    ...vm,
    labels: { ...vm.labels, user: "l" },
    annotations: { ...vm.annotations, user: "a", [REVOKED_ANNOTATION]: "nonce" },
    spec: {
      ...spec,
      template: {
        metadata: { ...template.metadata, labels: { ...template.metadata?.labels, user: "l" } },
        spec: {
          ...template.spec,
          volumes: [...(template.spec?.volumes ?? []), { name: "hot", dataVolume: { name: "hot" } }],
          nodeSelector: { ...recordAt(template.spec, "nodeSelector"), user: "n" },
          domain: { ...domainThere, firmware, machine: { type: "q35" }, devices: { ...devicesThere, disks } },
        },
      },
    },
  });
}

function recordAt(value: unknown, field: string): Json {
  const found = isRecord(value) ? value[field] : undefined;
  return isRecord(found) ? found : {};
}

function listAt(value: Json, field: string): readonly unknown[] {
  const found = value[field];
  return Array.isArray(found) ? found : [];
}

/** A machine of a template, as created, with additions, or of another template: then all is drift. */
const aMachine = (base: PoolSpec, other: PoolSpec) =>
  fc.constantFrom(built(base), withAdditions(built(base)), built(other), withAdditions(built(other)));
const aMove = fc
  .tuple(aTemplate, aTemplate, aTemplate, fc.boolean())
  .chain(([base, target, other, lost]) =>
    aMachine(base, other).map((vm) => ({ vm, base: lost ? undefined : base, target })),
  );

describe("every move", () => {
  it("from a template to itself changes nothing but the labels of the revision", () =>
    fc.assert(
      fc.property(aMove, aTemplate, ({ vm }, base) => {
        const labels = { [REVISION_LABEL]: NEW };
        expect(moveVm(vm, { base, target: base, ordinal: ORDINAL, revision: NEW })).toEqual({
          metadata: { labels },
          spec: { template: { metadata: { labels } } },
        });
      }),
    ));

  it("makes of an untouched machine what the target makes", () =>
    fc.assert(
      fc.property(aTemplate, aTemplate, (base, target) => {
        expect(textOf(moved(built(base), { base, target }))).toBe(textOf(built(target, NEW)));
      }),
    ));

  it("is done when it was done", () =>
    fc.assert(
      fc.property(aMove, ({ vm, base, target }) => {
        const once = moved(vm, { base, target });
        expect(moveVm(once, { base, target, ordinal: ORDINAL, revision: NEW })).toEqual({});
        expect(moveVm(once, { base: target, target, ordinal: ORDINAL, revision: NEW })).toEqual({});
      }),
    ));

  it("keeps what users and KubeVirt added", () =>
    fc.assert(
      fc.property(aTemplate, aTemplate, fc.boolean(), (base, target, lost) => {
        const { labels, annotations, spec } = moved(withAdditions(built(base)), {
          base: lost ? undefined : base,
          target,
        });
        expect(labels).toMatchObject({ ...LABELS, user: "l" });
        expect(annotations).toMatchObject({ user: "a", [REVOKED_ANNOTATION]: "nonce" });
        expect(spec?.template).toMatchObject({
          metadata: { labels: { user: "l" } },
          spec: {
            nodeSelector: { user: "n" },
            domain: { firmware: { uuid: "u", serial: "s" }, machine: { type: "q35" } },
          },
        });
        expect(spec?.template.spec?.volumes?.at(-1)).toEqual({ name: "hot", dataVolume: { name: "hot" } });
        const { disks } = recordAt(recordAt(spec?.template.spec, "domain"), "devices");
        expect(disks).toContainEqual({ name: "hot" });
      }),
    ));

  it("leaves one run state and one source a volume", () =>
    fc.assert(
      fc.property(aMove, (move) => {
        const { spec } = moved(move.vm, move);
        expect([spec?.["running"], spec?.["runStrategy"]].filter((field) => field !== undefined)).toHaveLength(1);
        for (const volume of spec?.template.spec?.volumes ?? []) expect(Object.keys(volume)).toHaveLength(2);
      }),
    ));

  it("is the same when it is planned again, and leaves its input alone", () =>
    fc.assert(
      fc.property(aMove, ({ vm, base, target }) => {
        const plan = () => moveVm(vm, { base, target, ordinal: ORDINAL, revision: NEW });
        expect(plan()).toEqual(plan());
      }),
    ));
});

describe("a merge patch", () => {
  const records = fc.dictionary(fc.constantFrom("a", "b", "c"), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 3 });

  it("makes the one of the other, null being absent", () =>
    fc.assert(
      fc.property(records, records, (from, to) => {
        const applied = applyMergePatch(from, mergePatchOf(from, to));
        expect(canonicalJson(applied.ok ? applied.value : "refused")).toBe(canonicalJson(to));
      }),
    ));

  it("is empty between equals", () =>
    fc.assert(
      fc.property(records, (value) => {
        expect(mergePatchOf(value, { ...value, d: null })).toEqual({});
      }),
    ));
});
