/**
 * Runs a program of this project on a Node.js that is new enough, after installing what it needs. Plain JavaScript without
 * dependencies, because it runs first, on whatever Node.js there is.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NODE_VERSION_MIN = [22, 19];
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function isInstalled() {
  const installed = join(root, "node_modules", ".package-lock.json");
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(root, "package-lock.json")).mtimeMs;
}

/** Installs exactly what the lockfile names, with the npm that started us. */
function install() {
  process.stderr.write("installing dependencies (npm ci), about a minute the first time …\n");
  const npmCli = process.env.npm_execpath;
  const [command, args] = npmCli ? [process.execPath, [npmCli, "ci"]] : ["npm", ["ci"]];
  const { status, signal, error } = spawnSync(command, [...args, "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (signal === "SIGINT" || signal === "SIGTERM") process.exit(0);
  if (error || status !== 0) fail("npm ci failed, see above: check the network, then run the same command again.");
}

function isNewEnough(version) {
  const [major, minor] = version.replace(/^v/, "").split(".").map(Number);
  return major > NODE_VERSION_MIN[0] || (major === NODE_VERSION_MIN[0] && minor >= NODE_VERSION_MIN[1]);
}

/** The Node.js that npm installed for this platform, else the one that runs this file. */
function findNode() {
  const own = join(root, "node_modules", ".bin", "node");
  if (existsSync(own) && spawnSync(own, ["--version"], { encoding: "utf8" }).status === 0) return own;
  if (isNewEnough(process.version)) return process.execPath;
  return fail(
    `Node.js ${NODE_VERSION_MIN.join(".")} or newer is needed, this is ${process.version}: install a newer one and run the same command again.`,
  );
}

if (!isInstalled()) install();
const child = spawn(findNode(), ["--disable-warning=ExperimentalWarning", ...process.argv.slice(2)], {
  cwd: root,
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => fail(`${process.argv[2]} could not be started: ${error.message}`));
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
