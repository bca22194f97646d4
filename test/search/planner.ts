/** What the planner makes of a state: the observation that a pass would read, `planPass` itself, and its plan as the calls to be sent. */
import * as z from "zod";
import {
  type Claim,
  type ClaimedObject,
  claimedObject,
  EMPTY_LEDGER,
  formatClaim,
  type Ledger,
  ledgerAfterClaim,
  parseClaim,
  QUIET_AFTER_MS,
} from "../../shared/planning/claim.ts";
import { canonicalJson, parseJson } from "../../shared/planning/json.ts";
import type { Instance, Pool, Revision, Vm } from "../../shared/planning/model.ts";
import {
  CLAIM_ANNOTATION,
  HEALING_ANNOTATION,
  ordinalOf,
  POOL_FINALIZER,
  UPDATED_ANNOTATION,
} from "../../shared/planning/names.ts";
import { type Action, type Limits, type Observation, type Plan, planPass } from "../../shared/planning/plan.ts";
import { judge, type Verdict } from "../../shared/planning/verdict.ts";
import {
  aClaim,
  anInstance,
  anInstanceUid,
  aPool,
  aRevision,
  aRollout,
  aSpec,
  aVm,
  aVmSpec,
  aVmUid,
  KUBEVIRT_FINALIZER,
  LABELS,
  NOW,
  POOL_UID,
} from "../support/builders.ts";
import { ageOfCreate, bitCount, CLAIM, hasBit, MEMORY, namesIn, ORDINALS_MAX, POOL, replicasOf, VM } from "./state.ts";

/** A call, or what goes for one. In the order in which they are sent. */
export type StepKind =
  | "release"
  | "drop"
  | "revokeDelete"
  | "revokeRestart"
  | "claim"
  | "revision"
  | "create"
  | "update"
  | "delete"
  | "heal"
  | "restart"
  | "label"
  | "prune"
  | "dropPool";
const ORDER: readonly StepKind[] = [
  "release",
  "drop",
  "revokeDelete",
  "revokeRestart",
  "claim",
  "revision",
  "create",
  "update",
  "delete",
  "heal",
  "restart",
  "label",
  "prune",
  "dropPool",
];

export interface Step {
  readonly kind: StepKind;
  /** 0 where it is about none. */
  readonly ordinal: number;
  /** 0 or 1, where it is about one. */
  readonly template: number;
}

/** The calls of a plan that are still to be sent. All masks are of positions in `steps`. */
export interface Script {
  readonly steps: readonly Step[];
  /** The plan was to write its claim, and nothing else. */
  readonly closes: boolean;
  /** The ledger after its claim: ordinals that the pass alone has claimed; 0 when that is written. */
  readonly own: number;
  readonly hasClaim: boolean;
  /** Something comes before the claim. */
  readonly hasBefore: boolean;
  /** The pool must not have changed since it was read; how long ago that was counts. */
  readonly needsFresh: boolean;
  readonly needsAge: boolean;
  /** What of a window its calls are judged by. */
  readonly creates: boolean;
  readonly removes: boolean;
  readonly restarts: boolean;
  readonly updates: boolean;
  readonly frees: boolean;
}

/** What a pass has before it when it plans. */
export interface View {
  readonly pool: number;
  readonly claim: number;
  readonly memory: number;
  readonly revisions: number;
  readonly machines: readonly number[];
  readonly wide: number;
  readonly alone: number;
  readonly own: number;
  readonly tainted: number;
  readonly closing: number;
}

export interface Decision {
  /** Position in the planner's scripts; 0 for nothing to do. */
  readonly script: number;
  /** What claim and memory are to be; as they are where the plan writes none. */
  readonly claim: number;
  readonly memory: number;
}

export interface PlannerOptions {
  readonly ordinals: number;
  readonly maxUnavailable: number | undefined;
  readonly autohealing: boolean;
}

/** Which steps are dropped. `first` is the one that is next; `machine` and `instance` are those that miss when either is changed. */
export type Question = "first" | "creates" | "named" | "machine" | "instance" | "prune";

class TooManyOrdinals extends Error {}

export interface Planner {
  /** Undefined when the plan needs more ordinals than a state has places for. */
  decide(view: View): Decision | undefined;
  script(position: number): Script;
  /** The script without such steps; the same for the same question. */
  without(position: number, question: Question, ordinal: number): number;
  /** How many different observations were planned, and how many of those plans needed too many ordinals. */
  readonly planned: () => number;
  readonly cut: () => number;
}

export const TICK_MS = QUIET_AFTER_MS / 2;
const LONG_AGO = "2026-11-22T08:00:00Z";
/** Times within a tick, so that what came first is known. */
const A_MOMENT_MS = 1_000;
const NONCE = "own";
const DECISIONS_MAX = 2_000_000;
const ACTING: Limits = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };
const CLOSING: Limits = { createsMax: 0, deletesMax: 0, updatesMax: 0, restartsMax: 0 };
const GUESTS = [{ domain: {} }, { domain: { cpu: { cores: 2 } } }] as const;
const REVISIONS = ["web-1", "web-2"] as const;
const SINCE = { at: NOW - 3_600_000, generation: 1, naming: "+" } as const;
/** Objects of a claim that are gone. */
const GONE: ClaimedObject = { ordinal: undefined, uidPrefix: "90000000" };

export function createPlanner({ ordinals, maxUnavailable, autohealing }: PlannerOptions): Planner {
  const decisions = new Map<string, Decision | undefined>();
  const scripts: Script[] = [NO_SCRIPT];
  const positions = new Map<string, number>();
  const rests = new Map<string, number>();
  const vms = new Map<number, Vm>();
  const metadata = new Map<number, Vm>();
  const instances = new Map<number, Instance>();
  const pools = new Map<string, { readonly pool: Pool; readonly verdict: Verdict }>();
  let planned = 0;
  let cut = 0;
  const revisions: readonly Revision[] = [0, 1].map((template) =>
    aRevision({
      name: revisionOf(template),
      generation: template + 1,
      data: specOf(template === 0 ? 0 : POOL.second, 1),
    }),
  );
  return {
    decide,
    script: (position) => scripts[position] ?? NO_SCRIPT,
    without,
    planned: () => planned,
    cut: () => cut,
  };

  function decide(view: View): Decision | undefined {
    const { pool, claim, memory, machines, wide, alone, own, tainted, closing } = view;
    const key = `${pool} ${claim} ${memory} ${view.revisions} ${machines.join(",")} ${wide} ${alone} ${own} ${tainted} ${closing}`;
    const known = decisions.get(key);
    if (known !== undefined || decisions.has(key)) return known;
    if (decisions.size >= DECISIONS_MAX) decisions.clear();
    planned += 1;
    const decision = within(() => think(view));
    decisions.set(key, decision);
    return decision;
  }

  function within(decideIt: () => Decision): Decision | undefined {
    try {
      return decideIt();
    } catch (error) {
      if (!(error instanceof TooManyOrdinals)) throw error;
      cut += 1;
      return undefined;
    }
  }

  function think(view: View): Decision {
    const seen = observe(view);
    const plan = planWith(seen, view);
    const steps = stepsOf(plan.actions);
    const write = plan.actions.find((action) => action.kind === "writeClaim");
    if (steps.length === 0) return { script: 0, claim: view.claim, memory: view.memory };
    const ledger = write === undefined ? seen.ledger : ledgerAfter(seen, plan.actions);
    if (steps.some(({ ordinal }) => ordinal >= ordinals)) throw new TooManyOrdinals("a plan needs more ordinals");
    return {
      script: positionOf(
        scriptOf(steps, { own: maskOf(ledger.own), closes: steps.length === 1 && write !== undefined }),
      ),
      claim: write === undefined ? view.claim : claimNumber(written(seen, write)),
      memory: write?.healing === undefined ? view.memory : memoryNumber(write.healing ?? "{}"),
    };
  }

  function positionOf(script: Script): number {
    if (script.steps.length === 0) return 0;
    const key = JSON.stringify([script.steps, script.own, script.closes]);
    const known = positions.get(key);
    if (known !== undefined) return known;
    scripts.push(script);
    positions.set(key, scripts.length - 1);
    return scripts.length - 1;
  }

  function without(position: number, question: Question, ordinal: number): number {
    if (position === 0) return 0;
    const key = `${position} ${question} ${ordinal}`;
    const known = rests.get(key);
    if (known !== undefined) return known;
    const { steps, own, closes } = scripts[position] ?? NO_SCRIPT;
    const kept = steps.filter((step, at) => (question === "first" ? at > 0 : !isAsked(step, question, ordinal)));
    const rest = kept.length === steps.length ? position : positionOf(scriptOf(kept, { own, closes }));
    rests.set(key, rest);
    return rest;
  }

  /** Reads what the planner asks for, as a pass does. */
  function planWith(first: Observation, view: View): Plan {
    let seen = first;
    for (let looks = 0; looks < 8; looks += 1) {
      const plan = planPass(seen, view.closing === 1 ? CLOSING : ACTING);
      if (plan.needs.length === 0) return plan;
      for (const need of plan.needs) {
        if (need.read === "namespaceVms") seen = { ...seen, namespaceVms: metadataOf(view) };
        else if (need.read === "instances") {
          seen = { ...seen, instances: instancesOf(view), ownRevisions: made(view.revisions) };
        } else if (need.read === "revisions") {
          const read = need.names.map(
            (name) => [name, made(view.revisions).find((one) => one.name === name) ?? "absent"] as const,
          );
          seen = { ...seen, revisions: new Map([...seen.revisions, ...read]) };
        } else throw new Error(`the search does not know how to read ${need.read}`);
      }
    }
    throw new Error("the planner asks again and again");
  }

  function made(mask: number): readonly Revision[] {
    return revisions.filter((_, template) => hasBit(mask, template));
  }

  function observe(view: View): Observation {
    const { pool, verdict } = poolOf(view);
    const selects = verdict.legal && !pool.deleting;
    return {
      now: NOW,
      pool,
      verdict,
      selected: selects ? machinesOf(view).filter((_, index) => isSelected(view, index)) : [],
      namespaceVms: view.wide === 1 ? metadataOf(view) : undefined,
      revisions: new Map(),
      instances: undefined,
      ownRevisions: undefined,
      looseInstances: [],
      liveUpdates: false,
      disks: new Map(),
      specless: new Set(),
      keptDisks: [],
      namespaceUid: undefined,
      livingPools: [],
      ledger: ledgerOf(view),
      by: "test",
    };
  }

  function poolOf({ pool: number, claim, memory, alone }: View): { readonly pool: Pool; readonly verdict: Verdict } {
    const key = `${number} ${claim} ${memory} ${alone}`;
    const known = pools.get(key);
    if (known !== undefined) return known;
    if (pools.size > 100_000) pools.clear();
    const pool = aPool({
      generation: (number & POOL.second) === 0 ? 1 : 2,
      deleting: (number & POOL.deleting) !== 0,
      finalizers: [
        ...((number & POOL.held) === 0 ? [] : [POOL_FINALIZER]),
        ...((number & POOL.orphan) === 0 ? [] : ["orphan"]),
      ],
      spec: specOf(number, replicasOf(number)),
      claim: (claim & CLAIM.known) === 0 ? null : claimFrom(claim, { alone, second: (number & POOL.second) !== 0 }),
      ...(memory === 0 ? {} : { annotations: { [HEALING_ANNOTATION]: memoryText(memory) } }),
    });
    const entry = { pool, verdict: judge(pool) };
    pools.set(key, entry);
    return entry;
  }

  function specOf(pool: number, replicas: number) {
    const guest = GUESTS[(pool & POOL.second) === 0 ? 0 : 1];
    return aSpec({
      replicas,
      paused: (pool & POOL.paused) !== 0,
      virtualMachineTemplate: {
        metadata: { labels: LABELS },
        spec: { runStrategy: "Always", template: { metadata: {}, spec: guest } },
      },
      ...(maxUnavailable === undefined ? {} : { maxUnavailable }),
      ...(autohealing ? { autohealing: {} } : {}),
    });
  }

  function machinesOf({ machines }: View): readonly Vm[] {
    return machines.flatMap((machine, ordinal) => (machine === 0 ? [] : [cached(vms, machine, ordinal, vmFrom)]));
  }

  function isSelected({ machines }: View, index: number): boolean {
    const there = machines.filter((machine) => machine !== 0);
    return ((there[index] ?? 0) & VM.matched) !== 0;
  }

  function metadataOf({ machines }: View): readonly Vm[] {
    return machines.flatMap((machine, ordinal) =>
      machine === 0 ? [] : [cached(metadata, machine, ordinal, metadataFrom)],
    );
  }

  function instancesOf({ machines }: View): readonly Instance[] {
    return machines.flatMap((machine, ordinal) =>
      (machine & VM.runs) === 0 ? [] : [cached(instances, machine, ordinal, instanceFrom)],
    );
  }
}

function isAsked({ kind, ordinal, template }: Step, question: Question, of: number): boolean {
  switch (question) {
    case "creates":
      return kind === "create";
    case "named":
      return kind === "create" || kind === "update";
    case "machine":
      return ordinal === of && ON_MACHINE.includes(kind);
    case "instance":
      return ordinal === of && ON_INSTANCE.includes(kind);
    case "prune":
      return kind === "prune" && template === of;
    case "first":
      return false;
  }
}

function scriptOf(steps: readonly Step[], { own, closes }: Pick<Script, "own" | "closes">): Script {
  const has = (...kinds: readonly StepKind[]) => steps.some(({ kind }) => kinds.includes(kind));
  const hasClaim = has("claim");
  return {
    steps,
    closes: hasClaim && closes,
    own: hasClaim ? own : 0,
    hasClaim,
    hasBefore: has(...BEFORE),
    needsFresh: hasClaim || has("dropPool"),
    needsAge: hasClaim || has("update"),
    creates: has("create"),
    removes: has("delete", "heal"),
    restarts: has("restart"),
    updates: has("update"),
    frees: has(...BEFORE),
  };
}

const ON_MACHINE: readonly StepKind[] = ["release", "drop", "update", "delete", "heal"];
const ON_INSTANCE: readonly StepKind[] = ["restart", "label"];
const BEFORE: readonly StepKind[] = ["release", "drop", "revokeDelete", "revokeRestart"];

const NO_SCRIPT = scriptOf([], { own: 0, closes: false });

function cached<T>(
  known: Map<number, T>,
  machine: number,
  ordinal: number,
  make: (machine: number, ordinal: number) => T,
): T {
  const key = machine * 8 + ordinal;
  const found = known.get(key) ?? make(machine, ordinal);
  known.set(key, found);
  return found;
}

function revisionOf(template: number): string {
  return template === 0 ? REVISIONS[0] : REVISIONS[1];
}

function vmFrom(machine: number, ordinal: number): Vm {
  const is = (flag: number) => (machine & flag) !== 0;
  const revision = revisionOf(is(VM.second) ? 1 : 0);
  return aVm(ordinal, {
    pool: is(VM.ours) ? POOL_UID : null,
    labels: is(VM.matched) ? LABELS : { app: "gone" },
    revision,
    annotations: is(VM.updated) ? { [UPDATED_ANNOTATION]: timeText(NOW) } : {},
    finalizers: [...(is(VM.held) ? [POOL_FINALIZER] : []), ...(is(VM.heldByKubeVirt) ? [KUBEVIRT_FINALIZER] : [])],
    terminating: is(VM.terminating),
    ready: is(VM.runs) && is(VM.ready) && !is(VM.going),
    created: timeText(is(VM.young) ? NOW - A_MOMENT_MS : NOW - TICK_MS - A_MOMENT_MS),
    readyChanged: is(VM.runsYoung) ? timeText(NOW) : LONG_AGO,
    failures: is(VM.failing) ? 3 : 0,
    spec: aVmSpec(revision, {
      template: {
        metadata: { labels: { ...LABELS, "kubevirt.io/vm-pool-revision-name": revision } },
        spec: is(VM.second) ? GUESTS[1] : GUESTS[0],
      },
    }),
  });
}

function metadataFrom(machine: number, ordinal: number): Vm {
  return { ...vmFrom(machine, ordinal), ready: false, spec: undefined, startFailures: 0 };
}

function instanceFrom(machine: number, ordinal: number): Instance {
  const is = (flag: number) => (machine & flag) !== 0;
  return anInstance(ordinal, {
    revision: revisionOf(is(VM.runsSecond) ? 1 : 0),
    terminating: is(VM.going),
    ready: is(VM.ready),
    created: is(VM.runsYoung) ? timeText(NOW) : LONG_AGO,
    spec: is(VM.runsSecond) ? GUESTS[1] : GUESTS[0],
  });
}

function timeText(epochMs: number): string {
  return new Date(epochMs).toISOString();
}

// --- plans

function stepsOf(actions: readonly Action[]): readonly Step[] {
  const steps = actions.map(stepOf);
  return steps.toSorted((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
}

function stepOf(action: Action): Step {
  const step = (kind: StepKind, ordinal: number | undefined = 0, template = 0): Step => ({
    kind,
    ordinal: ordinal ?? 0,
    template,
  });
  switch (action.kind) {
    case "releaseVm":
      return step("release", action.vm.ordinal);
    case "dropVmFinalizer":
      return step("drop", action.vm.ordinal);
    case "revokeDelete":
      return step("revokeDelete", action.vm.ordinal);
    case "revokeRestart":
      return step("revokeRestart", ordinalOf("web", action.instance.name));
    case "writeClaim":
      return step("claim");
    case "createRevision":
      return step("revision", 0, templateOf(action.name));
    case "createVm":
      return step("create", action.ordinal, templateOf(action.revision));
    case "updateVm":
      return step("update", action.vm.ordinal, templateOf(action.revision));
    case "deleteVm":
      return step(action.successor === undefined ? "delete" : "heal", action.vm.ordinal);
    case "restartInstance":
      return step("restart", action.vm.ordinal);
    case "labelInstance":
      return step("label", ordinalOf("web", action.instance.name), templateOf(action.revision));
    case "pruneRevision":
      return step("prune", 0, templateOf(action.revision.name));
    case "dropPoolFinalizer":
      return step("dropPool");
    default:
      throw new Error(`the search does not know ${action.kind}`);
  }
}

function templateOf(revision: string): number {
  const [first, second] = REVISIONS;
  if (revision !== first && revision !== second) throw new Error(`the search has no revision ${revision}`);
  return revision === first ? 0 : 1;
}

// --- the ledger and the claim

function ledgerOf({ alone, own, tainted }: View): Ledger {
  if (alone === 0 && own === 0 && tainted === 0) return EMPTY_LEDGER;
  return { nonce: alone === 1 ? NONCE : "overtaken", own: setOf(own), tainted: setOf(tainted) };
}

function ledgerAfter({ pool, ledger }: Observation, actions: readonly Action[]): Ledger {
  const issued = actions.flatMap((action) => (action.kind === "createVm" ? [action.ordinal] : []));
  return ledgerAfterClaim(ledger, { previous: parseClaim(pool.annotations?.[CLAIM_ANNOTATION]), nonce: NONCE, issued });
}

/** The claim that goes to the pool, through its text as the real one. */
function written({ pool }: Observation, { items }: Extract<Action, { kind: "writeClaim" }>): Claim {
  const { generation } = pool;
  const claim = parseClaim(formatClaim({ ...items, by: "test", at: NOW, nonce: NONCE, generation, since: SINCE }));
  if (claim === undefined) throw new Error("a pass writes a claim that cannot be read");
  return claim;
}

function claimFrom(claim: number, { alone, second }: { readonly alone: number; readonly second: boolean }): Claim {
  const ordinals = Array.from({ length: ORDINALS_MAX }, (_, ordinal) => ordinal);
  const ages = ordinals.map((ordinal) => [ordinal, ageOfCreate(claim, ordinal)] as const).filter(([, age]) => age > 0);
  const objects = (of: "remove" | "restart", uidOf: (ordinal: number) => string, dead: number) => [
    ...ordinals
      .filter((ordinal) => hasBit(namesIn(claim, of), ordinal))
      .map((ordinal) => claimedObject({ uid: uidOf(ordinal) }, ordinal)),
    ...((claim & dead) === 0 ? [] : [GONE]),
  ];
  const rollout = (claim >> CLAIM.rollout) & 3;
  const wait = (claim >> CLAIM.wait) & 3;
  return aClaim({
    by: "test",
    at: NOW - 2 * TICK_MS,
    nonce: alone === 1 ? NONCE : "another",
    generation: (claim & CLAIM.current) === 0 ? 0 : second ? 2 : 1,
    since: SINCE,
    create: new Map(ages.map(([ordinal, age]) => [ordinal, NOW - (age - 1) * TICK_MS])),
    delete: objects("remove", aVmUid, CLAIM.removeDead),
    restart: objects("restart", anInstanceUid, CLAIM.restartDead),
    rollout: rollout === 0 ? undefined : ROLLOUTS[rollout - 1],
    waitUntil: wait === 0 ? undefined : NOW + (wait - 1) * TICK_MS,
  });
}

const ROLLOUTS = GUESTS.map((guest, template) =>
  aRollout(
    aSpec({
      virtualMachineTemplate: {
        metadata: { labels: LABELS },
        spec: { runStrategy: "Always", template: { metadata: {}, spec: guest } },
      },
    }),
    revisionOf(template),
    template + 1,
  ),
);

function claimNumber(claim: Claim): number {
  const { create, restart, rollout, waitUntil } = claim;
  let number = CLAIM.known | CLAIM.current;
  for (const [ordinal, at] of create) {
    if (ordinal >= ORDINALS_MAX) throw new TooManyOrdinals("the claim names more ordinals");
    number |= Math.min(3, (NOW - at) / TICK_MS + 1) << (CLAIM.create + 2 * ordinal);
  }
  number |= objectsNumber(claim.delete, aVmUid) << CLAIM.remove;
  number |= objectsNumber(restart, anInstanceUid) << CLAIM.restart;
  if (waitUntil !== undefined) number |= ((waitUntil - NOW) / TICK_MS + 1) << CLAIM.wait;
  if (rollout !== undefined) {
    const template = ROLLOUTS.findIndex((known) => JSON.stringify(known) === JSON.stringify(rollout));
    if (template < 0) throw new Error(`the search has no roll-out ${JSON.stringify(rollout)}`);
    number |= (template + 1) << CLAIM.rollout;
  }
  return number;
}

function objectsNumber(objects: readonly ClaimedObject[], uidOf: (ordinal: number) => string): number {
  let mask = 0;
  for (const { ordinal = -1, uidPrefix } of objects) {
    if (ordinal < 0 || !uidOf(ordinal).startsWith(uidPrefix))
      throw new Error(`a plan claims what is gone: ${uidPrefix}`);
    mask |= 1 << ordinal;
  }
  if (bitCount(mask) !== objects.length) throw new Error("a plan claims an object twice");
  return mask;
}

// --- what healing remembers

const memorySchema = z.record(z.string(), z.strictObject({ count: z.int(), at: z.string() }));

function memoryText(memory: number): string {
  const entries = Array.from({ length: ORDINALS_MAX }, (_, ordinal) => {
    const bits = memory >> (MEMORY.bits * ordinal);
    if ((bits & MEMORY.here) === 0) return [];
    const at = NOW - ((bits & MEMORY.young) === 0 ? TICK_MS : 0) - ((bits & MEMORY.newer) === 0 ? 0 : 2 * A_MOMENT_MS);
    return [[String(ordinal), { count: (bits >> MEMORY.count) & 3, at: timeText(at) }] as const];
  });
  return canonicalJson(Object.fromEntries(entries.flat()));
}

function memoryNumber(text: string): number {
  let memory = 0;
  for (const [name, { count, at }] of Object.entries(memorySchema.parse(parseJson(text)))) {
    const ordinal = Number(name);
    if (ordinal >= ORDINALS_MAX) throw new TooManyOrdinals("healing remembers more ordinals");
    const ageMs = NOW - Date.parse(at);
    const bits =
      MEMORY.here |
      (Math.min(2, count) << MEMORY.count) |
      (ageMs < TICK_MS ? MEMORY.young : 0) |
      (ageMs % TICK_MS === 0 ? 0 : MEMORY.newer);
    memory |= bits << (MEMORY.bits * ordinal);
  }
  return memory;
}

// --- sets

function setOf(mask: number): ReadonlySet<number> {
  return new Set(
    Array.from({ length: ORDINALS_MAX }, (_, ordinal) => ordinal).filter((ordinal) => hasBit(mask, ordinal)),
  );
}

function maskOf(set: ReadonlySet<number>): number {
  return [...set].reduce((mask, ordinal) => mask | (1 << ordinal), 0);
}
