/** One pass of one pool: observe, plan, claim, apply, repeated until settled or out of time; then what there is to report. */
import { EMPTY_LEDGER, type Ledger } from "../planning/claim.ts";
import type { Pool, PoolStatus } from "../planning/model.ts";
import { CLAIM_ANNOTATION } from "../planning/names.ts";
import { type ActionKind, describeAction, type Limits, type Observation, type Plan } from "../planning/plan.ts";
import { findSecondWriter, type SecondWriter } from "../planning/second-writer.ts";
import { type Announcement, type PassFailure, reportStatus, type StatusReport } from "../planning/status.ts";
import { announce } from "./announce.ts";
import { announceOutcomes, applyGone, applyPlan, countDone, failuresOf, isOvertaken, type Outcome } from "./apply.ts";
import type { ApiFailure, Cluster } from "./cluster.ts";
import { type Look, lookAt, lookForStrays, type PoolPlace } from "./observe.ts";

/** Looks of one pass; what is not settled by then goes on in the next pass. */
const LOOKS_MAX = 12;
/** A failure list in a fact stays small. */
const FAILURES_MAX = 50;
/** How much each look of a pass may do. */
export const ACTING: Limits = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };
/** For a pool whose template the cluster refuses: what leans on none goes on. */
const SHRINKING: Limits = { createsMax: 0, deletesMax: 250, updatesMax: 0, restartsMax: 0 };
const CLOSING: Limits = { createsMax: 0, deletesMax: 0, updatesMax: 0, restartsMax: 0 };

export interface PassDeps {
  readonly cluster: Cluster;
  /** `observe` plans and reports but writes nothing. */
  readonly mode: "observe" | "act";
  /** Name of this deployment in the claim. */
  readonly by: string;
  readonly wide: boolean;
  /** This machine's clock, in epoch milliseconds; only used where the API server's is not known. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  /** A value that is unique for ever. */
  readonly nonce: () => string;
  /** Time left in which a write may still start, in milliseconds. */
  readonly writeTimeLeftMs: () => number;
}

/** What the pass saw and decided in its last look. */
export interface PassView {
  readonly seen: Observation;
  readonly plan: Plan;
}

export interface PassResult {
  readonly outcome: "reconciled" | "gone" | "unreadable";
  /** As read; undefined when it was not. */
  readonly pool: Pool | undefined;
  readonly view: PassView | undefined;
  /** Decisions of all looks, in order. */
  readonly decisions: readonly string[];
  readonly actions: Readonly<Partial<Record<ActionKind, number>>>;
  /** As returned by the pass's last write to the pool, else as read. */
  readonly resourceVersion: string | undefined;
  /** What the pool's status should say; undefined when the machines were not read. */
  readonly status: PoolStatus | undefined;
  readonly statusChanged: boolean;
  readonly failures: readonly string[];
  /** Somebody else looks after the pool, for which this pass held. Never of one that only observes. */
  readonly secondWriter: SecondWriter | undefined;
  /** Why the cluster could not be read. */
  readonly unreadable: { readonly what: string; readonly failure: ApiFailure } | undefined;
  /** The pass came to an end of its work, not of its time. */
  readonly complete: boolean;
  /** Another pass is to look soon. */
  readonly again: boolean;
}

/** What the loop carries from look to look. */
interface Run {
  ledger: Ledger;
  limits: Limits;
  outcomes: Outcome[];
  decisions: string[];
  announcements: Announcement[];
  resourceVersion: string | undefined;
  look: Look | undefined;
  /** The pool when something was last done: who is told of it when the look after that fails. */
  acted: { readonly pool: Pool; readonly poolVersion: string; readonly now: number } | undefined;
  /** Generation and claim whose write was refused last. */
  refusedClaim: string | undefined;
  claimRefusal: PassFailure | undefined;
  complete: boolean;
}

/** Runs one pass. Expected outcomes are values; what is thrown is a bug. */
export async function reconcilePool(place: PoolPlace, deps: PassDeps): Promise<PassResult> {
  const run: Run = {
    ledger: EMPTY_LEDGER,
    limits: ACTING,
    outcomes: [],
    decisions: [],
    announcements: [],
    resourceVersion: undefined,
    look: undefined,
    acted: undefined,
    refusedClaim: undefined,
    claimRefusal: undefined,
    complete: false,
  };
  for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
    const next = await step(place, run, deps);
    if (next === "look") continue;
    run.complete = next === "settled";
    break;
  }
  return report(run, deps);
}

type Next = "look" | "settled" | "stopped";

/** One look and what follows from it. */
async function step(place: PoolPlace, run: Run, deps: PassDeps): Promise<Next> {
  const look = await lookAt(deps.cluster, place, {
    wide: deps.wide,
    ledger: run.ledger,
    limits: run.limits,
    by: deps.mode === "act" ? deps.by : undefined,
    now: deps.now,
  });
  run.look = look;
  if (look.kind === "gone") return deps.wide ? freeStrays(place, run, deps) : "settled";
  if (look.kind !== "planned") return "stopped";
  const { seen, plan, poolVersion } = look;
  run.resourceVersion = seen.pool.resourceVersion;
  run.decisions.push(...decisionsOf(seen, plan).filter((decision) => run.decisions.at(-1) !== decision));
  if (deps.mode === "observe" || plan.actions.length === 0) return "settled";
  const { by, cluster, sleep, writeTimeLeftMs } = deps;
  const nonce = deps.nonce();
  const applied = await applyPlan(plan, { cluster, seen, poolVersion, by, nonce, sleep, writeTimeLeftMs });
  run.ledger = applied.ledger;
  run.resourceVersion = applied.poolResourceVersion ?? run.resourceVersion;
  run.outcomes.push(...applied.outcomes);
  // What a plan has to tell comes true with its claim; without one it is told by the pass that writes it.
  const isClaimed = applied.outcomes.some(({ action, result }) => action.kind === "writeClaim" && result === "done");
  const told = isClaimed ? plan.announcements : [];
  run.announcements.push(...told, ...announceOutcomes(seen, applied.outcomes));
  run.acted = { pool: seen.pool, poolVersion, now: seen.now };
  return judgeOutcomes(run, { seen, plan, outcomes: applied.outcomes });
}

/** A pool that is not there may have left machines behind that wait for it. */
async function freeStrays(place: PoolPlace, run: Run, deps: PassDeps): Promise<Next> {
  const { cluster, sleep, writeTimeLeftMs } = deps;
  const looked = await lookForStrays(cluster, place);
  if (looked.kind === "unreadable") {
    run.look = looked;
    return "stopped";
  }
  const { actions, reasons } = looked.plan;
  run.decisions.push(...reasons, ...actions.map((action) => describeAction(place.name, action)));
  if (deps.mode === "observe" || actions.length === 0) return "settled";
  const seen = { pool: { namespace: place.namespace, uid: undefined } };
  run.outcomes.push(...(await applyGone(looked.plan, { cluster, seen, sleep, writeTimeLeftMs })));
  const isDone = run.outcomes.every(({ result }) => result === "done" || result === "already");
  return isDone || failuresOf(run.outcomes).length > 0 ? "settled" : "stopped";
}

/** Whether to look again: after acting and after being overtaken, yes; after a refusal only to close the claim. */
function judgeOutcomes(
  run: Run,
  { seen, plan, outcomes }: { seen: Observation; plan: Plan; outcomes: readonly Outcome[] },
): Next {
  const claim = outcomes.find(({ action }) => action.kind === "writeClaim");
  if (claim?.failure?.definite === false) return "stopped";
  if (claim !== undefined && claim.result === "failed" && isOvertaken(claim)) {
    const tried = `${seen.pool.generation} ${seen.pool.annotations?.[CLAIM_ANNOTATION]}`;
    if (run.refusedClaim === tried) {
      // Nothing has changed since, so it was not overtaken: the server does not accept the pool as it is.
      run.claimRefusal = { during: "upkeep", message: `the claim was refused: ${claim.failure?.message}` };
      return "stopped";
    }
    run.refusedClaim = tried;
    return "look";
  }
  if (
    outcomes.some(({ result, failure }) => result === "skipped" && failure === undefined) &&
    failuresOf(outcomes).length === 0
  ) {
    return "stopped";
  }
  if (failuresOf(outcomes).length > 0) {
    if (run.limits === CLOSING) return "stopped";
    // Nothing was claimed: a machine was tried and refused.
    run.limits = run.limits === ACTING && claim?.result === "skipped" ? SHRINKING : CLOSING;
    return "look";
  }
  return plan.actions.every(({ kind }) => kind === "writeClaim") ? "settled" : "look";
}

function decisionsOf(seen: Observation, plan: Plan): string[] {
  return [...plan.reasons, ...plan.actions.map((action) => describeAction(seen.pool.name, action))];
}

/** Turns the run into a result, and tells the pool's owner by Kubernetes Events. */
async function report(run: Run, deps: PassDeps): Promise<PassResult> {
  const { look, outcomes } = run;
  const failures = [...failuresOf(outcomes), ...(run.claimRefusal === undefined ? [] : [run.claimRefusal])];
  const acted = outcomes.some(({ action, result }) => result === "done" && action.kind !== "writeClaim");
  const base = {
    decisions: run.decisions,
    actions: countDone(outcomes),
    resourceVersion: run.resourceVersion,
    failures: failures.slice(0, FAILURES_MAX).map(({ during, message }) => `${during}: ${message}`),
    complete: run.complete,
  };
  if (look === undefined || look.kind !== "planned") {
    const unread = look?.kind === "unreadable" ? look : undefined;
    const reported = unread && reportUnread(unread, failures, deps);
    const of = unread?.of ?? run.acted;
    if (of !== undefined && deps.mode === "act") {
      const announcements = oneFailureOfEach([...run.announcements, ...(reported?.announcements ?? [])]);
      await announce(deps.cluster, { ...of, announcements });
    }
    return {
      ...base,
      outcome: unread === undefined ? "gone" : "unreadable",
      pool: unread?.of?.pool,
      resourceVersion: run.resourceVersion ?? unread?.of?.pool.resourceVersion,
      view: undefined,
      status: reported?.status,
      statusChanged: reported?.changed ?? false,
      secondWriter: undefined,
      unreadable: unread && { what: unread.what, failure: unread.failure },
      again: (unread !== undefined && acted) || (unread === undefined && !run.complete),
    };
  }
  const { seen, plan, poolVersion } = look;
  const reported = seen.pool.deleting ? undefined : reportStatus({ ...seen, members: plan.members, failures });
  if (deps.mode === "act") {
    const announcements = oneFailureOfEach([
      ...run.announcements,
      ...failureAnnouncements(outcomes, seen),
      ...(reported?.announcements ?? []),
    ]);
    await announce(deps.cluster, { pool: seen.pool, poolVersion, announcements, now: seen.now });
  }
  return {
    ...base,
    outcome: "reconciled",
    pool: seen.pool,
    view: { seen, plan },
    status: reported?.status,
    statusChanged: reported?.changed ?? false,
    secondWriter: deps.mode === "act" && seen.verdict.legal ? findSecondWriter(seen) : undefined,
    unreadable: undefined,
    // Each pass would leave another machine that the pool does not find: the schedule's pace is quick enough for that.
    again: !outcomes.some(isAltered) && (acted || (!run.complete && failures.length === 0)),
  };
}

function isAltered({ failure }: Outcome): boolean {
  return failure?.kind === "altered";
}

/** What does not pass by itself, such as a right that the functions lack; what does is only logged. */
const LASTING: ReadonlySet<ApiFailure["kind"]> = new Set(["forbidden", "notServed", "invalid", "garbled"]);

/** The counts stay as they were; the condition says what could not be read. */
function reportUnread(
  { what, failure, of }: Extract<Look, { kind: "unreadable" }>,
  failures: readonly PassFailure[],
  { by }: PassDeps,
): StatusReport | undefined {
  if (of === undefined || of.pool.deleting || !failure.definite || !LASTING.has(failure.kind)) return undefined;
  const unread: PassFailure = { during: "reading", message: `${what}: ${failure.message}` };
  return reportStatus({ ...of, by, members: undefined, failures: [unread, ...failures] });
}

/** Of each kind of failure the first: all of them are in the condition. */
export function oneFailureOfEach(announcements: readonly Announcement[]): readonly Announcement[] {
  const told = new Set<string>();
  return announcements.filter(({ reason }) => {
    if (!reason.startsWith("Failed")) return true;
    const isFirst = !told.has(reason);
    told.add(reason);
    return isFirst;
  });
}

/** The first failure of each kind of action, with the machine that it is about. */
function failureAnnouncements(outcomes: readonly Outcome[], { pool }: Observation): Announcement[] {
  const failed = (kind: ActionKind) =>
    outcomes.find((outcome) => outcome.action.kind === kind && failuresOf([outcome]).length > 0);
  const create = failed("createVm") ?? failed("createRevision");
  const remove = failed("deleteVm");
  const told: Announcement[] = [];
  if (create?.failure !== undefined) {
    told.push({
      type: "Warning",
      reason: "FailedCreate",
      message: `Error creating VM: ${create.failure.message}`,
      key: "",
    });
  }
  if (remove?.failure !== undefined && remove.action.kind === "deleteVm") {
    const message = `Error deleting virtual machine ${pool.namespace}/${remove.action.vm.name}: ${remove.failure.message}`;
    told.push({ type: "Warning", reason: "FailedDelete", message, key: "" });
  }
  const update = failed("updateVm") ?? failed("restartInstance");
  if (update?.failure !== undefined && "vm" in update.action && update.action.vm !== undefined) {
    const message = `Error updating virtual machine ${pool.namespace}/${update.action.vm.name}: ${update.failure.message}`;
    told.push({ type: "Warning", reason: "FailedUpdate", message, key: "" });
  }
  const disk = failed("changeDisk");
  if (disk?.failure !== undefined && disk.action.kind === "changeDisk") {
    const { vm, disk: kept } = disk.action;
    const message = `Error preserving state of VM ${pool.namespace}/${vm.name}: disk ${kept.name}: ${disk.failure.message}`;
    told.push({ type: "Warning", reason: "FailedUpdate", message, key: "" });
  }
  return told;
}
