/** Changes a registry file in place: everything that is not changed stays as it was written. */
import { readFile, realpath, stat } from "node:fs/promises";
import { createFileRegistry } from "../../shared/clusters/registry.ts";
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { writeAtomically } from "../local/control-plane/files.ts";
import { CommandError } from "./errors.ts";

/** Sets the mode of a registered cluster. The file is read anew, so that what was changed meanwhile is kept. */
export async function writeMode(path: string, name: string, mode: "observe" | "act"): Promise<void> {
  // Throws what is wrong with the file.
  if ((await createFileRegistry(path).access(name)) === undefined) {
    throw new CommandError(`the cluster ${name} is no longer in the registry ${path}`);
  }
  const registry = parseJson(await readFile(path, "utf8"));
  const clusters = recordAt(registry, "clusters");
  const entry = recordAt(clusters, name);
  const changed = {
    ...recordOf(registry),
    clusters: { ...clusters, [name]: { ...entry, access: { ...recordAt(entry, "access"), mode } } },
  };
  const target = await realpath(path);
  const { mode: permissions } = await stat(target);
  await writeAtomically(target, `${JSON.stringify(changed, null, 2)}\n`, permissions & 0o777).catch(() => {
    throw new CommandError(`the registry ${path} cannot be written: check that you may write to its folder`);
  });
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}

function recordAt(value: unknown, field: string): Readonly<Record<string, unknown>> {
  return recordOf(recordOf(value)[field]);
}
