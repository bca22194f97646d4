/** Makes of each function one minified file with only what it imports, and a zip of it as Lambda takes it. */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { zipFile } from "./zip.ts";

const ROOT = join(import.meta.dirname, "../..");
/** Where serverless.yml looks for the zips. */
export const BUILD_DIR = join(ROOT, ".build");

/** Libraries in CommonJS ask for Node's own modules with `require`, which a module does not have. */
const BANNER =
  'import{createRequire as makeRequireOfBundle}from"node:module";const require=makeRequireOfBundle(import.meta.url);';

export interface Bundle {
  /** Name of the function; the handler is `<name>.handler`. */
  readonly name: string;
  /** The bundled file. Beside it: its source map (`.map`), which is not in the zip. */
  readonly path: string;
  readonly bytes: number;
  readonly zipPath: string;
  readonly zipBytes: number;
}

/** Names of the functions: one file each. */
export async function functionNames(): Promise<readonly string[]> {
  const files = await readdir(join(ROOT, "functions"));
  return files
    .filter((file) => file.endsWith(".ts"))
    .map((file) => basename(file, ".ts"))
    .sort();
}

/** Bundles all functions into `folder`, which is emptied before; the same sources give the same bytes. Throws esbuild's own error. */
export async function bundleFunctions(folder = BUILD_DIR): Promise<readonly Bundle[]> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const names = await functionNames();
  await build({
    absWorkingDir: ROOT,
    entryPoints: names.map((name) => ({ in: `functions/${name}.ts`, out: name })),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    minify: true,
    // Names of errors and functions stay: the log shows them.
    keepNames: true,
    sourcemap: "external",
    legalComments: "external",
    // Which field of a library's package.json counts: its modules can be taken apart.
    mainFields: ["module", "main"],
    banner: { js: BANNER },
    logLevel: "silent",
  });
  return Promise.all(names.map((name) => zipBundle(folder, name)));
}

async function zipBundle(folder: string, name: string): Promise<Bundle> {
  const path = join(folder, `${name}.mjs`);
  const content = await readFile(path);
  const zip = zipFile(basename(path), content);
  const zipPath = join(folder, `${name}.zip`);
  await writeFile(zipPath, zip);
  return { name, path, bytes: content.length, zipPath, zipBytes: zip.length };
}
