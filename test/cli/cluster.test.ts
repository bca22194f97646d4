import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { runCheck } from "../../infra/cli/check.ts";
import { CLUSTER_HELP, parseClusterOptions } from "../../infra/cli/cluster-options.ts";
import { writeMode } from "../../infra/cli/registry-file.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { createFileRegistry } from "../../shared/clusters/registry.ts";
import { aWire, networkError, ok, on, type Reply, refusal, type Wire, writesOf } from "../support/transport.ts";
import { aList, aSettledPool, DATE, DISCOVERY, NOW, served } from "../support/transport-objects.ts";

const POOLS = "GET /apis/pool.kubevirt.io/v1beta1/virtualmachinepools";
const KUBEVIRTS = "GET /apis/kubevirt.io/v1/kubevirts";
const DEPLOYMENTS = "GET /apis/apps/v1/deployments";
const SYSTEM = "GET /api/v1/namespaces/kube-system";
const FORBIDDEN = refusal(403, "Forbidden", "may not list deployments.apps");

const aKubevirt = (threads?: string) => ({
  metadata: { name: "kubevirt", namespace: "kubevirt" },
  spec:
    threads === undefined
      ? {}
      : { customizeComponents: { flags: { controller: { "pool-controller-threads": threads } } } },
});

/** virt-controller with these words on its command line. */
const aDeployment = (args: readonly string[], status: object = { replicas: 2, updatedReplicas: 2 }) => ({
  metadata: { name: "virt-controller", namespace: "kubevirt", generation: 2 },
  spec: { replicas: 2, template: { spec: { containers: [{ command: ["virt-controller"], args }] } } },
  status: { observedGeneration: 2, ...status },
});

/** A pool that KubeVirt's controller wrote to so long before `NOW`; `since` so long before it was it taken over, if it was. */
function aPoolWrittenTo(agoMs: number, taken = false) {
  const { metadata, ...rest } = aSettledPool();
  const { annotations = {}, ...others } = { annotations: {}, ...metadata };
  const time = new Date(NOW - agoMs).toISOString().replace(".000Z", "Z");
  const managedFields = [{ manager: "virt-controller", operation: "Update", subresource: "status", time }];
  return { ...rest, metadata: { ...others, ...(taken ? { annotations } : {}), managedFields } };
}

interface Cluster {
  readonly kubevirts?: Reply;
  readonly deployments?: Reply;
  readonly pools?: Reply;
}

function aClusterWith({ kubevirts = aList([]), deployments = FORBIDDEN, pools = aPools([]) }: Cluster): Wire {
  return aWire(
    on(DISCOVERY, served("v1beta1")),
    on(KUBEVIRTS, kubevirts),
    on(DEPLOYMENTS, deployments),
    on(POOLS, pools),
  );
}

function aPools(pools: readonly object[]): Reply {
  return ok({ kind: "List", metadata: { resourceVersion: "1" }, items: pools }, DATE);
}

const ACCESS: ServerAccess = {
  server: "https://api.example",
  auth: { kind: "token", token: "s3cr3t" },
  mode: "observe",
};

/** Runs the command; nothing that it does may ever send a write to the cluster. */
async function cluster(wire: Wire, args: readonly string[], viewer?: Wire) {
  const parsed = parseClusterOptions(args);
  if (parsed.kind !== "options") throw new Error(parsed.kind === "wrong" ? parsed.message : "help");
  const modes: string[] = [];
  const outcome = await runCheck(parsed.options, {
    registry: { names: async () => ["west"], access: async (name) => (name === "west" ? ACCESS : undefined) },
    viewerAccess: viewer === undefined ? undefined : { ...ACCESS, server: "https://admin.example" },
    connect: ({ server }) => (server === ACCESS.server ? wire : (viewer ?? wire)),
    writeMode: async (name, mode) => void modes.push(`${name} ${mode}`),
    now: () => NOW,
  });
  expect([...writesOf(wire), ...(viewer === undefined ? [] : writesOf(viewer))]).toEqual([]);
  return { ...outcome, modes };
}

const OFF = ["--pool-controller-threads=0"];
const SITUATIONS: readonly (readonly [string, Cluster, boolean, string])[] = [
  ["nothing of KubeVirt is there", { deployments: aList([]) }, true, "  ok  there is no KubeVirt resource"],
  [
    "the kind KubeVirt is not served",
    { kubevirts: refusal(404, "NotFound") },
    true,
    "  ok  there is no KubeVirt resource",
  ],
  [
    "KubeVirt switches it off",
    { kubevirts: aList([aKubevirt("0")]) },
    true,
    'ok  KubeVirt kubevirt/kubevirt switches its pool controller off (pool-controller-threads is "0")',
  ],
  [
    "KubeVirt does not say",
    { kubevirts: aList([aKubevirt()]) },
    false,
    "NO  KubeVirt kubevirt/kubevirt runs its own pool controller: set spec.customizeComponents",
  ],
  ["KubeVirt gives it threads", { kubevirts: aList([aKubevirt("3")]) }, false, "NO  KubeVirt kubevirt/kubevirt runs"],
  [
    "KubeVirt does not say, and no virt-controller is there",
    { kubevirts: aList([aKubevirt()]), deployments: aList([]) },
    true,
    "--  KubeVirt kubevirt/kubevirt would start its pool controller",
  ],
  [
    "virt-controller has taken the flag up",
    { kubevirts: aList([aKubevirt("0")]), deployments: aList([aDeployment(OFF)]) },
    true,
    "ok  Deployment kubevirt/virt-controller runs without a pool controller",
  ],
  [
    "virt-controller has it in two words",
    { deployments: aList([aDeployment(["-v", "2", "--pool-controller-threads", "0"])]) },
    true,
    "ok  Deployment",
  ],
  [
    "virt-controller has not taken it up",
    { kubevirts: aList([aKubevirt("0")]), deployments: aList([aDeployment([])]) },
    false,
    "NO  Deployment kubevirt/virt-controller runs a pool controller: it has not taken the flag up yet",
  ],
  [
    "virt-controller is being rolled out",
    { kubevirts: aList([aKubevirt("0")]), deployments: aList([aDeployment(OFF, { replicas: 3, updatedReplicas: 1 })]) },
    false,
    "NO  Deployment kubevirt/virt-controller is being rolled out",
  ],
  [
    "virt-controller runs without a KubeVirt resource",
    { deployments: aList([aDeployment(["--pool-controller-threads=3"])]) },
    false,
    "NO  Deployment kubevirt/virt-controller runs a pool controller: start it with",
  ],
  [
    "nothing may be seen",
    { kubevirts: FORBIDDEN },
    false,
    "NO  whether KubeVirt's pool controller runs cannot be told",
  ],
  [
    "it wrote to a pool nine minutes ago",
    { pools: aPools([aPoolWrittenTo(540_000)]) },
    false,
    "NO  virt-controller has written to ci/web lately: it must be silent until 2026-05-01T12:01:00.000Z",
  ],
  [
    "it wrote to a pool ten minutes ago",
    { pools: aPools([aPoolWrittenTo(600_000)]) },
    true,
    "ok  virt-controller has written to no pool in the last 10 minutes",
  ],
  ["pools may not be listed", { pools: FORBIDDEN }, false, "NO  the pools cannot be listed: "],
];

it.each(SITUATIONS)("judges a cluster where %s", async (_what, situation, good, line) => {
  const checked = await cluster(aClusterWith(situation), ["check", "west"]);
  expect(checked.stdout).toContain(line);
  expect(checked).toMatchObject({ exitCode: good ? 0 : 1, refusal: undefined, modes: [] });
  expect(checked.stdout).not.toContain("s3cr3t");

  const set = await cluster(aClusterWith(situation), ["mode", "west", "act"]);
  expect(set.modes).toEqual(good ? ["west act"] : []);
  expect(set.exitCode).toBe(good ? 0 : 1);
  if (!good) expect(set.refusal).toMatch(/^west stays in mode observe: /);
});

it("says what it may not see, and is content with what it has seen", async () => {
  const { stdout } = await cluster(aClusterWith({ kubevirts: aList([aKubevirt("0")]) }), ["check", "west"]);
  expect(stdout).toContain("??  the Deployments of virt-controller cannot be seen: may not list deployments.apps");
  expect(stdout).toMatch(/^KubeVirt's own pool controller is not seen to run, as far as could be seen/m);
});

it.each([
  ["cannot be reached", networkError("ECONNREFUSED")],
  ["refuses the credentials", refusal(401, "Unauthorized")],
  ["has no pools", refusal(404, "NotFound")],
])("says that a cluster %s, which may be set to observe all the same", async (_what, reply) => {
  const { stdout, exitCode } = await cluster(aWire(on(DISCOVERY, reply)), ["check", "west"]);
  expect(stdout).toContain("NO  the cluster cannot be used: ");
  expect(exitCode).toBe(1);
  expect(await cluster(aWire(), ["mode", "west", "observe"])).toMatchObject({ exitCode: 0, modes: ["west observe"] });
});

it("tells of pools that were taken over once and written to since", async () => {
  const pools = aPools([aPoolWrittenTo(590_000, true)]);
  expect((await cluster(aClusterWith({ pools }), ["check", "west"])).stdout).toContain(
    "--  ci/web had been taken over before virt-controller wrote: passes will hold until the claim is removed",
  );
});

it("looks with somebody else's rights when they are given, if they lead to the same cluster", async () => {
  const system = (uid: string) => on(SYSTEM, ok({ metadata: { uid } }));
  const own = (uid: string) => aWire(on(DISCOVERY, served("v1beta1")), on(POOLS, aPools([])), system(uid));
  const viewer = () =>
    aWire(on(KUBEVIRTS, aList([aKubevirt("0")])), on(DEPLOYMENTS, aList([aDeployment(OFF)])), system("one"));
  const args = ["check", "west", "--kubeconfig", "admin.yaml"];
  const { stdout, exitCode } = await cluster(own("one"), args, viewer());
  expect(exitCode).toBe(0);
  expect(stdout).not.toContain("??");
  await expect(cluster(own("two"), args, viewer())).rejects.toThrow("leads to another cluster");
});

it("takes no other rights for a proof when it cannot tell whether they are of the same cluster", async () => {
  const own = aWire(on(DISCOVERY, served("v1beta1")), on(POOLS, aPools([])), on(SYSTEM, FORBIDDEN));
  const viewer = aWire(
    on(KUBEVIRTS, aList([aKubevirt("0")])),
    on(DEPLOYMENTS, aList([aDeployment(OFF)])),
    on(SYSTEM, ok({ metadata: { uid: "one" } })),
  );
  const { stdout, exitCode } = await cluster(own, ["check", "west", "--kubeconfig", "admin.yaml"], viewer);
  expect(stdout).toContain("NO  whether the kubeconfig leads to the same cluster cannot be told");
  expect(exitCode).toBe(1);
});

it("speaks JSON, too", async () => {
  const { stdout } = await cluster(aClusterWith({}), ["check", "west", "-o", "json"]);
  const findings = expect.arrayContaining([{ verdict: "good", text: "there is no KubeVirt resource" }]);
  expect(JSON.parse(stdout)).toEqual({ cluster: "west", server: ACCESS.server, mode: "observe", good: true, findings });
});

it("names the clusters there are when asked for another", async () => {
  await expect(cluster(aWire(), ["mode", "east", "observe"])).rejects.toThrow(
    'there is no cluster "east" in the registry: it holds west',
  );
});

it.each([
  [[], "a command is missing"],
  [["add", "west"], '"add" is no command'],
  [["check"], "say which cluster"],
  [["check", "West!"], '"West!" is no name of a cluster'],
  [["check", "west", "act"], '"act" is too much'],
  [["mode", "west"], "say which mode"],
  [["mode", "west", "off"], 'the mode is observe or act, not "off"'],
  [["mode", "west", "act", "now"], '"now" is too much'],
  [["check", "west", "--registry", "a", "--dir", "b"], "--registry and --dir"],
  [["check", "west", "--context", "a"], "--context needs --kubeconfig"],
  [["check", "west", "--dir", ""], "--dir is empty"],
  [["check", "west", "-o", "yaml"], "--output is text or json"],
  [["check", "west", "--force"], "--force"],
] as const)("refuses %j", (args, message) => {
  expect(parseClusterOptions(args)).toEqual({ kind: "wrong", message: expect.stringContaining(message) });
});

it("shows its options", () => {
  expect(parseClusterOptions(["--help"])).toEqual({ kind: "help", text: CLUSTER_HELP });
});

it("changes the mode in the file and nothing else", async () => {
  const dir = await mkdtemp(join(tmpdir(), "registry-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const path = join(dir, "registry.json");
  const webhook = { path: ["a".repeat(64)] };
  const east = { access: { server: "https://east.example", auth: { kind: "token", token: "t" } } };
  const west = { access: { ...ACCESS, namespaces: ["ci"] }, webhook };
  await writeFile(path, JSON.stringify({ clusters: { east, west } }), { mode: 0o600 });
  await chmod(path, 0o640);

  await writeMode(path, "west", "act");

  expect(JSON.parse(await readFile(path, "utf8"))).toEqual({
    clusters: { east, west: { access: { ...west.access, mode: "act" }, webhook } },
  });
  expect((await stat(path)).mode & 0o777).toBe(0o640);
  expect(await readdir(dir)).toEqual(["registry.json"]);
  expect(await createFileRegistry(path).access("west")).toMatchObject({ mode: "act" });
  await expect(writeMode(path, "north", "act")).rejects.toThrow("no longer in the registry");
  await writeFile(path, "{");
  await expect(writeMode(path, "west", "act")).rejects.toThrow("is not JSON");
});
