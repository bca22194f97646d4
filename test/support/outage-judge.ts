/**
 * Judges what the functions did to the machines of real pools, from every change that was stored, in order. Who wrote what is not
 * recorded: whatever happens to a machine that no user asked for was done by the functions.
 */
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION } from "../../shared/planning/names.ts";
import { controllerUidOf, isTerminating, type KubeObject, parseObject } from "./objects.ts";

/** Longer than a pass and what it has sent can go on by what it has read: its time, and a hanging server. */
const MEMORY_MS = 90_000;
const UID_PREFIX_LENGTH = 8;

export type JudgedKind = "pool" | "machine";

export interface JudgedChange {
  readonly kind: JudgedKind;
  /** `<namespace>/<name>`. */
  readonly place: string;
  readonly revision: number;
  /** As stored, without a resourceVersion; undefined when it was deleted. */
  readonly value: unknown;
  /** When we heard of it, in milliseconds. */
  readonly atMs: number;
}

export interface OutageJudge {
  take(change: JudgedChange): void;
  /** To be called before a user deletes the machine: from then on that is nobody else's deed. */
  userDeletes(uid: string): void;
  readonly violations: readonly string[];
  readonly counts: Readonly<Counts>;
  /** When the functions last created or deleted a machine, or claimed anything. */
  readonly actedAtMs: number;
}

interface Counts {
  created: number;
  /** By the functions, for being too many. */
  deleted: number;
  /** By the functions, for another in its place. */
  replaced: number;
  deletedByUsers: number;
  claims: number;
}

/** What a pool's spec asks for. */
interface Wish {
  /** Undefined while the pool is not to be scaled: paused or illegal. */
  readonly replicas: number | undefined;
  readonly scalesIn: boolean;
  readonly heals: boolean;
  /** Undefined while no machine is replaced for its disks. */
  readonly disks: string | undefined;
  /** Since when, until the next wish. */
  readonly sinceMs: number;
}

interface Claim {
  readonly text: string;
  readonly generation: unknown;
  /** Ordinals. */
  readonly creates: ReadonlySet<number>;
  /** The beginnings of UIDs. */
  readonly deletes: ReadonlySet<string>;
}

interface JudgedPool {
  readonly uid: string;
  readonly name: string;
  readonly wishes: Wish[];
  claim: Claim | undefined;
  isLeaving: boolean;
  /** When users deleted machines, and when the functions replaced some. */
  readonly excusedAtMs: number[];
}

interface JudgedMachine {
  readonly uid: string;
  readonly ordinal: number;
  readonly owner: string;
  isLive: boolean;
  disks: string;
  /** When it was last seen not to be ready. */
  unreadyAtMs: number;
}

/** Knows nothing; pools and machines are to be told to it from their beginning. */
export function createOutageJudge(): OutageJudge {
  const pools = new Map<string, JudgedPool>();
  const machines = new Map<string, JudgedMachine>();
  /** UIDs by kind and place. */
  const present = new Map<string, string>();
  const usersChoice = new Set<string>();
  const violations: string[] = [];
  const counts: Counts = { created: 0, deleted: 0, replaced: 0, deletedByUsers: 0, claims: 0 };
  let actedAtMs = 0;
  const ownedBy = (pool: JudgedPool) => [...machines.values()].filter(({ owner }) => owner === pool.uid);
  const accuse = (what: string, revision: number) => violations.push(`${what} (revision ${revision})`);

  const takePool = (object: KubeObject, { revision, atMs }: JudgedChange) => {
    const { uid, name } = object.metadata;
    const pool = pools.get(uid) ?? aJudgedPool(uid, name);
    pools.set(uid, pool);
    pool.isLeaving = isTerminating(object);
    const wish = wishOf(object, atMs);
    const last = pool.wishes.at(-1);
    if (last === undefined || JSON.stringify({ ...last, sinceMs: 0 }) !== JSON.stringify({ ...wish, sinceMs: 0 }))
      pool.wishes.push(wish);
    const claim = claimOf(object);
    if (claim?.text === pool.claim?.text) return;
    const previous = pool.claim;
    pool.claim = claim;
    if (claim === undefined) return;
    counts.claims += 1;
    actedAtMs = atMs;
    for (const wrong of wrongsOfClaim({ pool, claim, previous, wish, object, atMs, owned: ownedBy(pool) }))
      accuse(`${name}: ${wrong}`, revision);
  };

  const takeMachine = (object: KubeObject, change: JudgedChange) => {
    const { uid } = object.metadata;
    const owner = controllerUidOf(object);
    const known = machines.get(uid);
    if (known === undefined && owner === undefined) return;
    if (known === undefined) return takeCreated(object, change);
    known.disks = disksOf(object);
    if (!isReady(object)) known.unreadyAtMs = change.atMs;
    if (known.isLive && isTerminating(object)) takeEnd(known, change);
  };

  const takeCreated = (object: KubeObject, { revision, atMs }: JudgedChange) => {
    const { uid, name } = object.metadata;
    const owner = controllerUidOf(object) ?? "";
    const ordinal = Number(/\d+$/.exec(name)?.[0]);
    const disks = disksOf(object);
    machines.set(uid, { uid, ordinal, owner, isLive: true, disks, unreadyAtMs: atMs });
    counts.created += 1;
    actedAtMs = atMs;
    const pool = pools.get(owner);
    if (pool === undefined) return accuse(`${name} is created for a pool that is not there`, revision);
    if (pool.claim?.creates.has(ordinal) !== true) accuse(`${name} is created and not claimed`, revision);
    const most = Math.max(0, ...recent(pool, atMs).map(({ replicas = 0 }) => replicas));
    const count = ownedBy(pool).length;
    if (count > most) accuse(`${name} is created as one of ${count}, where at most ${most} were wanted`, revision);
  };

  /** A machine that lived is on its way out, or gone. */
  const takeEnd = (machine: JudgedMachine, { revision, atMs, place }: JudgedChange) => {
    machine.isLive = false;
    const pool = pools.get(machine.owner);
    const isUsers = usersChoice.has(machine.uid);
    if (isUsers) {
      counts.deletedByUsers += 1;
      pool?.excusedAtMs.push(atMs);
    }
    if (isUsers || pool === undefined || pool.isLeaving) return;
    actedAtMs = atMs;
    const claimed = pool.claim?.deletes.has(machine.uid.slice(0, UID_PREFIX_LENGTH)) === true;
    if (!claimed) accuse(`${place} is deleted and not claimed`, revision);
    const wishes = recent(pool, atMs);
    if (wishes.some((wish) => isReplaceable(machine, wish, atMs))) {
      counts.replaced += 1;
      pool.excusedAtMs.push(atMs);
      return;
    }
    counts.deleted += 1;
    const least = Math.min(...wishes.filter(({ scalesIn }) => scalesIn).map(({ replicas }) => replicas ?? Infinity));
    const live = ownedBy(pool).filter(({ isLive }) => isLive).length;
    const excused = pool.excusedAtMs.filter((time) => time > atMs - MEMORY_MS).length;
    if (live + excused < least) {
      const told = Number.isFinite(least) ? `at least ${least} were wanted` : "its pool allowed none to go";
      accuse(`${place} is deleted, ${live} live and ${excused} are excused, where ${told}`, revision);
    }
  };

  return {
    violations,
    counts,
    get actedAtMs() {
      return actedAtMs;
    },
    userDeletes(uid) {
      usersChoice.add(uid);
    },
    take(change) {
      const key = `${change.kind} ${change.place}`;
      const gone = present.get(key);
      const object = isRecord(change.value) ? readObject(change.value, change.revision) : undefined;
      if (gone !== undefined && object?.metadata.uid !== gone) {
        const machine = change.kind === "machine" ? machines.get(gone) : undefined;
        if (machine?.isLive) takeEnd(machine, change);
        machines.delete(gone);
        if (change.kind === "pool") pools.delete(gone);
        present.delete(key);
      }
      if (object === undefined) return;
      present.set(key, object.metadata.uid);
      if (change.kind === "pool") takePool(object, change);
      else takeMachine(object, change);
    },
  };
}

function aJudgedPool(uid: string, name: string): JudgedPool {
  return { uid, name, wishes: [], claim: undefined, isLeaving: false, excusedAtMs: [] };
}

function readObject(value: Readonly<Record<string, unknown>>, revision: number): KubeObject {
  const metadata = recordAt(value, "metadata");
  return parseObject({ ...value, metadata: { ...metadata, resourceVersion: String(revision) } });
}

function recordAt(object: unknown, field: string): Readonly<Record<string, unknown>> {
  const value = isRecord(object) ? object[field] : undefined;
  return isRecord(value) ? value : {};
}

/** What was wanted at any time of late; the last wish of before that is still one. */
function recent({ wishes }: JudgedPool, atMs: number): readonly Wish[] {
  return wishes.filter((_, index) => (wishes[index + 1]?.sinceMs ?? atMs) > atMs - MEMORY_MS);
}

interface Claimed {
  readonly pool: JudgedPool;
  readonly claim: Claim;
  readonly previous: Claim | undefined;
  /** In force as the claim was written: it tests the generation. */
  readonly wish: Wish;
  readonly object: KubeObject;
  readonly atMs: number;
  readonly owned: readonly JudgedMachine[];
}

/** What a claim newly says that it will do, against the spec in force and the machines that there are. */
function wrongsOfClaim({ pool, claim, previous, wish, object, atMs, owned }: Claimed): readonly string[] {
  const newCreates = [...claim.creates].filter((ordinal) => previous?.creates.has(ordinal) !== true);
  const newDeletes = [...claim.deletes].filter((uid) => previous?.deletes.has(uid) !== true);
  if (newCreates.length + newDeletes.length === 0 || pool.isLeaving) return [];
  const { replicas } = wish;
  if (replicas === undefined) return ["creates or deletes are claimed though the pool is paused or illegal"];
  const wrong: string[] = [];
  if (claim.generation !== object.metadata.generation) wrong.push("a claim is made for a spec that is not in force");
  const names = new Set([...owned.map(({ ordinal }) => ordinal), ...claim.creates]);
  if (newCreates.length > 0 && names.size > replicas)
    wrong.push(`creates are claimed up to ${names.size} machines, where ${replicas} are wanted`);
  const isGoing = ({ uid }: JudgedMachine) => claim.deletes.has(uid.slice(0, UID_PREFIX_LENGTH));
  const live = owned.filter(({ isLive }) => isLive);
  const replaced = live.filter((machine) => isGoing(machine) && isReplaceable(machine, wish, atMs)).length;
  const staying = live.filter((machine) => !isGoing(machine)).length;
  const surplus = newDeletes.length - replaced;
  if (surplus > 0 && !wish.scalesIn) wrong.push("deletes are claimed though the pool lets none go");
  const excused = pool.excusedAtMs.filter((time) => time > atMs - MEMORY_MS).length;
  if (surplus > 0 && staying + replaced + excused < replicas)
    wrong.push(`deletes are claimed down to ${staying} machines, where ${replicas} are wanted`);
  return wrong;
}

/** It does not come up where such machines are healed, or has other disks than it should. */
function isReplaceable({ disks, unreadyAtMs }: JudgedMachine, wish: Wish, atMs: number): boolean {
  if (wish.replicas === undefined) return false;
  return (wish.heals && unreadyAtMs > atMs - MEMORY_MS) || (wish.disks !== undefined && wish.disks !== disks);
}

function wishOf({ spec: given }: KubeObject, sinceMs: number): Wish {
  const spec = isRecord(given) ? given : {};
  const { replicas, paused, maxUnavailable, autohealing } = spec;
  const scaleIn = recordAt(spec, "scaleInStrategy");
  const update = recordAt(spec, "updateStrategy");
  const isProactive = !isRecord(update["unmanaged"]) && !isRecord(update["opportunistic"]);
  const template = recordAt(recordAt(spec, "virtualMachineTemplate"), "spec");
  return {
    replicas: paused === true || maxUnavailable === "0%" ? undefined : typeof replicas === "number" ? replicas : 1,
    scalesIn: !isRecord(scaleIn["unmanaged"]) && !isRecord(scaleIn["opportunistic"]),
    heals: isRecord(autohealing),
    disks: isProactive ? diskSizes(template) : undefined,
    sinceMs,
  };
}

function disksOf({ spec }: KubeObject): string {
  return diskSizes(isRecord(spec) ? spec : {});
}

function diskSizes({ dataVolumeTemplates }: Readonly<Record<string, unknown>>): string {
  const list: readonly unknown[] = Array.isArray(dataVolumeTemplates) ? dataVolumeTemplates : [];
  return JSON.stringify(list.map((entry) => recordAt(entry, "spec")));
}

function isReady({ status }: KubeObject): boolean {
  return (status?.conditions ?? []).some(({ type, status: value }) => type === "Ready" && value === "True");
}

function claimOf({ metadata }: KubeObject): Claim | undefined {
  const text = metadata.annotations[CLAIM_ANNOTATION];
  const claim: unknown = text === undefined ? undefined : parseJson(text);
  if (text === undefined || !isRecord(claim)) return undefined;
  const ranges = Object.values(recordAt(claim, "create")).join(",").split(",");
  const deletes = typeof claim["delete"] === "string" ? claim["delete"].split(" ") : [];
  return {
    text,
    generation: claim["generation"],
    creates: new Set(ranges.flatMap(ordinalsOf)),
    deletes: new Set(deletes.flatMap((item) => item.split(":")[1] ?? [])),
  };
}

/** `3` or `3-5`. */
function ordinalsOf(range: string): readonly number[] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
  if (first === undefined) return [];
  return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index);
}
