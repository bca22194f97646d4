import { describe, expect, it } from "vitest";
import { type PoolSpec, poolSpecSchema, type VmSpec } from "../../shared/planning/model.ts";
import { GUARDED_ANNOTATION, REVISION_LABEL } from "../../shared/planning/names.ts";
import { type Change, classifyChange, showsLiveFields, templateHash } from "../../shared/planning/template-change.ts";
import { aSpec, deepFreeze, type Json, LABELS } from "../support/builders.ts";

const NAMING = { naming: true } as const;

function specOf(vmSpec: Json, spec: Json = {}): PoolSpec {
  const virtualMachineTemplate = { metadata: { labels: LABELS }, spec: { template: {}, ...vmSpec } };
  return deepFreeze(poolSpecSchema.parse(aSpec({ virtualMachineTemplate, ...spec })));
}
const guestOf = (spec: Json, metadata: Json = {}) => specOf({ template: { metadata, spec } });
const domainOf = (domain: Json) => guestOf({ domain });
const devicesOf = (devices: Json) => domainOf({ devices });
const memoryOf = (memory: Json) => domainOf({ memory });
const volumeOf = (volume: Json) => guestOf({ volumes: [{ name: "v", ...volume }] });
const requestsOf = (requests: unknown) => domainOf({ resources: { requests } });
const diskOf = (storage: unknown, name = "disk") =>
  specOf({
    dataVolumeTemplates: [{ metadata: { name }, spec: { storage: { resources: { requests: { storage } } } } }],
  });
const importOf = (http: Json) =>
  specOf({ dataVolumeTemplates: [{ metadata: { name: "disk" }, spec: { source: { http }, storage: {} } }] });
const disksOf = (names: readonly string[]) =>
  specOf({ dataVolumeTemplates: names.map((name) => ({ metadata: { name }, spec: { storage: {} } })) });
const vmMetadata = (metadata: Json) =>
  specOf({}, { virtualMachineTemplate: { metadata: { labels: LABELS, ...metadata }, spec: { template: {} } } });

interface Row {
  readonly it: string;
  readonly from: PoolSpec;
  readonly to: PoolSpec;
}

const ROWS: Readonly<Record<Change, readonly Row[]>> = {
  none: [
    { it: "other replicas and strategies", from: specOf({}), to: specOf({}, { replicas: 9, maxUnavailable: 1 }) },
    {
      it: "a revision label in the templates",
      from: guestOf({}, { labels: { [REVISION_LABEL]: "a" } }),
      to: vmMetadata({ labels: { ...LABELS, [REVISION_LABEL]: "b" } }),
    },
    {
      it: "ignored metadata of the VM",
      from: vmMetadata({ name: "a", finalizers: ["x"] }),
      to: vmMetadata({ namespace: "b" }),
    },
    {
      it: "null for what is absent",
      from: domainOf({ cpu: null, machine: { type: null } }),
      to: domainOf({ machine: {} }),
    },
    { it: "an empty list for none", from: guestOf({ tolerations: [], volumes: [] }), to: guestOf({}) },
    { it: "no DataVolume templates", from: specOf({ dataVolumeTemplates: [] }), to: specOf({}) },
    { it: "empty maps for none", from: guestOf({ nodeSelector: {} }, { annotations: {} }), to: guestOf({}) },
    { it: "empty annotations of the VM", from: vmMetadata({ annotations: {} }), to: vmMetadata({ annotations: null }) },
    { it: "empty requests and limits", from: domainOf({ resources: { requests: {}, limits: {} } }), to: domainOf({}) },
    {
      it: "empty structs that are no pointers",
      from: guestOf({ domain: { devices: {}, resources: {} } }),
      to: guestOf({}),
    },
    { it: "another order of keys", from: domainOf({ a: 1, b: 2 }), to: domainOf({ b: 2, a: 1 }) },
    { it: "the memory in another unit", from: memoryOf({ guest: "1Gi" }), to: memoryOf({ guest: "1024Mi" }) },
    {
      it: "the most memory in another unit",
      from: memoryOf({ maxGuest: "1Gi" }),
      to: memoryOf({ maxGuest: "1024Mi" }),
    },
    {
      it: "the reserved overhead in another unit",
      from: memoryOf({ reservedOverhead: { addedOverhead: "1Gi" } }),
      to: memoryOf({ reservedOverhead: { addedOverhead: "1024Mi" } }),
    },
    { it: "a request as a number", from: requestsOf({ cpu: "1000m" }), to: requestsOf({ cpu: 1 }) },
    {
      it: "a limit in another unit",
      from: domainOf({ resources: { limits: { memory: "2Gi" } } }),
      to: domainOf({ resources: { limits: { memory: "2048Mi" } } }),
    },
    { it: "the size of a DataVolume in another unit", from: diskOf("1Gi"), to: diskOf("1024Mi") },
    {
      it: "the size of an empty disk in another unit",
      from: volumeOf({ emptyDisk: { capacity: "1Gi" } }),
      to: volumeOf({ emptyDisk: { capacity: "1024Mi" } }),
    },
    {
      it: "the size of a host disk in another unit",
      from: volumeOf({ hostDisk: { capacity: "1k", path: "/d", type: "Disk" } }),
      to: volumeOf({ hostDisk: { capacity: "1000", path: "/d", type: "Disk" } }),
    },
    {
      it: "the divisor of a downward field in another form",
      from: volumeOf({ downwardAPI: { fields: [{ path: "c", resourceFieldRef: { resource: "r", divisor: "1" } }] } }),
      to: volumeOf({ downwardAPI: { fields: [{ path: "c", resourceFieldRef: { resource: "r", divisor: 1 } }] } }),
    },
    {
      it: "zeros of the guest that Go does not write",
      from: domainOf({ cpu: { cores: 2, dedicatedCpuPlacement: false, isolateEmulatorThread: false } }),
      to: domainOf({ cpu: { cores: 2 } }),
    },
    {
      it: "zeros of the disks that Go does not write",
      from: importOf({ url: "u", secretRef: "", certConfigMap: "" }),
      to: importOf({ url: "u" }),
    },
    { it: "another order of DataVolume templates", from: disksOf(["a", "b"]), to: disksOf(["b", "a"]) },
    {
      it: "an annotation of our own, which no template gives",
      from: vmMetadata({}),
      to: vmMetadata({ annotations: { [GUARDED_ANNOTATION]: "data-0" } }),
    },
  ],
  metadata: [
    { it: "a label of the VM", from: vmMetadata({}), to: vmMetadata({ labels: { ...LABELS, tier: "a" } }) },
    {
      it: "a label that looks like a quantity",
      from: vmMetadata({ labels: { ...LABELS, guest: "1" } }),
      to: vmMetadata({ labels: { ...LABELS, guest: "1000m" } }),
    },
    {
      it: "an empty label",
      from: vmMetadata({}),
      to: vmMetadata({ labels: { ...LABELS, tier: "" } }),
    },
    { it: "an annotation of the VM", from: vmMetadata({}), to: vmMetadata({ annotations: { note: "x" } }) },
    { it: "the run strategy", from: specOf({ runStrategy: "Always" }), to: specOf({ runStrategy: "Manual" }) },
    { it: "running", from: specOf({ running: true }), to: specOf({ running: false }) },
    { it: "the strategy for volumes", from: specOf({}), to: specOf({ updateVolumesStrategy: "Migration" }) },
  ],
  live: [
    { it: "sockets", from: domainOf({ cpu: { sockets: 1 } }), to: domainOf({ cpu: { sockets: 2 } }) },
    {
      it: "sockets beside cores that had none",
      from: domainOf({ cpu: { cores: 2 } }),
      to: domainOf({ cpu: { cores: 2, sockets: 2 } }),
    },
    { it: "guest memory", from: memoryOf({ guest: "1Gi" }), to: memoryOf({ guest: "2Gi" }) },
    { it: "the node selector", from: guestOf({}), to: guestOf({ nodeSelector: { zone: "a" } }) },
    { it: "a node selector that goes", from: guestOf({ nodeSelector: { zone: "a" } }), to: guestOf({}) },
    {
      it: "a node selector that looks like a quantity",
      from: guestOf({ nodeSelector: { memory: "1" } }),
      to: guestOf({ nodeSelector: { memory: "1000m" } }),
    },
    { it: "the affinity", from: guestOf({}), to: guestOf({ affinity: { podAntiAffinity: {} } }) },
    { it: "tolerations", from: guestOf({}), to: guestOf({ tolerations: [{ key: "gpu", operator: "Exists" }] }) },
    {
      it: "tolerations and the run strategy",
      from: specOf({ runStrategy: "Always" }),
      to: specOf({ runStrategy: "Manual", template: { spec: { tolerations: [{ operator: "Exists" }] } } }),
    },
  ],
  restart: [
    { it: "cores", from: domainOf({ cpu: { cores: 1 } }), to: domainOf({ cpu: { cores: 2 } }) },
    { it: "a topology where there was none", from: domainOf({}), to: domainOf({ cpu: { sockets: 2 } }) },
    { it: "sockets that go", from: domainOf({ cpu: { cores: 1, sockets: 2 } }), to: domainOf({ cpu: { cores: 1 } }) },
    {
      it: "sockets of zero, which are none",
      from: domainOf({ cpu: { cores: 1, sockets: 2 } }),
      to: domainOf({ cpu: { cores: 1, sockets: 0 } }),
    },
    {
      it: "a zero that says something",
      from: devicesOf({}),
      to: devicesOf({ autoattachGraphicsDevice: false }),
    },
    { it: "the most sockets", from: domainOf({ cpu: { maxSockets: 2 } }), to: domainOf({ cpu: { maxSockets: 4 } }) },
    { it: "memory where there was none", from: memoryOf({}), to: memoryOf({ guest: "1Gi" }) },
    { it: "memory that goes", from: memoryOf({ guest: "1Gi" }), to: memoryOf({}) },
    {
      it: "pages of another name for a size",
      from: memoryOf({ hugepages: { pageSize: "1Gi" } }),
      to: memoryOf({ hugepages: { pageSize: "1024Mi" } }),
    },
    { it: "a request", from: requestsOf({ memory: "1Gi" }), to: requestsOf({ memory: "1G" }) },
    {
      it: "sockets and cores",
      from: domainOf({ cpu: { cores: 1, sockets: 1 } }),
      to: domainOf({ cpu: { cores: 2, sockets: 2 } }),
    },
    {
      it: "an image",
      from: volumeOf({ containerDisk: { image: "a" } }),
      to: volumeOf({ containerDisk: { image: "b" } }),
    },
    {
      it: "an empty object, which is a choice",
      from: devicesOf({ interfaces: [{ name: "n" }] }),
      to: devicesOf({ interfaces: [{ name: "n", masquerade: {} }] }),
    },
    {
      it: "the order of the disks",
      from: devicesOf({ disks: [{ name: "a" }, { name: "b" }] }),
      to: devicesOf({ disks: [{ name: "b" }, { name: "a" }] }),
    },
    { it: "a label of the instance", from: guestOf({}), to: guestOf({}, { labels: { tier: "a" } }) },
    { it: "an annotation of the instance", from: guestOf({}), to: guestOf({}, { annotations: { probe: "a" } }) },
    {
      it: "the instancetype",
      from: specOf({ instancetype: { name: "small" } }),
      to: specOf({ instancetype: { name: "large" } }),
    },
    { it: "the preference", from: specOf({}), to: specOf({ preference: { name: "linux" } }) },
    { it: "a part of the VM's spec that we do not know", from: specOf({}), to: specOf({ unknownToUs: 1 }) },
  ],
  replace: [
    { it: "the size of a DataVolume", from: diskOf("1Gi"), to: diskOf("2Gi") },
    { it: "a DataVolume that comes", from: specOf({}), to: diskOf("1Gi") },
    { it: "a DataVolume that goes", from: diskOf("1Gi"), to: specOf({}) },
    { it: "one more DataVolume, before the others", from: disksOf(["b"]), to: disksOf(["a", "b"]) },
    { it: "a DataVolume of another name", from: diskOf("1Gi", "a"), to: diskOf("1Gi", "b") },
    {
      it: "a DataVolume and the memory",
      from: diskOf("1Gi"),
      to: specOf({ dataVolumeTemplates: [{ metadata: { name: "d" } }], template: { spec: { domain: { cpu: {} } } } }),
    },
  ],
};

const SECRETS = { nameGeneration: { appendIndexToSecretRefs: true } } as const;
const withSecret = (secretName: string, spec: Json = {}) =>
  specOf({ template: { spec: { volumes: [{ name: "v", secret: { secretName } }] } } }, spec);

describe("a new template", () => {
  for (const [change, rows] of Object.entries(ROWS)) {
    for (const { it: name, from, to } of rows) {
      it(`means ${change}: ${name}`, () => expect(classifyChange(from, to, 7, NAMING)).toBe(change));
    }
  }

  it("means the same on the way back", () => {
    for (const change of ["none", "metadata", "replace"] as const) {
      for (const { from, to } of ROWS[change]) expect(classifyChange(to, from, 7, NAMING)).toBe(change);
    }
  });
});

describe("a change of the naming", () => {
  it("means a restart where a reference is renamed (D35)", () =>
    expect(classifyChange(withSecret("key"), withSecret("key", SECRETS), 7, NAMING)).toBe("restart"));

  it("means nothing where no reference is renamed", () =>
    expect(classifyChange(specOf({}), specOf({}, SECRETS), 7, NAMING)).toBe("none"));

  it("means nothing where the name comes out the same", () =>
    expect(classifyChange(withSecret("key-7"), withSecret("key", SECRETS), 7, NAMING)).toBe("none"));

  it("means nothing while differences of the naming do not count (D35)", () =>
    expect(classifyChange(withSecret("key"), withSecret("key", SECRETS), 7, { naming: false })).toBe("none"));

  it("does not hide another change", () =>
    expect(classifyChange(withSecret("old"), withSecret("new", SECRETS), 7, { naming: false })).toBe("restart"));
});

describe("the hash of a template", () => {
  it("is shared by templates that make the same machines", () => {
    for (const { from, to } of ROWS.none) expect(templateHash(from)).toBe(templateHash(to));
  });

  it("is not shared by templates that make others", () => {
    const rows = [...ROWS.metadata, ...ROWS.live, ...ROWS.restart, ...ROWS.replace];
    for (const { it: name, from, to } of rows) expect(templateHash(from), name).not.toBe(templateHash(to));
  });

  it("tells names with an index from names without", () => {
    expect(templateHash(withSecret("key"))).not.toBe(templateHash(withSecret("key", SECRETS)));
    expect(templateHash(withSecret("key"))).toBe(
      templateHash(withSecret("key", { nameGeneration: { appendIndexToSecretRefs: false } })),
    );
  });

  it("never changes, as updates under way hang on it", () => {
    expect(templateHash(specOf({}))).toBe("4e0edb79f7643954");
  });
});

const wanted = (spec: Json): VmSpec => ({ template: { spec } });

interface Shown {
  readonly it: string;
  readonly wanted: Json;
  readonly instance: unknown;
  readonly shows: boolean;
}

const SHOWN: readonly Shown[] = [
  { it: "nothing wanted", wanted: {}, instance: { domain: { cpu: { sockets: 4 } }, tolerations: [{}] }, shows: true },
  { it: "nothing wanted of nothing", wanted: {}, instance: undefined, shows: true },
  {
    it: "the sockets",
    wanted: { domain: { cpu: { sockets: 2 } } },
    instance: { domain: { cpu: { cores: 1, sockets: 2, maxSockets: 8 } } },
    shows: true,
  },
  {
    it: "other sockets",
    wanted: { domain: { cpu: { sockets: 2 } } },
    instance: { domain: { cpu: { sockets: 1 } } },
    shows: false,
  },
  { it: "no sockets", wanted: { domain: { cpu: { sockets: 2 } } }, instance: { domain: {} }, shows: false },
  {
    it: "the memory in another unit",
    wanted: { domain: { memory: { guest: "2Gi" } } },
    instance: { domain: { memory: { guest: "2048Mi", maxGuest: "8Gi" } } },
    shows: true,
  },
  {
    it: "less memory",
    wanted: { domain: { memory: { guest: "2Gi" } } },
    instance: { domain: { memory: { guest: "1Gi" } } },
    shows: false,
  },
  {
    it: "the node selector",
    wanted: { nodeSelector: { a: "1" } },
    instance: { nodeSelector: { a: "1" } },
    shows: true,
  },
  {
    it: "a node selector with more",
    wanted: { nodeSelector: { a: "1" } },
    instance: { nodeSelector: { a: "1", b: "2" } },
    shows: false,
  },
  {
    it: "an empty node selector wanted",
    wanted: { nodeSelector: {} },
    instance: { nodeSelector: { a: "1" } },
    shows: true,
  },
  { it: "another affinity", wanted: { affinity: { nodeAffinity: {} } }, instance: {}, shows: false },
  {
    it: "the tolerations",
    wanted: { tolerations: [{ key: "a" }] },
    instance: { tolerations: [{ key: "a" }] },
    shows: true,
  },
  { it: "other tolerations", wanted: { tolerations: [{ key: "a" }] }, instance: { tolerations: [] }, shows: false },
  { it: "garbage", wanted: { tolerations: [{ key: "a" }] }, instance: "garbage", shows: false },
];

describe("a running instance", () => {
  for (const { it: name, wanted: spec, instance, shows } of SHOWN) {
    it(`${shows ? "is" : "is not yet"} as wanted with ${name}`, () =>
      expect(showsLiveFields(instance, wanted(spec))).toBe(shows));
  }
});
