/** Does what a plan says, in its order, and collects every outcome. Decides nothing but when to stop. */
import { announceAdvice } from "../planning/advice.ts";
import { describeAlteration } from "../planning/alteration.ts";
import { type Claim, EMPTY_LEDGER, formatClaim, type Ledger, ledgerAfterClaim, readClaim } from "../planning/claim.ts";
import { recordOf } from "../planning/json.ts";
import type { Pool, Vm } from "../planning/model.ts";
import {
  CLAIM_ANNOTATION,
  GUARDED_ANNOTATION,
  HEALING_ANNOTATION,
  POOL_FINALIZER,
  POOL_GROUP,
  REVISION_LABEL,
  REVOKED_ANNOTATION,
  revisionName,
  vmName,
} from "../planning/names.ts";
import type { Action, ActionKind, Observation, Plan } from "../planning/plan.ts";
import { buildRevision, namingOf } from "../planning/revisions.ts";
import { type Announcement, type PassFailure, showsFailure } from "../planning/status.ts";
import { buildVm } from "../planning/template.ts";
import type { Verdict } from "../planning/verdict.ts";
import {
  type Answer,
  type ApiFailure,
  CLAIMS,
  type Cluster,
  CONTROLLER_REVISIONS,
  DATA_VOLUMES,
  INSTANCES,
  type JsonPatchOperation,
  poolsOf,
  type ResourceType,
  VIRTUAL_MACHINES,
} from "./cluster.ts";
import { inParallel } from "./parallel.ts";

const RETRIES_MAX = 3;

export interface ApplyContext {
  readonly cluster: Cluster;
  readonly seen: Observation;
  readonly poolVersion: string;
  /** Name of this deployment in the claim. */
  readonly by: string;
  /** Fresh for this loop. */
  readonly nonce: string;
  readonly sleep: (ms: number) => Promise<void>;
  /** Time left in which a write may still start, in milliseconds. */
  readonly writeTimeLeftMs: () => number;
}

/** What it takes to let machines go; of a pool that is gone there is no UID. */
export interface UpkeepContext extends Pick<ApplyContext, "cluster" | "sleep" | "writeTimeLeftMs"> {
  readonly seen: { readonly pool: { readonly namespace: string; readonly uid: string | undefined } };
}

/** What became of one action. */
export interface Outcome {
  readonly action: Action;
  /** `done` also when it was found done; `skipped` when it was never sent. */
  readonly result: "done" | "already" | "failed" | "skipped";
  readonly failure: ApiFailure | undefined;
}

export interface Applied {
  readonly outcomes: readonly Outcome[];
  readonly ledger: Ledger;
  /** The pool's resourceVersion after the last write to it; undefined when it was not written. */
  readonly poolResourceVersion: string | undefined;
}

/** What a phase hands to the next. */
interface Progress {
  outcomes: Outcome[];
  ledger: Ledger;
  poolResourceVersion: string | undefined;
}

/** Applies the plan's actions: upkeep, revocations, the claim, then what the claim allows. A phase that fails stops those that lean on it. */
export async function applyPlan(plan: Plan, context: ApplyContext): Promise<Applied> {
  const progress: Progress = { outcomes: [], ledger: context.seen.ledger, poolResourceVersion: undefined };
  await applyUpkeep(plan, context, progress);
  await applyAll(of(plan, "revokeDelete", "revokeRestart"), progress, (action) =>
    action.kind === "revokeDelete" ? touch(context, VIRTUAL_MACHINES, action.vm) : revokeRestart(action, context),
  );
  const revoked = !hasFailed(progress, "revokeDelete") && !hasFailed(progress, "revokeRestart");
  if (revoked && !(await tryTemplate(plan, context, progress))) return progress;
  if (!revoked || !(await applyClaim(plan, context, progress))) {
    skip(of(plan, ...AFTER_CLAIM), progress);
    return progress;
  }
  await applyAll(of(plan, "createRevision"), progress, (action) => createRevision(action.name, context));
  const named = [of(plan, "createVm"), of(plan, "updateVm")] as const;
  if (hasFailed(progress, "createRevision")) skip(named.flat(), progress);
  else {
    await applyCreates(named[0], context, progress);
    await applyGrowing(named[1], progress, (action) => updateVm(action, context));
  }
  await applyAll(of(plan, "deleteVm"), progress, ({ vm }) =>
    deleteAsRead(context, { type: VIRTUAL_MACHINES, object: vm }),
  );
  await applyAll(of(plan, "restartInstance"), progress, (action) => restart(action, context));
  await applyAll(of(plan, "labelInstance"), progress, (action) => labelInstance(action, context));
  await applyAll(of(plan, "pruneRevision"), progress, ({ revision }) =>
    deleteAsRead(context, { type: CONTROLLER_REVISIONS, object: revision }),
  );
  await applyAll(of(plan, "dropPoolFinalizer"), progress, () => dropPoolFinalizer(context));
  return progress;
}

/** Lets machines go whose pool is gone. */
export async function applyGone(plan: Pick<Plan, "actions">, context: UpkeepContext): Promise<readonly Outcome[]> {
  const progress: Progress = { outcomes: [], ledger: EMPTY_LEDGER, poolResourceVersion: undefined };
  await applyUpkeep(plan, context, progress);
  return progress.outcomes;
}

/** Not done when the claim could not be written. */
const AFTER_CLAIM = [
  "createRevision",
  "createVm",
  "updateVm",
  "deleteVm",
  "restartInstance",
  "labelInstance",
  "pruneRevision",
  "dropPoolFinalizer",
] as const satisfies readonly ActionKind[];

/**
 * Before anything is claimed for them, a machine of a new revision is tried, one that is to take the place of another, and one
 * after a pass that failed: a template that the cluster refuses costs no revision and no machine. Nor does one of which it makes
 * machines that the pool would not know again. False when it was refused, and nothing of the plan is done.
 */
async function tryTemplate(plan: Plan, context: ApplyContext, progress: Progress): Promise<boolean> {
  const trial = trialOf(plan, context.seen.pool);
  const vm = trial && machineOf(trial.action, context);
  if (trial === undefined || vm === undefined || context.writeTimeLeftMs() <= 0) return true;
  // The name of a machine that is to go is taken: that is found after the machine was looked at.
  const answer = await context.cluster.create(VIRTUAL_MACHINES, context.seen.pool, vm, { dryRun: true });
  const failure = answer.ok ? alterationOf(answer.value, context) : answer.failure;
  if (failure === undefined || !isAboutObject(failure, trial)) return true;
  // Nothing came of it: it was refused.
  progress.outcomes.push({ action: trial.action, ...failed({ ...failure, kind: "invalid" }) });
  const others = of(plan, "writeClaim", ...AFTER_CLAIM).filter((action) => action !== trial.action);
  skip(others, progress);
  return false;
}

interface Trial {
  readonly action: CreateVm;
  /**
   * The first of a new revision; one `extra`, while the machine whose place it is to take is still there; or one `more` of a revision
   * that machines were made of.
   */
  readonly one: "first" | "extra" | "more";
}

function trialOf(plan: Plan, pool: Pool): Trial | undefined {
  const [first] = of(plan, "createVm");
  if (first !== undefined && of(plan, "createRevision").length > 0) return { action: first, one: "first" };
  if (first !== undefined && showsFailure(pool)) return { action: first, one: "more" };
  for (const { vm, successor } of of(plan, "deleteVm")) {
    if (successor === undefined || vm.ordinal === undefined) continue;
    const why = `it is to take the place of ${vm.name}`;
    return { action: { kind: "createVm", ordinal: vm.ordinal, revision: successor, why }, one: "extra" };
  }
  return undefined;
}

/**
 * Whether the refusal would meet every machine of the template. A quota or a missing right is none of that kind, nor is a
 * webhook that cannot be asked without doing: then the create itself tells. Who refuses is said in words only. One that
 * forbids another machine may only count them, and one too many is what a machine is that another has to go for. Where machines of
 * the revision are there, a refusal is the create's to meet: what is planned for them goes on.
 */
function isAboutObject({ kind, status, definite, message }: ApiFailure, { one }: Trial): boolean {
  if (kind === "altered") return true;
  if (!definite || one === "more") return false;
  if (status === 400) return !message.includes("does not support dry run");
  return status === 422 || (status === 403 && one === "first" && /\bdenied (the )?request\b/.test(message));
}

/** The machine that the cluster made, or would make, is not one that the pool would find. */
function alterationOf(made: unknown, { seen: { pool, verdict } }: ApplyContext): ApiFailure | undefined {
  const message = verdict.legal ? describeAlteration(pool, verdict, made) : undefined;
  if (message === undefined) return undefined;
  return { kind: "altered", status: undefined, definite: true, retryAfterMs: undefined, message };
}

/** Lets machines go: their disks first, and not the machine whose disks did not follow. */
async function applyUpkeep(plan: Pick<Plan, "actions">, context: UpkeepContext, progress: Progress): Promise<void> {
  await applyAll(of(plan, "changeDisk"), progress, (action) => changeDisk(action, context));
  const stuck = new Set(
    progress.outcomes.flatMap(({ action, result }) =>
      action.kind === "changeDisk" && result !== "done" && result !== "already" ? [action.vm.uid] : [],
    ),
  );
  const follow = of(plan, "markVm", "releaseVm", "dropVmFinalizer");
  skip(
    follow.filter(({ vm }) => stuck.has(vm.uid)),
    progress,
  );
  await applyAll(
    follow.filter(({ vm }) => !stuck.has(vm.uid)),
    progress,
    (action) => (action.kind === "markVm" ? markVm(action, context) : freeVm(action.vm, context, action.kind)),
  );
}

/** How many of each kind were done, kinds that were not left out. */
export function countDone(outcomes: readonly Outcome[]): Partial<Record<ActionKind, number>> {
  const counts: Partial<Record<ActionKind, number>> = {};
  for (const { action, result } of outcomes)
    if (result === "done") counts[action.kind] = (counts[action.kind] ?? 0) + 1;
  return counts;
}

function of<K extends ActionKind>(
  plan: Pick<Plan, "actions">,
  ...kinds: readonly K[]
): readonly Extract<Action, { kind: K }>[] {
  const isOf = (action: Action): action is Extract<Action, { kind: K }> => kinds.some((kind) => kind === action.kind);
  return plan.actions.filter(isOf);
}

function hasFailed({ outcomes }: Progress, kind: ActionKind): boolean {
  return outcomes.some(({ action, result }) => action.kind === kind && (result === "failed" || result === "skipped"));
}

function skip(actions: readonly Action[], progress: Progress): void {
  for (const action of actions) progress.outcomes.push({ action, result: "skipped", failure: undefined });
}

type Result = Pick<Outcome, "result" | "failure">;
const DONE: Result = { result: "done", failure: undefined };
const ALREADY: Result = { result: "already", failure: undefined };
const SKIPPED: Result = { result: "skipped", failure: undefined };

/** Runs the actions with bounded concurrency; an outcome for each, whatever fails. */
async function applyAll<A extends Action>(
  actions: readonly A[],
  progress: Progress,
  act: (action: A) => Promise<Result>,
): Promise<void> {
  await inParallel(actions, async (action) => {
    progress.outcomes.push({ action, ...(await act(action)) });
  });
}

/** One call, repeated when the server asks for patience and the time allows it. `onUnclear` hears of answers that do not say what happened. */
async function send(
  { sleep, writeTimeLeftMs }: UpkeepContext,
  call: () => Promise<Answer<unknown>>,
  onUnclear: () => void = () => {},
): Promise<Answer<unknown> | undefined> {
  for (let attempt = 0; ; attempt += 1) {
    if (writeTimeLeftMs() <= 0) return undefined;
    const answer = await call();
    if (answer.ok) return answer;
    if (!answer.failure.definite) onUnclear();
    const { retryAfterMs } = answer.failure;
    if (retryAfterMs === undefined || attempt >= RETRIES_MAX || retryAfterMs >= writeTimeLeftMs()) return answer;
    await sleep(retryAfterMs);
  }
}

function failed(failure: ApiFailure): Result {
  return { result: "failed", failure };
}

/** Acts in batches of 1, 2, 4, …: a template that the cluster refuses costs one call. Stops at the first failure; a machine that was changed meanwhile is none. */
async function applyGrowing<A extends Action>(
  actions: readonly A[],
  progress: Progress,
  act: (action: A) => Promise<Result>,
): Promise<void> {
  const before = progress.outcomes.length;
  for (let start = 0, size = 1; start < actions.length; start += size, size *= 2) {
    await applyAll(actions.slice(start, start + size), progress, act);
    const hasStopped = (outcome: Outcome) =>
      outcome.result === "skipped" || (outcome.result === "failed" && outcome.failure?.kind !== "conflict");
    if (progress.outcomes.slice(before).some(hasStopped)) {
      skip(actions.slice(start + size), progress);
      break;
    }
  }
}

type CreateVm = Extract<Action, { kind: "createVm" }>;

async function applyCreates(creates: readonly CreateVm[], context: ApplyContext, progress: Progress): Promise<void> {
  const tainted = new Set(progress.ledger.tainted);
  await applyGrowing(creates, progress, (action) => createVm(action, context, () => tainted.add(action.ordinal)));
  progress.ledger = { ...progress.ledger, tainted };
}

function machineOf({ ordinal, revision }: CreateVm, { seen, poolVersion }: ApplyContext): object | undefined {
  const { pool, verdict } = seen;
  if (!verdict.legal) return undefined;
  return buildVm({ pool, spec: verdict.spec, poolApiVersion: `${POOL_GROUP}/${poolVersion}`, ordinal, revision });
}

async function createVm(action: CreateVm, context: ApplyContext, onUnclear: () => void): Promise<Result> {
  const { cluster, seen } = context;
  const vm = machineOf(action, context);
  if (vm === undefined) return SKIPPED;
  const answer = await send(context, () => cluster.create(VIRTUAL_MACHINES, seen.pool, vm), onUnclear);
  if (answer === undefined) return SKIPPED;
  if (answer.ok) {
    const altered = alterationOf(answer.value, context);
    return altered === undefined ? DONE : failed(altered);
  }
  // Ours, or another's: the next look finds the name taken and counts it, or takes the next ordinal.
  return answer.failure.kind === "alreadyExists" ? ALREADY : failed(answer.failure);
}

async function createRevision(name: string, context: ApplyContext): Promise<Result> {
  const { cluster, seen, poolVersion } = context;
  const revision = buildRevision(seen.pool, `${POOL_GROUP}/${poolVersion}`, name);
  const answer = await send(context, () => cluster.create(CONTROLLER_REVISIONS, seen.pool, revision));
  if (answer === undefined) return SKIPPED;
  if (answer.ok) return DONE;
  // Another pass was quicker; under the generation's own name the next look says whose it is.
  const isOwnName = name === revisionName(seen.pool.name, seen.pool.generation);
  return answer.failure.kind === "alreadyExists" && !isOwnName ? ALREADY : failed(answer.failure);
}

/** An object of the pool's namespace, as it was read. */
interface Target {
  readonly type: ResourceType;
  readonly object: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly subresource?: "status";
}

/** One delete, which misses when the object was changed since it was read. */
async function deleteAsRead(context: ApplyContext, { type, object }: Target): Promise<Result> {
  const { cluster, seen } = context;
  const at = { namespace: seen.pool.namespace, name: object.name };
  return settle(await send(context, () => cluster.delete(type, at, object)));
}

/** One merge patch, which misses likewise. */
async function patchAsRead(
  context: UpkeepContext,
  { type, object, subresource }: Target,
  change: { readonly metadata?: object; readonly [field: string]: unknown },
): Promise<Result> {
  const { cluster, seen } = context;
  const { name, uid, resourceVersion } = object;
  const body = { ...change, metadata: { ...change.metadata, uid, resourceVersion } };
  const at = { namespace: seen.pool.namespace, name };
  return settle(await send(context, () => cluster.patch(type, at, { type: "merge", body }, subresource)));
}

/** An object that is gone needs nothing more. */
function settle(answer: Answer<unknown> | undefined): Result {
  if (answer === undefined) return SKIPPED;
  if (answer.ok) return DONE;
  return answer.failure.kind === "notFound" ? ALREADY : failed(answer.failure);
}

function updateVm({ vm, patch }: Extract<Action, { kind: "updateVm" }>, context: ApplyContext): Promise<Result> {
  return patchAsRead(context, { type: VIRTUAL_MACHINES, object: vm }, { ...patch });
}

/** Under these run strategies a machine whose instance is deleted stays off. */
const ASKS_TO_START: readonly unknown[] = ["Manual", "RerunOnFailure"];

/**
 * Deletes the instance, which the machine then makes anew; or asks the machine to stop it and to start again, as `virtctl
 * restart` does. Either misses when what it was decided on has changed.
 */
function restart(
  { vm, instance }: Extract<Action, { kind: "restartInstance" }>,
  context: ApplyContext,
): Promise<Result> {
  if (ASKS_TO_START.includes(vm.spec?.["runStrategy"])) {
    const stateChangeRequests = [{ action: "Stop", uid: instance.uid }, { action: "Start" }];
    const target = { type: VIRTUAL_MACHINES, object: vm, subresource: "status" } as const;
    return patchAsRead(context, target, { status: { stateChangeRequests } });
  }
  return deleteAsRead(context, { type: INSTANCES, object: instance });
}

function labelInstance(
  { instance, revision }: Extract<Action, { kind: "labelInstance" }>,
  context: ApplyContext,
): Promise<Result> {
  const metadata = { labels: { [REVISION_LABEL]: revision } };
  return patchAsRead(context, { type: INSTANCES, object: instance }, { metadata });
}

function changeDisk(
  { disk, metadata }: Extract<Action, { kind: "changeDisk" }>,
  context: UpkeepContext,
): Promise<Result> {
  const type = disk.kind === "dataVolume" ? DATA_VOLUMES : CLAIMS;
  return patchAsRead(context, { type, object: disk }, { metadata });
}

function markVm({ vm, disks }: Extract<Action, { kind: "markVm" }>, context: UpkeepContext): Promise<Result> {
  const metadata = { annotations: { [GUARDED_ANNOTATION]: disks } };
  return patchAsRead(context, { type: VIRTUAL_MACHINES, object: vm }, { metadata });
}

/** Drops the pool's finalizer, and on release our owner reference; everything else stays. The list is this read's, so a change in between is a conflict. */
function freeVm(vm: Vm, context: UpkeepContext, kind: "releaseVm" | "dropVmFinalizer"): Promise<Result> {
  const owners = vm.owners.filter(({ uid }) => uid !== context.seen.pool.uid);
  const metadata = {
    finalizers: vm.finalizers.filter((finalizer) => finalizer !== POOL_FINALIZER),
    ...(kind === "releaseVm" ? { ownerReferences: owners } : {}),
    ...(kind === "releaseVm" && vm.annotations[GUARDED_ANNOTATION] !== undefined
      ? { annotations: { [GUARDED_ANNOTATION]: null } }
      : {}),
  };
  return patchAsRead(context, { type: VIRTUAL_MACHINES, object: vm }, { metadata });
}

/** A restart is a call on the instance or on its machine: both are changed, so that it misses. */
async function revokeRestart(
  { instance, vm }: Extract<Action, { kind: "revokeRestart" }>,
  context: ApplyContext,
): Promise<Result> {
  const machine = vm === undefined ? DONE : await touch(context, VIRTUAL_MACHINES, vm);
  return machine.result === "done" ? touch(context, INSTANCES, instance) : machine;
}

/** Changes the object, so that a call that still carries the old resourceVersion misses. Only a live object of that UID will do. */
async function touch(
  context: ApplyContext,
  type: ResourceType,
  { name, uid }: { readonly name: string; readonly uid: string },
): Promise<Result> {
  const { cluster, seen, nonce } = context;
  const body = { metadata: { uid, annotations: { [REVOKED_ANNOTATION]: nonce } } };
  const at = { namespace: seen.pool.namespace, name };
  const answer = await send(context, () => cluster.patch(type, at, { type: "merge", body }));
  if (answer === undefined) return SKIPPED;
  if (!answer.ok) return failed(answer.failure);
  return isTerminating(answer.value) ? SKIPPED : DONE;
}

function isTerminating(object: unknown): boolean {
  return metadataOf(object)["deletionTimestamp"] !== undefined;
}

/** Writes the claim where the plan has one; true when what leans on it may go on. */
async function applyClaim(plan: Plan, context: ApplyContext, progress: Progress): Promise<boolean> {
  const [action] = of(plan, "writeClaim");
  if (action === undefined) return true;
  const { cluster, seen, poolVersion, nonce } = context;
  const { pool } = seen;
  const text = pool.annotations?.[CLAIM_ANNOTATION];
  // What the plan took for no claim is none here, either: its beginning would come along.
  const previous = readClaim(text, seen.now);
  const operations = claimOperations(context, { action, previous, text });
  const answer = await send(context, () => cluster.patch(poolsOf(poolVersion), pool, { type: "json", operations }));
  if (answer === undefined || !answer.ok) {
    progress.outcomes.push({ action, ...(answer === undefined ? SKIPPED : failed(answer.failure)) });
    // Whether an unclear write took effect is not known: this pass owns nothing any more.
    if (answer?.ok === false && !answer.failure.definite) progress.ledger = EMPTY_LEDGER;
    return false;
  }
  progress.outcomes.push({ action, ...DONE });
  const issued = of(plan, "createVm").map(({ ordinal }) => ordinal);
  progress.ledger = ledgerAfterClaim(progress.ledger, { previous, nonce, issued });
  progress.poolResourceVersion = resourceVersionOf(answer.value) ?? progress.poolResourceVersion;
  return true;
}

interface ClaimWrite {
  readonly action: Extract<Action, { kind: "writeClaim" }>;
  readonly previous: Claim | undefined;
  /** The annotation as it was read. */
  readonly text: string | undefined;
}

/** A compare-and-swap: refused (422) when the pool, its generation or its claim are not the ones that were read. */
function claimOperations(
  { seen, by, nonce }: ApplyContext,
  { action, previous, text }: ClaimWrite,
): JsonPatchOperation[] {
  const { pool, now, verdict } = seen;
  const since = previous?.by === by ? previous.since : { at: now, generation: pool.generation, ...namingNow(verdict) };
  const value = formatClaim({ ...action.items, by, at: now, nonce, generation: pool.generation, since });
  const annotation = `/metadata/annotations/${CLAIM_ANNOTATION.replace("/", "~1")}`;
  const claim: JsonPatchOperation[] =
    pool.annotations === undefined
      ? [
          { op: "test", path: "/metadata/annotations", value: null },
          { op: "add", path: "/metadata/annotations", value: { [CLAIM_ANNOTATION]: value } },
        ]
      : [
          { op: "test", path: annotation, value: text ?? null },
          { op: "add", path: annotation, value },
        ];
  return [
    { op: "test", path: "/metadata/uid", value: pool.uid },
    { op: "test", path: "/metadata/generation", value: pool.generation },
    ...claim,
    ...(action.addFinalizer ? finalizerOperations(pool.finalizers) : []),
    ...healingOperations(pool, action.healing),
  ];
}

/** The annotations are there by then: the claim is among them. */
function healingOperations({ annotations }: Pool, text: string | null | undefined): JsonPatchOperation[] {
  const path = `/metadata/annotations/${HEALING_ANNOTATION.replace("/", "~1")}`;
  if (text === undefined) return [];
  if (text !== null) return [{ op: "add", path, value: text }];
  return annotations?.[HEALING_ANNOTATION] === undefined ? [] : [{ op: "remove", path }];
}

function namingNow(verdict: Verdict): { readonly naming?: string } {
  return verdict.legal ? { naming: namingOf(verdict.spec) } : {};
}

function finalizerOperations(finalizers: readonly string[]): JsonPatchOperation[] {
  if (finalizers.length > 0) return [{ op: "add", path: "/metadata/finalizers/-", value: POOL_FINALIZER }];
  return [
    { op: "test", path: "/metadata/finalizers", value: null },
    { op: "add", path: "/metadata/finalizers", value: [POOL_FINALIZER] },
  ];
}

function dropPoolFinalizer(context: ApplyContext): Promise<Result> {
  const { pool } = context.seen;
  const finalizers = pool.finalizers.filter((finalizer) => finalizer !== POOL_FINALIZER);
  return patchAsRead(context, { type: poolsOf(context.poolVersion), object: pool }, { metadata: { finalizers } });
}

function metadataOf(object: unknown): Readonly<Record<string, unknown>> {
  return recordOf(recordOf(object)["metadata"]);
}

function resourceVersionOf(object: unknown): string | undefined {
  const { resourceVersion } = metadataOf(object);
  return typeof resourceVersion === "string" ? resourceVersion : undefined;
}

/** The Kubernetes Events that tell what was done. */
export function announceOutcomes(seen: Observation, outcomes: readonly Outcome[]): Announcement[] {
  const { namespace, name: poolName } = seen.pool;
  return outcomes.flatMap(({ action, result }): readonly Announcement[] => {
    if (result !== "done") return [];
    if (action.kind === "writeClaim") return announceAdvice(seen.pool, seen.verdict);
    if (action.kind === "createVm") {
      const message = `Created VM ${namespace}/${vmName(poolName, action.ordinal)}`;
      return [{ type: "Normal", reason: "SuccessfulCreate", message, key: `${seen.now}` }];
    }
    if (action.kind === "updateVm") {
      const message = `Updated VM ${namespace}/${action.vm.name}`;
      return [{ type: "Normal", reason: "SuccessfulUpdate", message, key: `${action.vm.uid} ${action.revision}` }];
    }
    if (action.kind === "restartInstance") {
      const message = `Restarted VM ${namespace}/${action.vm.name}: ${action.why}`;
      return [{ type: "Normal", reason: "SuccessfulUpdate", message, key: action.instance.uid }];
    }
    if (action.kind === "changeDisk" && action.released) {
      const message = `Kept disk ${namespace}/${action.disk.name} of VM ${action.vm.name}`;
      return [{ type: "Normal", reason: "DiskKept", message, key: action.vm.uid }];
    }
    if (action.kind === "deleteVm") {
      const { name, uid } = action.vm;
      const message = `Deleted VM ${namespace}/${name} with uid ${uid} from pool`;
      const deleted = { type: "Normal", reason: "SuccessfulDelete", message, key: uid } as const;
      if (action.complaint === undefined) return [deleted];
      const cause = `${name} is replaced: ${action.complaint}`;
      return [{ type: "Warning", reason: "Healing", message: cause, key: uid }, deleted];
    }
    return [];
  });
}

/** What the pool's owner must hear of; what another look settles is not a failure. */
export function failuresOf(outcomes: readonly Outcome[]): PassFailure[] {
  return outcomes.flatMap((outcome) => {
    if (outcome.failure === undefined || isOvertaken(outcome)) return [];
    return [{ during: phaseOf(outcome.action.kind), message: outcome.failure.message }];
  });
}

/** Somebody changed the object since it was read: look again. A claim whose test fails is answered 422, not 409. */
export function isOvertaken({ action, failure }: Outcome): boolean {
  if (failure === undefined) return false;
  if (action.kind === "writeClaim" && failure.kind === "invalid") return true;
  return failure.kind === "conflict" || failure.kind === "notFound" || failure.kind === "alreadyExists";
}

function phaseOf(kind: ActionKind): PassFailure["during"] {
  switch (kind) {
    case "createVm":
    case "createRevision":
      return "scaleOut";
    case "deleteVm":
    case "revokeDelete":
      return "scaleIn";
    case "updateVm":
    case "restartInstance":
    case "revokeRestart":
    case "labelInstance":
      return "update";
    case "pruneRevision":
      return "pruning";
    default:
      return "upkeep";
  }
}
