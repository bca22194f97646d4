/** The status of a pool after a pass, and the Kubernetes Events that go with a change of its conditions. */
import { assertNever, describeProblems } from "./errors.ts";
import type { Condition, Pool, PoolStatus, Vm } from "./model.ts";
import {
  findSecondWriter,
  isOfAnother,
  reasonOf,
  SECOND_WRITER_CONDITION,
  type SecondWriter,
} from "./second-writer.ts";
import { compareText } from "./selector.ts";
import type { Verdict } from "./verdict.ts";
import { withoutNumbers } from "./wording.ts";

/** A Kubernetes Event about a pool. */
export interface Announcement {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
  /** Events of one pool, reason, message and key are the same event: it is counted up, or told once. */
  readonly key: string;
  /** A warning that is not counted up when it is told again. */
  readonly once?: true;
}

/** What a pass could not do, in words for the pool's owner. */
export interface PassFailure {
  readonly during: "reading" | "scaleOut" | "scaleIn" | "update" | "pruning" | "upkeep";
  /** The API server's message; never a header, a token or a body. */
  readonly message: string;
}

export interface StatusInput {
  readonly now: number;
  readonly pool: Pool;
  readonly verdict: Verdict;
  /** Undefined when the machines were not read, because the pool is illegal, or could not be. */
  readonly members: readonly Vm[] | undefined;
  readonly failures: readonly PassFailure[];
  /** The deployment that reports. */
  readonly by: string | undefined;
}

export interface StatusReport {
  readonly status: PoolStatus;
  /** False when the pool's status says the same already. */
  readonly changed: boolean;
  readonly announcements: readonly Announcement[];
}

/** Counts machines that are not on their way out, as the CRD's column text promises, and sets or removes the conditions. */
export function reportStatus(input: StatusInput): StatusReport {
  const { pool, verdict, members } = input;
  const previous = pool.status;
  const second = verdict.legal ? findSecondWriter(input) : undefined;
  if (second !== undefined) return reportHeld(input, second);
  const others = (previous?.conditions ?? []).filter((condition) => isOfAnother(condition, input.now));
  const conditions = [failureCondition(input), pausedCondition(input), ...others]
    .filter((condition) => condition !== undefined)
    .map((condition) => keepMessage(keepTransition(condition, previous), previous));
  const live = members?.filter(({ terminating }) => !terminating);
  const status: PoolStatus = {
    replicas: live?.length ?? previous?.replicas ?? 0,
    readyReplicas: live?.filter(({ ready }) => ready).length ?? previous?.readyReplicas ?? 0,
    labelSelector: verdict.legal ? verdict.selector.text : (previous?.labelSelector ?? ""),
    conditions,
  };
  return { status, changed: !isSameStatus(previous, status), announcements: announceChanges(input, conditions) };
}

/**
 * The status is the other writer's to keep, and two who correct each other would never end: nothing of it changes but the
 * condition that says why the pass holds.
 */
function reportHeld({ pool, verdict, now }: StatusInput, second: SecondWriter): StatusReport {
  const previous = pool.status ?? {};
  const reason = reasonOf(second);
  const { message } = second;
  const told = {
    type: SECOND_WRITER_CONDITION,
    status: "True",
    lastTransitionTime: formatSeconds(now),
    reason,
    message,
  };
  const before = conditionOf(previous, SECOND_WRITER_CONDITION);
  const isNew = before?.reason !== reason || before.message !== message;
  const others = (previous.conditions ?? []).filter(({ type }) => type !== SECOND_WRITER_CONDITION);
  const status: PoolStatus = {
    replicas: previous.replicas ?? 0,
    readyReplicas: previous.readyReplicas ?? 0,
    labelSelector: previous.labelSelector ?? (verdict.legal ? verdict.selector.text : ""),
    conditions: [...others, keepTransition(told, previous)],
  };
  const warning: Announcement = { type: "Warning", reason, message, key: String(pool.generation) };
  return { status, changed: isNew, announcements: isNew ? [warning] : [] };
}

/** Whether two statuses say the same; a field that is absent is not the same as 0 or empty. */
export function isSameStatus(a: PoolStatus | undefined, b: PoolStatus): boolean {
  if (a === undefined) return false;
  const conditionsOf = (status: PoolStatus) =>
    (status.conditions ?? []).map(({ type, status: value, reason, message, lastTransitionTime }) =>
      JSON.stringify([type, value, reason, message, lastTransitionTime]),
    );
  return (
    a.replicas === b.replicas &&
    a.readyReplicas === b.readyReplicas &&
    a.labelSelector === b.labelSelector &&
    conditionsOf(a).sort().join("\n") === conditionsOf(b).sort().join("\n")
  );
}

function failureCondition({ now, verdict, failures }: StatusInput): Condition | undefined {
  const told = describeTrouble(verdict, failures);
  if (told === undefined) return undefined;
  const [reason, message] = told;
  return { type: "ReplicaFailure", status: "True", lastTransitionTime: formatSeconds(now), reason, message };
}

function describeTrouble(verdict: Verdict, failures: readonly PassFailure[]): readonly [string, string] | undefined {
  if (!verdict.legal) return ["InvalidSpec", describeProblems(verdict.problems)];
  return describeFailures(failures);
}

/** How many different messages one condition shows. */
const MESSAGES_MAX = 3;

/** The reason of the first failure; the messages of all, each once and in one order, since calls end in any. */
function describeFailures(failures: readonly PassFailure[]): readonly [string, string] | undefined {
  const [first] = failures;
  if (first === undefined) return undefined;
  const byMeaning = new Map(failures.map(({ message }) => [withoutNumbers(message), message]));
  const messages = [...byMeaning].sort(([a], [b]) => compareText(a, b)).map(([, message]) => message);
  const more = messages.length > MESSAGES_MAX ? `; and ${messages.length - MESSAGES_MAX} more` : "";
  const text = `${messages.slice(0, MESSAGES_MAX).join("; ")}${more}`;
  switch (first.during) {
    case "reading":
      return ["FailedRead", `error while reading ${text}`];
    case "scaleOut":
      return ["FailedScaleOut", `error during scale out: ${text}`];
    case "scaleIn":
      return ["FailedScaleIn", `error during scale in: ${text}`];
    case "update":
      return ["FailedUpdate", `error during VM update: ${text}`];
    case "pruning":
      return ["FailedRevisionPruning", `error while pruning vmpool revisions: ${text}`];
    case "upkeep":
      return ["FailedUpdate", `error during upkeep of machines: ${text}`];
    default:
      return assertNever(first.during);
  }
}

function pausedCondition({ now, verdict, pool }: StatusInput): Condition | undefined {
  const paused = verdict.legal ? verdict.spec.paused === true : conditionOf(pool.status, "ReplicaPaused") !== undefined;
  if (!paused) return undefined;
  return {
    type: "ReplicaPaused",
    status: "True",
    lastTransitionTime: formatSeconds(now),
    reason: "SuccessfulPaused",
    message: "Pool controller is paused",
  };
}

/** Whether the pool shows that the last pass could not do all it wanted. */
export function showsFailure({ status }: Pool): boolean {
  return conditionOf(status, "ReplicaFailure") !== undefined;
}

function conditionOf(status: PoolStatus | undefined, type: string): Condition | undefined {
  return status?.conditions?.find((condition) => condition.type === type && condition.status === "True");
}

/** A condition that was there before keeps the time since when it holds. */
function keepTransition(condition: Condition, previous: PoolStatus | undefined): Condition {
  const since = conditionOf(previous, condition.type)?.lastTransitionTime;
  return since ? { ...condition, lastTransitionTime: since } : condition;
}

/**
 * A message that differs from the last one by numbers alone says nothing new. Taken over, it would change the status in each
 * pass, and each change of the status wakes the next.
 */
function keepMessage(condition: Condition, previous: PoolStatus | undefined): Condition {
  const { message } = conditionOf(previous, condition.type) ?? {};
  // What is wrong with a spec is always told alike, and a number may be all that its owner has changed.
  if (typeof message !== "string" || condition.reason === "InvalidSpec") return condition;
  return withoutNumbers(message) === withoutNumbers(condition.message ?? "") ? { ...condition, message } : condition;
}

function announceChanges({ pool }: StatusInput, conditions: readonly Condition[]): Announcement[] {
  const after: PoolStatus = { conditions: [...conditions] };
  const key = String(pool.generation);
  const announcements: Announcement[] = [];
  const wasPaused = conditionOf(pool.status, "ReplicaPaused") !== undefined;
  const isPaused = conditionOf(after, "ReplicaPaused") !== undefined;
  if (isPaused && !wasPaused) announcements.push(normal("SuccessfulPaused", "Pool is paused", key));
  if (!isPaused && wasPaused) announcements.push(normal("SuccessfulResume", "Pool is unpaused", key));
  const before = conditionOf(pool.status, "ReplicaFailure");
  const failure = conditionOf(after, "ReplicaFailure");
  if (failure && (before?.reason !== failure.reason || before?.message !== failure.message)) {
    announcements.push({ type: "Warning", reason: failure.reason ?? "", message: failure.message ?? "", key });
  }
  return announcements;
}

function normal(reason: string, message: string, key: string): Announcement {
  return { type: "Normal", reason, message, key };
}

/** metav1.Time has no fractions of a second. */
function formatSeconds(epochMs: number): string {
  return new Date(epochMs).toISOString().replace(/\.\d+Z$/, "Z");
}
