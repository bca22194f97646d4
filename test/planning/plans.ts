/** Short ways to ask for a plan and to read it. */
import type { ClaimItems } from "../../shared/planning/claim.ts";
import type { Instance, Vm } from "../../shared/planning/model.ts";
import {
  type Action,
  type ActionKind,
  type Limits,
  type Need,
  type Observation,
  type Plan,
  planPass,
} from "../../shared/planning/plan.ts";
import { anObservation, deepFreeze, type ObservationOverrides } from "../support/builders.ts";

export const ACTING: Limits = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };
export const CLOSING: Limits = { createsMax: 0, deletesMax: 0, updatesMax: 0, restartsMax: 0 };

/** Plans over frozen input, so that a mutation of it throws. */
export function planOf(overrides: ObservationOverrides, limits: Limits = ACTING): Plan {
  return planPass(deepFreeze(anObservation(overrides)), limits);
}

export function kindsOf({ actions }: Plan): readonly ActionKind[] {
  return actions.map(({ kind }) => kind);
}

export function createsOf({ actions }: Plan): readonly number[] {
  return actions.flatMap((action) => (action.kind === "createVm" ? [action.ordinal] : []));
}

export function deletesOf(plan: Plan): readonly string[] {
  return targetsOf(plan, "deleteVm").map(({ name }) => name);
}

/** Names of the machines that an action of this kind is for. */
export function namesOf(
  plan: Plan,
  kind: "releaseVm" | "dropVmFinalizer" | "revokeDelete" | "deleteVm",
): readonly string[] {
  return targetsOf(plan, kind).map(({ name }) => name);
}

export function targetsOf(
  { actions }: Plan,
  kind: "releaseVm" | "dropVmFinalizer" | "revokeDelete" | "deleteVm",
): readonly Vm[] {
  return actions.flatMap((action) => (action.kind === kind ? [action.vm] : []));
}

export function updatesOf({ actions }: Plan): readonly Extract<Action, { kind: "updateVm" }>[] {
  return actions.flatMap((action) => (action.kind === "updateVm" ? [action] : []));
}

/** Names of the machines whose guests are restarted. */
export function restartsOf(plan: Plan): readonly string[] {
  return restartedIn(plan).map(({ name }) => name);
}

export function restartedIn({ actions }: Plan): readonly Instance[] {
  return actions.flatMap((action) => (action.kind === "restartInstance" ? [action.instance] : []));
}

export function prunesOf({ actions }: Plan): readonly string[] {
  return actions.flatMap((action) => (action.kind === "pruneRevision" ? [action.revision.name] : []));
}

/** What the plan's claim names; undefined when it writes none. */
export function claimIn({ actions }: Plan): ClaimItems | undefined {
  return actions.flatMap((action) => (action.kind === "writeClaim" ? [action.items] : []))[0];
}

export function claimedOrdinals(plan: Plan): readonly number[] | undefined {
  const items = claimIn(plan);
  return items && [...items.create.keys()].sort((a, b) => a - b);
}

/** Rounds of reads that a pass has. */
const ROUNDS_MAX = 20;

/** The plan once all that it asks for was read, and found to be nothing. */
export function planRead(seen: Observation, limits: Limits): Plan {
  let known = seen;
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const plan = planPass(known, limits);
    if (plan.needs.length === 0) return plan;
    for (const need of plan.needs) known = { ...known, ...readNothing(known, need) };
  }
  throw new Error("the plan goes on asking for more");
}

function readNothing(seen: Observation, need: Need): Partial<Observation> {
  switch (need.read) {
    case "namespaceVms":
      return { namespaceVms: seen.selected };
    case "revisions":
      return { revisions: new Map([...seen.revisions, ...need.names.map((name) => [name, "absent"] as const)]) };
    case "instances":
      return { instances: [], ownRevisions: [] };
    case "looseInstances":
      return { looseInstances: [] };
    case "liveUpdates":
      return { liveUpdates: false };
    case "specs":
      return { specless: new Set([...seen.specless, ...need.vms.map(({ uid }) => uid)]) };
    case "disks":
      return { disks: new Map([...seen.disks, ...need.vms.map(({ uid }) => [uid, []] as const)]) };
    case "keptDisks":
      return { keptDisks: [] };
    case "namespace":
      return { namespaceUid: "ns-uid" };
    case "livingPools": {
      const { namespace, name, uid } = seen.pool;
      return { livingPools: [{ namespace, name, uid }] };
    }
  }
}
