import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { tryLock } from "../../infra/local/control-plane/lock.ts";
import { aFolder, until } from "./support.ts";

function aDeadProcess(): number {
  return spawnSync("/bin/sh", ["-c", "exit 0"]).pid;
}

function psOf(pid: number, column: string): string {
  return spawnSync("ps", ["-o", column, "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
}

function writeLock(path: string, changes: Readonly<Record<string, unknown>>): void {
  const holder = { pid: process.pid, born: "", since: "2026-01-01T00:00:00Z", purpose: "tests", nonce: "another" };
  writeFileSync(path, JSON.stringify({ ...holder, ...changes }));
}

it("is held by one at a time, and names the holder to the others", async () => {
  const path = join(aFolder(), "lock");
  const first = await tryLock(path, "builds");

  expect(first.kind).toBe("taken");
  expect(await tryLock(path, "builds too")).toMatchObject({
    kind: "held",
    holder: { pid: process.pid, purpose: "builds" },
  });
});

it("is free again after its release", async () => {
  const path = join(aFolder(), "lock");
  const first = await tryLock(path, "builds");
  if (first.kind === "taken") await first.release();

  expect((await tryLock(path, "builds")).kind).toBe("taken");
});

it("goes to one only of many who want it at the same time", async () => {
  const path = join(aFolder(), "lock");
  writeLock(path, { pid: aDeadProcess() });

  const attempts = await Promise.all(Array.from({ length: 20 }, () => tryLock(path, "races")));

  expect(attempts.filter(({ kind }) => kind === "taken")).toHaveLength(1);
});

it.each([
  ["whose holder is dead", () => ({ pid: aDeadProcess() })],
  ["whose holder's id belongs to a later process", () => ({ born: "another boot/1" })],
  ["that says nothing of use", () => ({ pid: "?" })],
])("takes over a lock %s, and leaves nothing else", async (_name, changes) => {
  const folder = aFolder();
  writeLock(join(folder, "lock"), changes());

  expect((await tryLock(join(folder, "lock"), "builds")).kind).toBe("taken");
  expect(readdirSync(folder)).toEqual(["lock"]);
});

it("does not remove a lock that another has taken meanwhile", async () => {
  const path = join(aFolder(), "lock");
  const first = await tryLock(path, "builds");
  writeLock(path, {});
  if (first.kind === "taken") await first.release();

  expect(existsSync(path)).toBe(true);
  expect(readFileSync(path, "utf8")).toContain("another");
});

it("takes over a lock whose holder is dead but was never taken away by its parent", async () => {
  const folder = aFolder();
  const path = join(folder, "lock");
  const script = `while [ ! -e "${folder}/end" ]; do sleep 0.02; done & echo $!; exec sleep 600`;
  const parent = spawn("/bin/sh", ["-c", script]);
  onTestFinished(() => void parent.kill());
  const [id] = await once(parent.stdout, "data");
  // As `sleep` it no longer waits for its children.
  await until(() => psOf(Number(parent.pid), "args=").startsWith("sleep"));
  writeFileSync(join(folder, "end"), "");
  await until(() => psOf(Number(String(id)), "stat=").startsWith("Z"));
  writeLock(path, { pid: Number(String(id)) });

  expect((await tryLock(path, "builds")).kind).toBe("taken");
});
