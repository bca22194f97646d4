/** What the next pass of a pool would begin with: the look that a pass takes first, with the same planner, and nothing after it. Cannot write. */
import { EMPTY_LEDGER } from "../planning/claim.ts";
import { assertNever, type Problem } from "../planning/errors.ts";
import { byNameAndUid } from "../planning/membership.ts";
import { revisionOf } from "../planning/model.ts";
import { vmName } from "../planning/names.ts";
import { type Action, type ActionKind, describeAction, type Observation, type Plan } from "../planning/plan.ts";
import type { Cluster } from "./cluster.ts";
import type { Transport } from "./connection.ts";
import { type Look, lookAt, type PoolPlace } from "./observe.ts";
import { ACTING } from "./reconcile-pool.ts";

/** The same transport, by which nothing but reads are sent. */
export function readsOnly(send: Transport): Transport {
  return async (request) => {
    if (request.method !== "GET") throw new TypeError(`${request.method} is not sent: this cluster is only read`);
    return send(request);
  };
}

/** Looks as widely as a pass ever does, so that nothing that one would find is missing. `now` in epoch milliseconds. */
export function foresee(cluster: Cluster, place: PoolPlace, now: () => number): Promise<Look> {
  return lookAt(cluster, place, { wide: true, ledger: EMPTY_LEDGER, limits: ACTING, now });
}

/** One action, without anything of a template: that may hold cloud-init. */
export interface ForeseenAction {
  readonly kind: ActionKind;
  readonly machine?: string;
  readonly revision?: string;
  readonly disk?: string;
  readonly why: string;
  /** The whole in words. */
  readonly text: string;
}

/** A plan as data for people and programs. */
export interface Foreseen {
  /** What is wrong with the pool's spec: it is held until that is mended. */
  readonly problems: readonly Problem[];
  /** In the order in which they would be done. */
  readonly actions: readonly ForeseenAction[];
  /** What else was decided: what waits, what is left alone, and why. */
  readonly reasons: readonly string[];
}

export function formatPlan({ pool, verdict }: Observation, { actions, reasons }: Plan): Foreseen {
  const isHeld = !verdict.legal && !pool.deleting;
  return {
    problems: isHeld ? verdict.problems : [],
    actions: actions.map((action) => ({
      kind: action.kind,
      ...subjectOf(pool.name, action),
      why: action.why,
      text: describeAction(pool.name, action),
    })),
    // The first reason of a pool that is held is its problems.
    reasons: isHeld ? reasons.slice(1) : reasons,
  };
}

function subjectOf(poolName: string, action: Action): Pick<ForeseenAction, "machine" | "revision" | "disk"> {
  switch (action.kind) {
    case "createVm":
      return { machine: vmName(poolName, action.ordinal), revision: action.revision };
    case "updateVm":
      return { machine: action.vm.name, revision: action.revision };
    case "changeDisk":
      return { machine: action.vm.name, disk: action.disk.name };
    case "deleteVm":
    case "releaseVm":
    case "dropVmFinalizer":
    case "markVm":
    case "revokeDelete":
    case "restartInstance":
      return { machine: action.vm.name };
    case "revokeRestart":
      return { machine: action.instance.name };
    case "labelInstance":
      return { machine: action.instance.name, revision: action.revision };
    case "createRevision":
      return { revision: action.name };
    case "pruneRevision":
      return { revision: action.revision.name };
    case "writeClaim":
    case "dropPoolFinalizer":
      return {};
    default:
      return assertNever(action);
  }
}

/** A machine of a pool, as its owner asks for it. */
export interface Member {
  readonly name: string;
  readonly uid: string;
  /** The number in its name; null when the pool would not have given that name. */
  readonly ordinal: number | null;
  /** The revision that it names; null when it names none. */
  readonly revision: string | null;
  readonly ready: boolean;
  readonly terminating: boolean;
}

/** The machines that the plan goes by, by number; null when they were not read, because the pool is illegal or deleting. */
export function formatMembers({ members }: Plan): readonly Member[] | null {
  if (members === undefined) return null;
  return members
    .toSorted((a, b) => (a.ordinal ?? Infinity) - (b.ordinal ?? Infinity) || byNameAndUid(a, b))
    .map((vm) => ({
      name: vm.name,
      uid: vm.uid,
      ordinal: vm.ordinal ?? null,
      revision: revisionOf(vm) ?? null,
      ready: vm.ready,
      terminating: vm.terminating,
    }));
}
