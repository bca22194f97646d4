import { expect, it } from "vitest";
import * as z from "zod";
import { runCheck } from "../../infra/cli/check.ts";
import { parseClusterOptions } from "../../infra/cli/cluster-options.ts";
import type { ClusterAccess, EksAuth, ServerAccess } from "../../shared/clusters/access.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { aWire, lineOf, networkError, ok, on, type Reply, refusal, type Wire, writesOf } from "../support/transport.ts";
import { aList, aSettledPool, DATE, DISCOVERY, NOW, served } from "../support/transport-objects.ts";

const POOLS = "GET /apis/pool.kubevirt.io/v1beta1/virtualmachinepools";
const KUBEVIRTS = "GET /apis/kubevirt.io/v1/kubevirts";
const DEPLOYMENTS = "GET /apis/apps/v1/deployments";
const SYSTEM = "GET /api/v1/namespaces/kube-system";
const REVIEWS = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
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
  readonly rights?: ReturnType<typeof on>;
}

function aClusterWith({
  kubevirts = aList([]),
  deployments = FORBIDDEN,
  pools = aPools([]),
  rights = rightsBut(),
}: Cluster): Wire {
  return aWire(
    on(DISCOVERY, served("v1beta1")),
    on(KUBEVIRTS, kubevirts),
    on(DEPLOYMENTS, deployments),
    on(POOLS, pools),
    rights,
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

/** Answers to the functions' questions for their rights: all of them, but for these. */
function rightsBut(...missing: readonly string[]): ReturnType<typeof on> {
  return on(REVIEWS, ({ body }) => {
    const { verb, group, resource, subresource } = attributesOf(body);
    const right = `${verb} ${resource}${group === "" ? "" : `.${group}`}${subresource === undefined ? "" : `/${subresource}`}`;
    return ok({ status: { allowed: !missing.includes(right) } });
  });
}

const reviewSchema = z.object({
  kind: z.literal("SelfSubjectAccessReview"),
  spec: z.object({
    resourceAttributes: z.object({
      verb: z.string(),
      group: z.string(),
      resource: z.string(),
      subresource: z.string().optional(),
      namespace: z.string().optional(),
      name: z.string().optional(),
    }),
  }),
});

function attributesOf(body: unknown) {
  return reviewSchema.parse(body).spec.resourceAttributes;
}

/** Runs the command; nothing that it does may ever send a write to the cluster, but for a pool on trial: a review stores nothing. */
async function cluster(wire: Wire, args: readonly string[], { viewer, access = ACCESS, trial }: Given = {}) {
  const parsed = parseClusterOptions(args);
  if (parsed.kind !== "options") throw new Error(parsed.kind === "wrong" ? parsed.message : "help");
  const { options } = parsed;
  if (options.command !== "check" && options.command !== "mode") throw new Error("another command is meant");
  const modes: string[] = [];
  const outcome = await runCheck(options, {
    store: {
      names: async () => ["west"],
      access: async (name) => (name === "west" ? access : undefined),
      webhook: async () => (trial === undefined ? undefined : { path: ["a".repeat(64)] }),
      write: async (name, { access: written }) => void modes.push(`${name} ${written?.mode}`),
    },
    viewerAccess: viewer === undefined ? undefined : { ...ACCESS, server: "https://admin.example" },
    connect: ({ server }) => untilClosed(server === ACCESS.server ? wire : (viewer ?? wire)),
    readNotices: trial === undefined ? undefined : async () => [],
    now: () => NOW,
  });
  const writes = [...writesOf(wire), ...(viewer === undefined ? [] : writesOf(viewer))];
  expect(writes.map(lineOf).filter((line) => line !== REVIEWS)).toEqual(trial === undefined ? [] : [trial]);
  return { ...outcome, modes };
}

/** A connection takes nothing more once it is closed. */
function untilClosed(wire: Wire): Connection {
  let isClosed = false;
  return {
    ...wire,
    send: async (request) => (isClosed ? Promise.reject(networkError("UND_ERR_DESTROYED")) : wire.send(request)),
    close: async () => {
      isClosed = true;
    },
  };
}

interface Given {
  readonly viewer?: Wire;
  readonly access?: ClusterAccess;
  /** What makes the pool by which events are tried; something is registered that tells of changes then. */
  readonly trial?: string;
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
  expect(stdout).toMatch(/^Nothing against acting was found, as far as could be seen/m);
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
  const own = (uid: string) => aWire(on(DISCOVERY, served("v1beta1")), on(POOLS, aPools([])), rightsBut(), system(uid));
  const viewer = () =>
    aWire(on(KUBEVIRTS, aList([aKubevirt("0")])), on(DEPLOYMENTS, aList([aDeployment(OFF)])), system("one"));
  const args = ["check", "west", "--kubeconfig", "admin.yaml"];
  const { stdout, exitCode } = await cluster(own("one"), args, { viewer: viewer() });
  expect(exitCode).toBe(0);
  expect(stdout).not.toContain("??");
  await expect(cluster(own("two"), args, { viewer: viewer() })).rejects.toThrow("leads to another cluster");
});

it("tells clusters apart by a namespace that is served, where the functions may see no other one", async () => {
  const access = { ...ACCESS, namespaces: ["ci", "lab"] };
  const pools = ["ci", "lab"].map((name) =>
    on(`GET /apis/pool.kubevirt.io/v1beta1/namespaces/${name}/virtualmachinepools`, aPools([])),
  );
  const ci = (uid: string) => on("GET /api/v1/namespaces/ci", ok({ metadata: { uid } }));
  const own = (uid: string) =>
    aWire(on(DISCOVERY, served("v1beta1")), ...pools, rightsBut(), ci(uid), on(SYSTEM, FORBIDDEN));
  const viewer = aWire(
    on(KUBEVIRTS, aList([aKubevirt("0")])),
    on(DEPLOYMENTS, aList([aDeployment(OFF)])),
    ...[ci("one"), on(SYSTEM, ok({ metadata: { uid: "system" } }))],
  );
  const args = ["check", "west", "--kubeconfig", "admin.yaml"];
  expect(await cluster(own("one"), args, { viewer, access })).toMatchObject({ exitCode: 0 });
  await expect(cluster(own("two"), args, { viewer, access })).rejects.toThrow("leads to another cluster");
});

it.each([
  ["the first namespace that is served", ["ci", "lab"], [], "ci"],
  ["the one that is asked for", ["ci", "lab"], ["-n", "lab"], "lab"],
  ["default where all are served", undefined, [], "default"],
])("tries events in %s", async (_what, namespaces, more, tried) => {
  const access = { ...ACCESS, ...(namespaces === undefined ? {} : { namespaces }) };
  const pools = (namespace: string) => `/apis/pool.kubevirt.io/v1beta1/namespaces/${namespace}/virtualmachinepools`;
  const lists = (namespaces ?? []).map((namespace) => on(`GET ${pools(namespace)}`, aPools([])));
  const seen = ["kube-system", "ci"].map((name) =>
    on(`GET /api/v1/namespaces/${name}`, ok({ metadata: { uid: "u" } })),
  );
  const own = aWire(on(DISCOVERY, served("v1beta1")), on(POOLS, aPools([])), ...lists, ...seen, rightsBut());
  const trial = `POST ${pools(tried)}`;
  const viewer = aWire(
    on(KUBEVIRTS, aList([])),
    on(DEPLOYMENTS, aList([])),
    ...seen,
    on(trial, refusal(403, "Forbidden")),
  );
  const args = ["check", "west", "--kubeconfig", "admin.yaml", "--events", ...more];
  expect((await cluster(own, args, { viewer, access, trial })).stdout).toContain("a pool cannot be made there");
});

it("tries no events in a namespace that is not served", async () => {
  const access = { ...ACCESS, namespaces: ["ci", "lab"] };
  const args = ["check", "west", "--kubeconfig", "admin.yaml", "--events", "-n", "default"];
  await expect(cluster(aWire(), args, { viewer: aWire(), access })).rejects.toThrow(
    "--namespace: west serves ci, lab, not default",
  );
});

it("takes no other rights for a proof when it cannot tell whether they are of the same cluster", async () => {
  const own = aWire(on(DISCOVERY, served("v1beta1")), on(POOLS, aPools([])), rightsBut(), on(SYSTEM, FORBIDDEN));
  const viewer = aWire(
    on(KUBEVIRTS, aList([aKubevirt("0")])),
    on(DEPLOYMENTS, aList([aDeployment(OFF)])),
    on(SYSTEM, ok({ metadata: { uid: "one" } })),
  );
  const { stdout, exitCode } = await cluster(own, ["check", "west", "--kubeconfig", "admin.yaml"], { viewer });
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

it("names each right that is missing, and refuses to act without it", async () => {
  const rights = () => rightsBut("patch virtualmachinepools.pool.kubevirt.io/status", "get namespaces");
  const { stdout, exitCode } = await cluster(aClusterWith({ rights: rights() }), ["check", "west"]);
  expect(stdout.split("\n").filter((line) => line.includes("may not") && line.includes("NO"))).toEqual([
    "  NO  the functions may not patch virtualmachinepools.pool.kubevirt.io/status: apply the roles (docs/permissions.md)",
    "  NO  the functions may not get namespaces: apply the roles (docs/permissions.md)",
  ]);
  expect(exitCode).toBe(1);
  expect((await cluster(aClusterWith({ rights: rights() }), ["mode", "west", "act"])).modes).toEqual([]);
});

it("asks in each namespace that is served, and in the cluster for what lies outside of them", async () => {
  const access = { ...ACCESS, namespaces: ["ci", "lab"] };
  const pools = ["ci", "lab"].map((name) =>
    on(`GET /apis/pool.kubevirt.io/v1beta1/namespaces/${name}/virtualmachinepools`, aPools([])),
  );
  const review = on(REVIEWS, ({ body }) => {
    const { verb, resource, namespace } = attributesOf(body);
    return ok({ status: { allowed: !(verb === "delete" && resource === "virtualmachines" && namespace === "lab") } });
  });
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(KUBEVIRTS, aList([])),
    on(DEPLOYMENTS, FORBIDDEN),
    ...pools,
    review,
  );
  const { stdout } = await cluster(wire, ["check", "west"], { access });
  expect(stdout).toContain("NO  the functions may not delete virtualmachines.kubevirt.io in lab: apply the roles");
  const asked = wire.sent.filter(({ method }) => method === "POST").map(({ body }) => attributesOf(body));
  expect(asked).toContainEqual({ verb: "list", group: "kubevirt.io", resource: "kubevirts" });
  expect(asked).toContainEqual({ verb: "get", group: "", resource: "namespaces", namespace: "ci", name: "ci" });
  expect(asked.filter(({ resource }) => resource !== "kubevirts").map(({ namespace }) => namespace)).not.toContain(
    undefined,
  );
});

it("says that the rights cannot be asked for", async () => {
  const rights = on(REVIEWS, FORBIDDEN);
  const { stdout, exitCode } = await cluster(aClusterWith({ rights }), ["check", "west"]);
  expect(stdout).toContain("NO  the rights cannot be asked for: may not list");
  expect(exitCode).toBe(1);
});

it("says whose rights it has seen where everybody has others: on EKS without a role that both assume", async () => {
  const eks = { kind: "eks", clusterName: "west", region: "eu-west-1" } as const;
  const line = /-- {2}EKS was asked with the AWS credentials of whoever runs this, not with those of the functions/;
  const look = async (auth: EksAuth) =>
    (await cluster(aClusterWith({}), ["check", "west"], { access: { auth, mode: "observe" } })).stdout;
  expect(await look(eks)).toMatch(line);
  expect(await look(eks)).toMatch(/^west \(EKS west in eu-west-1\), mode observe/);
  expect(await look({ ...eks, roleArn: "arn:aws:iam::111122223333:role/functions" })).not.toMatch(line);
});
