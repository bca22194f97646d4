/**
 * An abstract world for the protocol of the claim: one pool, its machines, a clock and overlapping passes, all in memory.
 * The passes are the real `reconcilePool`; the world decides when each of their calls takes effect and what its answer says,
 * and judges every write by the invariants of the design, with counts of its own.
 */
import { isDeepStrictEqual } from "node:util";
import * as z from "zod";
import type { Answer, ApiFailure, Cluster, Patch, Preconditions } from "../../shared/clusters/cluster.ts";
import { type PassResult, reconcilePool } from "../../shared/clusters/reconcile-pool.ts";
import { parseClaim, QUIET_AFTER_MS } from "../../shared/planning/claim.ts";
import { parsePool } from "../../shared/planning/model.ts";
import {
  CLAIM_ANNOTATION,
  isRevisionOf,
  POOL_FINALIZER,
  REVISION_LABEL,
  REVOKED_ANNOTATION,
} from "../../shared/planning/names.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import { anOwner, KUBEVIRT_FINALIZER, LABELS, NOW } from "../support/builders.ts";

/** What happens to a call. `late` answers are lost and the call lands later or never; `busy` ones ask for a retry as well. */
export type Fate = "answer" | "lose" | "late" | "busy" | "drop" | "refuse";

/** What users, KubeVirt and the garbage collector do. `which` picks among what there is. */
export type Disturbance =
  | { readonly act: "scale"; readonly replicas: number }
  | { readonly act: "resize"; readonly by: number }
  | { readonly act: "pause" | "edit" | "break" | "unmanage" | "attach" | "foreign" | "collect" | "forget" | "scribble" }
  | { readonly act: "deletePool"; readonly how: "background" | "foreground" | "orphan" }
  | { readonly act: "delete" | "detach" | "relabel" | "ready" | "finish"; readonly which: number };

export type Step =
  | { readonly kind: "start"; readonly wide: boolean }
  | { readonly kind: "serve"; readonly which: number; readonly fate: Fate }
  /** Serves one pass alone, honestly, for some calls. */
  | { readonly kind: "run"; readonly which: number; readonly calls: number }
  /** Starts a pass and serves it alone, honestly, until it is about to write its claim, or to create or delete a machine. */
  | { readonly kind: "stall"; readonly wide: boolean; readonly before: "claim" | "act" }
  /** Starts a pass and serves it alone, honestly, to its end. */
  | { readonly kind: "pass"; readonly wide: boolean }
  | { readonly kind: "land" | "crash"; readonly which: number }
  | { readonly kind: "tick"; readonly seconds: number }
  | { readonly kind: "disturb"; readonly disturbance: Disturbance };

export interface Beginning {
  readonly replicas: number;
  /** The pool has all its machines and its claim when the story begins. */
  readonly grown: boolean;
}

export interface World {
  play(step: Step): Promise<void>;
  /** Lets everything under way end, then undisturbed passes run as the schedule wakes them; throws unless they reach the match and rest there. */
  converge(): Promise<void>;
  /** Live machines of the pool, and what was written so far. */
  readonly live: () => number;
  readonly writes: () => number;
}

/** Overlapping passes at once. */
const PASSES_MAX = 3;
/** A pass starts no write after this, and is gone a little later, as the function's time limit has it. */
const WRITES_UNTIL_MS = 50_000;
const PASS_LIFETIME_MS = 60_000;
/** Undisturbed minutes: T, then two turns of the slowest schedule. */
const MINUTES_MAX = 24;
const SETTLED_MINUTES = 10;
const CALLS_OF_A_PASS_MAX = 2_000;
const ORDINALS_OF_OTHERS = 3;

interface StoredVm {
  readonly name: string;
  readonly uid: string;
  version: number;
  labels: Readonly<Record<string, string>>;
  annotations: Readonly<Record<string, string>>;
  /** UID of the pool that controls it. */
  owner: string | undefined;
  finalizers: readonly string[];
  terminating: boolean;
  ready: boolean;
}

interface StoredPool {
  readonly uid: string;
  version: number;
  generation: number;
  annotations: Readonly<Record<string, string>> | undefined;
  finalizers: readonly string[];
  deleting: boolean;
  status: object | undefined;
  replicas: number;
  paused: boolean;
  broken: boolean;
  unmanaged: boolean;
  edition: number;
}

/** What was in force after one change, as far as the invariants ask. */
interface Moment {
  readonly poolUid: string | undefined;
  readonly replicas: number;
  readonly mayCreate: boolean;
  readonly mayDelete: boolean;
  readonly owners: ReadonlyMap<string, string>;
  readonly live: ReadonlySet<string>;
}

interface Pass {
  readonly id: number;
  readonly startedAt: number;
  /** Index of the moment that its first read saw. */
  firstRead: number | undefined;
  calls: number;
  ended: boolean;
}

/** A call that was sent and not answered. */
interface Pending {
  readonly pass: Pass;
  readonly name: string;
  serve(fate: Fate): void;
  /** Takes effect without an answer. */
  land(): void;
  readonly isRead: boolean;
}

/** Calls of one pass to be served in a row. */
interface Errand {
  readonly pass: Pass | undefined;
  readonly calls: number;
  /** It ends before a call of such a name. */
  readonly stallsAt: RegExp | undefined;
}

interface Late {
  readonly name: string;
  readonly until: number;
  land(): void;
}

const recordSchema = z.record(z.string(), z.string());
const ownersSchema = z.array(z.looseObject({ uid: z.string(), controller: z.boolean().optional() }));
const createSchema = z.object({
  metadata: z.object({
    name: z.string(),
    labels: recordSchema,
    finalizers: z.array(z.string()),
    ownerReferences: ownersSchema.length(1),
  }),
});
const mergeSchema = z.object({
  metadata: z.strictObject({
    uid: z.string(),
    resourceVersion: z.string().optional(),
    finalizers: z.array(z.string()).optional(),
    ownerReferences: ownersSchema.optional(),
    annotations: recordSchema.optional(),
  }),
});
const namedSchema = z.object({ metadata: z.looseObject({ name: z.string() }) });

export async function createWorld(beginning: Beginning): Promise<World> {
  let now = NOW;
  let ids = 0;
  let writes = 0;
  let version = 1;
  const log: string[] = [];
  const vms = new Map<string, StoredVm>();
  const revisions = new Map<string, object>();
  const moments: Moment[] = [];
  /** Machines that our creates made, and that our deletes struck: moment of the write. */
  const created = new Map<string, number>();
  const deleted = new Set<string>();
  let passes: Pass[] = [];
  let pending: Pending[] = [];
  let late: Late[] = [];
  let failure: Error | undefined;
  const errands: Errand[] = [];
  let pool: StoredPool | undefined = {
    uid: nextUid(),
    version: nextVersion(),
    generation: 1,
    annotations: undefined,
    finalizers: [],
    deleting: false,
    status: undefined,
    replicas: beginning.replicas,
    paused: false,
    broken: false,
    unmanaged: false,
    edition: 0,
  };
  remember();
  // A machine of another pool whose labels match all the same.
  addVm({ name: "other-0", owner: "99999999-other-pool", revision: "other-1", finalizers: [POOL_FINALIZER] });
  if (beginning.grown) await grow();

  return { play, converge, live: () => liveOf(last(), pool?.uid).size, writes: () => writes };

  async function play(step: Step): Promise<void> {
    if (step.kind === "disturb") disturb(step.disturbance);
    else playStep(step);
    await settle();
  }

  function playStep(step: Exclude<Step, { kind: "disturb" }>): void {
    switch (step.kind) {
      case "start":
        if (passes.length < PASSES_MAX) void start(step.wide);
        return;
      case "serve": {
        const call = pick(pending, step.which);
        if (call !== undefined) serve(call, step.fate);
        return;
      }
      case "run":
        errands.push({ pass: pick(passes, step.which), calls: step.calls, stallsAt: undefined });
        return;
      case "stall":
      case "pass":
        if (passes.length >= PASSES_MAX) return;
        void start(step.wide);
        errands.push({
          pass: passes.at(-1),
          calls: CALLS_OF_A_PASS_MAX,
          stallsAt: step.kind === "stall" ? STALLS[step.before] : undefined,
        });
        return;
      case "land": {
        const call = pick(late, step.which);
        if (call === undefined) return;
        late = late.filter((other) => other !== call);
        log.push(`late: ${call.name}`);
        judged(() => call.land());
        return;
      }
      case "crash": {
        const pass = pick(passes, step.which);
        if (pass !== undefined) end(pass, "crashes");
        return;
      }
      case "tick":
        tick(step.seconds * 1_000);
    }
  }

  // --- passes and their calls

  /** Lets promises run until every pass waits for a call, and serves what errands ask for. */
  async function settle(): Promise<void> {
    await microtasks();
    for (let errand = errands.shift(); errand !== undefined; errand = errands.shift()) {
      for (let calls = 0; calls < errand.calls && failure === undefined; calls += 1) {
        const call = pending.find(({ pass }) => pass === errand?.pass);
        if (call === undefined || errand.stallsAt?.test(call.name) === true) break;
        serve(call, "answer");
        await microtasks();
      }
    }
    if (failure !== undefined) throw failure;
  }

  async function start(wide: boolean): Promise<PassResult | undefined> {
    const pass: Pass = { id: nextId(), startedAt: now, firstRead: undefined, calls: 0, ended: false };
    passes.push(pass);
    log.push(`pass ${pass.id} starts${wide ? ", wide" : ""}`);
    try {
      const result = await reconcilePool(
        { namespace: "default", name: "web" },
        {
          cluster: clusterFor(pass),
          mode: "act",
          by: "world",
          wide,
          now: () => now,
          sleep: async () => {},
          nonce: () => `nonce-${nextId()}`,
          writeTimeLeftMs: () => pass.startedAt + WRITES_UNTIL_MS - now,
        },
      );
      log.push(`pass ${pass.id} ends: ${result.decisions.join("; ") || "nothing to do"}`);
      passes = passes.filter((other) => other !== pass);
      writeStatus(result);
      return result;
    } catch (error) {
      fail(`pass ${pass.id} throws ${error instanceof Error ? error.stack : String(error)}`);
      return undefined;
    }
  }

  /** What the status function does with the fact of a pass. */
  function writeStatus({ status, statusChanged, resourceVersion }: PassResult): void {
    if (pool === undefined || status === undefined || !statusChanged || resourceVersion !== String(pool.version))
      return;
    pool.status = status;
    pool.version = nextVersion();
  }

  function end(pass: Pass, how: string): void {
    log.push(`pass ${pass.id} ${how}`);
    pass.ended = true;
    passes = passes.filter((other) => other !== pass);
    for (const call of pending.filter((other) => other.pass === pass && !other.isRead)) later(call);
    pending = pending.filter((other) => other.pass !== pass);
  }

  function later({ pass, name, land }: Pending): void {
    late.push({ name, land, until: pass.startedAt + QUIET_AFTER_MS });
  }

  function tick(ms: number): void {
    now += ms;
    log.push(`${ms / 1_000} s pass`);
    for (const pass of passes) if (now >= pass.startedAt + PASS_LIFETIME_MS) end(pass, "runs out of time");
    late = late.filter(({ until }) => now < until);
  }

  function serve(call: Pending, fate: Fate): void {
    pending = pending.filter((other) => other !== call);
    log.push(`${call.name}${fate === "answer" ? "" : ` (${fate})`}`);
    judged(() => call.serve(fate));
  }

  /** The calls of one pass; each waits until the world serves it. */
  function clusterFor(pass: Pass): Cluster {
    const ask = <T>(name: string, isRead: boolean, execute: () => Answer<T>) =>
      new Promise<Answer<T>>((resolve) => {
        pass.calls += 1;
        if (pass.ended) return;
        if (pass.calls > CALLS_OF_A_PASS_MAX) {
          fail(`pass ${pass.id} does not end`);
          return;
        }
        const call: Pending = {
          pass,
          name: `pass ${pass.id}: ${name}`,
          isRead,
          land: () => void execute(),
          serve: (fate) => {
            const sent = isRead && fate !== "answer" ? "drop" : fate;
            if (sent === "answer") {
              resolve(execute());
              return;
            }
            if (sent === "lose") execute();
            if (sent === "late" || sent === "busy") later(call);
            resolve({ ok: false, failure: sent === "refuse" ? REFUSED : sent === "busy" ? BUSY : UNCLEAR });
          },
        };
        pending.push(call);
      });
    return {
      poolVersion: async () => answered("v1beta1"),
      get: (type, { name }) =>
        ask(`read ${type.plural} ${name}`, true, () => {
          if (type.plural === "controllerrevisions") return found(revisions.get(name));
          pass.firstRead ??= moments.length - 1;
          return found(pool === undefined ? undefined : poolJson(pool));
        }),
      list: (type, _at, options = {}) => {
        if (type.plural === "controllerrevisions")
          return ask("list revisions", true, () => answered([...revisions.values()]));
        if (type.plural === "virtualmachineinstances") return ask("list instances", true, () => answered([]));
        return ask(options.metadataOnly === true ? "list metadata" : "list", true, () => answered(listed(options)));
      },
      create: (type, _at, object, options) => {
        // Neither changes anything that a pass goes by.
        if (type.plural === "events" || options?.dryRun === true) return Promise.resolve(answered(object));
        const { name } = namedSchema.parse(object).metadata;
        return ask(`create ${type.plural} ${name}`, false, () =>
          type.plural === "controllerrevisions" ? createRevision(name, object) : createMachine(pass, object),
        );
      },
      patch: (type, { name }, patch) =>
        ask(`patch ${type.plural} ${name} ${describe(patch)}`, false, () =>
          type.plural === "virtualmachines" ? patchMachine(pass, name, patch) : patchPool(patch),
        ),
      delete: (type, { name }, preconditions) =>
        ask(`delete ${name}`, false, () =>
          type.plural === "controllerrevisions" ? deleteRevision(name) : deleteMachine(pass, name, preconditions),
        ),
    };
  }

  // --- what the API server does with a call

  function listed({ labelSelector, metadataOnly }: { labelSelector?: string; metadataOnly?: boolean }): object[] {
    return [...vms.values()]
      .filter((vm) => labelSelector === undefined || vm.labels["app"] === LABELS.app)
      .map((vm) => vmJson(vm, metadataOnly === true));
  }

  function createRevision(name: string, object: object): Answer<unknown> {
    if (revisions.has(name)) return refused("alreadyExists");
    revisions.set(name, {
      ...object,
      metadata: { ...namedSchema.parse(object).metadata, uid: nextUid(), resourceVersion: "1" },
    });
    writes += 1;
    return answered(object);
  }

  function deleteRevision(name: string): Answer<unknown> {
    if (!revisions.delete(name)) return refused("notFound");
    writes += 1;
    return answered({});
  }

  function createMachine(pass: Pass, object: object): Answer<unknown> {
    const { name, labels, finalizers, ownerReferences } = createSchema.parse(object).metadata;
    if (vms.has(name)) return refused("alreadyExists");
    const owner = ownerReferences[0]?.uid;
    const uid = nextUid();
    vms.set(name, {
      name,
      uid,
      owner,
      labels,
      annotations: {},
      finalizers,
      version: nextVersion(),
      terminating: false,
      ready: false,
    });
    writes += 1;
    remember();
    created.set(uid, moments.length - 1);
    judgeCreate(pass, name, owner);
    return answered({});
  }

  function deleteMachine(pass: Pass, name: string, { uid, resourceVersion }: Preconditions): Answer<unknown> {
    const vm = vms.get(name);
    if (vm === undefined) return refused("notFound");
    if (vm.uid !== uid || String(vm.version) !== resourceVersion) return refused("conflict");
    judgeDelete(pass, vm);
    writes += 1;
    deleted.add(uid);
    strike(vm);
    return answered({});
  }

  function patchMachine(pass: Pass, name: string, patch: Patch): Answer<unknown> {
    if (patch.type !== "merge") throw new Error("machines are patched by merge");
    const { metadata } = mergeSchema.parse(patch.body);
    const vm = vms.get(name);
    if (vm === undefined) return refused("notFound");
    if (vm.uid !== metadata.uid) return refused("conflict");
    if (metadata.resourceVersion !== undefined && metadata.resourceVersion !== String(vm.version))
      return refused("conflict");
    const after: StoredVm = {
      ...vm,
      finalizers: metadata.finalizers ?? vm.finalizers,
      annotations: { ...vm.annotations, ...metadata.annotations },
      owner:
        metadata.ownerReferences === undefined
          ? vm.owner
          : metadata.ownerReferences.find(({ controller }) => controller === true)?.uid,
    };
    judgePatch(pass, vm, after);
    writes += 1;
    Object.assign(vm, after);
    changed(vm);
    return answered(vmJson(vm, false));
  }

  function patchPool(patch: Patch): Answer<unknown> {
    if (pool === undefined) return refused("notFound");
    const before = pool;
    if (patch.type === "merge") {
      const { uid, resourceVersion, finalizers = [], ...rest } = mergeSchema.parse(patch.body).metadata;
      if (before.uid !== uid || String(before.version) !== resourceVersion) return refused("conflict");
      if (Object.keys(rest).length > 0) fail("a pass changes more of the pool than its finalizers");
      if (!before.deleting) fail("a pass drops the finalizer of a pool that lives");
      before.finalizers = finalizers;
    } else {
      for (const { op, path, value } of patch.operations) {
        if (op === "test" && !isDeepStrictEqual(readPool(before, path) ?? null, value ?? null))
          return refused("invalid");
      }
      for (const { op, path, value } of patch.operations) if (op !== "test") writePool(before, path, value);
    }
    writes += 1;
    before.version = nextVersion();
    const answer = answered(poolJson(before));
    removeFinishedPool();
    remember();
    return answer;
  }

  function readPool({ uid, generation, annotations, finalizers }: StoredPool, path: string): unknown {
    const known: Readonly<Record<string, unknown>> = {
      "/metadata/uid": uid,
      "/metadata/generation": generation,
      "/metadata/annotations": annotations,
      "/metadata/finalizers": finalizers.length === 0 ? undefined : finalizers,
      [CLAIM_PATH]: annotations?.[CLAIM_ANNOTATION],
    };
    if (!(path in known)) throw new Error(`the world does not know ${path}`);
    return known[path];
  }

  /** Anything that is not named here is none of a pass's business. */
  function writePool(target: StoredPool, path: string, value: unknown): void {
    if (path === "/metadata/annotations") target.annotations = recordSchema.parse(value);
    else if (path === CLAIM_PATH)
      target.annotations = { ...target.annotations, [CLAIM_ANNOTATION]: z.string().parse(value) };
    else if (path === "/metadata/finalizers") target.finalizers = z.array(z.string()).parse(value);
    else if (path === "/metadata/finalizers/-") target.finalizers = [...target.finalizers, z.string().parse(value)];
    else fail(`a pass writes ${path} of the pool`);
  }

  // --- judgement

  function windowOf(pass: Pass): readonly Moment[] {
    return moments.slice(pass.firstRead ?? moments.length - 1);
  }

  /** Invariants 3, 5 and 7: some spec and membership that this pass may have seen allow one machine more. */
  function judgeCreate(pass: Pass, name: string, owner: string | undefined): void {
    const window = windowOf(pass);
    const allowing = window.filter(({ poolUid, mayCreate }) => poolUid === owner && mayCreate);
    if (allowing.length === 0)
      fail(`${name} is created though the pool was paused, illegal or on its way out all the time`);
    const replicas = Math.max(...allowing.map((moment) => moment.replicas));
    const after = [...ownedOf(last(), owner)];
    const counts = window.map(
      (moment) => after.filter((uid) => moment.owners.get(uid) === owner || created.has(uid)).length,
    );
    const least = Math.min(...counts);
    if (least > replicas) fail(`${name} is created: ${least} machines, ${replicas} are wanted (invariant 3)`);
  }

  /** Invariants 1, 2, 5 and 7: judged before the delete takes effect. */
  function judgeDelete(pass: Pass, vm: StoredVm): void {
    const { owner } = vm;
    if (!liveOf(last(), owner).has(vm.uid))
      fail(`${vm.name} is deleted, which is no live machine of the pool (invariant 1)`);
    const window = windowOf(pass);
    const allowing = window.filter(({ poolUid, mayDelete }) => poolUid === owner && mayDelete);
    if (allowing.length === 0) fail(`${vm.name} is deleted though nothing allowed scale in all the time`);
    const replicas = Math.min(...allowing.map((moment) => moment.replicas));
    const counts = window.map((moment, index) => liveAfter(vm, moment, moments.length - window.length + index));
    const most = Math.max(...counts);
    if (most < replicas) fail(`${vm.name} is deleted: ${most} machines stay, ${replicas} are wanted (invariant 2)`);
  }

  /** Live machines if others had changed nothing since `moment`, less all that we deleted, with all that we created. */
  function liveAfter(victim: StoredVm, moment: Moment, index: number): number {
    const stays = (uid: string) => !deleted.has(uid) && uid !== victim.uid;
    const then = [...liveOf(moment, victim.owner)].filter(stays);
    const since = [...created].filter(([uid, at]) => at > index && stays(uid) && !then.includes(uid));
    return then.length + since.length;
  }

  /** Invariants 1 and 6. */
  function judgePatch(pass: Pass, before: StoredVm, after: StoredVm): void {
    const window = windowOf(pass);
    const wasOurs = window.some(({ owners, poolUid }) => poolUid !== undefined && owners.get(before.uid) === poolUid);
    const wasDeleting = pool === undefined || pool.deleting;
    const lost = before.finalizers.filter((finalizer) => !after.finalizers.includes(finalizer));
    if (!isDeepStrictEqual(lost, lost.length === 0 ? [] : [POOL_FINALIZER])) fail(`${before.name} loses ${lost}`);
    if (before.owner !== after.owner && (!wasOurs || before.labels["app"] === LABELS.app))
      fail(`${before.name} is released`);
    if (before.annotations[REVOKED_ANNOTATION] !== after.annotations[REVOKED_ANNOTATION] && !wasOurs)
      fail(`${before.name} is touched, which is none of ours (invariant 6)`);
    if (lost.length === 0 || before.owner !== after.owner) return;
    const leftBehind = before.owner === undefined && isRevisionOf("web", before.labels[REVISION_LABEL]);
    if (!leftBehind && !(wasOurs && (before.terminating || wasDeleting)))
      fail(`the finalizer of ${before.name} is dropped, which is not ours to free (invariant 1)`);
  }

  /** Throws at the next `settle`, so that a call never throws into a pass. */
  function fail(message: string): void {
    failure ??= new Error(`${message}\n${log.slice(-120).join("\n")}`);
  }

  function judged(act: () => void): void {
    try {
      act();
    } catch (error) {
      fail(error instanceof Error ? `${error.stack}` : String(error));
    }
  }

  // --- everybody else

  function disturb(disturbance: Disturbance): void {
    if ("which" in disturbance) log.push(`${disturbance.act} ${disturbance.which}`);
    else if (disturbance.act === "scale") log.push(`scale to ${disturbance.replicas}`);
    else log.push(disturbance.act === "resize" ? `resize by ${disturbance.by}` : disturbance.act);
    switch (disturbance.act) {
      case "scale":
        editSpec({ replicas: disturbance.replicas });
        return;
      case "resize":
        editSpec({ replicas: Math.max(0, (pool?.replicas ?? 0) + disturbance.by) });
        return;
      case "pause":
        editSpec({ paused: pool?.paused === false });
        return;
      case "edit":
        editSpec({ edition: (pool?.edition ?? 0) + 1 });
        return;
      case "break":
        editSpec({ broken: pool?.broken === false });
        return;
      case "unmanage":
        editSpec({ unmanaged: pool?.unmanaged === false });
        return;
      case "attach":
        addForeign(pool?.deleting === false ? pool.uid : undefined);
        return;
      case "foreign":
        addForeign(undefined);
        return;
      case "collect":
        collect();
        return;
      case "forget":
      case "scribble":
        editClaim(disturbance.act);
        return;
      case "deletePool":
        deletePool(disturbance.how);
        return;
      default:
        disturbMachine(disturbance.act, pick([...vms.values()], disturbance.which));
        return;
    }
  }

  function disturbMachine(act: "delete" | "detach" | "relabel" | "ready" | "finish", vm: StoredVm | undefined): void {
    if (vm === undefined || vm.name === "other-0") return;
    log.push(`… ${vm.name}`);
    switch (act) {
      case "delete":
        strike(vm);
        return;
      case "detach":
        vm.owner = undefined;
        changed(vm);
        return;
      case "relabel":
        vm.labels = { ...vm.labels, app: vm.labels["app"] === LABELS.app ? "gone" : LABELS.app };
        changed(vm);
        return;
      case "ready":
        vm.ready = !vm.ready;
        if (!vm.finalizers.includes(KUBEVIRT_FINALIZER) && !vm.terminating)
          vm.finalizers = [...vm.finalizers, KUBEVIRT_FINALIZER];
        changed(vm);
        return;
      case "finish":
        if (vm.terminating) finish(vm);
    }
  }

  function finish(vm: StoredVm): void {
    if (!vm.finalizers.includes(KUBEVIRT_FINALIZER)) return;
    vm.finalizers = vm.finalizers.filter((finalizer) => finalizer !== KUBEVIRT_FINALIZER);
    changed(vm);
  }

  function editSpec(
    change: Partial<Pick<StoredPool, "replicas" | "paused" | "broken" | "unmanaged" | "edition">>,
  ): void {
    if (pool === undefined) {
      recreatePool();
      return;
    }
    Object.assign(pool, change);
    pool.generation += 1;
    pool.version = nextVersion();
    remember();
  }

  function recreatePool(): void {
    log.push("… the pool is made anew");
    pool = {
      uid: nextUid(),
      version: nextVersion(),
      generation: 1,
      annotations: undefined,
      finalizers: [],
      deleting: false,
      status: undefined,
      replicas: 2,
      paused: false,
      broken: false,
      unmanaged: false,
      edition: 7,
    };
    remember();
  }

  function editClaim(how: "forget" | "scribble"): void {
    if (pool?.annotations === undefined) return;
    const { [CLAIM_ANNOTATION]: _, ...others } = pool.annotations;
    pool.annotations = how === "forget" ? others : { ...others, [CLAIM_ANNOTATION]: "{}" };
    pool.version = nextVersion();
  }

  function deletePool(how: "background" | "foreground" | "orphan"): void {
    if (pool === undefined || pool.deleting) return;
    log.push(`… ${how}`);
    pool.deleting = true;
    pool.generation += 1;
    pool.version = nextVersion();
    if (how === "foreground") pool.finalizers = [...pool.finalizers, "foregroundDeletion"];
    if (how === "orphan") pool.finalizers = [...pool.finalizers, "orphan"];
    removeFinishedPool();
    remember();
  }

  /** One round of the garbage collector. */
  function collect(): void {
    const dependents = [...vms.values()].filter(({ owner }) => owner !== undefined && owner === pool?.uid);
    if (pool?.deleting === true && pool.finalizers.includes("orphan")) {
      for (const vm of dependents) {
        vm.owner = undefined;
        changed(vm);
      }
      dropPoolFinalizer("orphan");
    }
    if (pool?.deleting === true && pool.finalizers.includes("foregroundDeletion")) {
      for (const vm of dependents) strike(vm);
      if (dependents.length === 0) dropPoolFinalizer("foregroundDeletion");
    }
    for (const vm of [...vms.values()]) {
      if (vm.owner !== undefined && vm.owner !== pool?.uid && vm.name !== "other-0") strike(vm);
    }
  }

  function dropPoolFinalizer(dropped: string): void {
    if (pool === undefined) return;
    pool.finalizers = pool.finalizers.filter((finalizer) => finalizer !== dropped);
    pool.version = nextVersion();
    removeFinishedPool();
    remember();
  }

  function removeFinishedPool(): void {
    if (pool?.deleting !== true || pool.finalizers.length > 0) return;
    log.push("the pool is gone");
    pool = undefined;
  }

  /** Takes the lowest name that an ordinal could have. */
  function addForeign(owner: string | undefined): void {
    const free = Array.from({ length: ORDINALS_OF_OTHERS }, (_, ordinal) => `web-${ordinal}`).find(
      (name) => !vms.has(name),
    );
    if (free !== undefined) addVm({ name: free, owner, revision: undefined, finalizers: [] });
  }

  function addVm(vm: {
    name: string;
    owner: string | undefined;
    revision: string | undefined;
    finalizers: string[];
  }): void {
    const { name, owner, revision, finalizers } = vm;
    const labels = owner === undefined ? { app: "foreign" } : LABELS;
    vms.set(name, {
      name,
      uid: nextUid(),
      version: nextVersion(),
      labels: revision === undefined ? labels : { ...labels, [REVISION_LABEL]: revision },
      annotations: {},
      owner,
      finalizers,
      terminating: false,
      ready: true,
    });
    remember();
  }

  function strike(vm: StoredVm): void {
    if (vm.terminating) return;
    vm.terminating = true;
    changed(vm);
  }

  /** After a change of a machine, which goes when nothing holds it any more. */
  function changed(vm: StoredVm): void {
    vm.version = nextVersion();
    if (vm.terminating && vm.finalizers.length === 0) vms.delete(vm.name);
    remember();
  }

  // --- the record

  function remember(): void {
    const acts = pool !== undefined && !pool.deleting && !pool.paused && !pool.broken;
    moments.push({
      poolUid: pool?.uid,
      replicas: pool?.replicas ?? 0,
      mayCreate: acts,
      mayDelete: acts && pool?.unmanaged === false,
      owners: new Map(
        [...vms.values()].flatMap(({ uid, owner }) => (owner === undefined ? [] : [[uid, owner] as const])),
      ),
      live: new Set(
        [...vms.values()].filter((vm) => !vm.terminating && vm.labels["app"] === LABELS.app).map(({ uid }) => uid),
      ),
    });
  }

  function last(): Moment {
    const moment = moments.at(-1);
    if (moment === undefined) throw new Error("the world has no beginning");
    return moment;
  }

  function nextId(): number {
    ids += 1;
    return ids;
  }

  function nextUid(): string {
    return `${nextId().toString(16).padStart(8, "0")}-0000`;
  }

  function nextVersion(): number {
    version += 1;
    return version;
  }

  // --- undisturbed passes

  async function grow(): Promise<void> {
    await alone(true);
    for (const vm of vms.values()) if (!vm.ready) disturbMachine("ready", vm);
  }

  async function alone(wide: boolean): Promise<PassResult | undefined> {
    const running = start(wide);
    await microtasks();
    while (pending.length > 0 && failure === undefined) {
      const [call] = pending;
      if (call !== undefined) serve(call, "answer");
      await microtasks();
    }
    if (failure !== undefined) throw failure;
    return running;
  }

  async function converge(): Promise<void> {
    log.push("--- nobody disturbs any more");
    while (pending.length > 0) {
      const [call] = pending;
      if (call !== undefined) serve(call, "answer");
      await settle();
    }
    for (let minute = 0; minute < MINUTES_MAX; minute += 1) {
      await passMinute();
      if (failure !== undefined) throw failure;
    }
    const wrong = mismatch();
    if (wrong !== undefined) fail(`after ${MINUTES_MAX} undisturbed minutes ${wrong} (invariant 9)`);
    const before = writes;
    await alone(false);
    await alone(true);
    if (writes > before) fail(`${writes - before} writes though the pool is settled (invariant 8)`);
    if (failure !== undefined) throw failure;
  }

  async function passMinute(): Promise<void> {
    tick(60_000);
    const call = late.pop();
    if (call !== undefined) {
      log.push(`late: ${call.name}`);
      judged(() => call.land());
    }
    collect();
    for (const vm of [...vms.values()]) {
      if (vm.terminating) finish(vm);
      else if (!vm.ready) disturbMachine("ready", vm);
    }
    const seen = pool === undefined ? undefined : parsePool(poolJson(pool));
    const cause = seen && resyncCause(seen, now, { settledMinutes: SETTLED_MINUTES, everything: false });
    if (cause === undefined) return;
    const result = await alone(cause === "sweep");
    if (result?.again === true) await alone(false);
  }

  /** How the world differs from what its users asked for. */
  function mismatch(): string | undefined {
    const held = pool?.broken === true && !pool.deleting;
    const hanging = [...vms.values()].find(
      ({ name, owner, terminating, finalizers }) =>
        name !== "other-0" &&
        finalizers.includes(POOL_FINALIZER) &&
        (owner === undefined || owner === pool?.uid ? !held && (owner === undefined || terminating) : true),
    );
    if (hanging !== undefined) return `the finalizer of ${hanging.name} is still there`;
    if (pool === undefined) return undefined;
    if (pool.deleting) return `the pool is still there, with ${pool.finalizers}`;
    if (pool.broken) return undefined;
    const relabelled = [...vms.values()].find(
      ({ owner, labels }) => owner === pool?.uid && labels["app"] !== LABELS.app,
    );
    if (relabelled !== undefined) return `${relabelled.name} is still bound`;
    const claim = parseClaim(pool.annotations?.[CLAIM_ANNOTATION]);
    if (claim === undefined) return "the claim cannot be read";
    if (claim.create.size + claim.delete.length > 0) return "the claim still names machines";
    if (claim.generation !== pool.generation) return "the claim names an old generation";
    const { size } = liveOf(last(), pool.uid);
    const matches = pool.paused || size === pool.replicas || (pool.unmanaged && size > pool.replicas);
    return matches ? undefined : `${size} machines live, ${pool.replicas} are wanted`;
  }
}

const STALLS = {
  claim: /: (patch virtualmachinepools|create virtualmachines|delete) /,
  act: /: (create virtualmachines|delete) /,
} as const;

const CLAIM_PATH = `/metadata/annotations/${CLAIM_ANNOTATION.replace("/", "~1")}`;

const UNCLEAR: ApiFailure = {
  kind: "timeout",
  status: undefined,
  definite: false,
  retryAfterMs: undefined,
  message: "no answer in time",
};
const BUSY: ApiFailure = {
  kind: "unavailable",
  status: 503,
  definite: false,
  retryAfterMs: 1_000,
  message: "try again",
};
const REFUSED: ApiFailure = {
  kind: "forbidden",
  status: 403,
  definite: true,
  retryAfterMs: undefined,
  message: "quota is used up",
};

function answered<T>(value: T): Answer<T> & { readonly ok: true } {
  return { ok: true, value, serverTimeMs: undefined };
}

function refused(kind: "notFound" | "alreadyExists" | "conflict" | "invalid"): Answer<never> {
  return { ok: false, failure: { kind, status: undefined, definite: true, retryAfterMs: undefined, message: kind } };
}

function found(object: object | undefined): Answer<unknown> {
  return object === undefined ? refused("notFound") : answered(object);
}

function ownedOf({ owners }: Moment, poolUid: string | undefined): ReadonlySet<string> {
  return new Set([...owners].filter(([, owner]) => owner === poolUid).map(([uid]) => uid));
}

function liveOf(moment: Moment, poolUid: string | undefined): ReadonlySet<string> {
  return new Set([...ownedOf(moment, poolUid)].filter((uid) => moment.live.has(uid)));
}

function pick<T>(from: readonly T[], which: number): T | undefined {
  return from.length === 0 ? undefined : from[which % from.length];
}

function describe(patch: Patch): string {
  return patch.type === "merge"
    ? JSON.stringify(patch.body)
    : patch.operations
        .map(({ op, path, value }) => `${op} ${path} ${typeof value === "object" ? JSON.stringify(value) : value}`)
        .join(", ");
}

/** Until no promise is left that can go on by itself. */
function microtasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function poolJson(pool: StoredPool): object {
  const {
    uid,
    version,
    generation,
    annotations,
    finalizers,
    deleting,
    status,
    replicas,
    paused,
    broken,
    unmanaged,
    edition,
  } = pool;
  return {
    metadata: {
      name: "web",
      namespace: "default",
      uid,
      resourceVersion: String(version),
      generation,
      ...(deleting ? { deletionTimestamp: "2026-11-22T10:00:00Z" } : {}),
      ...(annotations === undefined ? {} : { annotations }),
      ...(finalizers.length === 0 ? {} : { finalizers }),
    },
    spec: {
      replicas,
      paused,
      selector: { matchLabels: LABELS },
      virtualMachineTemplate: {
        metadata: { labels: LABELS, annotations: { edition: String(edition) } },
        spec: { runStrategy: "Always", template: {} },
      },
      // Roll-outs are judged in the simulator, which has instances.
      updateStrategy: { unmanaged: {} },
      ...(broken ? { maxUnavailable: "0%" } : {}),
      ...(unmanaged ? { scaleInStrategy: { unmanaged: {} } } : {}),
    },
    ...(status === undefined ? {} : { status }),
  };
}

function vmJson(vm: StoredVm, metadataOnly: boolean): object {
  const { name, uid, version, labels, annotations, owner, finalizers, terminating, ready } = vm;
  return {
    metadata: {
      name,
      namespace: "default",
      uid,
      resourceVersion: String(version),
      labels,
      annotations,
      finalizers,
      ownerReferences: owner === undefined ? [] : [anOwner(owner)],
      ...(terminating ? { deletionTimestamp: "2026-11-22T10:00:00Z" } : {}),
    },
    ...(metadataOnly ? {} : { status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }] } }),
  };
}
