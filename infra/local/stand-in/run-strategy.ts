/** Decides whether a machine's instance is to start, stop or stay. Pure. */
import { isFinal } from "./instances.ts";
import { type Instance, isDeleting, type Machine } from "./objects.ts";

export type RunStep =
  | { readonly kind: "stay" }
  | { readonly kind: "start" }
  /** Start, but not before a failed start has been slept off. */
  | { readonly kind: "wait"; readonly delayMs: number }
  | { readonly kind: "stop"; readonly instance: Instance; readonly startAgain: boolean }
  /** A stopped machine was asked to start: its spec says so from now on. */
  | { readonly kind: "switchOn" };

const STAY: RunStep = { kind: "stay" };
const START: RunStep = { kind: "start" };

/** The machine's run strategy; `running` is the older way to say Always or Halted. */
export function runStrategyOf(machine: Machine): string {
  const { running, runStrategy } = machine.spec;
  if (typeof running === "boolean") return running ? "Always" : "Halted";
  return runStrategy ?? "Halted";
}

/** How long a failed start still keeps the machine from the next one. */
export function backoffLeftMs(machine: Machine, nowMs: number): number {
  const retryAt = Date.parse(machine.status.startFailure?.retryAfterTimestamp ?? "");
  return Number.isNaN(retryAt) ? 0 : Math.max(0, retryAt - nowMs);
}

export function planRun(machine: Machine, instance: Instance | undefined, nowMs: number): RunStep {
  if (instance !== undefined && isDeleting(instance)) return STAY;
  const mayStart = () => {
    const delayMs = backoffLeftMs(machine, nowMs);
    return delayMs === 0 ? START : ({ kind: "wait", delayMs } satisfies RunStep);
  };
  const stopAsked = instance !== undefined && isStopAsked(machine, instance);
  const stop = (startAgain: boolean): RunStep =>
    instance === undefined ? STAY : { kind: "stop", instance, startAgain };

  switch (runStrategyOf(machine)) {
    case "Always":
      if (instance === undefined) return mayStart();
      return stopAsked || isFinal(instance) ? stop(false) : STAY;
    case "RerunOnFailure":
      if (instance !== undefined) {
        return stopAsked || isFinal(instance) ? stop(instance.status.phase === "Failed") : STAY;
      }
      // Once it has run under this strategy, only a request (by us, after a failure, or by somebody) starts it.
      return isStartAsked(machine) || machine.status.runStrategy !== "RerunOnFailure" ? mayStart() : STAY;
    case "Manual":
      if (instance !== undefined) return stopAsked ? stop(false) : STAY;
      return isStartAsked(machine) ? START : STAY;
    case "Once":
      return instance === undefined ? START : STAY;
    case "Halted":
      if (instance !== undefined) return stop(false);
      return isStartAsked(machine) ? { kind: "switchOn" } : STAY;
    default:
      return STAY;
  }
}

/** Whether the first of the machine's requests is done, or pointless. */
export function isFirstRequestDone(machine: Machine, instance: Instance | undefined): boolean {
  const request = machine.status.stateChangeRequests?.[0];
  if (request?.action === "Stop") return instance === undefined || request.uid !== instance.metadata.uid;
  if (request?.action === "Start") return instance !== undefined && !isDeleting(instance) && !isFinal(instance);
  return false;
}

function isStartAsked(machine: Machine): boolean {
  return machine.status.stateChangeRequests?.[0]?.action === "Start";
}

function isStopAsked(machine: Machine, instance: Instance): boolean {
  const request = machine.status.stateChangeRequests?.[0];
  return request?.action === "Stop" && request.uid === instance.metadata.uid;
}
