/** KubeVirt's user guide on pools, command by command. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { eventually } from "../support/eventually.ts";
import { machineNames, namesOf } from "../support/objects.ts";
import { aPool, POOL_LABEL } from "../support/pool-manifests.ts";
import { untilMachines, untilReady, untilStatus } from "../support/until.ts";
import { type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const EXAMPLE = join(ROOT, "infra/examples/vm-pool-cirros.yaml");
const POOL = "vm-pool-cirros";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
const REVISION_LABEL = "kubevirt.io/vm-pool-revision-name";

let world: World;
/** `default`, where the guide works. */
let home: Namespace;

beforeAll(async () => {
  world = await startWorld();
  home = world.namespace("default");
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

describe("the guide's example", () => {
  let created: string;

  beforeAll(async () => {
    created = await world.kubectl("create", "-f", EXAMPLE);
    await untilReady(home, POOL, 3);
  });

  it("is accepted as it stands in the guide", () => {
    expect(created).toBe("virtualmachinepool.pool.kubevirt.io/vm-pool-cirros created\n");
  });

  it("becomes three machines that the pool owns, with its labels, revision and finalizer", async () => {
    const pool = await home.pool(POOL);
    const owner = {
      kind: "VirtualMachinePool",
      name: POOL,
      uid: pool?.metadata.uid,
      controller: true,
      blockOwnerDeletion: true,
    };
    const labels = { [POOL_LABEL]: POOL, [REVISION_LABEL]: "vm-pool-cirros-1" };
    for (const name of machineNames(POOL, 3)) {
      const machine = await home.machine(name);
      expect(machine?.metadata.ownerReferences).toEqual([
        { ...owner, apiVersion: expect.stringMatching(/^pool\.kubevirt\.io\/v1(alpha1|beta1)$/) },
      ]);
      expect(machine?.metadata.labels).toEqual(labels);
      expect(machine?.metadata.finalizers).toContain(POOL_FINALIZER);
      expect(machine?.spec).toMatchObject({ running: true, template: { metadata: { labels } } });
    }
    expect(pool?.metadata.finalizers).toEqual([POOL_FINALIZER]);
  });

  it("runs an instance and a pod for each machine", async () => {
    expect(namesOf(await home.list("apis/kubevirt.io/v1", "virtualmachineinstances"))).toEqual(machineNames(POOL, 3));
    expect(await home.list("api/v1", "pods")).toHaveLength(3);
  });

  it("is described with its status and with an event for each machine", async () => {
    const text = await eventually(async () => {
      const described = await world.kubectl("describe", "vmpool", POOL);
      expect(described).toMatch(/Ready Replicas: +3/);
      return described;
    });
    expect(text).toMatch(/Label Selector: +kubevirt\.io\/vmpool=vm-pool-cirros/);
    expect(text).toMatch(/\n {2}Replicas: +3/);
    expect(text).not.toContain("Conditions:");
    for (const name of machineNames(POOL, 3)) {
      const event = `Normal +SuccessfulCreate +\\S+ +virtualmachinepool-controller +Created VM default/${name}\n`;
      expect(text).toMatch(new RegExp(event));
    }
    expect(text.match(/SuccessfulCreate/g)).toHaveLength(3);
  });

  it("is read in both versions, in which it is the same", async () => {
    const read = async (version: string) =>
      JSON.parse(await world.kubectl("get", `virtualmachinepools.${version}.pool.kubevirt.io`, POOL, "-o", "json"));
    const [alpha, beta] = await Promise.all([read("v1alpha1"), read("v1beta1")]);
    expect(alpha).toMatchObject({ apiVersion: "pool.kubevirt.io/v1alpha1", spec: { replicas: 3 } });
    expect(beta).toEqual({ ...alpha, apiVersion: "pool.kubevirt.io/v1beta1", metadata: beta.metadata });
    expect(beta.metadata.uid).toBe(alpha.metadata.uid);
  });

  it("is listed with the columns of KubeVirt, under its short names and among all", async () => {
    const [heading = "", row = ""] = (await world.kubectl("get", "vmpool", POOL)).split("\n");
    expect(heading.trim().split(/ +/)).toEqual(["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
    expect(row.split(/ +/).slice(0, 4)).toEqual([POOL, "3", "3", "3"]);
    expect(await world.kubectl("get", "vmpools", "-o", "name")).toContain(POOL);
    expect(await world.kubectl("get", "all", "-o", "name")).toContain(`virtualmachinepool.pool.kubevirt.io/${POOL}`);
  });

  it("has a revision that holds its complete spec", async () => {
    const [revision, pool] = await Promise.all([
      home.find("apis/apps/v1", "controllerrevisions", "vm-pool-cirros-1"),
      home.pool(POOL),
    ]);
    expect(revision).toMatchObject({ revision: 1, data: pool?.spec });
    expect(revision?.["data"]).toMatchObject(parse(await readFile(EXAMPLE, "utf8")).spec);
    expect(revision?.metadata.ownerReferences).toMatchObject([
      { kind: "VirtualMachinePool", name: POOL, uid: pool?.metadata.uid, controller: true },
    ]);
  });

  it("is followed by kubectl scale to 5, to 0 and to 3", async () => {
    for (const count of [5, 0, 3]) {
      expect(await world.kubectl("scale", "vmpool", POOL, "--replicas", String(count))).toContain("scaled");
      await untilReady(home, POOL, count);
    }
  });

  it("is exposed as a service with an address for each machine", async () => {
    const service = { apiVersion: "v1", kind: "Service", metadata: { name: "vm-pool-cirros-ssh" } };
    const spec = { type: "ClusterIP", selector: { [POOL_LABEL]: POOL }, ports: [{ protocol: "TCP", port: 2222 }] };
    await home.create({ ...service, spec });
    await eventually(async () => {
      const slices = await home.list("apis/discovery.k8s.io/v1", "endpointslices");
      const slice = slices.find(
        ({ metadata }) => metadata.labels["kubernetes.io/service-name"] === "vm-pool-cirros-ssh",
      );
      expect(slice?.["endpoints"]).toHaveLength(3);
    });
  });

  it("replaces a machine that is taken out of it, which lives on", async () => {
    const before = await home.machine("vm-pool-cirros-0");
    const patch = '{"metadata":{"ownerReferences":null}}';
    await world.kubectl("patch", "vm", "vm-pool-cirros-0", "--type", "merge", "--patch", patch);
    await untilMachines(home, machineNames(POOL, 4));
    await untilStatus(home, POOL, { replicas: 3, readyReplicas: 3 });
    const after = await home.machine("vm-pool-cirros-0");
    expect(after?.metadata.uid).toBe(before?.metadata.uid);
    expect(after).toMatchObject({ status: { printableStatus: "Running" } });
    expect(after?.metadata.ownerReferences).toEqual([]);
  });

  it("is followed by a horizontal pod autoscaler that keeps a minimum", async () => {
    await world.kubectl("autoscale", "vmpool", POOL, "--min=4", "--max=10", "--cpu-percent=50");
    await untilMachines(home, machineNames(POOL, 5));
    await untilStatus(home, POOL, { replicas: 4, readyReplicas: 4 });
  });
});

describe("persistent storage", () => {
  const machine = {
    dataVolumeTemplates: [
      {
        metadata: { name: "root" },
        spec: { source: { blank: {} }, storage: { resources: { requests: { storage: "1Gi" } } } },
      },
    ],
  };
  const volumes = [
    { name: "root", dataVolume: { name: "root" } },
    { name: "same", persistentVolumeClaim: { claimName: "root" } },
    { name: "shared", persistentVolumeClaim: { claimName: "shared" } },
  ];

  it("gives each machine disks of its own, named by its number", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create({
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata: { name: "shared" },
      spec: { accessModes: ["ReadWriteMany"], resources: { requests: { storage: "1Gi" } } },
    });
    await namespace.create(aPool("disks", { replicas: 2, machine, volumes }));
    await untilReady(namespace, "disks", 2);
    for (const ordinal of [0, 1]) {
      const disk = `root-${ordinal}`;
      expect(await namespace.machine(`disks-${ordinal}`)).toMatchObject({
        spec: {
          dataVolumeTemplates: [{ ...machine.dataVolumeTemplates[0], metadata: { name: disk } }],
          template: {
            spec: {
              volumes: [
                { name: "root", dataVolume: { name: disk } },
                { name: "same", persistentVolumeClaim: { claimName: disk } },
                { name: "shared", persistentVolumeClaim: { claimName: "shared" } },
              ],
            },
          },
        },
      });
      expect(await namespace.find("apis/cdi.kubevirt.io/v1beta1", "datavolumes", disk)).toBeDefined();
      expect(await namespace.find("api/v1", "persistentvolumeclaims", disk)).toBeDefined();
    }
  });
});

describe.concurrent("Secret and ConfigMap references", () => {
  const volumes = [
    { name: "settings", configMap: { name: "settings" } },
    { name: "keys", secret: { secretName: "keys" } },
    { name: "cloud", cloudInitNoCloud: { secretRef: { name: "user" }, networkDataSecretRef: { name: "network" } } },
    { name: "drive", cloudInitConfigDrive: { secretRef: { name: "user" } } },
  ];
  const indexed = [
    { name: "settings", configMap: { name: "settings-1" } },
    { name: "keys", secret: { secretName: "keys-1" } },
    {
      name: "cloud",
      cloudInitNoCloud: { secretRef: { name: "user-1" }, networkDataSecretRef: { name: "network-1" } },
    },
    { name: "drive", cloudInitConfigDrive: { secretRef: { name: "user-1" } } },
  ];
  const bothFlags = { nameGeneration: { appendIndexToConfigMapRefs: true, appendIndexToSecretRefs: true } };
  const secretsOnly = { nameGeneration: { appendIndexToSecretRefs: true } };

  it.for([
    { when: "are untouched without flags", spec: {}, expected: volumes },
    { when: "get the machine's number with both flags", spec: bothFlags, expected: indexed },
    { when: "get it for Secrets alone", spec: secretsOnly, expected: [volumes[0], ...indexed.slice(1)] },
  ])("$when", async ({ spec, expected }, test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool("refs", { replicas: 2, volumes, spec }));
    await eventually(async () => {
      const machine = await namespace.machine("refs-1");
      expect(machine).toMatchObject({ spec: { template: { spec: { volumes: expected } } } });
    });
  });
});
