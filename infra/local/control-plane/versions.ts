/** The versions that go.mod pins; the one place from which downloads, builds and cache paths take them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface Versions {
  /** The oldest Go that builds the module, such as `1.25.0`. */
  readonly go: string;
  /** With the leading v. */
  readonly kubernetes: string;
  /** With the leading v. */
  readonly etcd: string;
}

/** Reads go.mod in `moduleDir`. */
export async function readVersions(moduleDir: string): Promise<Versions> {
  const text = await readFile(join(moduleDir, "go.mod"), "utf8");
  const find = (pattern: RegExp): string => {
    const found = pattern.exec(text)?.[1];
    if (found === undefined) throw new Error(`go.mod in ${moduleDir} has nothing that matches ${pattern.source}`);
    return found;
  };
  return {
    go: find(/^go (\d+\.\d+(?:\.\d+)?)$/m),
    kubernetes: find(/^\s*k8s\.io\/kubernetes (v\d+\.\d+\.\d+)$/m),
    etcd: find(/^\s*go\.etcd\.io\/etcd\/server\/v3 (v\d+\.\d+\.\d+)$/m),
  };
}

/** The minor version's numbers, such as `["1", "35"]` of `v1.35.4`. */
export function majorMinor(version: string): readonly [string, string] {
  const [, major = "", minor = ""] = /^v?(\d+)\.(\d+)/.exec(version) ?? [];
  return [major, minor];
}

/** Whether version `a` is older than `b`; missing parts count as 0. */
export function isOlder(a: string, b: string): boolean {
  const parts = (version: string) => version.split(".").map(Number);
  const [left, right] = [parts(a), parts(b)];
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
