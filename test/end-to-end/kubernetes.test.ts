/** What a cluster is given for the functions, applied to a real API server: roles of users, flows, webhooks, Knative's source. */
import { mkdir, readFile, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import * as z from "zod";
import { createAdmission } from "../../functions/admission.ts";
import { knativeSender, type ManifestOptions, manifestsFor } from "../../infra/kubernetes/manifests.ts";
import { openConnection } from "../../shared/clusters/connection.ts";
import { createEntryCache } from "../../shared/clusters/entry-cache.ts";
import { admissionReviewSchema } from "../../shared/events/admission-review.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { httpEventSchema } from "../../shared/runtime/http.ts";
import { run } from "../support/command.ts";
import { driveFunctions } from "../support/driven.ts";
import { eventually } from "../support/eventually.ts";
import { aMachine, aPool } from "../support/pool-manifests.ts";
import {
  CLUSTER_NAME,
  type Namespace,
  ROOT,
  startTestCluster,
  type TestCluster,
  WORLD_TIMEOUT_MS,
} from "../support/world.ts";

const POOL = "web";
const KUBERNETES = join(ROOT, "infra/kubernetes");
const RBAC = "rbac.authorization.k8s.io/v1";
const signal = () => AbortSignal.timeout(30_000);

/** What the API server asked, oldest first, such as `CREATE v1beta1 virtualmachinepools web`. */
interface Review {
  readonly namespace: string | undefined;
  readonly text: string;
}

let world: TestCluster;
const reviews: Review[] = [];
const woken: string[] = [];
let target: Pick<ManifestOptions, "endpoint" | "caBundle" | "pathToken">;

beforeAll(async () => {
  world = await startTestCluster({ standIn: false, webhooks: true });
  target = targetOf(world);
  const { events, logger } = world;
  const admission = createAdmission(() => ({
    webhooks: createEntryCache(async () => events?.webhook, Date.now),
    wakeUps: {
      async send(_queue, outgoing) {
        for (const { wakeUp } of outgoing) woken.push(`${wakeUp.namespace}/${wakeUp.name}`);
        return [];
      },
    },
    now: Date.now,
    logger,
  }));
  events?.serve([
    {
      method: "POST",
      path: "/clusters/{cluster}/admission/{token}",
      functionName: "admission",
      async handle(event, context) {
        const { request } = admissionReviewSchema.parse(parseJson(httpEventSchema.parse(event).body ?? ""));
        const { operation, resource, subResource, name = "", namespace } = request;
        const what = [resource.resource, ...(subResource ? [subResource] : [])].join("/");
        if (request.dryRun !== true)
          reviews.push({ namespace, text: `${operation} ${resource.version} ${what} ${name}` });
        return admission(event, context);
      },
    },
  ]);
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** Where the local listener is called, as a registration would have it. */
function targetOf({ events }: TestCluster) {
  const schema = z.looseObject({
    webhooks: z.array(z.object({ clientConfig: z.object({ url: z.string(), caBundle: z.string() }) })).min(1),
  });
  const [first] = schema.parse(events?.manifests[0]).webhooks;
  const [endpoint = "", pathToken = ""] = (first?.clientConfig.url ?? "").split(`/clusters/${CLUSTER_NAME}/admission/`);
  return { endpoint, pathToken, caBundle: first?.clientConfig.caBundle ?? "" };
}

const GROUP = { kind: "group" } as const;

function aCluster(options: Partial<ManifestOptions> = {}): ManifestOptions {
  return { cluster: CLUSTER_NAME, ...target, identity: GROUP, sources: ["admission"], users: false, ...options };
}

/** As `kubectl apply` does it, which refuses unknown fields. */
async function apply(objects: readonly object[]): Promise<void> {
  const stdin = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
  const { ok, stderr } = await world.tryKubectl(["apply", "-f", "-"], { stdin });
  expect(ok, stderr).toBe(true);
}

function reviewsOf({ name }: Namespace): readonly string[] {
  return reviews.filter(({ namespace }) => namespace === name).map(({ text }) => text);
}

describe("webhooks", () => {
  it("ask once about each write of a pool, whatever version it is written in", async () => {
    await apply(manifestsFor(aCluster()));
    const namespace = await world.aNamespace();
    await namespace.create(aPool("beta"), { ...aPool("alpha"), apiVersion: "pool.kubevirt.io/v1alpha1" });
    await namespace.kubectl("scale", "virtualmachinepools.v1alpha1.pool.kubevirt.io", "alpha", "--replicas=2");
    const patch = JSON.stringify({ status: { replicas: 1 } });
    await namespace.kubectl("patch", "vmpool", "beta", "--subresource=status", "--type=merge", "--patch", patch);
    await namespace.kubectl("delete", "vmpool", "beta");
    expect(reviewsOf(namespace)).toEqual([
      "CREATE v1beta1 virtualmachinepools beta",
      "CREATE v1alpha1 virtualmachinepools alpha",
      "UPDATE v1alpha1 virtualmachinepools/scale alpha",
      "UPDATE v1beta1 virtualmachinepools/status beta",
      "DELETE v1beta1 virtualmachinepools beta",
    ]);
    expect(new Set(woken.filter((pool) => pool.startsWith(namespace.name)))).toEqual(
      new Set([`${namespace.name}/beta`, `${namespace.name}/alpha`]),
    );
  });

  it("judge and tell of pools where KubeVirt serves v1alpha1 alone", async () => {
    const crd = "virtualmachinepools.pool.kubevirt.io";
    const serve = async (served: boolean) => {
      const { spec } = z
        .object({ spec: z.object({ versions: z.array(z.looseObject({ name: z.string() })) }) })
        .parse(parseJson(await world.kubectl("get", "crd", crd, "-o", "json")));
      const index = spec.versions.findIndex(({ name }) => name === "v1beta1");
      const patch = JSON.stringify([{ op: "replace", path: `/spec/versions/${index}/served`, value: served }]);
      await world.kubectl("patch", "crd", crd, "--type=json", "--patch", patch);
      await eventually(async () => {
        const path = "/apis/pool.kubevirt.io/v1beta1/virtualmachinepools?limit=1";
        expect((await world.connection.send({ method: "GET", path, signal: signal() })).status).toBe(
          served ? 200 : 404,
        );
      });
    };
    await serve(false);
    try {
      const namespace = await world.aNamespace();
      const pools = `/apis/pool.kubevirt.io/v1alpha1/namespaces/${namespace.name}/virtualmachinepools`;
      const post = (object: object) =>
        world.connection.send({
          method: "POST",
          path: pools,
          body: { ...object, apiVersion: "pool.kubevirt.io/v1alpha1" },
          signal: signal(),
        });
      expect(await post(aPool("wrong", { matchLabels: { app: "db" } }))).toMatchObject({
        status: 422,
        body: { message: expect.stringContaining("does not match spec.virtualMachineTemplate") },
      });
      expect(await post(aPool(POOL))).toMatchObject({ status: 201 });
      const functions = driveFunctions({ access: world.functionsAccess, logger: world.logger });
      await functions.settle({ namespace: namespace.name, name: POOL });
      await functions.close();
      expect(await namespace.machines()).toHaveLength(1);
      const told = reviewsOf(namespace);
      expect(told.filter((text) => text.startsWith("CREATE"))).toEqual([
        "CREATE v1alpha1 virtualmachinepools wrong",
        "CREATE v1alpha1 virtualmachinepools web",
      ]);
      expect(told).toContain("UPDATE v1alpha1 virtualmachinepools/status web");
    } finally {
      await serve(true);
    }
  });

  it.each([
    { who: "the ServiceAccount of the functions", namespace: "vmpool-functions" },
    { who: "the same in a namespace of another name", namespace: "robots" },
  ])("pass over what $who writes to machines, not what others write", async ({ namespace: home }) => {
    await apply(manifestsFor(aCluster({ identity: { kind: "serviceAccount", namespace: home } })));
    const namespace = await world.aNamespace();
    await namespace.create(aMachine("vm"));
    const label = (text: string, ...flags: readonly string[]) =>
      namespace.kubectl("label", "vm", "vm", text, "--overwrite", ...flags);
    const functions = `--as=system:serviceaccount:${home}:vmpool-functions`;
    await untilUntold(namespace, (attempt) => label(`attempt=${attempt}`, functions));
    const before = reviewsOf(namespace);
    await label("by=functions", functions);
    expect(reviewsOf(namespace)).toEqual(before);
    await label("by=admin");
    expect(reviewsOf(namespace)).toEqual([...before, "UPDATE v1 virtualmachines vm"]);
  });

  it("tell nothing of namespaces that are not served", async () => {
    const [served, other] = [await world.aNamespace(), await world.aNamespace()];
    await apply(manifestsFor(aCluster({ namespaces: [served.name] })));
    await untilUntold(other, (attempt) => other.create(aMachine(`probe-${attempt}`)));
    for (const namespace of [served, other]) await namespace.create(aPool(POOL), aMachine("vm"));
    expect(reviewsOf(served)).toEqual(["CREATE v1beta1 virtualmachinepools web", "CREATE v1 virtualmachines vm"]);
    expect(reviewsOf(other).filter((text) => !text.includes("probe"))).toEqual([]);
  });
});

/** Waits until a write to the namespace is one that nobody is asked about: for a moment a former configuration may be in use. */
async function untilUntold(namespace: Namespace, write: (attempt: number) => Promise<unknown>): Promise<void> {
  let attempts = 0;
  await eventually(async () => {
    const before = reviewsOf(namespace).length;
    attempts += 1;
    await write(attempts);
    expect(reviewsOf(namespace)).toHaveLength(before);
  });
}

describe("users of a namespace", () => {
  /** As KubeVirt ships them: the pools, without their scale. */
  const ofKubevirt = ["edit", "view"].map((name) => ({
    apiVersion: RBAC,
    kind: "ClusterRole",
    metadata: { name: `kubevirt.io:${name}`, labels: { [`rbac.authorization.k8s.io/aggregate-to-${name}`]: "true" } },
    rules: [
      {
        apiGroups: ["pool.kubevirt.io"],
        resources: ["virtualmachinepools"],
        verbs: ["get", "list", "watch", ...(name === "edit" ? ["create", "update", "patch", "delete"] : [])],
      },
    ],
  }));

  it("may scale its pools where they may edit them, and see the scale where they may view them", async () => {
    await apply(ofKubevirt);
    const namespace = await world.aNamespace();
    await namespace.create(aPool(POOL));
    for (const role of ["admin", "edit", "view"])
      await namespace.kubectl("create", "rolebinding", role, `--clusterrole=${role}`, `--user=${role}`);
    const scale = (user: string, replicas: number) =>
      world.tryKubectl(["-n", namespace.name, "scale", "vmpool", POOL, `--replicas=${replicas}`, `--as=${user}`]);
    await eventually(() => namespace.kubectl("get", "vmpool", POOL, "--as=edit"));
    expect((await scale("edit", 2)).stderr).toContain('cannot patch resource "virtualmachinepools/scale"');

    await world.kubectl("apply", "-f", join(KUBERNETES, "users.yaml"));
    await eventually(async () => expect(await scale("edit", 2)).toMatchObject({ ok: true }));
    await eventually(async () => expect(await scale("admin", 3)).toMatchObject({ ok: true }));
    expect(await namespace.pool(POOL)).toMatchObject({ spec: { replicas: 3 } });
    const get = ["get", "vmpool", POOL, "--subresource=scale", "-o", "jsonpath={.spec.replicas}", "--as=view"];
    expect(await namespace.kubectl(...get)).toBe("3");
    expect((await scale("view", 4)).stderr).toContain('cannot patch resource "virtualmachinepools/scale"');
  });
});

describe("the API server's queues", () => {
  it("have a flow of their own for the functions", async () => {
    await apply(manifestsFor(aCluster()));
    const uid = (kind: string, name: string) =>
      world.kubectl("get", kind, name, "-o", "jsonpath={.metadata.uid}").then((text) => text.trim());
    const [flow, level] = await Promise.all([
      uid("flowschema", "vmpool-functions"),
      uid("prioritylevelconfiguration", "workload-low"),
    ]);
    const functions = openConnection(world.functionsAccess);
    for (const path of ["/apis/pool.kubevirt.io/v1beta1/virtualmachinepools?limit=1", "/apis/pool.kubevirt.io"]) {
      await eventually(async () => {
        const { headers } = await functions.send({ method: "GET", path, signal: signal() });
        expect(headers).toMatchObject({
          "x-kubernetes-pf-flowschema-uid": flow,
          "x-kubernetes-pf-prioritylevel-uid": level,
        });
      });
    }
    await functions.close();
  });
});

describe("Knative's source", () => {
  /** The fields of `sources.knative.dev/v1` that we use, closed: the API server refuses what is not among them. */
  const text = { type: "string" };
  const object = (properties: object) => ({ type: "object", properties });
  const array = (items: object) => ({ type: "array", items });
  const selector = object({
    matchExpressions: array(object({ key: text, operator: text, values: array(text) })),
    matchLabels: { type: "object", additionalProperties: text },
  });
  const spec = {
    ...object({
      mode: text,
      serviceAccountName: text,
      resources: array(object({ apiVersion: text, kind: text, selector })),
      namespaceSelector: selector,
      sink: object({ uri: text, CACerts: text, audience: text }),
    }),
    required: ["resources"],
  };
  const names = { kind: "ApiServerSource", plural: "apiserversources" };
  const crd = {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "apiserversources.sources.knative.dev" },
    spec: {
      group: "sources.knative.dev",
      names,
      scope: "Namespaced",
      versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: object({ spec }) } }],
    },
  };
  const ACCOUNT = "--as=system:serviceaccount:vmpool-functions:vmpool-functions-events";

  it("is taken by its API, and may watch what it tells of and nothing else", async () => {
    await apply([crd]);
    await world.kubectl("wait", "--for=condition=Established", `crd/${crd.metadata.name}`);
    const namespace = await world.aNamespace();
    const options = aCluster({ sources: ["knative"] });
    await eventually(() => apply(manifestsFor({ ...options, namespaces: [namespace.name] })));
    await apply(manifestsFor(options));
    const stored = await world.kubectl(
      "get",
      "apiserversource",
      "vmpool-functions",
      "-n",
      "vmpool-functions",
      "-o",
      "json",
    );
    expect(parseJson(stored)).toMatchObject({
      spec: {
        mode: "Reference",
        namespaceSelector: {},
        sink: { uri: `${target.endpoint}/clusters/local/events`, audience: knativeSender(options).audience },
      },
    });
    const can = async (verb: string, what: string) =>
      (await world.tryKubectl(["auth", "can-i", verb, what, "-A", ACCOUNT])).stdout.trim();
    for (const what of ["virtualmachinepools.pool.kubevirt.io", "virtualmachines.kubevirt.io"])
      expect([await can("watch", what), await can("patch", what)]).toEqual(["yes", "no"]);
    expect(await can("list", "secrets")).toBe("no");
  });
});

describe("the page on permissions", () => {
  it("has commands that work, and what they say of themselves is so", async () => {
    const page = await readFile(join(ROOT, "docs/permissions.md"), "utf8");
    const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = ""]) => block.trim());
    const folder = join(world.dir, "page");
    await mkdir(folder);
    await symlink(join(ROOT, "infra"), join(folder, "infra"));
    const PATH = `${dirname(world.kubectlPath)}:${process.env["PATH"]}`;
    const env = { ...process.env, PATH, HOME: world.dir, KUBECONFIG: world.kubeconfigPath };
    for (const line of blocks.flatMap((block) => block.split("\n"))) {
      const { ok, stdout, stderr } = await run("bash", ["-c", `cd "${folder}" && ${line}`], { stdin: "", env });
      const [, expected] = /# (\w+)$/.exec(line) ?? [];
      expect(expected === undefined ? ok : stdout.trim(), `${line}: ${stderr}`).toBe(expected ?? true);
    }
    expect(parse(await readFile(join(folder, "audit-webhook.kubeconfig"), "utf8"))).toMatchObject({
      clusters: [{ cluster: { server: "https://functions.example.com/clusters/prod-eu/events" } }],
      users: [{ user: { token: "a-token" } }],
      "current-context": "vmpool-functions",
    });
    const functions = openConnection(world.functionsAccess);
    const list = async (namespace: string) => {
      const path = `/apis/pool.kubevirt.io/v1beta1/namespaces/${namespace}/virtualmachinepools`;
      return (await functions.send({ method: "GET", path, signal: signal() })).status;
    };
    await eventually(async () => expect([await list("default"), await list("kube-system")]).toEqual([200, 403]));
    await functions.close();
  });

  it("names the sender that Knative makes of our source", async () => {
    const page = await readFile(join(ROOT, "docs/permissions.md"), "utf8");
    const { audience, subject } = knativeSender({
      cluster: "prod-eu",
      endpoint: "https://functions.example.com",
      identity: GROUP,
    });
    expect(page).toContain(`| \`audience\` | the address that is posted to: \`${audience}\` |`);
    expect(page).toContain(`| \`subject\` | \`${subject}\` |`);
  });
});
