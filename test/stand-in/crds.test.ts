import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at, CLUSTER_TIMEOUT_MS, startCluster, TEST_TIMEOUT_MS, type TestCluster } from "./cluster.ts";

const EXAMPLE = new URL("../../infra/examples/vm-pool-cirros.yaml", import.meta.url);

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startCluster();
}, CLUSTER_TIMEOUT_MS);

afterAll(async () => {
  await cluster.stop();
}, TEST_TIMEOUT_MS);

/** A pool like that of the user guide. */
const pool = (name: string, changes: { version?: string; spec?: string; replicas?: string } = {}) => `
apiVersion: pool.kubevirt.io/${changes.version ?? "v1beta1"}
kind: VirtualMachinePool
metadata:
  name: ${name}
spec:
  ${changes.replicas ?? "replicas: 3"}
  ${changes.spec ?? ""}
  selector:
    matchLabels:
      kubevirt.io/vmpool: ${name}
  virtualMachineTemplate:
    metadata:
      creationTimestamp: null
      labels:
        kubevirt.io/vmpool: ${name}
    spec:
      running: true
      template:
        metadata:
          creationTimestamp: null
          labels:
            kubevirt.io/vmpool: ${name}
        spec:
          domain:
            devices:
              disks:
              - disk:
                  bus: virtio
                name: containerdisk
          volumes:
          - containerDisk:
              image: kubevirt/cirros-container-disk-demo:latest
            name: containerdisk
`;

const create = (yaml: string) => cluster.kubectl(["create", "-f", "-"], yaml);

describe.concurrent("the pool's schema", { timeout: TEST_TIMEOUT_MS }, () => {
  it.each(["v1alpha1", "v1beta1"])("accepts the example in %s, in silence, and serves it in both", async (version) => {
    const name = `guide-${version}`;
    const example = await readFile(EXAMPLE, "utf8");
    const yaml = example.replace("/v1alpha1", `/${version}`).replace("name: vm-pool-cirros", `name: ${name}`);
    expect(await create(yaml)).toEqual({ ok: true, text: `virtualmachinepool.pool.kubevirt.io/${name} created\n` });
    for (const served of ["v1alpha1", "v1beta1"]) {
      const path = `/apis/pool.kubevirt.io/${served}/namespaces/default/virtualmachinepools/${name}`;
      const stored = await cluster.read(path);
      expect(at(stored, "apiVersion")).toBe(`pool.kubevirt.io/${served}`);
      expect(at(stored, "spec.virtualMachineTemplate.spec.template.spec.volumes.0.containerDisk.image")).toBe(
        "kubevirt/cirros-container-disk-demo:latest",
      );
    }
  });

  it("lists pools with the columns of KubeVirt, under all its names", async () => {
    await create(pool("listed"));
    for (const word of ["vmpool", "vmpools", "virtualmachinepool", "all"]) {
      const { text } = await cluster.kubectl(["get", word]);
      expect(text).toMatch(/NAME +DESIRED +CURRENT +READY +AGE/);
      expect(text).toMatch(/listed +3 +\d+/);
    }
  });

  it("takes a pool without replicas as it is", async () => {
    expect(await create(pool("no-replicas", { replicas: "" }))).toMatchObject({ ok: true });
    const path = "/apis/pool.kubevirt.io/v1beta1/namespaces/default/virtualmachinepools/no-replicas";
    expect(at(await cluster.read(path), "spec.replicas")).toBeUndefined();
  });

  it("accepts every field of the pool's own", async () => {
    const policy = `
        selectionPolicy:
          sortPolicy: Newest
          selectors:
            labelSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}
            nodeSelectorRequirementMatcher: [{key: disk, operator: Gt, values: ["3"]}]`;
    const spec = `
  paused: true
  maxUnavailable: 25%
  nameGeneration: {appendIndexToConfigMapRefs: true, appendIndexToSecretRefs: true}
  scaleInStrategy:
    proactive:
        statePreservation: Offline${policy}
  updateStrategy:
    proactive:${policy}
  autohealing: {startUpFailureThreshold: 1, minFailingToStartDuration: 5m}`;
    expect(await create(pool("all-fields", { spec }))).toEqual({
      ok: true,
      text: "virtualmachinepool.pool.kubevirt.io/all-fields created\n",
    });
  });

  it.each([
    { field: "spec.replica", spec: "replica: 2" },
    { field: "spec.scaleInStrategy.proactive.sortPolicy", spec: "scaleInStrategy: {proactive: {sortPolicy: Oldest}}" },
    { field: "spec.AppendPostfixToSecretReferences", spec: "AppendPostfixToSecretReferences: true" },
    { field: "spec.autohealing.threshold", spec: "autohealing: {threshold: 3}" },
  ])("refuses the unknown field $field", async ({ field, spec }) => {
    const { ok, text } = await create(pool("unknown-field", { spec }));
    expect(ok).toBe(false);
    expect(text).toContain(`unknown field "${field}"`);
  });

  it.each([
    { what: "a negative number of replicas", replicas: "replicas: -1", says: "spec.replicas" },
    { what: "replicas as text", replicas: 'replicas: "3"', says: "spec.replicas" },
    {
      what: "an unknown sort policy",
      spec: "scaleInStrategy: {proactive: {selectionPolicy: {sortPolicy: Biggest}}}",
      says: "sortPolicy",
    },
    {
      what: "an unknown state preservation",
      spec: "scaleInStrategy: {opportunistic: {statePreservation: Some}}",
      says: "statePreservation",
    },
    {
      what: "a failure threshold of 0",
      spec: "autohealing: {startUpFailureThreshold: 0}",
      says: "startUpFailureThreshold",
    },
    { what: "maxUnavailable as a list", spec: "maxUnavailable: [1]", says: "maxUnavailable" },
  ])("refuses $what", async ({ says, replicas, spec }) => {
    const { ok, text } = await create(pool("invalid", { ...(replicas && { replicas }), ...(spec && { spec }) }));
    expect(ok).toBe(false);
    expect(text).toContain(says);
  });

  it("asks for a selector and for a template of the instance", async () => {
    const { text } = await create(`
apiVersion: pool.kubevirt.io/v1beta1
kind: VirtualMachinePool
metadata: {name: bare}
spec: {virtualMachineTemplate: {spec: {running: true}}}
`);
    expect(text).toContain("spec.selector: Required value");
    expect(text).toContain("spec.virtualMachineTemplate.spec.template: Required value");
  });

  it("scales by its scale subresource", async () => {
    await create(pool("scaled"));
    expect(await cluster.kubectl(["scale", "vmpool", "scaled", "--replicas", "5"])).toMatchObject({ ok: true });
    const path = "/apis/pool.kubevirt.io/v1alpha1/namespaces/default/virtualmachinepools/scaled";
    expect(at(await cluster.read(path), "spec.replicas")).toBe(5);
  });

  it("explains its fields", async () => {
    const { text } = await cluster.kubectl(["explain", "vmpool.spec.autohealing.startUpFailureThreshold"]);
    expect(text).toContain("3 when absent");
  });
});

it("keeps a machine's status from those who write the machine", { timeout: TEST_TIMEOUT_MS }, async () => {
  const path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines/guarded";
  await cluster.apply(
    "{apiVersion: kubevirt.io/v1, kind: VirtualMachine, metadata: {name: guarded, namespace: default}, spec: {running: false, template: {spec: {domain: {}}}}}",
  );
  await cluster.mergePatch(`${path}/status`, { status: { printableStatus: "Running" } });

  await cluster.mergePatch(path, { metadata: { labels: { a: "b" } }, status: { printableStatus: "Stopped" } });

  const machine = await cluster.read(path);
  expect(at(machine, "metadata.labels.a")).toBe("b");
  expect(at(machine, "status.printableStatus")).toBe("Running");
});
