import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";

const LAUNCHER = join(import.meta.dirname, "../../infra/local/launch.mjs");
const POLL_MS = 10;
const [OLD, NEW] = [new Date("2026-05-01T12:00:00Z"), new Date("2026-05-01T13:00:00Z")];

interface Layout {
  readonly root: string;
  /** Writes a file below the root; `at` is its time of change. */
  write(path: string, content: string, at?: Date): string;
  read(path: string): string;
}

/** A copy of the project as far as the launcher sees it. */
function aLayout({ installed = true }: { installed?: boolean } = {}): Layout {
  const root = mkdtempSync(join(tmpdir(), "launch-test-"));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  const layout: Layout = {
    root,
    write(path, content, at = OLD) {
      const full = join(root, path);
      mkdirSync(dirname(full), { recursive: true });
      writeFileSync(full, content);
      chmodSync(full, 0o755);
      utimesSync(full, at, at);
      return full;
    },
    read: (path) => readFileSync(join(root, path), "utf8"),
  };
  layout.write("package.json", '{"type":"module"}');
  layout.write("package-lock.json", "{}", OLD);
  if (installed) layout.write("node_modules/.package-lock.json", "{}", OLD);
  mkdirSync(join(root, "infra/local"), { recursive: true });
  copyFileSync(LAUNCHER, join(root, "infra/local/launch.mjs"));
  // In the place of npm: says how it was called, installs, and succeeds.
  layout.write(
    "npm-cli.cjs",
    `const fs = require("fs");
     fs.appendFileSync("npm-calls", process.argv.slice(2).join(" ") + "\\n");
     fs.mkdirSync("node_modules", { recursive: true });
     fs.writeFileSync("node_modules/.package-lock.json", "{}");
     process.exit(Number(fs.existsSync("npm-code") ? fs.readFileSync("npm-code", "utf8") : 0));`,
  );
  return layout;
}

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<{
    readonly code: unknown;
    readonly signal: unknown;
    readonly out: string;
    readonly err: string;
  }>;
}

function launch({ root }: Layout, args: readonly string[], nodeArgs: readonly string[] = []): Running {
  const child = spawn(process.execPath, [...nodeArgs, join(root, "infra/local/launch.mjs"), ...args], {
    cwd: tmpdir(),
    env: { PATH: "/usr/bin:/bin", npm_execpath: join(root, "npm-cli.cjs") },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const exited = once(child, "close");
  const ended = Promise.all([exited, text(child.stdout), text(child.stderr)]).then(([[code, signal], out, err]) => ({
    code,
    signal,
    out,
    err,
  }));
  return { child, ended };
}

it("runs a program from the project's folder with the arguments given, without installing", async () => {
  const layout = aLayout();
  layout.write("program.mjs", "console.log(JSON.stringify([process.cwd(), process.argv.slice(2)]))");
  const { code, out, err } = await launch(layout, ["program.mjs", "--port", "1 2", ""]).ended;

  expect([code, JSON.parse(out), err]).toEqual([0, [layout.root, ["--port", "1 2", ""]], ""]);
  expect(existsSync(join(layout.root, "npm-calls"))).toBe(false);
});

it.each([
  ["nothing is installed", (layout: Layout) => layout.write("npm-code", "0")],
  [
    "the lockfile is newer",
    (layout: Layout) =>
      layout.write("node_modules/.package-lock.json", "{}", OLD) && layout.write("package-lock.json", "{}", NEW),
  ],
])("installs exactly what the lockfile names when %s, and then runs", async (_when, arrange) => {
  const layout = aLayout({ installed: false });
  arrange(layout);
  layout.write("program.mjs", "console.log('ran')");
  const { code, out, err } = await launch(layout, ["program.mjs"]).ended;

  expect([code, out]).toEqual([0, "ran\n"]);
  expect(err).toMatch(/^installing dependencies \(npm ci\)/);
  expect(layout.read("npm-calls")).toBe("ci --no-audit --no-fund --loglevel=error\n");
});

it("says what to do when the installation fails, and does not run", async () => {
  const layout = aLayout({ installed: false });
  layout.write("npm-code", "1");
  layout.write("program.mjs", "console.log('ran')");
  const { code, out, err } = await launch(layout, ["program.mjs"]).ended;

  expect([code, out]).toEqual([1, ""]);
  expect(err.split("\n").at(-2)).toBe("npm ci failed, see above: check the network, then run the same command again.");
});

it("prefers the Node.js of node_modules", async () => {
  const layout = aLayout();
  layout.write("node_modules/.bin/node", '#!/bin/sh\necho "own $*"\n');
  const { code, out } = await launch(layout, ["program.mjs", "--x"]).ended;

  expect([code, out]).toEqual([0, "own --disable-warning=ExperimentalWarning program.mjs --x\n"]);
});

it("uses the Node.js that runs it when that of node_modules does not work here", async () => {
  const layout = aLayout();
  layout.write("node_modules/.bin/node", "#!/bin/sh\nexit 126\n");
  layout.write("program.mjs", "console.log(process.version)");
  const { code, out } = await launch(layout, ["program.mjs"]).ended;

  expect([code, out]).toEqual([0, `${process.version}\n`]);
});

/** Makes the launcher believe that this Node.js has another version. */
function pretending(version: string): readonly string[] {
  const script = `Object.defineProperty(process, "version", { value: ${JSON.stringify(version)} })`;
  return ["--import", `data:text/javascript,${encodeURIComponent(script)}`];
}

it.each(["v18.20.0", "v20.19.4", "v22.18.0", "v21.99.0"])("refuses Node.js %s with one sentence", async (version) => {
  const layout = aLayout();
  layout.write("program.mjs", "console.log('ran')");
  const { code, out, err } = await launch(layout, ["program.mjs"], pretending(version)).ended;

  expect([code, out]).toEqual([1, ""]);
  expect(err).toBe(
    `Node.js 22.19 or newer is needed, this is ${version}: install a newer one and run the same command again.\n`,
  );
});

it.each(["v22.19.0", "v23.0.0", "v24.1.0"])("takes Node.js %s", async (version) => {
  const layout = aLayout();
  layout.write("program.mjs", "console.log('ran')");

  expect(await launch(layout, ["program.mjs"], pretending(version)).ended).toMatchObject({ code: 0, out: "ran\n" });
});

it("runs on an old Node.js with the new one of node_modules", async () => {
  const layout = aLayout();
  layout.write("node_modules/.bin/node", `#!/bin/sh\nexec ${process.execPath} "$@"\n`);
  layout.write("program.mjs", "console.log('ran')");

  expect(await launch(layout, ["program.mjs"], pretending("v20.0.0")).ended).toMatchObject({ code: 0, out: "ran\n" });
});

it.each([0, 1, 2, 77])("ends with the program's exit code %i", async (code) => {
  const layout = aLayout();
  layout.write("program.mjs", `process.exit(${code})`);

  expect(await launch(layout, ["program.mjs"]).ended).toMatchObject({ code });
});

it("ends with 128 and the signal's number when a signal ended the program", async () => {
  const layout = aLayout();
  layout.write("program.mjs", "process.kill(process.pid, 'SIGKILL')");

  expect(await launch(layout, ["program.mjs"]).ended).toMatchObject({ code: 137 });
});

it.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("passes %s on, and waits for the program to end", async (signal) => {
  const layout = aLayout();
  layout.write(
    "program.mjs",
    `import { writeFileSync } from "node:fs";
     process.on("${signal}", () => setTimeout(() => { console.log("clean"); process.exit(5); }, 20));
     setInterval(() => {}, 1000);
     writeFileSync("up", "");`,
  );
  const { child, ended } = launch(layout, ["program.mjs"]);
  while (!existsSync(join(layout.root, "up"))) await sleep(POLL_MS);
  child.kill(signal);

  expect(await ended).toMatchObject({ code: 5, signal: null, out: "clean\n" });
});

it("shows a program's own error", async () => {
  const { code, err } = await launch(aLayout(), ["gone.mjs"]).ended;

  expect(code).toBe(1);
  expect(err).toContain("Cannot find module");
});
