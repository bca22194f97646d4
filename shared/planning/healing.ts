/** Replaces machines that cannot start (`spec.autohealing`): not too soon, not again and again, and never too many at once. */
import * as z from "zod";
import { parseDuration } from "./duration.ts";
import { canonicalJson, parseJson } from "./json.ts";
import { byNameAndUid } from "./membership.ts";
import type { Instance, Pool, PoolSpec, Vm } from "./model.ts";
import { HEALING_ANNOTATION } from "./names.ts";
import { keepsDisks } from "./scale-in.ts";
import type { Announcement } from "./status.ts";

const FAILURES_DEFAULT = 3;
const DURATION_DEFAULT = "5m";
/** The pause after the first replacement of an ordinal's machine; it doubles with each. */
const PAUSE_MS = 10_000;
const PAUSE_MAX_MS = 600_000;
/** Of the pool, rounded down, at least one machine. */
const AT_ONCE_SHARE = 0.4;
/** A guest that has only just begun may still come up. */
const BOOTING_MS = 10_000;
/** A time of our own may be so far ahead, as API servers' clocks differ. */
const CLOCK_SLACK_MS = 60_000;

/** What was done for the machine of one ordinal since it was last healthy. */
interface Treatment {
  /** How often it was replaced. */
  readonly count: number;
  /** When it last was, in epoch milliseconds. */
  readonly at: number;
  /** It fails on the disk that was kept for it: another machine would do no better. */
  readonly stuck: boolean;
}
type Memory = ReadonlyMap<number, Treatment>;

const ordinalSchema = z.string().regex(/^(0|[1-9]\d{0,8})$/);
const memorySchema = z.record(
  ordinalSchema,
  z.object({
    count: z.int().min(1).max(1_000_000),
    at: z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
    stuck: z.boolean().optional(),
  }),
);

/** Undefined when somebody made it unreadable. */
function readMemory(text: string | undefined): Memory | undefined {
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

/** Decides which machines are replaced because they cannot start. Only a machine with a number can be remembered. */
export function planHealing(input: HealingInput): Healing {
  const { pool, spec, now, staying, instanceOf } = input;
  const text = pool.annotations?.[HEALING_ANNOTATION];
  const read = readMemory(text);
  if (spec.paused === true) return NOTHING;
  if (!spec.autohealing) return { ...NOTHING, memory: text === undefined ? undefined : null };
  if (read === undefined) {
    return { ...NOTHING, reasons: [`healing is held: annotation ${HEALING_ANNOTATION} cannot be read; remove it`] };
  }
  const memory = new Map([...read].filter(([ordinal, treatment]) => !isOver(ordinal, treatment, input)));
  const sick = staying.flatMap((vm) => {
    const why = vm.terminating || !wantsToRun(vm) ? undefined : complaintOf(vm, spec, now);
    return why === undefined || vm.ordinal === undefined ? [] : [{ vm, why, ordinal: vm.ordinal }];
  });
  const rested = sick.filter(({ vm, ordinal }) => isClaimed(vm, input) || isRested(memory.get(ordinal), now));
  if (rested.length > 0 && instanceOf === undefined) return { ...NOTHING, needsInstances: true };
  const due = rested
    .filter(({ vm }) => isDown(instanceOf?.get(vm.uid), now))
    .sort((a, b) => a.ordinal - b.ordinal || byNameAndUid(a.vm, b.vm));
  return treat(input, { memory, due, text, waiting: sick.length - rested.length });
}

interface Patient extends Replacement {
  readonly ordinal: number;
}

interface Treating {
  readonly memory: Map<number, Treatment>;
  readonly due: readonly Patient[];
  readonly text: string | undefined;
  /** How many are left alone until their pause is over. */
  readonly waiting: number;
}

function treat(input: HealingInput, { memory, due, text, waiting }: Treating): Healing {
  const { pool, spec, now, canGrow, claimsMax, deletesMax } = input;
  const limit = atOnceMax(spec);
  const disksStay = keepsDisks(spec) && (spec.virtualMachineTemplate.spec.dataVolumeTemplates ?? []).length > 0;
  const inCare = new Set([...memory].filter(([ordinal, entry]) => isInCare(ordinal, entry, input)).map(([key]) => key));
  const isKnown = ({ ordinal }: Patient) => inCare.has(ordinal);
  // Those that are not due wait for their pause or for their successor.
  let treated = inCare.size - due.filter(isKnown).length;
  const taken: Replacement[] = [];
  const held: Patient[] = [];
  const announcements: Announcement[] = [];
  let fresh = 0;
  for (const { vm, why, ordinal } of [...due.filter(isKnown), ...due.filter((patient) => !isKnown(patient))]) {
    const known = memory.get(ordinal);
    const wasClaimed = isClaimed(vm, input);
    if (!wasClaimed && known !== undefined && disksStay) {
      if (!known.stuck) announcements.push(aStuckMachine(pool, vm, why));
      memory.set(ordinal, { ...known, stuck: true });
      continue;
    }
    if (!canGrow || treated >= limit || (!wasClaimed && taken.length >= Math.min(claimsMax, deletesMax))) {
      held.push({ vm, why, ordinal });
      continue;
    }
    treated += 1;
    taken.push({ vm, why });
    if (wasClaimed) continue;
    fresh += 1;
    memory.set(ordinal, { count: (known?.count ?? 0) + 1, at: now, stuck: false });
    announcements.push(warn(pool, "Healing", `${vm.name} is replaced: ${why}`));
  }
  const heldReason = `healing is held: ${treated} of ${spec.replicas ?? 1} machines are being healed, ${held.length} more cannot start`;
  if (held.length > 0 && fresh > 0) announcements.push(warn(pool, "HealingHeld", heldReason));
  const after = formatMemory(memory);
  return {
    needsInstances: false,
    remove: taken.slice(0, deletesMax),
    claimed: taken.map(({ vm }) => vm),
    memory: after === (text ?? null) ? undefined : after,
    reasons: [
      ...(held.length > 0 ? [heldReason] : []),
      ...(waiting > 0 ? [`${waiting} machines that cannot start are healed again after a pause`] : []),
      ...[...memory].filter(([, { stuck }]) => stuck).map(([ordinal]) => describeStuck(ordinal)),
    ],
    announcements,
  };
}

/** How many machines may be under treatment at the same time. */
function atOnceMax({ replicas }: PoolSpec): number {
  return Math.max(1, Math.floor(AT_ONCE_SHARE * (replicas ?? 1)));
}

/** Why a machine counts as failing to start; undefined when it does not, or not yet. */
function complaintOf(vm: Vm, { autohealing }: PoolSpec, now: number): string | undefined {
  const threshold = autohealing?.startUpFailureThreshold ?? FAILURES_DEFAULT;
  if (vm.startFailures >= threshold) {
    return vm.startFailures === 1 ? "it failed to start" : `it failed to start ${vm.startFailures} times in a row`;
  }
  const duration = autohealing?.minFailingToStartDuration ?? DURATION_DEFAULT;
  const durationMs = parseDuration(duration);
  const { failing, readyChangedAt } = vm;
  if (failing === undefined || vm.ready || readyChangedAt === undefined || durationMs === undefined) return undefined;
  return now >= readyChangedAt + durationMs ? `it shows ${failing} for ${duration} or longer` : undefined;
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

function isClaimed(vm: Vm, { claimedDeletes }: HealingInput): boolean {
  return claimedDeletes.includes(vm);
}

/** How long a machine is left alone after it was replaced, and how long the new one must run to count as healthy. */
function pauseMs({ count }: Treatment): number {
  return Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** Math.min(count - 1, 10));
}

function isRested(treatment: Treatment | undefined, now: number): boolean {
  // A time that no pass can have written yet is not ours.
  if (treatment === undefined || treatment.at > now + CLOCK_SLACK_MS) return true;
  return now >= treatment.at + pauseMs(treatment);
}

/** The machine is healthy, or there is none and there will be none. */
function isOver(ordinal: number, treatment: Treatment, { staying, spec, now }: HealingInput): boolean {
  const vm = staying.find((one) => one.ordinal === ordinal);
  if (vm === undefined) return staying.length >= (spec.replicas ?? 1);
  if (vm.terminating || !vm.ready) return false;
  return now >= Math.max(treatment.at, vm.readyChangedAt ?? 0) + pauseMs(treatment);
}

function isInCare(ordinal: number, { stuck }: Treatment, { staying }: HealingInput): boolean {
  const vm = staying.find((one) => one.ordinal === ordinal);
  return !stuck && (vm === undefined || vm.terminating || !vm.ready);
}

function aStuckMachine(pool: Pool, { name }: Vm, why: string): Announcement {
  return warn(
    pool,
    "HealingFailed",
    `${name} fails on its kept disk, too (${why}): repair the disk, or delete machine and disk`,
  );
}

function describeStuck(ordinal: number): string {
  return `the machine of ordinal ${ordinal} fails on its kept disk and is not healed again`;
}

function warn(pool: Pool, reason: string, message: string): Announcement {
  return { type: "Warning", reason, message, key: String(pool.generation) };
}
