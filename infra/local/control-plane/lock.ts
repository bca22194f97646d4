/** Locks between processes, as files that name their holder; a lock whose holder is dead counts as free. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, mkdir, readFile, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { errorCode } from "./setup-error.ts";

/** How often a lock that is neither ours nor a living process's is looked at, while others clear it and race for it. */
const ATTEMPTS_MAX = 200;
const ATTEMPT_PAUSE_MS = 10;
/** Clearing takes microseconds; who takes longer was killed in the middle. */
const CLEARING_MS_MAX = 1_000;

/** In the place of a birth: the process is dead, though its id is not free yet. */
const DEAD = "dead";

const holderSchema = z.object({
  pid: z.int().positive(),
  /** Tells the holder from a later process with the same id; empty where the system does not say. */
  born: z.string(),
  /** When it took the lock, ISO 8601. */
  since: z.string(),
  purpose: z.string(),
  nonce: z.string(),
});

export type LockHolder = z.infer<typeof holderSchema>;

export type LockAttempt =
  | { readonly kind: "taken"; release(): Promise<void> }
  | { readonly kind: "held"; readonly holder: LockHolder };

/** Takes the lock unless a living process holds it. `purpose` is what the holder does, for others to read. */
export async function tryLock(path: string, purpose: string): Promise<LockAttempt> {
  const mine: LockHolder = {
    pid: process.pid,
    born: birthOf(process.pid),
    since: new Date().toISOString(),
    purpose,
    nonce: randomBytes(8).toString("hex"),
  };
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    if (await linkLock(path, mine)) return { kind: "taken", release: () => releaseLock(path, mine) };
    const holder = parseHolder(await readText(path));
    if (holder !== undefined && isAlive(holder)) return { kind: "held", holder };
    await clearStale(path);
    await sleep(ATTEMPT_PAUSE_MS);
  }
  throw new Error(`the lock ${path} changes hands too often`);
}

/** Creates the lock with its content in one step; false when there is one already. */
async function linkLock(path: string, holder: LockHolder): Promise<boolean> {
  const temporary = `${path}.${holder.nonce}`;
  await writeFile(temporary, `${JSON.stringify(holder)}\n`, { mode: 0o600 });
  try {
    await link(temporary, path);
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

async function releaseLock(path: string, mine: LockHolder): Promise<void> {
  if (parseHolder(await readText(path))?.nonce === mine.nonce) await rm(path, { force: true });
}

/**
 * Removes the lock if it is stale. Only one process at a time does so, and looks once more: a lock seen stale may since have been
 * cleared and taken by another, and a dead holder's lock is changed by nobody else.
 */
async function clearStale(path: string): Promise<void> {
  const clearing = `${path}.clearing`;
  if (!(await beginClearing(clearing))) return;
  try {
    const text = await readText(path);
    const holder = parseHolder(text);
    if (text !== undefined && (holder === undefined || !isAlive(holder))) await rm(path, { force: true });
  } finally {
    await rmdir(clearing).catch(() => undefined);
  }
}

async function beginClearing(clearing: string): Promise<boolean> {
  try {
    await mkdir(clearing);
    return true;
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  }
  const begun = await stat(clearing).catch(() => undefined);
  if (begun !== undefined && Date.now() - begun.mtimeMs > CLEARING_MS_MAX) await rmdir(clearing).catch(() => undefined);
  return false;
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function parseHolder(text: string | undefined): LockHolder | undefined {
  if (text === undefined) return undefined;
  try {
    return holderSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function isAlive(holder: LockHolder): boolean {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it lives, under another user.
    if (errorCode(error) === "ESRCH") return false;
  }
  const born = birthOf(holder.pid);
  return born !== DEAD && (born === "" || holder.born === "" || born === holder.born);
}

/** When a process began, in whatever form the system gives it: equal for one process, different for another with its id. */
function birthOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    // After the name in parentheses, which may hold anything: the state, and 19 fields on the starting time.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return isDeadState(fields[0]) ? DEAD : `${boot}/${fields[19]}`;
  } catch {
    return birthFromPs(pid);
  }
}

function birthFromPs(pid: number): string {
  try {
    const answer = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "utf8", timeout: 2_000 });
    const [state, ...born] = answer.trim().split(/\s+/);
    return isDeadState(state) ? DEAD : born.join(" ");
  } catch {
    return "";
  }
}

/** A zombie answers to signals, and a container without an init never takes it away. */
function isDeadState(state: string | undefined): boolean {
  return state !== undefined && /^[ZX]/.test(state);
}
