/** Replaces machines that cannot start (`spec.autohealing`): not too soon, not again and again, and never too many at once. */
import * as z from "zod";
import { parseDuration } from "./duration.ts";
import { canonicalJson, parseJson } from "./json.ts";
import { byNameAndUid } from "./membership.ts";
import { type Instance, isAtRest, isProtected, type Pool, type PoolSpec, type Vm } from "./model.ts";
import { HEALING_ANNOTATION, PROTECTED_LABEL } from "./names.ts";
import { keepsDisks } from "./scale-in.ts";
import type { Announcement } from "./status.ts";
import { CLOCK_SLACK_MS, updatedAt } from "./update.ts";

const FAILURES_DEFAULT = 3;
const DURATION_DEFAULT = "5m";
/** The pause after the first replacement of an ordinal's machine; it doubles with each. */
const PAUSE_MS = 10_000;
const PAUSE_MAX_MS = 600_000;
/** After so many replacements a machine that rests leaves its turn to others: it may never come up. */
const PATIENCE = 5;
/** Of the pool, rounded down, at least one machine. */
const AT_ONCE_SHARE = 0.4;
/** A guest that has only just begun may still come up. */
const BOOTING_MS = 10_000;
/** So long a machine that is made or moved to another template may take to come up. */
const COMING_UP_MS = 60_000;
const NEVER = Number.POSITIVE_INFINITY;
/** How many ordinals are remembered, in bytes about 30 KB. */
const MEMORY_MAX = 500;

/** What was done for the machine of one ordinal since it was last healthy. */
interface Treatment {
  /** How often it was replaced; 0 while it waits for its turn. */
  readonly count: number;
  /** When that was last, in epoch milliseconds. */
  readonly at: number;
  /** It fails on the disk that was kept for it: another machine would do no better. */
  readonly stuck: boolean;
}
type Memory = Map<number, Treatment>;

const memorySchema = z.record(
  z.string().regex(/^(0|[1-9]\d{0,8})$/),
  z.object({
    count: z.int().min(0).max(1_000_000),
    at: z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
    stuck: z.boolean().optional(),
  }),
);

/** In the order of the ordinals, for so JSON's numbers are read; undefined when somebody made it unreadable. */
function readMemory({ annotations }: Pool): Memory | undefined {
  const text = annotations?.[HEALING_ANNOTATION];
  if (text === undefined) return new Map();
  const { data } = memorySchema.safeParse(parseJson(text));
  if (data === undefined) return undefined;
  const entries = Object.entries(data);
  return new Map(entries.map(([ordinal, { count, at, stuck = false }]) => [Number(ordinal), { count, at, stuck }]));
}

/** Null for none: the annotation goes. */
function formatMemory(memory: Memory): string | null {
  if (memory.size === 0) return null;
  const entries = [...memory].map(([ordinal, { count, at, stuck }]) => {
    return [ordinal, { count, at: new Date(at).toISOString(), ...(stuck ? { stuck } : {}) }] as const;
  });
  return canonicalJson(Object.fromEntries(entries));
}

/** Ordinals whose machine was deleted to be healed: the successor is to have the number, by which it is remembered, and the disks. */
export function ordinalsInCare(pool: Pool, { autohealing }: PoolSpec): readonly number[] {
  if (!autohealing) return [];
  const memory = [...(readMemory(pool) ?? [])].filter(([, { count }]) => count > 0);
  return memory.map(([ordinal]) => ordinal);
}

export interface HealingInput {
  readonly pool: Pool;
  readonly spec: PoolSpec;
  /** Epoch milliseconds. */
  readonly now: number;
  /** Machines of the pool, terminating ones included, less those that go because there are too many. */
  readonly staying: readonly Vm[];
  /** New machines can be made. */
  readonly canGrow: boolean;
  /** Undefined when they were not read. */
  readonly instanceOf: ReadonlyMap<string, Instance> | undefined;
  /** Deletes of the last claim that scale-in does not want. */
  readonly claimedDeletes: readonly Vm[];
  /** How many deletes one claim and one loop have room for. */
  readonly claimsMax: number;
  readonly deletesMax: number;
}

export interface Replacement {
  readonly vm: Vm;
  readonly why: string;
}

export interface Healing {
  /** The instances of the pool's machines must be read first. */
  readonly needsInstances: boolean;
  /** To delete now, and all that the claim must name. */
  readonly remove: readonly Replacement[];
  readonly claimed: readonly Vm[];
  /** What the annotation is to say, null for nothing; undefined when it says it already. */
  readonly memory: string | null | undefined;
  readonly reasons: readonly string[];
  readonly announcements: readonly Announcement[];
}

const NOTHING: Healing = {
  needsInstances: false,
  remove: [],
  claimed: [],
  memory: undefined,
  reasons: [],
  announcements: [],
};

/** A machine with a number that cannot start: only such a one can be remembered. */
interface Patient extends Replacement {
  readonly ordinal: number;
  readonly treatment: Treatment | undefined;
}

/** Decides which machines are replaced because they cannot start. */
export function planHealing(input: HealingInput): Healing {
  const { pool, spec, now, staying, instanceOf } = input;
  const before = pool.annotations?.[HEALING_ANNOTATION];
  if (spec.paused === true) return NOTHING;
  if (!spec.autohealing) return { ...NOTHING, memory: before === undefined ? undefined : null };
  const read = readMemory(pool);
  const memory = new Map([...(read ?? [])].filter(([ordinal, treatment]) => !isOver(ordinal, treatment, input)));
  const failing = staying.flatMap((vm): Patient[] => {
    const why = complaintOf(vm, spec, now);
    const { ordinal } = vm;
    return why === undefined || ordinal === undefined ? [] : [{ vm, why, ordinal, treatment: memory.get(ordinal) }];
  });
  const sick = failing.filter(({ vm }) => !isProtected(vm));
  if (read === undefined) return beginAnew(sick, now);
  const rested = sick.filter((patient) => isDecided(patient, input) || isRested(patient, now));
  if (rested.length > 0 && instanceOf === undefined) return { ...NOTHING, needsInstances: true };
  const due = rested.filter(({ vm }) => isDown(instanceOf?.get(vm.uid), now));
  const treated = treat(input, { memory, due });
  const after = formatMemory(memory);
  const stuck = [...memory].filter((entry) => entry[1].stuck).map(([ordinal]) => describeStuck(ordinal));
  const resting = sick.filter((patient) => !rested.includes(patient) && patient.treatment?.stuck !== true).length;
  const waiting = resting > 0 ? [`${resting} machines that cannot start are healed again after a pause`] : [];
  return {
    ...treated,
    memory: after === (before ?? null) ? undefined : after,
    reasons: [...treated.reasons, ...waiting, ...stuck, ...describeProtected(failing.length - sick.length)],
  };
}

function describeProtected(count: number): string[] {
  return count === 0 ? [] : [`${count} machines that cannot start are kept by their label ${PROTECTED_LABEL}`];
}

/** What was done is not known any more: each waits as if it had been replaced just now. */
function beginAnew(sick: readonly Patient[], now: number): Healing {
  const memory: Memory = new Map(
    sick.slice(0, MEMORY_MAX).map(({ ordinal }) => [ordinal, { count: 1, at: now, stuck: false }]),
  );
  return { ...NOTHING, memory: formatMemory(memory), reasons: [`annotation ${HEALING_ANNOTATION} is begun anew`] };
}

interface Treating {
  /** Is brought up to date. */
  readonly memory: Memory;
  readonly due: readonly Patient[];
}

function treat(input: HealingInput, { memory, due }: Treating): Omit<Healing, "memory"> {
  const { pool, spec, now, staying, canGrow } = input;
  const live = staying.filter(({ terminating }) => !terminating);
  const replicas = spec.replicas ?? 1;
  if (due.length === 0) return NOTHING;
  if (live.length > replicas)
    return { ...NOTHING, reasons: [`${due.length} machines cannot start: none is healed while there are too many`] };
  if (!canGrow)
    return { ...NOTHING, reasons: [`${due.length} machines cannot start: none can be made in their stead`] };
  const limit = Math.max(1, Math.floor(AT_ONCE_SHARE * replicas));
  const deletesMax = Math.max(0, input.deletesMax);
  const disksStay = keepsDisks(spec) && (spec.virtualMachineTemplate.spec.dataVolumeTemplates ?? []).length > 0;
  // Who is away comes back some time; who is back and not well yet is still under treatment.
  let treated = replicas - live.length + live.filter((vm) => isInCare(vm, { memory, due }, now)).length;
  const taken: Replacement[] = [];
  const held: Patient[] = [];
  const announcements: Announcement[] = [];
  for (const patient of inTurn(due, input)) {
    const { vm, why, ordinal, treatment } = patient;
    const isOld = isDecided(patient, input);
    const count = treatment?.count ?? 0;
    if (!isOld && disksStay && count > 0) {
      announcements.push(warn(pool, "HealingFailed", describeStuckMachine(vm, why)));
      memory.set(ordinal, { count, at: now, stuck: true });
    } else if (treated >= limit) {
      held.push(patient);
    } else if (isOld || (taken.length < Math.min(input.claimsMax, deletesMax) && hasRoom(memory, ordinal))) {
      treated += 1;
      taken.push({ vm, why });
      if (!isOld) memory.set(ordinal, { count: count + 1, at: now, stuck: false });
    }
  }
  const unheard =
    deletesMax === 0 ? [] : held.filter(({ ordinal }) => hasRoom(memory, ordinal) && !memory.has(ordinal));
  for (const { ordinal } of unheard) memory.set(ordinal, { count: 0, at: now, stuck: false });
  const share = `no more than ${limit} of ${replicas} machines are healed at once`;
  if (unheard.length > 0) announcements.push(warn(pool, "HealingHeld", `${share}: others that cannot start wait`));
  return {
    needsInstances: false,
    remove: taken.slice(0, deletesMax),
    claimed: taken.map(({ vm }) => vm),
    reasons: held.length === 0 ? [] : [`healing is held: ${share}, and ${held.length} more cannot start`],
    announcements,
  };
}

/** First those whose turn it was, then who was replaced least often. */
function inTurn(due: readonly Patient[], input: HealingInput): readonly Patient[] {
  const rankOf = (patient: Patient) => {
    const count = patient.treatment?.count ?? 0;
    if (isDecided(patient, input)) return -2;
    return count > 0 && count < PATIENCE ? -1 : count;
  };
  return due.toSorted((a, b) => rankOf(a) - rankOf(b) || a.ordinal - b.ordinal || byNameAndUid(a.vm, b.vm));
}

function hasRoom(memory: Memory, ordinal: number): boolean {
  return memory.size < MEMORY_MAX || memory.has(ordinal);
}

/** Why a machine counts as failing to start; undefined when it does not, or not yet, or is not to start at all. */
function complaintOf(vm: Vm, { autohealing }: PoolSpec, now: number): string | undefined {
  if (vm.terminating || !wantsToRun(vm) || isAtRest(vm)) return undefined;
  // Its failures are those of the template before: the new one may be the cure.
  if (now < updatedAt(vm, now) + COMING_UP_MS) return undefined;
  const threshold = autohealing?.startUpFailureThreshold ?? FAILURES_DEFAULT;
  if (vm.startFailures >= threshold) {
    return vm.startFailures === 1 ? "it failed to start" : `it failed to start ${vm.startFailures} times in a row`;
  }
  const duration = autohealing?.minFailingToStartDuration ?? DURATION_DEFAULT;
  const { shown, notReadySince = NEVER, createdAt } = vm;
  // The time is that of KubeVirt's clock; nothing has failed for longer than it is there.
  const isLong = now >= Math.max(notReadySince, createdAt) + (parseDuration(duration) ?? NEVER);
  return shown !== undefined && isLong ? `it shows ${shown} for ${duration} or longer` : undefined;
}

/** A machine that its user has switched off has nothing to start. */
function wantsToRun({ spec }: Vm): boolean {
  return spec !== undefined && spec["runStrategy"] !== "Halted" && spec["running"] !== false;
}

/** Its guest does not run and is not about to. */
function isDown(instance: Instance | undefined, now: number): boolean {
  if (instance === undefined || instance.final) return true;
  return !instance.terminating && !instance.ready && now >= instance.createdAt + BOOTING_MS;
}

/** An earlier pass has decided to heal this very machine, and its deletion did not get through. */
function isDecided({ vm, treatment }: Patient, { claimedDeletes }: HealingInput): boolean {
  if (treatment === undefined || treatment.stuck || treatment.count === 0) return false;
  return claimedDeletes.includes(vm) && vm.createdAt <= treatment.at;
}

/** How long a machine is left alone after it was replaced, and how long the new one must run to count as healthy. */
function pauseMs({ count }: Treatment): number {
  return Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** Math.min(count - 1, 10));
}

function isRested({ treatment }: Patient, now: number): boolean {
  if (treatment === undefined || treatment.count === 0) return true;
  return !treatment.stuck && now >= treatment.at + pauseMs(treatment);
}

/** The machine is healthy, or another than the one that was given up, or there is none and there will be none. */
function isOver(ordinal: number, treatment: Treatment, { staying, spec, now }: HealingInput): boolean {
  // A time that no pass can have written yet is not ours.
  if (treatment.at > now + CLOCK_SLACK_MS) return true;
  const vm = staying.find((one) => one.ordinal === ordinal);
  if (vm === undefined) return staying.length >= (spec.replicas ?? 1);
  if (treatment.stuck && vm.createdAt > treatment.at) return true;
  if (vm.terminating || !vm.ready) return false;
  return now >= Math.max(treatment.at, vm.readySince ?? 0) + pauseMs(treatment);
}

/** It was replaced and is not well yet; one that may never be leaves its place while it rests. */
function isInCare(vm: Vm, { memory, due }: Treating, now: number): boolean {
  const treatment = vm.ordinal === undefined ? undefined : memory.get(vm.ordinal);
  if (treatment === undefined || treatment.stuck || treatment.count === 0) return false;
  if (vm.ready || !wantsToRun(vm) || due.some((patient) => patient.vm === vm)) return false;
  return treatment.count < PATIENCE || now < treatment.at + COMING_UP_MS;
}

function describeStuckMachine({ name }: Vm, why: string): string {
  return `${name} fails on its kept disk, too (${why}): repair the disk, or delete machine and disk`;
}

function describeStuck(ordinal: number): string {
  return `the machine of ordinal ${ordinal} fails on its kept disk and is not healed again`;
}

function warn(pool: Pool, reason: string, message: string): Announcement {
  return { type: "Warning", reason, message, key: String(pool.generation) };
}
