import { describe, expect, it } from "vitest";
import { type Pool, poolSpecSchema } from "../../shared/planning/model.ts";
import { GUARDED_ANNOTATION, POOL_FINALIZER, REVISION_LABEL } from "../../shared/planning/names.ts";
import { buildVm } from "../../shared/planning/template.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { anOwner, aPool, aSpec, deepFreeze, type Json, LABELS, POOL_UID } from "../support/builders.ts";

/** The machine of ordinal 7, made from frozen input. */
function build(pool: Pool) {
  const verdict = judge(deepFreeze(pool));
  if (!verdict.legal) throw new Error(`the pool is illegal: ${JSON.stringify(verdict.problems)}`);
  return buildVm({
    pool,
    spec: deepFreeze(verdict.spec),
    poolApiVersion: "pool.kubevirt.io/v1beta1",
    ordinal: 7,
    revision: "web-1",
  });
}

function poolOf(vmSpec: Json, spec: Json = {}): Pool {
  return aPool({ spec: aSpec({ virtualMachineTemplate: { metadata: { labels: LABELS }, spec: vmSpec }, ...spec }) });
}

const BOTH = { appendIndexToConfigMapRefs: true, appendIndexToSecretRefs: true } as const;
const CONFIG_MAPS = { appendIndexToConfigMapRefs: true } as const;
const SECRETS = { appendIndexToSecretRefs: true } as const;

/** The only volume after indexing, in a pool with a DataVolume template `disk`. */
function indexed(volume: Json, nameGeneration: Json): unknown {
  const vmSpec = {
    dataVolumeTemplates: [{ metadata: { name: "disk" }, spec: { storage: {} } }],
    template: { spec: { volumes: [volume] } },
  };
  return build(poolOf(vmSpec, { nameGeneration })).spec.template.spec?.volumes?.[0];
}

interface Row {
  readonly it: string;
  readonly volume: Json;
  readonly naming: Json;
  readonly becomes: Json;
}

const cloudInit = (kind: string, secret: string, network: string): Json => ({
  name: "v",
  [kind]: { secretRef: { name: secret }, networkDataSecretRef: { name: network }, userData: "#cloud-config" },
});

const REWRITTEN: readonly Row[] = [
  {
    it: "a claim that is named like a DataVolume template",
    volume: { name: "v", persistentVolumeClaim: { claimName: "disk", readOnly: true } },
    naming: {},
    becomes: { name: "v", persistentVolumeClaim: { claimName: "disk-7", readOnly: true } },
  },
  {
    it: "a DataVolume that is named like a DataVolume template",
    volume: { name: "v", dataVolume: { name: "disk", hotpluggable: true } },
    naming: {},
    becomes: { name: "v", dataVolume: { name: "disk-7", hotpluggable: true } },
  },
  {
    it: "a ConfigMap when ConfigMaps are to be indexed",
    volume: { name: "v", configMap: { name: "settings", optional: true } },
    naming: CONFIG_MAPS,
    becomes: { name: "v", configMap: { name: "settings-7", optional: true } },
  },
  {
    it: "a Secret when Secrets are to be indexed",
    volume: { name: "v", secret: { secretName: "key", volumeLabel: "k" } },
    naming: SECRETS,
    becomes: { name: "v", secret: { secretName: "key-7", volumeLabel: "k" } },
  },
  ...["cloudInitNoCloud", "cloudInitConfigDrive"].map((kind) => ({
    it: `both Secrets of ${kind} when Secrets are to be indexed`,
    volume: cloudInit(kind, "user", "network"),
    naming: SECRETS,
    becomes: cloudInit(kind, "user-7", "network-7"),
  })),
  {
    it: "the only Secret of cloud-init",
    volume: { name: "v", cloudInitNoCloud: { networkDataSecretRef: { name: "network" } } },
    naming: SECRETS,
    becomes: { name: "v", cloudInitNoCloud: { networkDataSecretRef: { name: "network-7" } } },
  },
];

const UNTOUCHED: readonly { readonly it: string; readonly volume: Json; readonly naming: Json }[] = [
  { it: "a claim that no template makes", volume: { persistentVolumeClaim: { claimName: "shared" } }, naming: BOTH },
  { it: "a DataVolume that no template makes", volume: { dataVolume: { name: "shared" } }, naming: BOTH },
  { it: "a claim that already has an index", volume: { persistentVolumeClaim: { claimName: "disk-7" } }, naming: BOTH },
  {
    it: "a ConfigMap when only Secrets are to be indexed",
    volume: { configMap: { name: "settings" } },
    naming: SECRETS,
  },
  {
    it: "a Secret when only ConfigMaps are to be indexed",
    volume: { secret: { secretName: "key" } },
    naming: CONFIG_MAPS,
  },
  { it: "a ConfigMap when nothing is said", volume: { configMap: { name: "settings" } }, naming: {} },
  {
    it: "a Secret when it is switched off",
    volume: { secret: { secretName: "key" } },
    naming: { appendIndexToSecretRefs: false },
  },
  {
    it: "the Secrets of cloud-init by default",
    volume: cloudInit("cloudInitNoCloud", "user", "network"),
    naming: CONFIG_MAPS,
  },
  { it: "cloud-init without Secrets", volume: { cloudInitNoCloud: { userData: "#cloud-config" } }, naming: BOTH },
  { it: "a ConfigMap volume without a name", volume: { configMap: { optional: true } }, naming: BOTH },
  { it: "a Secret volume without a name", volume: { secret: { optional: true } }, naming: BOTH },
  { it: "the ConfigMap of sysprep", volume: { sysprep: { configMap: { name: "answers" } } }, naming: BOTH },
  { it: "the Secret of sysprep", volume: { sysprep: { secret: { name: "answers" } } }, naming: BOTH },
  {
    it: "the claim of an ephemeral disk",
    volume: { ephemeral: { persistentVolumeClaim: { claimName: "disk" } } },
    naming: BOTH,
  },
  { it: "the claim of a memory dump", volume: { memoryDump: { claimName: "disk" } }, naming: BOTH },
  { it: "a service account", volume: { serviceAccount: { serviceAccountName: "agent" } }, naming: BOTH },
  {
    it: "a pull secret of a container disk",
    volume: { containerDisk: { image: "i", imagePullSecret: "pull" } },
    naming: BOTH,
  },
  { it: "the path of a host disk", volume: { hostDisk: { path: "/disk", type: "Disk" } }, naming: BOTH },
  { it: "an empty disk", volume: { emptyDisk: { capacity: "1Gi" } }, naming: BOTH },
];

describe("a volume", () => {
  for (const { it: name, volume, naming, becomes } of REWRITTEN) {
    it(`is indexed: ${name}`, () => expect(indexed(volume, naming)).toEqual(becomes));
  }
  for (const { it: name, volume, naming } of UNTOUCHED) {
    it(`is left as it is: ${name}`, () => {
      const named = { name: "v", ...volume };
      expect(indexed(named, naming)).toEqual(named);
    });
  }
});

describe("the rest of a machine's spec", () => {
  const untouched: Json = {
    domain: {
      cpu: { cores: 2 },
      devices: { interfaces: [{ name: "n", macAddress: "02:00:00:00:00:01" }] },
      firmware: { kernelBoot: { container: { imagePullSecret: "pull" } } },
    },
    hostname: "host",
    networks: [{ name: "n", multus: { networkName: "net" } }],
    accessCredentials: [{ sshPublicKey: { source: { secret: { secretName: "keys" } } } }],
    resourceClaims: [{ name: "gpu", resourceClaimTemplateName: "t" }],
    utilityVolumes: [{ name: "u", claimName: "disk" }],
    readinessProbe: { httpGet: { port: 80 } },
  };
  const vmSpec: Json = {
    running: true,
    runStrategy: "Always",
    instancetype: { name: "small", revisionName: "small-1" },
    preference: { name: "linux" },
    updateVolumesStrategy: "Replacement",
    dataVolumeTemplates: [
      {
        apiVersion: "cdi.kubevirt.io/v1beta1",
        metadata: { name: "disk", annotations: { a: "b" } },
        spec: {
          source: { registry: { secretRef: "s", certConfigMap: "c" }, pvc: { name: "disk" } },
          sourceRef: { name: "disk" },
        },
      },
    ],
    template: { metadata: { annotations: { probe: "web" } }, spec: untouched },
    unknownToUs: { deep: [{ er: 1 }] },
  };

  it("is carried through untouched, also what we do not know", () => {
    const { dataVolumeTemplates, template, ...rest } = build(poolOf(vmSpec, { nameGeneration: BOTH })).spec;
    const { dataVolumeTemplates: _, template: __, ...expected } = vmSpec;
    expect(rest).toEqual(expected);
    expect(template.spec).toEqual(untouched);
    expect(dataVolumeTemplates).toHaveLength(1);
  });

  it("keeps both running and runStrategy, which KubeVirt judges", () => {
    expect(build(poolOf(vmSpec)).spec).toMatchObject({ running: true, runStrategy: "Always" });
  });

  it("has its DataVolume templates renamed and nothing inside them", () => {
    const [template] = build(poolOf(vmSpec, { nameGeneration: BOTH })).spec.dataVolumeTemplates ?? [];
    expect(template).toEqual({
      apiVersion: "cdi.kubevirt.io/v1beta1",
      metadata: { name: "disk-7", annotations: { a: "b" } },
      spec: {
        source: { registry: { secretRef: "s", certConfigMap: "c" }, pvc: { name: "disk" } },
        sourceRef: { name: "disk" },
      },
    });
  });

  it("keeps the order and the names of the volumes", () => {
    const volumes = [
      { name: "b", dataVolume: { name: "disk" } },
      { name: "a", configMap: { name: "x" } },
      { name: "c" },
    ];
    const { spec } = build(poolOf({ ...vmSpec, template: { spec: { volumes } } })).spec.template;
    expect(spec?.volumes?.map(({ name }) => name)).toEqual(["b", "a", "c"]);
  });

  it("may leave out all that can be left out", () => {
    expect(build(poolOf({ template: {} })).spec).toEqual({
      template: { metadata: { labels: { [REVISION_LABEL]: "web-1" } } },
    });
  });

  it("may have nulls where nothing is", () => {
    const spec = { dataVolumeTemplates: null, template: { metadata: null, spec: { volumes: null } } };
    expect(build(poolOf(spec)).spec).toEqual({
      dataVolumeTemplates: null,
      template: { metadata: { labels: { [REVISION_LABEL]: "web-1" } }, spec: { volumes: null } },
    });
  });
});

describe("the metadata of a machine", () => {
  const metadata: Json = {
    name: "ignored",
    generateName: "ignored-",
    namespace: "elsewhere",
    uid: "ignored",
    finalizers: ["example.com/ignored"],
    ownerReferences: [anOwner("ignored")],
    labels: { ...LABELS, tier: "front", [REVISION_LABEL]: "forged" },
    annotations: { note: "kept" },
  };
  const pool = aPool({
    spec: aSpec({ virtualMachineTemplate: { metadata, spec: { template: { metadata: { labels: { zone: "a" } } } } } }),
  });

  it("are the template's labels and annotations, and nothing else of it", () => {
    expect(build(pool).metadata).toEqual({
      name: "web-7",
      namespace: "default",
      labels: { ...LABELS, tier: "front", [REVISION_LABEL]: "web-1" },
      annotations: { note: "kept" },
      finalizers: [POOL_FINALIZER],
      ownerReferences: [anOwner(POOL_UID)],
    });
  });

  it("have no annotations when the template has none", () => {
    expect(build(aPool()).metadata).not.toHaveProperty("annotations");
  });

  it("have no annotations of our own from the template: a new machine would look guarded", () => {
    const of = (annotations: Json) => {
      const virtualMachineTemplate = { metadata: { labels: LABELS, annotations }, spec: { template: {} } };
      return build(aPool({ spec: aSpec({ virtualMachineTemplate }) })).metadata;
    };
    const ours = { [GUARDED_ANNOTATION]: "data-7" };
    expect(of({ ...ours, note: "kept" }).annotations).toEqual({ note: "kept" });
    expect(of(ours)).not.toHaveProperty("annotations");
  });

  it("are the revision's label alone when the template has none", () => {
    const spec = poolSpecSchema.parse(aSpec({ virtualMachineTemplate: { spec: { template: {} } } }));
    const origin = { pool: aPool(), spec, poolApiVersion: "pool.kubevirt.io/v1beta1", ordinal: 7, revision: "web-1" };
    const { labels, ...rest } = buildVm(origin).metadata;
    expect(labels).toEqual({ [REVISION_LABEL]: "web-1" });
    expect(rest).not.toHaveProperty("annotations");
  });

  it("name the revision on the machine and on its instance", () => {
    const vm = build(pool);
    expect(vm.spec.template.metadata).toEqual({ labels: { zone: "a", [REVISION_LABEL]: "web-1" } });
    expect(vm).toMatchObject({ apiVersion: "kubevirt.io/v1", kind: "VirtualMachine" });
  });
});
