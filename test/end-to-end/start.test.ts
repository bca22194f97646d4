/** `npm start` as a user: what it prints, leaves behind, refuses, and how it ends. */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { pickPorts } from "../../infra/local/control-plane/ports.ts";
import { type CommandOutcome, run } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { parseList } from "../support/objects.ts";
import { aPool, aVirtController } from "../support/pool-manifests.ts";
import { processesWith } from "../support/processes.ts";
import { launch, npmStart, readyLines, type Session, signalTo } from "../support/session.ts";
import { ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "vm-pool-cirros";
const TOKEN_CHARACTERS_MIN = 32;

let folder: string;
let kubectlFolder: string;
let dirs = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "start-"));
  const signal = new AbortController().signal;
  const { kubectl } = await findBinaries({ env: process.env, onProgress: () => undefined, signal });
  kubectlFolder = dirname(kubectl);
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  expect(processesWith(folder)).toEqual([]);
  await rm(folder, { recursive: true, force: true });
});

function aDir(): string {
  dirs += 1;
  return join(folder, `dir-${dirs}`);
}

async function aPort(): Promise<string> {
  const [port] = await pickPorts(1);
  return String(port);
}

/** Runs a line as it would be pasted into a shell at the project's folder. */
function paste(line: string, dir: string): Promise<CommandOutcome> {
  const PATH = `${kubectlFolder}${delimiter}${process.env["PATH"]}`;
  const env = { ...process.env, PATH, HOME: folder, KUBECONFIG: join(dir, "kubeconfig") };
  return run("/bin/sh", ["-c", `cd '${ROOT}' && ${line}`], { env });
}

interface MachineSummary {
  readonly name: string;
  readonly uid: string;
}

async function machinesOf(dir: string): Promise<readonly MachineSummary[]> {
  const { stdout } = await paste("kubectl get vm -o json", dir);
  const { metadata: _none, ...list } = JSON.parse(stdout);
  return parseList({ ...list, metadata: { resourceVersion: "" } }).items.map(({ metadata: { name, uid } }) => ({
    name,
    uid,
  }));
}

async function untilMachines(dir: string, names: readonly string[]): Promise<readonly MachineSummary[]> {
  return eventually(async () => {
    const machines = await machinesOf(dir);
    expect(machines.map(({ name }) => name).sort()).toEqual(names);
    return machines;
  });
}

/** Ends the session, if it has not ended, and waits until nothing of it is left. */
async function end(session: Session | undefined, dir: string): Promise<void> {
  session?.interrupt();
  await session?.ended;
  await eventually(() => expect(processesWith(dir)).toEqual([]));
}

/** The session has said one sentence and ended; nothing runs in its folder. */
async function expectRefusal(session: Session, { dir, says }: { dir: string; says: RegExp }): Promise<void> {
  const { code } = await session.ended;
  expect(code).toBeGreaterThan(0);
  expect(session.stderr.trimEnd().split("\n")).toEqual([expect.stringMatching(says)]);
  expect(readyLines(session)).toEqual([]);
  expect(processesWith(dir)).toEqual([]);
}

describe("npm start", () => {
  let session: Session;
  let dir: string;
  let port: string;
  /** What was in the folder when the line was printed. */
  let atReady: { readonly kubeconfig: boolean; readonly token: string; readonly health: Promise<number> } | undefined;

  /** Without the schedule nothing but the API server's own word leads to a pass. */
  const webhooksAlone = () => ["--dir", dir, "--port", port, "--resync-seconds", "0"];

  beforeAll(async () => {
    dir = aDir();
    port = await aPort();
    const onReady = () => {
      atReady = {
        kubeconfig: existsSync(join(dir, "kubeconfig")),
        token: readFileSync(join(dir, "token"), "utf8"),
        health: fetch(`http://127.0.0.1:${port}/healthz`).then(({ status }) => status),
      };
    };
    session = npmStart(webhooksAlone(), { onReady });
    await session.ready;
  });

  afterAll(() => end(session, dir));

  it("says ready once, when kubeconfig and token exist and requests are served", async () => {
    expect(readyLines(session)).toHaveLength(1);
    expect(atReady?.kubeconfig).toBe(true);
    expect(atReady?.token).toMatch(/^\S+$/);
    expect(atReady?.token.length).toBeGreaterThanOrEqual(TOKEN_CHARACTERS_MIN);
    expect(await atReady?.health).toBe(200);
  });

  it("shows the pool coming up with the reason of each decision, and nothing on stderr", () => {
    expect(session.stdout).toMatch(/desired 3, current 0, ready 0/);
    expect(session.stdout).toMatch(/desired 3, current 3, ready 3/);
    expect(session.stdout).toMatch(/default\/vm-pool-cirros {2}create vm-pool-cirros-0: 3 machines are missing/);
    // npm itself may warn of the user's own settings.
    expect(session.stderr.replace(/^npm .*\n|^\n/gm, "")).toBe("");
  });

  it("prints no control characters without a terminal", () => {
    expect(session.stdout.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  });

  it("asks for the token", async () => {
    const url = `http://127.0.0.1:${port}/pools`;
    expect((await fetch(url)).status).toBe(401);
    expect((await fetch(url, { headers: { authorization: `Bearer ${atReady?.token}` } })).status).not.toBe(401);
  });

  it("prints commands that work when they are pasted", async () => {
    const lines = session.stdout.split("\n").map((line) => line.trim());
    expect(lines).toContain(`export KUBECONFIG=${join(dir, "kubeconfig")}`);
    const commands = lines.filter((line) => line.startsWith("kubectl "));
    expect(commands.length).toBeGreaterThanOrEqual(3);
    for (const command of commands) expect(await paste(command, dir)).toMatchObject({ ok: true });
    await untilMachines(
      dir,
      [0, 1, 2, 3, 4].map((ordinal) => `${POOL}-${ordinal}`),
    );
  });

  it("is refused a second time on the same folder, and the first goes on", async () => {
    const second = launch(["--dir", dir, "--port", await aPort()]);
    expect((await second.ended).code).toBeGreaterThan(0);
    expect(second.stderr.trimEnd().split("\n")).toEqual([expect.stringMatching(/is in use: process \d+/)]);
    expect(await paste("kubectl get vmpool", dir)).toMatchObject({ ok: true });
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);
  });

  it("runs beside another with its own folder, without example, stand-in and webhooks", async () => {
    const other = aDir();
    const scheduleAlone = ["--no-webhooks", "--resync-seconds", "1"];
    const beside = npmStart([
      "--dir",
      other,
      "--port",
      await aPort(),
      "--no-example",
      "--no-stand-in",
      ...scheduleAlone,
    ]);
    try {
      await beside.ready;
      expect(readyLines(beside)).toHaveLength(1);
      expect(await paste("kubectl get vmpool,vm --all-namespaces -o name", other)).toMatchObject({
        ok: true,
        stdout: "",
      });
      expect(await paste(`printf '%s' '${JSON.stringify(aPool("bare"))}' | kubectl create -f -`, other)).toMatchObject({
        ok: true,
      });
      await untilMachines(other, ["bare-0"]);
      expect(await paste("kubectl get vmi -o name", other)).toMatchObject({ ok: true, stdout: "" });
      expect(await paste("kubectl get vm bare-0 -o name", dir)).toMatchObject({ ok: false });
    } finally {
      await end(beside, other);
    }
  });

  it("ends by SIGTERM to npm, and goes on with its data on the next start", async () => {
    expect(await paste(`kubectl scale vmpool ${POOL} --replicas 2`, dir)).toMatchObject({ ok: true });
    const before = await eventually(async () => {
      const machines = await machinesOf(dir);
      expect(machines).toHaveLength(2);
      return machines;
    });
    session.terminate();
    expect(await session.ended).toEqual({ code: 0, signal: null });
    expect(processesWith(dir)).toEqual([]);

    const token = readFileSync(join(dir, "token"), "utf8");
    session = npmStart(webhooksAlone());
    await session.ready;
    expect(session.stdout).toMatch(/desired 2, current 2, ready 2/);
    expect(await machinesOf(dir)).toEqual(before);
    expect(readFileSync(join(dir, "token"), "utf8")).toBe(token);
  });

  it("ends by Ctrl-C", async () => {
    session.interrupt();
    expect(await session.ended).toEqual({ code: 0, signal: null });
    expect(processesWith(dir)).toEqual([]);
    expect(existsSync(join(dir, "kubeconfig"))).toBe(false);
  });
});

it("ends by itself with --exit-when-ready", async () => {
  const dir = aDir();
  const session = npmStart(["--dir", dir, "--port", await aPort(), "--exit-when-ready"]);
  expect(await session.ended).toEqual({ code: 0, signal: null });
  expect(readyLines(session)).toHaveLength(1);
  expect(processesWith(dir)).toEqual([]);
});

it("leaves no process when it is killed", async () => {
  const dir = aDir();
  const session = npmStart(["--dir", dir, "--port", await aPort(), "--no-example"]);
  await session.ready;
  const started = processesWith(dir);
  expect(
    started.filter(({ command }) => command.includes("etcd") || command.includes("kube-")).length,
  ).toBeGreaterThanOrEqual(3);
  for (const { pid } of started.filter(({ command }) => command.includes("infra/local/start.ts")))
    signalTo(pid, "SIGKILL");
  await session.ended;
  await eventually(() => expect(processesWith(dir)).toEqual([]));
});

it("leaves no process when Ctrl-C comes while it starts", async () => {
  const dir = aDir();
  const session = npmStart(["--dir", dir, "--port", await aPort()]);
  await eventually(() =>
    expect(processesWith(dir).some(({ command }) => command.includes("kube-apiserver"))).toBe(true),
  );
  session.interrupt();
  expect(await session.ended).toEqual({ code: 0, signal: null });
  expect(readyLines(session)).toEqual([]);
  await eventually(() => expect(processesWith(dir)).toEqual([]));
});

describe.concurrent("a start that cannot be", () => {
  it.for([
    { what: "an unknown option", args: ["--nope"], says: /--nope.*--help/ },
    { what: "a port that is not a number", args: ["--port", "http"], says: /--port needs a whole number.*"http"/ },
    {
      what: "a kubeconfig that does not exist",
      args: ["--kubeconfig", "/nowhere/config"],
      says: /\/nowhere\/config does not exist/,
    },
  ])("names $what in one sentence", async ({ args, says }) => {
    const dir = aDir();
    await expectRefusal(launch(["--dir", dir, ...args]), { dir, says });
  });

  it("names a kubeconfig whose server cannot be reached", async () => {
    const dir = aDir();
    const kubeconfig = join(folder, "unreachable");
    const cluster = { name: "c", cluster: { server: `https://127.0.0.1:${await aPort()}` } };
    const user = { name: "u", user: { token: "t" } };
    const context = { name: "x", context: { cluster: "c", user: "u" } };
    const config = { apiVersion: "v1", kind: "Config", clusters: [cluster], users: [user], contexts: [context] };
    await writeFile(kubeconfig, JSON.stringify({ ...config, "current-context": "x" }));
    const session = launch(["--dir", dir, "--port", await aPort(), "--kubeconfig", kubeconfig]);
    await expectRefusal(session, { dir, says: /the API server https:\S+ cannot be reached.*ECONNREFUSED/ });
  });

  it("names a port that is in use", async () => {
    const dir = aDir();
    const server = createServer();
    const port = await aPort();
    await new Promise<void>((resolve) => server.listen(Number(port), "127.0.0.1", resolve));
    try {
      await expectRefusal(launch(["--dir", dir, "--port", port]), {
        dir,
        says: new RegExp(`port ${port} .*in use.*--port`),
      });
    } finally {
      server.close();
    }
  });

  it("names a folder that cannot be made", async () => {
    const file = join(folder, "a-file");
    await writeFile(file, "");
    const dir = join(file, "dir");
    await expectRefusal(launch(["--dir", dir, "--port", await aPort()]), { dir, says: /dir cannot be made/ });
  });
});

it("shows its options and ends", async () => {
  const session = launch(["--help"]);
  expect(await session.ended).toEqual({ code: 0, signal: null });
  expect(session.stderr).toBe("");
  for (const option of [
    "--no-example",
    "--no-stand-in",
    "--exit-when-ready",
    "--port",
    "--resync-seconds",
    "--dir",
    "--kubeconfig",
    "--act",
  ])
    expect(session.stdout).toContain(option);
});

describe("npm start with --kubeconfig", () => {
  let world: World;

  beforeAll(async () => {
    world = await startWorld({ functions: false });
  }, WORLD_TIMEOUT_MS);

  afterAll(() => world.stop());

  it("only says what it would do, and does it with --act", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool("pool", { replicas: 2 }));
    const before = await namespace.pool("pool");
    const dir = aDir();
    const options = ["--dir", dir, "--kubeconfig", world.kubeconfigPath, "--resync-seconds", "1"];
    const serve = async (...args: readonly string[]) => npmStart([...options, "--port", await aPort(), ...args]);

    const planning = await serve();
    try {
      expect(await planning.ready).toContain("planning only");
      await eventually(() => expect(planning.stdout).toMatch(/would create pool-1: 2 machines are missing/));
      expect(planning.stdout).not.toMatch(/\d {2}\S+\/pool {2}create/);
    } finally {
      await end(planning, dir);
    }
    expect(await namespace.pool("pool")).toEqual(before);
    expect(await namespace.machines()).toEqual([]);
    expect(await namespace.list("apis/apps/v1", "controllerrevisions")).toEqual([]);
    expect(await namespace.list("api/v1", "events")).toEqual([]);

    // Not beside KubeVirt's own controller.
    await namespace.create(aVirtController());
    await expectRefusal(launch([...options, "--port", await aPort(), "--act"]), {
      dir,
      says: /must not act in .*Deployment \S+\/virt-controller runs/,
    });
    await namespace.kubectl("delete", "deployment", "virt-controller");

    const acting = await serve("--act");
    try {
      await acting.ready;
      await eventually(async () => {
        expect(await namespace.pool("pool")).toMatchObject({ status: { replicas: 2, readyReplicas: 2 } });
      });
      await namespace.kubectl("delete", "vmpool", "pool", "--timeout=100s");
    } finally {
      await end(acting, dir);
    }
    expect(await world.kubectl("get", "namespaces", "-o", "name")).toContain(namespace.name);
  });
});
