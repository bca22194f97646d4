/**
 * The claim: what passes of a pool have said that they will create and delete, kept in an annotation of the pool.
 * It keeps overlapping passes from doing the same thing twice; see docs/decisions/0002-claim.md.
 */
import * as z from "zod";
import { parseJson } from "./json.ts";

export const CLAIM_VERSION = 1;
/** How many items one claim may hold, in bytes about 8 KB. */
export const CLAIM_ITEMS_MAX = 500;
/** After this long no call of a pass can take effect any more: function timeout, the server's work on a request, slack. */
export const QUIET_AFTER_MS = 150_000;
const UID_PREFIX_LENGTH = 8;
/** How far the clocks of a cluster's API servers may be apart. */
const CLOCK_SLACK_MS = 30_000;

/** A delete or restart that was claimed. Eight characters of a UID tell the machines, or the instances, of one pool apart. */
export interface ClaimedObject {
  readonly ordinal: number | undefined;
  readonly uidPrefix: string;
}

/** The template that the pool's machines were last seen to follow, all of them. Its loss costs a look at the revisions. */
export interface Rollout {
  /** See `templateHash`. */
  readonly template: string;
  /** Revisions with that template; the first is the one for new machines. */
  readonly revisions: readonly string[];
  /** The running instances were seen to follow it, too. */
  readonly instances: boolean;
  /** The last generation of the pool that is known to have that template; records of older releases do not say. */
  readonly generation?: number | undefined;
}

export interface ClaimItems {
  /** Ordinal → when the last claim was written that could have issued its create, in epoch milliseconds. */
  readonly create: ReadonlyMap<number, number>;
  readonly delete: readonly ClaimedObject[];
  /** Instances, not machines. */
  readonly restart: readonly ClaimedObject[];
  readonly rollout: Rollout | undefined;
  /** No guarded action before this time (epoch milliseconds): calls of an unknown earlier claim may still be under way. */
  readonly waitUntil: number | undefined;
}

export interface Claim extends ClaimItems {
  /** The deployment that wrote it. */
  readonly by: string;
  /** When, by the API server's clock, in epoch milliseconds. */
  readonly at: number;
  /** Unique a write, so that a compare-and-swap on the annotation's text never mistakes one claim for another. */
  readonly nonce: string;
  /** Generation of the pool that the claim's pass acted on; doubles as observedGeneration. */
  readonly generation: number;
  /** This deployment's first claim on the pool. */
  readonly since: Since;
}

export interface Since {
  readonly at: number;
  readonly generation: number;
  /** How names were made of ordinals then, see `namingOf`: only later changes of it count. */
  readonly naming?: string | undefined;
}

const timeSchema = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text));
const generationSchema = z.int().nonnegative();
const claimSchema = z.object({
  v: z.literal(CLAIM_VERSION),
  by: z.string().min(1).max(200),
  at: timeSchema,
  nonce: z.string().min(1).max(64),
  generation: generationSchema,
  since: z.object({ at: timeSchema, generation: generationSchema, naming: z.string().max(100).optional() }),
  waitUntil: timeSchema.optional(),
  create: z.record(z.iso.datetime({ offset: true }), z.string().max(8_000)).optional(),
  delete: z.string().max(16_000).optional(),
  restart: z.string().max(16_000).optional(),
  rollout: z
    .object({
      template: z.string().max(64),
      revisions: z.array(z.string().max(253)).max(100),
      instances: z.boolean(),
      generation: generationSchema.optional(),
    })
    .optional(),
});

/** Reads a claim; undefined when there is none or when somebody made it unreadable. */
export function parseClaim(text: string | undefined): Claim | undefined {
  if (text === undefined || text.length > 64_000) return undefined;
  const parsed = claimSchema.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const create = parseCreates(parsed.data.create ?? {});
  const deletes = parseObjects(parsed.data.delete ?? "");
  const restart = parseObjects(parsed.data.restart ?? "");
  if (create === undefined || deletes === undefined || restart === undefined) return undefined;
  const { by, at, nonce, generation, since, waitUntil, rollout } = parsed.data;
  return { by, at, nonce, generation, since, waitUntil, create, delete: deletes, restart, rollout };
}

/** The annotation's text; empty parts are left out. */
export function formatClaim(claim: Claim): string {
  const { by, at, nonce, generation, since, waitUntil, create, restart, rollout } = claim;
  return JSON.stringify({
    v: CLAIM_VERSION,
    by,
    at: formatTime(at),
    nonce,
    generation,
    since: { ...since, at: formatTime(since.at) },
    ...(waitUntil === undefined ? {} : { waitUntil: formatTime(waitUntil) }),
    ...(create.size === 0 ? {} : { create: formatCreates(create) }),
    ...(claim.delete.length === 0 ? {} : { delete: claim.delete.map(formatObject).join(" ") }),
    ...(restart.length === 0 ? {} : { restart: restart.map(formatObject).join(" ") }),
    rollout,
  });
}

/**
 * Reads the claim that a pass goes by. One with times that no pass can have written yet is as good as none: what it
 * says may still happen would never end. `now` in epoch milliseconds.
 */
export function readClaim(text: string | undefined, now: number): Claim | undefined {
  const claim = parseClaim(text);
  if (claim === undefined) return undefined;
  const latest = Math.max(
    claim.at,
    claim.since.at,
    ...claim.create.values(),
    (claim.waitUntil ?? now) - QUIET_AFTER_MS,
  );
  return latest > now + CLOCK_SLACK_MS ? undefined : claim;
}

export function claimedObject({ uid }: { readonly uid: string }, ordinal: number | undefined): ClaimedObject {
  return { ordinal, uidPrefix: uid.slice(0, UID_PREFIX_LENGTH) };
}

export function isClaimed({ uid }: { readonly uid: string }, items: readonly ClaimedObject[]): boolean {
  return items.some(({ uidPrefix }) => uidPrefix === uid.slice(0, UID_PREFIX_LENGTH));
}

/** What the running pass itself has done, which lets it take back creates that nobody else can have sent. */
export interface Ledger {
  /** Nonce of the last claim that this pass wrote. */
  readonly nonce: string | undefined;
  /** Ordinals that this pass was the first to claim, with nobody having claimed since. */
  readonly own: ReadonlySet<number>;
  /** Of those, the ones with a call whose answer did not say what happened. */
  readonly tainted: ReadonlySet<number>;
}

export const EMPTY_LEDGER: Ledger = { nonce: undefined, own: new Set(), tainted: new Set() };

/**
 * The creates of `claim` that may still take effect: not old enough to be impossible, and not taken back by the pass that
 * alone issued them. That a machine of the ordinal exists does not finish one: it may have been sent twice, and the
 * second call lands when the name is free again.
 */
export function unfinishedCreates(
  claim: Claim | undefined,
  { ledger, now }: { readonly ledger: Ledger; readonly now: number },
): ReadonlyMap<number, number> {
  if (claim === undefined) return new Map();
  const alone = ledger.nonce === claim.nonce;
  const isDone = (ordinal: number, issuedAt: number) =>
    now >= issuedAt + QUIET_AFTER_MS || (alone && ledger.own.has(ordinal) && !ledger.tainted.has(ordinal));
  return new Map([...claim.create].filter(([ordinal, issuedAt]) => !isDone(ordinal, issuedAt)));
}

/** The ledger after this pass has written a claim: `issued` are the ordinals that it is about to create. */
export function ledgerAfterClaim(
  ledger: Ledger,
  written: { readonly previous: Claim | undefined; readonly nonce: string; readonly issued: readonly number[] },
): Ledger {
  const { previous, nonce, issued } = written;
  const alone = previous?.nonce === ledger.nonce;
  const kept = alone ? ledger.own : new Set<number>();
  const inherited = (ordinal: number) => previous?.create.has(ordinal) === true && !kept.has(ordinal);
  return {
    nonce,
    own: new Set([...kept, ...issued.filter((ordinal) => !inherited(ordinal))]),
    tainted: ledger.tainted,
  };
}

function formatTime(epochMs: number): string {
  return new Date(epochMs).toISOString();
}

function formatObject({ ordinal, uidPrefix }: ClaimedObject): string {
  return `${ordinal ?? ""}:${uidPrefix}`;
}

function parseObjects(text: string): ClaimedObject[] | undefined {
  const words = text === "" ? [] : text.split(" ");
  if (words.length > CLAIM_ITEMS_MAX) return undefined;
  const items: ClaimedObject[] = [];
  for (const word of words) {
    const match = /^(\d{0,9}):([\w-]{1,8})$/.exec(word);
    if (match === null) return undefined;
    const [, ordinal = "", uidPrefix = ""] = match;
    items.push({ ordinal: ordinal === "" ? undefined : Number(ordinal), uidPrefix });
  }
  return items;
}

/** Groups ordinals by time: `{"2026-11-22T10:00:00.000Z": "0-2,7"}`. */
function formatCreates(create: ReadonlyMap<number, number>): Record<string, string> {
  const byTime = new Map<number, number[]>();
  for (const [ordinal, issuedAt] of create) {
    byTime.set(issuedAt, [...(byTime.get(issuedAt) ?? []), ordinal]);
  }
  const groups = [...byTime].sort(([a], [b]) => a - b);
  return Object.fromEntries(groups.map(([issuedAt, ordinals]) => [formatTime(issuedAt), formatRanges(ordinals)]));
}

function formatRanges(ordinals: readonly number[]): string {
  const ranges: { first: number; last: number }[] = [];
  for (const ordinal of [...ordinals].sort((a, b) => a - b)) {
    const range = ranges.at(-1);
    if (range !== undefined && range.last + 1 === ordinal) range.last = ordinal;
    else ranges.push({ first: ordinal, last: ordinal });
  }
  return ranges.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

function parseCreates(groups: Readonly<Record<string, string>>): ReadonlyMap<number, number> | undefined {
  const create = new Map<number, number>();
  for (const [time, ranges] of Object.entries(groups)) {
    for (const range of ranges.split(",")) {
      const match = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(range);
      if (match === null) return undefined;
      const first = Number(match[1]);
      const last = match[2] === undefined ? first : Number(match[2]);
      if (last < first || create.size + last - first + 1 > CLAIM_ITEMS_MAX) return undefined;
      for (let ordinal = first; ordinal <= last; ordinal += 1) create.set(ordinal, Date.parse(time));
    }
  }
  return create;
}
