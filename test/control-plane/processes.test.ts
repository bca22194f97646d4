import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { runCommand, startProcess } from "../../infra/local/control-plane/processes.ts";
import { supervise } from "../../infra/local/control-plane/supervisor.ts";
import { aFolder, aProgram, never, processesWith, until } from "./support.ts";

const ENV = { PATH: "/usr/bin:/bin" };
/** Says its id, so that a test sees when it is up, and stays. */
const STAYS = 'echo "$$" >"$1/up"; sleep 600; exit 0';
const STUBBORN = 'trap "" TERM; echo "$$" >"$1/up"; while :; do sleep 1; done';
const PROCESSES = join(import.meta.dirname, "../../infra/local/control-plane/processes.ts");

it("collects what a command prints and its exit code", async () => {
  const lines: string[] = [];
  const command = aProgram(aFolder(), "speaks", "echo out; echo first >&2; echo second >&2; exit 3");

  const result = await runCommand(command, [], { env: ENV, signal: never(), onErrorLine: (line) => lines.push(line) });

  expect(result).toEqual({ code: 3, stdout: "out\n", errorLines: "first\nsecond" });
  expect(lines).toEqual(["first", "second"]);
});

it("ends a command and all that it started when the signal fires", async () => {
  const folder = aFolder();
  const command = aProgram(folder, "starts-more", `${aProgram(folder, "child", STAYS)} "$1"`);
  const stop = new AbortController();

  const running = runCommand(command, [folder], { env: ENV, signal: stop.signal });
  await until(() => existsSync(join(folder, "up")));
  stop.abort(new Error("enough"));

  await expect(running).rejects.toThrow("enough");
  await until(() => processesWith(folder).length === 0);
});

it("ends a process that ignores SIGTERM", async () => {
  const folder = aFolder();
  const command = aProgram(folder, "stubborn", STUBBORN);
  const running = await startProcess({ name: "stubborn", command, args: [folder], env: ENV, logDir: folder });
  await until(() => existsSync(join(folder, "up")));

  await running.stop(50);

  expect((await running.exited).signal).toBe("SIGKILL");
  await until(() => processesWith(folder).length === 0);
});

it("tells the end of the log of a process that is gone too early, and keeps the log of the run before", async () => {
  const folder = aFolder();
  const command = aProgram(folder, "fails", "echo no such flag >&2; exit 2");
  const start = { name: "fails", command, args: [], env: ENV, logDir: folder };

  for (let run = 0; run < 2; run++) {
    const processes = supervise();
    await processes.start(start, 0);
    expect(await processes.died).toContain("fails exited with code 2");
    expect(processes.failed.reason).toMatchObject({ kind: "setup", advice: expect.stringContaining("no such flag") });
    await processes.stop();
  }

  expect(readFileSync(join(folder, "fails.previous.log"), "utf8")).toBe("no such flag\n");
});

it("tells of a program that is not there", async () => {
  const folder = aFolder();
  const processes = supervise();

  await processes.start({ name: "absent", command: join(folder, "absent"), args: [], env: ENV, logDir: folder }, 0);

  expect(await processes.died).toContain("absent exited with code 127");
});

it("stops the last started first, and does not call that a death", async () => {
  const folder = aFolder();
  const says = (name: string) =>
    aProgram(
      folder,
      name,
      `trap "echo ${name} >>$1/order; exit 0" TERM; touch "$1/${name}.up"; while :; do sleep 0.02; done`,
    );
  const processes = supervise();
  for (const name of ["first", "second"]) {
    await processes.start({ name, command: says(name), args: [folder], env: ENV, logDir: folder }, 5_000);
    await until(() => existsSync(join(folder, `${name}.up`)));
  }

  await processes.stop();

  expect(readFileSync(join(folder, "order"), "utf8")).toBe("second\nfirst\n");
  expect(processes.failed.aborted).toBe(false);
});

/** A process of its own group that starts a stubborn program; settles when that is up. */
async function anOwner(folder: string): Promise<ChildProcess> {
  const command = aProgram(folder, "stubborn", STUBBORN);
  const start = { name: "stubborn", command, args: [folder], env: ENV, logDir: folder };
  const script = `
    import { startProcess } from ${JSON.stringify(PROCESSES)};
    process.on("SIGINT", () => console.log("interrupted"));
    await startProcess(${JSON.stringify(start)});
    setInterval(() => undefined, 1_000);`;
  const args = ["--input-type=module-typescript", "-e", script];
  const owner = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  onTestFinished(() => void owner.kill("SIGKILL"));
  await until(() => existsSync(join(folder, "up")));
  return owner;
}

it("keeps a process running when the terminal interrupts its owner's group", async () => {
  const folder = aFolder();
  const owner = await anOwner(folder);
  const interrupted = once(owner.stdout ?? owner, "data");

  process.kill(-Number(owner.pid), "SIGINT");

  await interrupted;
  expect(processesWith(join(folder, "stubborn"))).not.toEqual([]);
  owner.kill("SIGKILL");
  await until(() => processesWith(join(folder, "stubborn")).length === 0);
}, 20_000);

it("leaves no process behind when the owner is killed", async () => {
  const folder = aFolder();
  const owner = await anOwner(folder);

  owner.kill("SIGKILL");

  await until(() => processesWith(join(folder, "stubborn")).length === 0);
}, 20_000);
