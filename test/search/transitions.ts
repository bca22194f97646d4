/**
 * What can happen in a state: steps of passes and the fates of their calls, late calls, acts of users, of KubeVirt and of the garbage
 * collector, and the clock. Every write of a pass is judged by the invariants of the design when it takes effect, against what was in
 * force since the pass first read.
 *
 * What is left out, because something here covers it: an unclear answer to the claim (a pass that crashes right after, or before); a
 * claim that lands late (a pass that is slow to send it, and crashes then); a call that never lands (a late one that the clock
 * overtakes); a pass that runs out of looks or time (a crash). Calls that really go in parallel go one by one.
 */
import type { Planner, Question, Script, Step } from "./planner.ts";
import {
  bitCount,
  CLAIM,
  copyOf,
  hasBit,
  isAvailable,
  isLive,
  isMember,
  LATE,
  type Late,
  MEMORY,
  machineAt,
  NEVER,
  NO_WINDOW,
  ORDINALS_MAX,
  olderClaim,
  olderMemory,
  type Pass,
  PHASE,
  POOL,
  replicasOf,
  type Shape,
  type State,
  seenOf,
  VM,
  type Window,
  withoutObject,
} from "./state.ts";

/** What a search lets happen. */
export interface Rules extends Shape {
  readonly replicasMin: number;
  readonly replicasMax: number;
  /** Of the pool at the beginning; it has all its machines then, or none. */
  readonly replicas: number;
  readonly grown: boolean;
  /** How often users act and machines fail, all in all; 0 for as often as they like. */
  readonly acts: number;
  readonly users: readonly UserAct[];
  /** Instances come and go apart from their machines. */
  readonly instances: boolean;
  /** KubeVirt may boot the template that a machine had before its last update. */
  readonly lagging: boolean;
  readonly maxUnavailable: number | undefined;
  readonly autohealing: boolean;
  /** Ready machines may become unready; machines may fail to start. */
  readonly falling: boolean;
  readonly failing: boolean;
  /** Answers may be lost, and creates refused. */
  readonly losing: boolean;
  readonly refusing: boolean;
}

export type UserAct = "pause" | "edit" | "delete" | "detach" | "relabel" | "deletePool" | "orphanPool" | "forget";

export class Violation extends Error {}

/** `ordinal` is -1 where a step is about none. */
export type Emit = (label: string, next: State) => void;

export interface Transitions {
  readonly initial: State;
  /** All that can happen next; a step that breaks an invariant throws instead of being emitted. */
  expand(state: State, emit: Emit): void;
  /** One pass, undisturbed, from its start to its end; undefined when it needs more ordinals than there are places for. */
  passAlone(state: State, emit: Emit): State | undefined;
  /** KubeVirt and the garbage collector finish what they have begun. */
  settle(state: State): State;
  tick(state: State): State;
  /** How the state differs from what its users asked for. */
  mismatch(state: State): string | undefined;
}

const INSTANCE = VM.runs | VM.ready | VM.going | VM.runsSecond | VM.runsYoung;
const LOOKS_MAX = 12;
/** More than a pass of so few machines can do. */
const STEPS_MAX = 400;

export function createTransitions(rules: Rules, planner: Planner): Transitions {
  const all = Array.from({ length: rules.ordinals }, (_, ordinal) => ordinal);
  /** Nobody asks how old machines are where they are only counted. */
  const ageless = rules.instances || rules.autohealing ? 0 : VM.young | VM.runsYoung;
  return { initial: begin(), expand, passAlone, settle, tick, mismatch };

  function begin(): State {
    const held = rules.grown ? POOL.held : 0;
    const revisions = rules.grown && rules.replicas > 0 ? 1 : 0;
    const machine = VM.here | VM.ours | VM.matched | VM.held | VM.heldByKubeVirt | VM.runs | VM.ready;
    return {
      pool:
        POOL.here |
        held |
        (rules.replicas << POOL.replicas) |
        (revisions << POOL.revisions) |
        (rules.acts << POOL.acts),
      claim: rules.grown ? CLAIM.known | CLAIM.current | ((revisions === 0 ? 0 : 1) << CLAIM.rollout) : 0,
      memory: 0,
      machines: all.map((ordinal) => (rules.grown && ordinal < rules.replicas ? machine : 0)),
      passes: [],
      late: [],
    };
  }

  function expand(state: State, tell: Emit): void {
    const emit: Emit = (label, next) => tell(label, swept(next));
    for (const [index, pass] of state.passes.entries()) stepPass(state, index, pass, emit);
    for (const [index, call] of state.late.entries()) emit(`late: ${describe(call)}`, land(state, index, call));
    if (state.passes.length < rules.passes && state.pool !== 0) {
      const isWideToo = rules.users.some((act) => act === "detach" || act === "relabel" || act === "orphanPool");
      emit("a pass starts", start(state, 0));
      if (isWideToo) emit("a wide pass starts", start(state, 1));
    }
    for (const index of state.passes.keys()) emit("a pass crashes", without(state, index));
    expandKubeVirt(state, emit);
    if (rules.acts === 0 || state.pool >> POOL.acts > 0) expandUsers(state, emit);
    if (state.passes.length > 0 || state.late.length > 0 || isTimed(state)) emit("a tick passes", tick(state));
  }

  // --- passes

  function start(state: State, wide: number): State {
    return { ...state, passes: [...state.passes, readPool(state, { ...NEW_PASS, wide })] };
  }

  /** What was in force before is forgotten, too: every look is judged as if it were the pass's first, which is stricter. */
  function readPool({ pool, claim, memory }: State, pass: Pass): Pass {
    const fresh = { phase: PHASE.read, readAge: 0, claimFresh: 1, specFresh: 1, window: seeMoment(NO_WINDOW, pool) };
    return { ...pass, ...fresh, pool: seenOf(pool), claim, memory };
  }

  /** What a pass does next; of a call the answer that it deserves comes first. */
  function stepPass(state: State, index: number, pass: Pass, emit: Emit): void {
    if (pass.phase === PHASE.due) {
      if (state.pool === 0) emit("a pass finds no pool", without(state, index));
      else emit("a pass reads the pool", replaced(state, index, readPool(state, pass)));
    } else if (pass.phase === PHASE.read) {
      const next = plan(state, index, pass);
      if (next !== undefined) emit("a pass reads the machines and plans", next);
    } else sendNext(state, index, pass, emit);
  }

  /** Undefined when the plan needs more ordinals than there are places for. */
  function plan(state: State, index: number, pass: Pass): State | undefined {
    const { pool, claim, memory, wide, alone, own, tainted, closing, readAge } = pass;
    const revisions = (state.pool >> POOL.revisions) & 3;
    const { machines } = state;
    const decision = planner.decide({ pool, claim, memory, revisions, machines, wide, alone, own, tainted, closing });
    if (decision === undefined) return undefined;
    if (decision.script === 0) return without(state, index);
    const { hasClaim } = planner.script(decision.script);
    const isOld = readAge === 1;
    return advance(state, index, {
      ...pass,
      phase: PHASE.acts,
      pool: 0,
      claim: !hasClaim ? 0 : isOld ? olderClaim(decision.claim) : decision.claim,
      memory: !hasClaim ? 0 : isOld ? olderMemory(decision.memory) : decision.memory,
      script: decision.script,
    });
  }

  /**
   * Puts the pass in its place. One whose claim is sure to be refused, or who has nothing more to send, goes on to its next look at
   * once; of the others all is forgotten that the rest of their calls does not ask for.
   */
  function advance(state: State, index: number, pass: Pass): State {
    if (pass.phase !== PHASE.acts) return replaced(state, index, pass);
    const script = planner.script(pass.script);
    const isStale = pass.claimFresh === 0 || pass.specFresh === 0;
    const isOvertaken = isStale && script.hasClaim && !script.hasBefore;
    if (!isOvertaken && pass.script !== 0) return replaced(state, index, trimmed(pass, script));
    if (!isOvertaken && pass.failed === 1 && pass.closing === 1) return without(state, index);
    const { wide, age, alone, own, tainted } = pass;
    const closing = pass.failed === 1 ? 1 : pass.closing;
    return replaced(state, index, { ...NEW_PASS, wide, age, alone, own, tainted, closing });
  }

  function trimmed(pass: Pass, script: Script): Pass {
    const { most, least, templates, lost, fell, left } = pass.window;
    return {
      ...pass,
      claimFresh: script.needsFresh ? pass.claimFresh : 0,
      specFresh: script.needsFresh ? pass.specFresh : 0,
      readAge: script.needsAge ? pass.readAge : 0,
      window: {
        most: script.creates ? most : NEVER,
        least: script.removes || script.restarts ? least : NEVER,
        templates: script.restarts || script.updates ? templates : 0,
        lost: script.removes ? Math.min(lost, rules.replicasMax) : 0,
        fell: script.restarts ? fell : 0,
        left: script.frees ? left : 0,
      },
    };
  }

  function sendNext(state: State, index: number, before: Pass, emit: Emit): void {
    const script = planner.script(before.script);
    const [step] = script.steps;
    if (step === undefined) throw new Error("a pass has nothing to send");
    const pass: Pass = { ...before, script: planner.without(before.script, "first", 0) };
    const told = `${step.kind} ${step.ordinal}`;
    emit(told, send(state, index, pass, step));
    if (!isGuarded(step)) return;
    const isCreate = step.kind === "create";
    const failing = isCreate ? stopCreates(pass, step.ordinal) : { ...pass, failed: 1 };
    if (rules.losing) emit(`${told}, answer lost`, send(state, index, failing, step));
    if (isCreate && rules.refusing) {
      const refused: Pass = { ...pass, script: planner.without(pass.script, "creates", 0), failed: 1 };
      emit(`${told}, refused`, advance(state, index, refused));
    }
    if (state.late.length >= rules.late) return;
    const delayed: State = { ...state, late: [...state.late, lateOf(pass, step)] };
    emit(`${told}, late`, advance(delayed, index, failing));
    if (isCreate) {
      const tainted = before.tainted | (1 << step.ordinal);
      emit(`${told}, late and to be repeated`, advance(delayed, index, { ...before, tainted }));
    }
  }

  /** An answer that says nothing stops the creates of this look. */
  function stopCreates(pass: Pass, ordinal: number): Pass {
    const script = planner.without(pass.script, "creates", 0);
    return { ...pass, script, tainted: pass.tainted | (1 << ordinal), failed: 1 };
  }

  /** A call takes effect, and its sender has its answer. */
  function send(state: State, index: number, pass: Pass, step: Step): State {
    const draft = copyOf(replaced(state, index, pass));
    const isAlive = execute(draft, index, { pass, script: planner.script(state.passes[index]?.script ?? 0) }, step);
    // The pass as what it did has left it.
    const now = draft.passes[index];
    return isAlive && now !== undefined ? advance(draft, index, now) : without(draft, index);
  }

  /** False when the answer ends the pass. */
  function execute(
    draft: State,
    index: number,
    { pass, script: of }: { readonly pass: Pass; readonly script: Script },
    { kind, ordinal, template }: Step,
  ): boolean {
    const { window } = pass;
    switch (kind) {
      case "release":
        judgeRelease(draft, ordinal, window);
        change(draft, ordinal, machineAt(draft, ordinal) & ~(VM.ours | VM.held));
        return true;
      case "drop":
        judgeDrop(draft, ordinal, window);
        change(draft, ordinal, machineAt(draft, ordinal) & ~VM.held);
        return true;
      case "revokeDelete":
      case "revokeRestart":
        return revoke(draft, ordinal, { window, kind });
      case "claim":
        return writeClaim(draft, index, { pass, script: of });
      case "revision":
        return createRevision(draft, index, template);
      case "create":
        create(draft, ordinal, template, window);
        return true;
      case "update":
        update(draft, ordinal, template, pass);
        return true;
      case "delete":
      case "heal":
        remove(draft, ordinal, { window, isHealed: kind === "heal" });
        return true;
      case "restart":
        restart(draft, ordinal, window);
        return true;
      case "label":
        changeInstance(draft, ordinal, withFlag(machineAt(draft, ordinal), VM.runsSecond, template === 1));
        return true;
      case "prune":
        prune(draft, template);
        return true;
      case "dropPool":
        if (pass.claimFresh === 1 && pass.specFresh === 1) dropPool(draft);
        return true;
    }
  }

  /** False for the end of the pass: there is nothing more to do. */
  function writeClaim(draft: State, index: number, { pass, script }: { pass: Pass; script: Script }): boolean {
    draft.claim = pass.claim;
    draft.memory = pass.memory;
    draft.pool |= POOL.held;
    const { own } = script;
    draft.passes = draft.passes.map((other, at) =>
      at === index ? { ...other, alone: 1, own, claim: 0, memory: 0 } : { ...other, claimFresh: 0, alone: 0, own: 0 },
    );
    // A pass that is about to write its own claim finds out at once.
    settlePasses(draft, index);
    return !script.closes;
  }

  function createRevision(draft: State, index: number, template: number): boolean {
    const bit = 1 << (POOL.revisions + template);
    if ((draft.pool & bit) === 0) {
      draft.pool |= bit;
      return true;
    }
    draft.passes = draft.passes.map((pass, at) =>
      at === index ? { ...pass, script: planner.without(pass.script, "named", 0) } : pass,
    );
    return true;
  }

  /** A revision that is made again is another one. */
  function prune(draft: State, template: number): void {
    draft.pool &= ~(1 << (POOL.revisions + template));
    drop(draft, "prune", template);
    settlePasses(draft, -1);
  }

  function dropPool(draft: State): void {
    const owned = draft.machines.findIndex((machine) => (machine & VM.ours) !== 0 && (machine & VM.held) !== 0);
    if (owned >= 0) throw new Violation(`the pool is let go while machine ${owned} is held`);
    draft.pool &= ~POOL.held;
    endPool(draft);
  }

  function endPool(draft: State): void {
    if ((draft.pool & POOL.deleting) === 0 || (draft.pool & (POOL.held | POOL.orphan)) !== 0) return;
    draft.pool = 0;
    draft.claim = 0;
    draft.memory = 0;
    draft.passes = draft.passes.map((pass) => ({ ...pass, claimFresh: 0, specFresh: 0, alone: 0, own: 0 }));
    settlePasses(draft, -1);
  }

  // --- calls and their judgement

  function create(draft: State, ordinal: number, template: number, { most }: Window): void {
    if (machineAt(draft, ordinal) !== 0) return;
    if (draft.pool === 0) throw new Violation(`machine ${ordinal} is created though the pool is gone`);
    const instance = rules.instances ? 0 : VM.runs | VM.runsYoung | (template === 1 ? VM.runsSecond : 0);
    const made = VM.here | VM.ours | VM.matched | VM.held | VM.heldByKubeVirt | VM.young;
    draft.machines[ordinal] = (made | instance | (template === 1 ? VM.second : 0)) & ~ageless;
    const newer = MEMORY.newer << (MEMORY.bits * ordinal);
    const isKnown = (memory: number) => (memory & (MEMORY.here << (MEMORY.bits * ordinal))) !== 0;
    if (isKnown(draft.memory)) draft.memory |= newer;
    draft.passes = draft.passes.map((pass) => (isKnown(pass.memory) ? { ...pass, memory: pass.memory | newer } : pass));
    const owned = draft.machines.filter((machine) => (machine & VM.ours) !== 0).length;
    if (most === NEVER)
      throw new Violation(`machine ${ordinal} is created though the pool was not to be acted on (invariant 5)`);
    if (owned > most)
      throw new Violation(`machine ${ordinal} is created: ${owned} machines, ${most} are wanted (invariant 3)`);
  }

  function remove(draft: State, ordinal: number, { window, isHealed }: { window: Window; isHealed: boolean }): void {
    const machine = machineAt(draft, ordinal);
    if (!isLive(machine))
      throw new Violation(`machine ${ordinal} is deleted, which is no live machine of the pool (invariant 1)`);
    if (window.least === NEVER)
      throw new Violation(`machine ${ordinal} is deleted though the pool was not to be acted on (invariant 5)`);
    terminate(draft, ordinal);
    if (isHealed) {
      if ((machine & VM.failing) === 0)
        throw new Violation(`machine ${ordinal} is healed though it does not fail (invariant 4)`);
      return;
    }
    const stay = draft.machines.filter(isLive).length + window.lost;
    if (stay < window.least)
      throw new Violation(
        `machine ${ordinal} is deleted: ${stay} machines stay, ${window.least} are wanted (invariant 2)`,
      );
  }

  function restart(draft: State, ordinal: number, window: Window): void {
    const machine = machineAt(draft, ordinal);
    if (!isMember(machine))
      throw new Violation(`machine ${ordinal} is restarted, which is none of the pool's (invariant 1)`);
    if (window.least === NEVER)
      throw new Violation(`machine ${ordinal} is restarted though the pool was not to be acted on (invariant 5)`);
    const runs = (machine & VM.runsSecond) === 0 ? 1 : 2;
    if (window.templates === runs)
      throw new Violation(`machine ${ordinal} is restarted though it runs the template in force (invariant 4)`);
    const wasAvailable = isAvailable(machine);
    changeInstance(draft, ordinal, (machine | VM.going) & ~VM.ready);
    if (!wasAvailable) return;
    const allowed = rules.maxUnavailable ?? rules.replicasMax;
    const up = draft.machines.filter(isAvailable).length;
    const excused = bitCount(window.fell);
    if (up + excused < window.least - allowed) {
      throw new Violation(
        `machine ${ordinal} is restarted: ${up} are up, ${window.least} wanted, ${allowed} may be down (invariant 4)`,
      );
    }
  }

  function update(
    draft: State,
    ordinal: number,
    template: number,
    { window, readAge }: Pick<Pass, "window" | "readAge">,
  ): void {
    const machine = machineAt(draft, ordinal);
    if (!isLive(machine))
      throw new Violation(`machine ${ordinal} is updated, which is no live machine of the pool (invariant 1)`);
    if (!hasBit(window.templates, template))
      throw new Violation(
        `machine ${ordinal} gets a template that was not in force, or the pool was not to be acted on (invariant 5)`,
      );
    change(draft, ordinal, withFlag(withFlag(machine, VM.second, template === 1), VM.updated, readAge === 0));
  }

  function revoke(
    draft: State,
    ordinal: number,
    { window, kind }: { window: Window; kind: "revokeDelete" | "revokeRestart" },
  ): boolean {
    const machine = machineAt(draft, ordinal);
    const isOurs = (machine & VM.ours) !== 0 || hasBit(window.left, ordinal);
    if (!isOurs) throw new Violation(`machine ${ordinal} is touched, which is none of the pool's (invariant 6)`);
    change(draft, ordinal, machine);
    if ((machine & VM.terminating) !== 0) return false;
    if (kind === "revokeDelete") return true;
    changeInstance(draft, ordinal, machine);
    return (machine & VM.going) === 0;
  }

  function judgeRelease(draft: State, ordinal: number, { left }: Window): void {
    const machine = machineAt(draft, ordinal);
    if ((machine & VM.matched) !== 0 || ((machine & VM.ours) === 0 && !hasBit(left, ordinal)))
      throw new Violation(`machine ${ordinal} is released (invariant 1)`);
  }

  function judgeDrop(draft: State, ordinal: number, _window: Window): void {
    const machine = machineAt(draft, ordinal);
    const isOnItsWay = (machine & VM.terminating) !== 0 || (machine & VM.ours) === 0;
    if (!isOnItsWay && (draft.pool & POOL.deleting) === 0 && draft.pool !== 0)
      throw new Violation(`the finalizer of machine ${ordinal} is dropped, which stays (invariant 1)`);
  }

  // --- late calls

  /** What its judgement asks, and no more: the rest of a window would only make equal states differ. */
  function lateOf(pass: Pass, { kind, ordinal, template }: Step): Late {
    const { most, least, templates, lost, fell } = pass.window;
    const { age, readAge } = pass;
    const base = { ordinal, template: 0, age, readAge: 0 };
    switch (kind) {
      case "create":
        return { ...base, kind: LATE.create, template, window: { ...NO_WINDOW, most } };
      case "update":
        return { ...base, kind: LATE.update, template, readAge, window: { ...NO_WINDOW, templates } };
      case "restart":
        return { ...base, kind: LATE.restart, window: { ...NO_WINDOW, least, templates, fell } };
      case "heal":
        return { ...base, kind: LATE.heal, window: { ...NO_WINDOW, least } };
      default:
        return { ...base, kind: LATE.remove, window: { ...NO_WINDOW, least, lost } };
    }
  }

  function land(state: State, index: number, { kind, ordinal, template, readAge, window }: Late): State {
    const draft = copyOf({ ...state, late: state.late.filter((_, at) => at !== index) });
    if (kind === LATE.create) create(draft, ordinal, template, window);
    else if (kind === LATE.update) update(draft, ordinal, template, { window, readAge });
    else if (kind === LATE.restart) restart(draft, ordinal, window);
    else remove(draft, ordinal, { window, isHealed: kind === LATE.heal });
    return draft;
  }

  // --- changes of machines, and what they mean for calls that are still to come

  /** The machine is changed: what carries its resourceVersion misses. */
  function change(draft: State, ordinal: number, machine: number): void {
    if ((machine & VM.terminating) !== 0 && (machine & (VM.held | VM.heldByKubeVirt)) === 0) {
      end(draft, ordinal);
      return;
    }
    draft.machines[ordinal] = machine;
    missMachine(draft, ordinal);
    settlePasses(draft, -1);
  }

  function missMachine(draft: State, ordinal: number): void {
    drop(draft, "machine", ordinal);
    draft.late = draft.late.filter(
      (call) => call.ordinal !== ordinal || call.kind === LATE.create || call.kind === LATE.restart,
    );
  }

  function changeInstance(draft: State, ordinal: number, machine: number): void {
    draft.machines[ordinal] = machine;
    missInstance(draft, ordinal);
    settlePasses(draft, -1);
  }

  function missInstance(draft: State, ordinal: number): void {
    drop(draft, "instance", ordinal);
    draft.late = draft.late.filter((call) => call.ordinal !== ordinal || call.kind !== LATE.restart);
  }

  function endInstance(draft: State, ordinal: number): void {
    forget(draft, "restart", ordinal);
    missInstance(draft, ordinal);
    endPassesThat(draft, ({ kind, ordinal: of }) => kind === "revokeRestart" && of === ordinal);
  }

  /** The machine is gone for good. */
  function end(draft: State, ordinal: number): void {
    draft.machines[ordinal] = 0;
    endInstance(draft, ordinal);
    forget(draft, "remove", ordinal);
    missMachine(draft, ordinal);
    mapWindows(draft, (window) => ({ ...window, left: window.left & ~(1 << ordinal) }));
    endPassesThat(draft, ({ kind, ordinal: of }) => kind === "revokeDelete" && of === ordinal);
    settlePasses(draft, -1);
  }

  function forget(draft: State, of: "remove" | "restart", ordinal: number): void {
    draft.claim = withoutObject(draft.claim, of, ordinal);
    draft.passes = draft.passes.map((pass) => {
      const claim = withoutObject(pass.claim, of, ordinal);
      return claim === pass.claim ? pass : { ...pass, claim };
    });
  }

  /** A pass whose revocation finds nothing ends; what it would have done before is upkeep, which any pass does. */
  function endPassesThat(draft: State, sends: (step: Step) => boolean): void {
    const isHit = ({ script }: Pass) => planner.script(script).steps.some(sends);
    draft.passes = draft.passes.map((pass) => (isHit(pass) ? ENDED : pass));
  }

  function drop(draft: State, question: Question, ordinal: number): void {
    draft.passes = draft.passes.map((pass) => {
      const script = planner.without(pass.script, question, ordinal);
      return script === pass.script ? pass : { ...pass, script };
    });
  }

  /** Passes but the one of `index` whose look is over by what others did go on at once. */
  function settlePasses(draft: State, index: number): void {
    for (const [at, pass] of draft.passes.entries()) {
      if (at !== index && pass.phase === PHASE.acts) draft.passes = advance(draft, at, pass).passes;
    }
  }

  /** On its way out. */
  function terminate(draft: State, ordinal: number): void {
    change(draft, ordinal, machineAt(draft, ordinal) | VM.terminating);
  }

  /** Somebody else takes a machine away from the pool, or its guest down. */
  function excuse(draft: State, ordinal: number, how: { readonly leaves: boolean; readonly detached: boolean }): void {
    const machine = machineAt(draft, ordinal);
    const lost = how.leaves && isLive(machine) ? 1 : 0;
    const fell = isAvailable(machine) ? 1 << ordinal : 0;
    const left = how.detached ? 1 << ordinal : 0;
    if (lost + fell + left === 0) return;
    mapWindows(draft, (window) => ({
      ...window,
      lost: Math.min(ORDINALS_MAX, window.lost + lost),
      fell: window.fell | fell,
      left: window.left | left,
    }));
  }

  function mapWindows(draft: State, map: (window: Window) => Window): void {
    draft.passes = draft.passes.map((pass) => {
      if (pass.phase === PHASE.due || pass.phase === PHASE.ended) return pass;
      const seen = { ...pass, window: bounded(map(pass.window)) };
      return pass.phase === PHASE.acts ? trimmed(seen, planner.script(pass.script)) : seen;
    });
    draft.late = draft.late.map((call) => ({ ...call, window: lateWindow(call.kind, bounded(map(call.window))) }));
  }

  /** More than all machines are as good as all; who fell is asked of restarts only, which take instances. */
  function bounded(window: Window): Window {
    const lost = Math.min(window.lost, rules.replicasMax);
    return { ...window, lost, fell: rules.instances ? window.fell : 0 };
  }

  function lateWindow(kind: number, { most, least, templates, lost, fell }: Window): Window {
    if (kind === LATE.create) return { ...NO_WINDOW, most };
    if (kind === LATE.update) return { ...NO_WINDOW, templates };
    if (kind === LATE.restart) return { ...NO_WINDOW, least, templates, fell };
    return kind === LATE.heal ? { ...NO_WINDOW, least } : { ...NO_WINDOW, least, lost };
  }

  // --- users

  function expandUsers(state: State, emit: Emit): void {
    if (state.pool !== 0 && (state.pool & POOL.deleting) === 0) expandPoolUsers(state, emit);
    for (const ordinal of all) {
      const machine = machineAt(state, ordinal);
      if (machine === 0 || (machine & VM.terminating) !== 0) continue;
      if (rules.users.includes("delete"))
        emit(
          `a user deletes machine ${ordinal}`,
          disturbed(state, (draft) => takeAway(draft, ordinal)),
        );
      if ((machine & VM.ours) === 0) continue;
      if (rules.users.includes("detach"))
        emit(
          `a user detaches machine ${ordinal}`,
          disturbed(state, (draft) => leave(draft, ordinal, VM.ours)),
        );
      if (rules.users.includes("relabel") && (machine & VM.matched) !== 0)
        emit(
          `a user relabels machine ${ordinal}`,
          disturbed(state, (draft) => leave(draft, ordinal, VM.matched)),
        );
    }
    if (rules.falling || rules.failing) expandFailures(state, emit);
  }

  function expandPoolUsers(state: State, emit: Emit): void {
    const { pool } = state;
    const edit = (label: string, changed: number) =>
      emit(
        label,
        disturbed(state, (draft) => editPool(draft, changed)),
      );
    const spare = pool & ~(3 << POOL.replicas);
    for (let replicas = rules.replicasMin; replicas <= rules.replicasMax; replicas += 1) {
      if (replicas !== replicasOf(pool)) edit(`a user scales to ${replicas}`, spare | (replicas << POOL.replicas));
    }
    if (rules.users.includes("pause")) edit("a user pauses or resumes the pool", pool ^ POOL.paused);
    if (rules.users.includes("edit")) edit("a user edits the template", pool ^ POOL.second);
    if (rules.users.includes("deletePool")) edit("a user deletes the pool", pool | POOL.deleting);
    if (rules.users.includes("orphanPool"))
      edit("a user deletes the pool and keeps its machines", pool | POOL.deleting | POOL.orphan);
    if (rules.users.includes("forget") && state.claim !== 0)
      emit(
        "a user removes the claim",
        disturbed(state, (draft) => {
          draft.claim = 0;
          draft.memory = 0;
          draft.passes = draft.passes.map((pass) => ({ ...pass, claimFresh: 0, alone: 0, own: 0 }));
          settlePasses(draft, -1);
        }),
      );
  }

  function disturbed(state: State, act: (draft: State) => void): State {
    const draft = copyOf(state);
    if (rules.acts > 0 && draft.pool !== 0) draft.pool -= 1 << POOL.acts;
    act(draft);
    return draft;
  }

  function editPool(draft: State, changed: number): void {
    draft.pool = (changed & ((1 << POOL.acts) - 1)) | ((draft.pool >> POOL.acts) << POOL.acts);
    draft.claim &= ~CLAIM.current;
    draft.passes = draft.passes.map((pass) => ({ ...pass, specFresh: 0 }));
    mapWindows(draft, (window) => seeMoment(window, draft.pool));
    settlePasses(draft, -1);
    endPool(draft);
  }

  function takeAway(draft: State, ordinal: number): void {
    excuse(draft, ordinal, { leaves: true, detached: false });
    terminate(draft, ordinal);
  }

  function leave(draft: State, ordinal: number, flag: number): void {
    excuse(draft, ordinal, { leaves: true, detached: flag === VM.ours });
    change(draft, ordinal, machineAt(draft, ordinal) & ~flag);
  }

  // --- KubeVirt

  function expandFailures(state: State, emit: Emit): void {
    for (const ordinal of all) {
      const machine = machineAt(state, ordinal);
      if ((machine & VM.terminating) !== 0 || (machine & VM.going) !== 0 || (machine & VM.runs) === 0) continue;
      if (rules.falling && (machine & VM.ready) !== 0)
        emit(
          `machine ${ordinal} becomes unready`,
          disturbed(state, (draft) => {
            excuse(draft, ordinal, { leaves: false, detached: false });
            statusChanged(draft, ordinal, machine & ~VM.ready);
          }),
        );
      if (rules.failing && (machine & VM.ready) === 0)
        emit(
          `machine ${ordinal} fails to start`,
          disturbed(state, (draft) => {
            endInstance(draft, ordinal);
            change(draft, ordinal, (machine & ~(VM.runs | VM.runsSecond | VM.runsYoung)) | VM.failing);
          }),
        );
    }
  }

  function expandKubeVirt(state: State, emit: Emit): void {
    for (const ordinal of all) {
      const machine = machineAt(state, ordinal);
      if (machine === 0) continue;
      for (const template of bootable(machine))
        emit(`machine ${ordinal} boots template ${template}`, boot(state, ordinal, template));
      if (canGetReady(machine)) emit(`machine ${ordinal} becomes ready`, getReady(state, ordinal));
      if ((machine & VM.going) !== 0) emit(`the instance of machine ${ordinal} is gone`, loseInstance(state, ordinal));
      if (isFinishing(machine)) emit(`KubeVirt lets go of machine ${ordinal}`, finish(state, ordinal));
      if (state.pool === 0 && (machine & VM.ours) !== 0 && (machine & VM.terminating) === 0)
        emit(`machine ${ordinal} is collected`, collect(state, ordinal));
    }
    if ((state.pool & POOL.deleting) !== 0 && (state.pool & POOL.orphan) !== 0)
      emit("the machines are orphaned", orphan(state));
  }

  /** KubeVirt may not have seen yet that the machine has another template. */
  function bootable(machine: number): readonly number[] {
    if ((machine & (VM.runs | VM.terminating | VM.failing)) !== 0) return [];
    const own = (machine & VM.second) === 0 ? 0 : 1;
    return rules.lagging && (machine & VM.updated) !== 0 ? [own, 1 - own] : [own];
  }

  function boot(state: State, ordinal: number, template: number): State {
    const draft = copyOf(state);
    const machine = machineAt(draft, ordinal) | VM.runs | (VM.runsYoung & ~ageless);
    change(draft, ordinal, withFlag(machine, VM.runsSecond, template === 1));
    return draft;
  }

  function canGetReady(machine: number): boolean {
    return (machine & VM.runs) !== 0 && (machine & (VM.ready | VM.going | VM.terminating)) === 0;
  }

  function getReady(state: State, ordinal: number): State {
    const draft = copyOf(state);
    statusChanged(draft, ordinal, machineAt(draft, ordinal) | VM.ready);
    mapWindows(draft, (window) => ({ ...window, fell: window.fell & ~(1 << ordinal) }));
    return draft;
  }

  /** Of the instance, and with it of its machine. */
  function statusChanged(draft: State, ordinal: number, machine: number): void {
    draft.machines[ordinal] = machine;
    missInstance(draft, ordinal);
    change(draft, ordinal, machine);
  }

  function loseInstance(state: State, ordinal: number): State {
    const draft = copyOf(state);
    const machine = machineAt(draft, ordinal) & ~INSTANCE;
    draft.machines[ordinal] = machine;
    endInstance(draft, ordinal);
    change(draft, ordinal, machine);
    return draft;
  }

  function isFinishing(machine: number): boolean {
    return (machine & VM.terminating) !== 0 && (machine & VM.heldByKubeVirt) !== 0;
  }

  function finish(state: State, ordinal: number): State {
    const draft = copyOf(state);
    const machine = machineAt(draft, ordinal) & ~(INSTANCE | VM.heldByKubeVirt | VM.failing);
    draft.machines[ordinal] = machine;
    endInstance(draft, ordinal);
    change(draft, ordinal, machine);
    return draft;
  }

  function collect(state: State, ordinal: number): State {
    const draft = copyOf(state);
    takeAway(draft, ordinal);
    return draft;
  }

  function orphan(state: State): State {
    const draft = copyOf(state);
    for (const ordinal of all) if ((machineAt(draft, ordinal) & VM.ours) !== 0) leave(draft, ordinal, VM.ours);
    draft.pool &= ~POOL.orphan;
    draft.passes = draft.passes.map((pass) => ({ ...pass, specFresh: 0 }));
    settlePasses(draft, -1);
    endPool(draft);
    return draft;
  }

  // --- the clock

  function isTimed({ claim, memory, machines }: State): boolean {
    const young = VM.young | VM.updated | VM.runsYoung;
    return (
      olderClaim(claim) !== claim ||
      olderMemory(memory) !== memory ||
      machines.some((machine) => (machine & young) !== 0)
    );
  }

  function tick(state: State): State {
    const draft = copyOf(state);
    draft.claim = olderClaim(draft.claim);
    draft.memory = olderMemory(draft.memory);
    draft.machines = draft.machines.map((machine) => machine & ~(VM.young | VM.updated | VM.runsYoung));
    draft.passes = draft.passes.filter(({ age }) => age === 0).map(olderPass);
    draft.late = draft.late
      .filter(({ age }) => age === 0)
      .map((call) => ({ ...call, age: 1, readAge: call.kind === LATE.update ? 1 : 0 }));
    return draft;
  }

  /** What it has read stays as it was; what it is to write gets older. */
  function olderPass(pass: Pass): Pass {
    if (pass.phase !== PHASE.acts) return { ...pass, age: 1, readAge: pass.phase === PHASE.read ? 1 : 0 };
    return { ...pass, age: 1, readAge: 1, claim: olderClaim(pass.claim), memory: olderMemory(pass.memory) };
  }

  // --- undisturbed

  function passAlone(state: State, emit: Emit): State | undefined {
    let now = start(state, 1);
    let looks = 0;
    for (let steps = 0; steps < STEPS_MAX; steps += 1) {
      const [pass] = now.passes;
      if (pass === undefined) return now;
      if (pass.phase === PHASE.read) looks += 1;
      if (looks > LOOKS_MAX) throw new Violation(`an undisturbed pass is not done after ${LOOKS_MAX} looks`);
      const next: { state: State; label: string }[] = [];
      stepPass(now, 0, pass, (label, after) => void next.push({ label, state: after }));
      const [honest] = next;
      if (honest === undefined) return undefined;
      emit(honest.label, honest.state);
      now = swept(honest.state);
    }
    throw new Violation("an undisturbed pass does not end");
  }

  function settle(state: State): State {
    let now = state;
    for (let steps = 0; steps < STEPS_MAX; steps += 1) {
      const next: State[] = [];
      expandKubeVirt(now, (_, after) => void next.push(after));
      if (next[0] === undefined) return now;
      now = next[0];
    }
    throw new Error("KubeVirt does not come to rest");
  }

  function mismatch({ pool, claim, memory, machines }: State): string | undefined {
    const stray = machines.findIndex((machine) => (machine & VM.held) !== 0 && !(isMember(machine) && pool !== 0));
    if (stray >= 0) return `machine ${stray} is still held`;
    if (pool === 0) return undefined;
    if ((pool & POOL.deleting) !== 0) return "the pool is still there";
    const going = machines.findIndex((machine) => (machine & VM.terminating) !== 0);
    if (going >= 0) return `machine ${going} is still there`;
    if ((claim & CLAIM.current) === 0) return "the claim is none, or names an earlier generation";
    const rollout = 3 << CLAIM.rollout;
    if ((claim & ~(CLAIM.known | CLAIM.current | rollout)) !== 0) return "the claim still names something";
    if ((pool & POOL.paused) !== 0) return undefined;
    const live = machines.filter(isLive);
    if (live.length !== replicasOf(pool)) return `${live.length} machines live, ${replicasOf(pool)} are wanted`;
    const second = (pool & POOL.second) === 0 ? 0 : 1;
    const isOfTemplate = (machine: number) =>
      withFlag(withFlag(machine, VM.second, second === 1), VM.runsSecond, second === 1) === machine;
    if (!live.every(isOfTemplate)) return "a machine is not of the template in force, or runs another";
    if (!live.every(isAvailable)) return "a machine is not up";
    if (memory !== 0) return "what was healed is still on record";
    const isRecorded = live.length === 0 || (claim & rollout) === (second + 1) << CLAIM.rollout;
    return isRecorded ? undefined : "the roll-out is not on record";
  }
}

function isGuarded({ kind }: Step): boolean {
  return kind === "create" || kind === "delete" || kind === "heal" || kind === "restart" || kind === "update";
}

function replaced(state: State, index: number, pass: Pass): State {
  return { ...state, passes: state.passes.map((other, at) => (at === index ? pass : other)) };
}

/** A pass that has ended keeps its place until the step is over. */
function without(state: State, index: number): State {
  return replaced(state, index, ENDED);
}

function swept(state: State): State {
  return state.passes.some(({ phase }) => phase === PHASE.ended)
    ? { ...state, passes: state.passes.filter(({ phase }) => phase !== PHASE.ended) }
    : state;
}

const NEW_PASS: Pass = {
  phase: PHASE.due,
  wide: 0,
  age: 0,
  readAge: 0,
  claimFresh: 0,
  specFresh: 0,
  alone: 0,
  own: 0,
  tainted: 0,
  closing: 0,
  failed: 0,
  window: NO_WINDOW,
  pool: 0,
  claim: 0,
  memory: 0,
  script: 0,
};
const ENDED: Pass = { ...NEW_PASS, phase: PHASE.ended };

function withFlag(machine: number, flag: number, isSet: boolean): number {
  return isSet ? machine | flag : machine & ~flag;
}

/** What a pool that may be acted on asks for counts from now on, too. */
function seeMoment(window: Window, pool: number): Window {
  if ((pool & POOL.here) === 0 || (pool & (POOL.paused | POOL.deleting)) !== 0) return window;
  const replicas = replicasOf(pool);
  return {
    ...window,
    most: window.most === NEVER ? replicas : Math.max(window.most, replicas),
    least: window.least === NEVER ? replicas : Math.min(window.least, replicas),
    templates: window.templates | ((pool & POOL.second) === 0 ? 1 : 2),
  };
}

function describe({ kind, ordinal }: Late): string {
  const [name = ""] = Object.entries(LATE).find(([, number]) => number === kind) ?? [];
  return `${name} ${ordinal}`;
}
