/**
 * Stories in which one rule of the claim's protocol is all that stands between two passes and harm. Random seeds come by them so seldom
 * that they are told step by step; the invariants are judged after every call.
 */
import { expect, it } from "vitest";
import { REVISION_LABEL } from "../../shared/planning/names.ts";
import { collectGarbage } from "./garbage.ts";
import { controllerOf } from "./history.ts";
import { createJudge, judgeClaims } from "./invariants.ts";
import { loadKinds } from "./kinds.ts";
import { kubevirtSteps } from "./kubevirt.ts";
import { recordAt } from "./objects.ts";
import { createPool, NAMESPACE, objects } from "./users.ts";
import { createWorld, type Invocation, type PendingCall } from "./world.ts";

const kinds = await loadKinds();
const POOL = `/apis/pool.kubevirt.io/v1beta1/namespaces/${NAMESPACE}/virtualmachinepools/web`;
const VMS = `/apis/kubevirt.io/v1/namespaces/${NAMESPACE}/virtualmachines`;
const FORM = { run: { running: true }, hasDisks: false, rules: {} } as const;
/** More calls or steps than any of these stories has. */
const LIMIT = 500;

type Which = (call: PendingCall) => boolean;

const claims: Which = ({ request: { method, path, body } }) =>
  method === "PATCH" && path.startsWith(`${POOL}?`) && Array.isArray(body);
const creates: Which = ({ request: { method, path } }) =>
  method === "POST" && path.startsWith(VMS) && !path.includes("dryRun");
const deletes: Which = ({ request: { method, path } }) => method === "DELETE" && path.startsWith(VMS);
const revokes: Which = ({ request: { method, path } }) => method === "PATCH" && path.startsWith(`${VMS}/`);
const lists: Which = ({ request: { method, path } }) => method === "GET" && path.includes("limit=");

/** One pass of the pool, moved on call by call. */
interface Pass {
  /** Goes on until a call of the kind waits to be sent, which it returns. */
  until(which: Which): Promise<PendingCall>;
  finish(): Promise<void>;
  kill(): void;
}

/** A pool of so many machines, at rest, and everybody who has to do with it. */
async function aStage(replicas: number) {
  const world = createWorld({ seed: 1, kinds, onPass: () => undefined, onAnswer: () => undefined });
  const { cluster } = world;
  world.setClocks();
  cluster.addNamespace(NAMESPACE);
  createPool(cluster, "web", { ...FORM, replicas });
  const judge = createJudge(cluster, (actor) => world.started.get(actor));
  const wrong: string[] = [];
  const look = async () => {
    await world.settle();
    const underWay = [...world.calls.filter(({ answer }) => answer === undefined), ...world.late];
    const found = judge.judge() ?? judgeClaims(cluster, underWay, world.now());
    if (found !== undefined) wrong.push(found);
  };
  const advance = async (ms: number) => {
    world.advance(ms);
    await look();
  };
  const goOn = async (invocation: Invocation, which: Which): Promise<PendingCall | undefined> => {
    for (let calls = 0; calls < LIMIT; calls += 1) {
      await look();
      if (invocation.isOver) return undefined;
      const own = world.calls.filter((one) => one.invocation === invocation);
      const call = own.find(lists) ?? own[0];
      if (call === undefined) world.advance(Math.max(0, (world.wakesAt() ?? world.now()) - world.now()));
      else if (which(call)) return call;
      else world.answer(call);
    }
    throw new Error("the pass goes on and on");
  };
  const begin = (): Pass => {
    const before = new Set(world.invocations);
    world.intrude({ namespace: NAMESPACE, name: "web" }, "sweep");
    const invocation = [...world.invocations].find((other) => !before.has(other));
    if (invocation === undefined) throw new Error("the pass has not begun");
    return {
      async until(which) {
        const call = await goOn(invocation, which);
        if (call === undefined) throw new Error("the pass is over before it comes to that");
        return call;
      },
      finish: async () => void (await goOn(invocation, () => false)),
      kill: () => world.kill(invocation),
    };
  };
  const user = (method: "PATCH" | "POST" | "DELETE", path: string, body: object) => {
    const { status } = cluster.answer({ method, path, body, contentType: "application/merge-patch+json" }, "user");
    if (status >= 300) throw new Error(`the user's ${method} ${path} is answered by ${status}`);
  };
  const catchUp = () => {
    for (let steps = 0; steps < LIMIT && kubevirtSteps(cluster).length > 0; steps += 1)
      kubevirtSteps(cluster)[0]?.take();
    collectGarbage(cluster);
  };
  return {
    world,
    wrong,
    begin,
    advance,
    /** Passes and KubeVirt take turns until everything is as it should be. */
    async rest() {
      for (let passes = 0; passes < 4; passes += 1) {
        await begin().finish();
        catchUp();
      }
      await look();
    },
    catchUp,
    scale: (count: number) => user("PATCH", POOL, { spec: { replicas: count } }),
    patchPool: (body: object) => user("PATCH", POOL, body),
    makePool: (count: number) => createPool(cluster, "web", { ...FORM, replicas: count }),
    deletePool: () => user("DELETE", POOL, { propagationPolicy: "Background" }),
    patchVm: (name: string, body: object) => user("PATCH", `${VMS}/${name}`, body),
    deleteVm: (name: string) => user("DELETE", `${VMS}/${name}`, { propagationPolicy: "Background" }),
    occupy: (name: string) =>
      user("POST", VMS, {
        apiVersion: "kubevirt.io/v1",
        kind: "VirtualMachine",
        metadata: { name },
        spec: { running: false, template: {} },
      }),
    refuse(call: PendingCall, status: 409 | 500, outlives: boolean) {
      const body = { kind: "Status", status: "Failure", reason: "Refused", message: "refused", code: status };
      world.reply(call, { status, headers: {}, body, bytes: 0 }, outlives);
    },
    poolUid: () => objects(cluster, "virtualmachinepools")[0]?.metadata.uid,
    vms: () => objects(cluster, "virtualmachines").map(({ metadata: { name } }) => name),
    /** Who controlled the machines that were ever made. */
    owners: () =>
      cluster.store.journal.flatMap(({ kind, before, after }) =>
        kind.plural === "virtualmachines" && before === undefined && after !== undefined ? [controllerOf(after)] : [],
      ),
  };
}

it("a claim is not written to a pool that was made anew under the name", async () => {
  const stage = await aStage(2);
  const early = stage.begin();
  await early.until(claims);
  stage.deletePool();
  stage.makePool(2);
  await early.finish();
  expect(stage.owners()).toEqual([stage.poolUid(), stage.poolUid()]);
  expect(stage.wrong).toEqual([]);
});

it("a claim is not mistaken for another of the same text", async () => {
  // All within one second of one generation: but for the nonce the claim says the same before and after.
  const stage = await aStage(3);
  await stage.rest();
  stage.deleteVm("web-0");
  await stage.begin().finish();
  stage.catchUp();
  const early = stage.begin();
  await early.until(claims);
  stage.occupy("web-0");
  await stage.begin().finish();
  stage.deleteVm("web-0");
  await early.finish();
  expect(stage.wrong).toEqual([]);
  expect(stage.vms()).toEqual(["web-1", "web-2", "web-3"]);
});

it("what a later look of the same pass decides is claimed, too", async () => {
  const stage = await aStage(1);
  const pass = stage.begin();
  await pass.until(creates);
  stage.scale(2);
  await pass.finish();
  expect(stage.wrong).toEqual([]);
  expect(stage.vms()).toEqual(["web-0", "web-1"]);
});

it("the claim is never younger than the machines that are judged by it", async () => {
  const stage = await aStage(1);
  const early = stage.begin();
  // Lists are answered first where the pass lets them be.
  let seen = 0;
  await early.until((call) => {
    if (lists(call)) seen += 1;
    return seen > 0 && !lists(call);
  });
  stage.occupy("web-0");
  await stage.begin().finish();
  stage.deleteVm("web-0");
  await early.finish();
  expect(stage.wrong).toEqual([]);
  expect(stage.vms()).toEqual(["web-1"]);
});

it("a create stays claimed when another pass has sent it, too", async () => {
  const stage = await aStage(1);
  const first = stage.begin();
  await first.until(creates);
  const second = stage.begin();
  await second.until(creates);
  stage.scale(2);
  await first.finish();
  expect(stage.vms()).toEqual(["web-0", "web-1"]);
  expect(stage.wrong).toEqual([]);
});

it("a create stays claimed for as long as it may land", async () => {
  const stage = await aStage(1);
  await stage.begin().until(creates);
  // The function's time runs out before the call is sent off.
  for (let left = 6; left > 0; left -= 1) await stage.advance(10_000);
  stage.scale(0);
  await stage.advance(40_000);
  expect(stage.world.late).toHaveLength(1);
  await stage.begin().finish();
  expect(stage.wrong).toEqual([]);
});

it("a create stays claimed when its answer does not say what happened", async () => {
  const stage = await aStage(1);
  const pass = stage.begin();
  stage.refuse(await pass.until(creates), 500, true);
  stage.scale(0);
  await pass.finish();
  expect(stage.world.late).toHaveLength(1);
  expect(stage.wrong).toEqual([]);
});

it("a delete stays claimed when its revocation fails", async () => {
  const stage = await aStage(3);
  await stage.rest();
  stage.scale(2);
  await stage.begin().until(deletes);
  stage.scale(3);
  const second = stage.begin();
  stage.refuse(await second.until(revokes), 500, false);
  await second.finish();
  expect(stage.wrong).toEqual([]);
});

it("a pool that lost its claim waits for creates under way, though it has no machines", async () => {
  const stage = await aStage(1);
  await stage.begin().until(creates);
  stage.patchPool({ metadata: { annotations: null } });
  stage.scale(0);
  await stage.begin().finish();
  expect(stage.wrong).toEqual([]);
});

it("a relabelled machine is not replaced while its release fails", async () => {
  const stage = await aStage(2);
  await stage.rest();
  stage.patchVm("web-0", { metadata: { labels: { pool: "other" } } });
  const pass = stage.begin();
  stage.refuse(await pass.until(revokes), 500, false);
  await pass.finish();
  expect(stage.vms()).toEqual(["web-0", "web-1"]);
  expect(stage.wrong).toEqual([]);
});

it("a machine of a pool that was made meanwhile is no stray", async () => {
  const stage = await aStage(1);
  await stage.rest();
  stage.deletePool();
  stage.patchPool({ metadata: { finalizers: null } });
  const stranger = stage.begin();
  let seen = 0;
  await stranger.until((call) => {
    if (lists(call)) seen += 1;
    return seen === 2;
  });
  stage.makePool(2);
  await stage.begin().finish();
  await stranger.finish();
  expect(stage.vms()).toContain("web-1");
  expect(stage.wrong).toEqual([]);
});

it("a machine whose spec is put back from a snapshot of an older template gets the one in force, with one restart", async () => {
  const stage = await aStage(2);
  await stage.rest();
  const [before] = objects(stage.world.cluster, "virtualmachines").filter(({ metadata: { name } }) => name === "web-0");
  stage.patchPool({ spec: { virtualMachineTemplate: { spec: { template: { spec: { hostname: "new" } } } } } });
  await stage.rest();
  await stage.advance(10_000);
  await stage.rest();
  const revisions = () =>
    (["virtualmachines", "virtualmachineinstances"] as const).flatMap((plural) =>
      objects(stage.world.cluster, plural).map(({ metadata }) => metadata.labels?.[REVISION_LABEL]),
    );
  expect(revisions()).toEqual(["web-2", "web-2", "web-2", "web-2"]);
  // The restore needs the machine stopped.
  const template = recordAt(before ?? {}, "spec")["template"];
  stage.patchVm("web-0", { spec: { running: false } });
  stage.catchUp();
  stage.patchVm("web-0", { spec: { template, running: true } });
  stage.catchUp();
  expect(revisions().toSorted()).toEqual(["web-1", "web-2", "web-2", "web-2"]);
  for (let times = 0; times < 2; times += 1) {
    await stage.advance(10_000);
    await stage.rest();
  }
  expect(revisions()).toEqual(["web-2", "web-2", "web-2", "web-2"]);
  const guests = objects(stage.world.cluster, "virtualmachineinstances").map(({ metadata: { uid } }) => uid);
  await stage.advance(10_000);
  await stage.rest();
  expect(objects(stage.world.cluster, "virtualmachineinstances").map(({ metadata: { uid } }) => uid)).toEqual(guests);
  expect(stage.wrong).toEqual([]);
});
