/** What a machine's status should say, given its instance and disks. Pure. */
import { isDeepStrictEqual } from "node:util";
import { canonicalJson } from "../../../shared/planning/json.ts";
import { isFinal } from "./instances.ts";
import { planLiveUpdate, type Rollout } from "./live-update.ts";
import { type Condition, type Instance, isDeleting, isTrue, type Machine, refreshed, timestamp } from "./objects.ts";
import { hash } from "./pace.ts";
import { isFirstRequestDone, planRun, runStrategyOf } from "./run-strategy.ts";

const START_BACKOFF_MAX_MS = 300_000;
/** Conditions that are the machine's own; all others are copies of the instance's. */
const OWN_CONDITIONS: readonly string[] = ["Ready", "Failure", "RestartRequired"];
const RETRIED: readonly string[] = ["Always", "RerunOnFailure", "Once"];
const ANNOTATION_GENERATION = "kubevirt.io/vm-generation";

/** How far a machine's disks are: filled, being filled, waiting for a volume, in error, or not there. */
export type Disks = "ready" | "provisioning" | "binding" | "failed" | "missing";

export interface StatusInput {
  readonly machine: Machine;
  readonly instance: Instance | undefined;
  readonly disks: Disks;
  readonly rollout: Rollout;
  readonly startBackoffMs: number;
  readonly nowMs: number;
}

/** The fields of the status that are wrong, with null for those that have to go; nothing when all are right. */
export function planStatus(input: StatusInput): Record<string, unknown> | undefined {
  const wanted = wantedStatus(input);
  const present: Readonly<Record<string, unknown>> = input.machine.status;
  const wrong = Object.entries(wanted).filter(([field, value]) => !isDeepStrictEqual(present[field] ?? null, value));
  return wrong.length === 0 ? undefined : Object.fromEntries(wrong);
}

function wantedStatus(input: StatusInput): Record<string, unknown> {
  const { machine, instance } = input;
  const { status } = machine;
  const strategy = runStrategyOf(machine);
  const requests = (status.stateChangeRequests ?? []).slice(isFirstRequestDone(machine, instance) ? 1 : 0);
  const startFailure = startFailureOf(input);
  return {
    created: instance !== undefined,
    ready: instance !== undefined && isTrue(instance.status.conditions, "Ready"),
    printableStatus: printableStatus(input, startFailure !== null),
    conditions: conditionsOf(input),
    startFailure,
    // Absent until the first start, which RerunOnFailure depends on.
    runStrategy: status.runStrategy === undefined && instance === undefined ? null : strategy,
    stateChangeRequests: requests.length === 0 ? null : requests,
    ...generationsOf(machine, instance),
  };
}

function generationsOf(machine: Machine, instance: Instance | undefined): Record<string, unknown> {
  if (instance === undefined) return {};
  const startedFrom = Number(instance.metadata.annotations[ANNOTATION_GENERATION] ?? 0);
  const { generation } = machine.metadata;
  return {
    observedGeneration: templateDigest(machine) === instance.status.templateDigest ? generation : startedFrom,
    desiredGeneration: generation,
  };
}

/**
 * Tells the machine's present template from that of the start, as KubeVirt does for `observedGeneration`: labels and annotations
 * count there, and a live change does not bring it up. KubeVirt keeps the whole template, in a ControllerRevision.
 */
export function templateDigest(machine: Machine): string {
  return hash(canonicalJson(machine.spec.template)).toString(16);
}

/** The annotation that an instance gets at its start. */
export function generationAnnotation(machine: Machine): Record<string, string> {
  return { [ANNOTATION_GENERATION]: String(machine.metadata.generation) };
}

/** Failures to start are counted until a guest has run. */
function startFailureOf(input: StatusInput): object | null {
  const { machine, instance, nowMs } = input;
  const present = machine.status.startFailure ?? null;
  const hasRun = instance?.status.phaseTransitionTimestamps.some(({ phase }) => phase === "Running") ?? false;
  if (hasRun || !RETRIED.includes(runStrategyOf(machine))) return null;
  if (instance === undefined || !isFinal(instance)) return present;
  if (present?.lastFailedVMIUID === instance.metadata.uid) return present;
  const count = (present?.consecutiveFailCount ?? 0) + 1;
  const deviation = 1 + (hash(instance.metadata.uid) % 500) / 1_000;
  const pauseMs = Math.min(START_BACKOFF_MAX_MS, input.startBackoffMs * count ** 2 * deviation);
  return {
    consecutiveFailCount: count,
    lastFailedVMIUID: instance.metadata.uid,
    retryAfterTimestamp: timestamp(nowMs + pauseMs),
  };
}

/** The first that holds. */
function printableStatus(input: StatusInput, isStartFailing: boolean): string {
  const { machine, instance, disks } = input;
  if (isDeleting(machine)) return "Terminating";
  if (instance !== undefined && isDeleting(instance) && !isFinal(instance)) return "Stopping";
  if (instance?.status.phase === "Running") return "Running";
  const wantsToRun = planRun(machine, undefined, input.nowMs).kind !== "stay" && runStrategyOf(machine) !== "Halted";
  if (instance === undefined && wantsToRun && disks === "missing") return "ErrorPvcNotFound";
  if (disks === "failed") return "DataVolumeError";
  if (instance?.status.conditions.some(({ type, reason }) => type === "PodScheduled" && reason === "Unschedulable")) {
    return "ErrorUnschedulable";
  }
  if (instance === undefined && disks === "provisioning") return "Provisioning";
  if (instance === undefined && wantsToRun && disks === "binding") return "WaitingForVolumeBinding";
  if (instance !== undefined && !isFinal(instance)) return "Starting";
  return isStartFailing ? "CrashLoopBackOff" : "Stopped";
}

function conditionsOf(input: StatusInput): Condition[] {
  const { machine, instance, nowMs } = input;
  const present = machine.status.conditions ?? [];
  const own = present.filter(({ type }) => type === "Failure");
  const copied = (instance?.status.conditions ?? []).filter(({ type }) => !OWN_CONDITIONS.includes(type));
  // Without an instance the copies of the last one stay, as in KubeVirt.
  const kept = instance === undefined ? present.filter(({ type }) => !OWN_CONDITIONS.includes(type)) : copied;
  return [readyCondition(present, instance, nowMs), ...kept, ...own, ...restartCondition(input)];
}

function restartCondition({ machine, instance, rollout, nowMs }: StatusInput): Condition[] {
  if (instance === undefined || isFinal(instance)) return [];
  const message = planLiveUpdate(machine, instance, rollout).restart;
  if (message === undefined) return [];
  const wanted = { type: "RestartRequired", status: "True", message };
  return [refreshed(machine.status.conditions ?? [], wanted, nowMs)];
}

function readyCondition(present: readonly Condition[], instance: Instance | undefined, nowMs: number): Condition {
  if (instance === undefined) {
    const gone = { type: "Ready", status: "False", reason: "VMINotExists", message: "VMI does not exist" };
    const fresh = refreshed(present, gone, nowMs);
    return { lastProbeTime: fresh.lastTransitionTime ?? timestamp(nowMs), ...fresh };
  }
  const ready = instance.status.conditions.find(({ type }) => type === "Ready");
  if (ready !== undefined) return ready;
  const missing = {
    type: "Ready",
    status: "False",
    reason: "VMIConditionMissing",
    message: "VMI is missing the Ready condition",
  };
  return refreshed(present, missing, nowMs);
}
