/** The functions' own identity in a cluster: what it may do, and that its writes wake nobody. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import * as z from "zod";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { type EventsWorld, startEventsWorld } from "../support/events-world.ts";
import { eventually } from "../support/eventually.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilQuiet, untilStatus } from "../support/until.ts";
import { type Namespace, ROOT, type SeenPass, WORLD_TIMEOUT_MS } from "../support/world.ts";

const POOL = "pool";
const IDENTITY = ["--as=vmpool-functions", "--as-group=vmpool-functions"];

const rulesSchema = z.object({
  status: z.object({
    resourceRules: z.array(
      z.object({
        verbs: z.array(z.string()),
        apiGroups: z.array(z.string()),
        resources: z.array(z.string()),
        resourceNames: z.array(z.string()).optional(),
      }),
    ),
    incomplete: z.boolean(),
  }),
});

let world: EventsWorld;
let functions: Connection;

beforeAll(async () => {
  // Without machines that run, the functions' own writes are the only ones.
  world = await startEventsWorld({ standIn: false });
  await world.startFunctions({ resyncSeconds: 0 });
  functions = openConnection(world.functionsAccess);
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  await functions.close();
  await world.stop();
});

const signal = () => AbortSignal.timeout(30_000);

describe("the functions", () => {
  it("may do this in every namespace, and nothing else", async () => {
    const path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    const { body } = await functions.send({
      method: "POST",
      path,
      body: { spec: { namespace: "x" } },
      signal: signal(),
    });
    const { resourceRules, incomplete } = rulesSchema.parse(body).status;
    expect(incomplete).toBe(false);
    const allowed = resourceRules.flatMap(({ apiGroups, resources, resourceNames = [], verbs }) =>
      apiGroups.flatMap((group) =>
        resources.map((resource) => [`${group}/${resource}`, ...resourceNames, ":", ...verbs].join(" ")),
      ),
    );
    // Everybody may ask what he himself may do and is.
    expect(allowed.filter((rule) => !rule.includes("/selfsubject")).sort()).toEqual([
      "/events : get create patch",
      "/namespaces : get",
      "/persistentvolumeclaims : get list patch delete",
      "apps/controllerrevisions : get list create delete",
      "cdi.kubevirt.io/datavolumes : get list patch delete",
      "kubevirt.io/kubevirts : list",
      "kubevirt.io/virtualmachineinstances : get list patch delete",
      "kubevirt.io/virtualmachines : get list create patch delete",
      "kubevirt.io/virtualmachines/status : patch",
      "pool.kubevirt.io/virtualmachinepools : get list patch",
      "pool.kubevirt.io/virtualmachinepools/finalizers : update",
      "pool.kubevirt.io/virtualmachinepools/scale : get update patch",
      "pool.kubevirt.io/virtualmachinepools/status : patch",
    ]);
  });

  it.each(["secrets", "configmaps", "pods", "namespaces", "nodes", "serviceaccounts"])(
    "may not list %s",
    async (kind) => {
      const { status } = await functions.send({ method: "GET", path: `/api/v1/${kind}`, signal: signal() });
      expect(status).toBe(403);
    },
  );

  it.each([
    ["yes", "create", "virtualmachines.kubevirt.io"],
    ["yes", "patch", "virtualmachinepools.pool.kubevirt.io/status"],
    ["no", "delete", "virtualmachinepools.pool.kubevirt.io"],
    ["no", "create", "virtualmachinepools.pool.kubevirt.io"],
    ["no", "deletecollection", "virtualmachines.kubevirt.io"],
    ["no", "deletecollection", "persistentvolumeclaims"],
    ["no", "create", "clusterrolebindings.rbac.authorization.k8s.io"],
    ["no", "impersonate", "users"],
  ])("answer %s to kubectl auth can-i %s %s", async (answer, verb, resource) => {
    const { stdout } = await world.tryKubectl(["auth", "can-i", verb, resource, ...IDENTITY]);
    expect(stdout.trim()).toBe(answer);
  });

  it("are let in by nothing but the file that a cluster's owner applies", async () => {
    const text = await readFile(join(ROOT, "infra/kubernetes/rbac.yaml"), "utf8");
    expect(parseAllDocuments(text).map((document) => document.toJS()?.kind)).toEqual([
      "ClusterRole",
      "ClusterRole",
      "ClusterRoleBinding",
      "ClusterRoleBinding",
    ]);
    const path = join(ROOT, "infra/kubernetes/rbac.yaml");
    await world.kubectl("delete", "-f", path);
    await eventually(async () => {
      const { stdout } = await world.tryKubectl(["auth", "can-i", "list", "virtualmachines", ...IDENTITY]);
      expect(stdout.trim()).toBe("no");
    });
    await world.kubectl("apply", "-f", path);
    await eventually(async () => {
      const { stdout } = await world.tryKubectl(["auth", "can-i", "list", "virtualmachines", ...IDENTITY]);
      expect(stdout.trim()).toBe("yes");
    });
  });
});

describe("what the functions write to machines", () => {
  const passesOf = ({ name }: Namespace): readonly SeenPass[] =>
    world.passes.filter(({ pool }) => pool.namespace === name);
  /** How often the API server has asked about a write to a machine or an instance. */
  const notices = async () => {
    const metrics = await world.kubectl("get", "--raw", "/metrics");
    const ofMachines = /^apiserver_admission_webhook_request_total\{.*name="machines\.notices\..* (\d+)$/gm;
    return [...metrics.matchAll(ofMachines)].reduce((sum, [, count]) => sum + Number(count), 0);
  };

  it("wakes nobody: after a pass that acted, what comes are looks at the pool itself, which write nothing", async () => {
    const namespace = await world.aNamespace();
    const before = await notices();
    await namespace.create(aPool(POOL, { replicas: 5 }));
    await untilStatus(namespace, POOL, { replicas: 5 });
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=2");
    await untilStatus(namespace, POOL, { replicas: 2 });
    await untilQuiet(world);
    const acting = passesOf(namespace).filter(({ result }) => Object.keys(result.actions).length > 0);
    expect(acting.map(({ result: { actions } }) => [actions.createVm ?? 0, actions.deleteVm ?? 0])).toEqual([
      [5, 0],
      [0, 3],
    ]);
    const others = passesOf(namespace).filter((pass) => !acting.includes(pass));
    expect(others.length).toBeGreaterThan(0);
    for (const { cause, meter } of others) {
      expect(["again", "pool", "status"]).toContain(cause);
      expect(meter).toMatchObject({ requests: 2, writes: 0 });
    }
    expect(await notices()).toBe(before);
  });

  it("wakes nobody while machines are refused: a claim is written before each try, and its notice leads to no other", async () => {
    const namespace = await world.aNamespace();
    const counted = "count/virtualmachines.kubevirt.io";
    await namespace.kubectl("create", "quota", "machines", `--hard=${counted}=2`);
    // What the quota's controller does, which does not run here.
    const status = { hard: { [counted]: "2" }, used: { [counted]: "0" } };
    await namespace.kubectl(
      "patch",
      "quota",
      "machines",
      "--subresource=status",
      "--type=merge",
      `--patch=${JSON.stringify({ status })}`,
    );
    await namespace.create(aPool(POOL, { replicas: 5 }));
    await untilStatus(namespace, POOL, {
      replicas: 2,
      conditions: expect.arrayContaining([expect.objectContaining({ type: "ReplicaFailure", status: "True" })]),
    });
    // Were it otherwise, it would never be quiet again.
    await untilQuiet(world);
    const refused = passesOf(namespace).filter(({ result }) => result.failures.some((text) => /quota/.test(text)));
    expect(refused.length).toBeGreaterThan(0);
  });

  it("differs from what others write to them", async () => {
    const namespace = await world.aNamespace();
    await namespace.create(aPool(POOL, { replicas: 1 }));
    await untilStatus(namespace, POOL, { replicas: 1 });
    const before = await notices();
    await namespace.kubectl("label", "vm", `${POOL}-0`, "example.com/mine=yes");
    await eventually(() => expect(passesOf(namespace).map(({ cause }) => cause)).toContain("vm"));
    expect(await notices()).toBeGreaterThan(before);
  });
});
