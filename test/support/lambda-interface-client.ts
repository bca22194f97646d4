/**
 * The program that AWS runs in front of a Node.js function: the published runtime interface client, which polls the Runtime API,
 * loads the handler and makes its context. Only its JavaScript is taken: its one native part, the HTTP client, would have to be compiled.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const PACKAGE = "aws-lambda-ric";
const VERSION = "4.0.2";
/** As npm's lock files have it: SHA-512 in base64. */
const INTEGRITY = "FE5Vskx7mYNnqAnWWJXUOsLp2VGgdsJsCoRLFTa8L4Yk0QVtArqR8q58yPA++QC1a73ZWJXBQ2AH31nIAv7NOQ==";
const FETCH_TIMEOUT_MS = 120_000;

const run = promisify(execFile);

/** The folder that has the client's `index.mjs`; fetched by npm at the first use and kept in the cache. */
export async function findInterfaceClient(env: NodeJS.ProcessEnv): Promise<string> {
  const caches = env["XDG_CACHE_HOME"] || join(env["HOME"] ?? homedir(), ".cache");
  const cache = join(caches, "vmpool-functions", PACKAGE);
  const folder = join(cache, VERSION);
  if (await readFile(join(folder, "index.mjs")).catch(() => undefined)) return folder;
  await mkdir(cache, { recursive: true });
  const workDir = await mkdtemp(join(cache, "fetching-"));
  try {
    await fetchInto(workDir, env);
    // Somebody else's may be there by now, and is as good.
    await rename(join(workDir, "package"), folder).catch(async (error: unknown) => {
      if (!(await readFile(join(folder, "index.mjs")).catch(() => undefined))) throw error;
    });
    return folder;
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

/** `npm pack` runs no script of the package. */
async function fetchInto(workDir: string, env: NodeJS.ProcessEnv): Promise<void> {
  const options = { cwd: workDir, env, timeout: FETCH_TIMEOUT_MS };
  const packing = ["pack", `${PACKAGE}@${VERSION}`, "--ignore-scripts", "--prefer-offline", "--loglevel=error"];
  await run("npm", packing, options).catch((error: unknown) => {
    throw new Error(`npm could not fetch ${PACKAGE}@${VERSION}: check the network and npm's settings`, {
      cause: error,
    });
  });
  const [archive = ""] = await readdir(workDir);
  const actual = createHash("sha512")
    .update(await readFile(join(workDir, archive)))
    .digest("base64");
  if (actual !== INTEGRITY) throw new Error(`${PACKAGE}@${VERSION} is not what it was: its SHA-512 is ${actual}`);
  await run("tar", ["-xzf", archive, "package/index.mjs", "package/package.json"], options);
}
