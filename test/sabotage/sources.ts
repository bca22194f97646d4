/** The sources with a bug in them, in a directory of their own: the working tree is only read. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bug } from "./bugs.ts";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Of the project's directory, what no check needs. */
const LEFT_OUT: ReadonlySet<string> = new Set(["node_modules", ".git", ".local", "coverage", "dist"]);

export interface Copy {
  readonly directory: string;
  remove(): Promise<void>;
}

/** The file's text with the bug in it; throws where the text to replace does not stand there exactly once. */
export async function sabotaged({ name, file, find, replace }: Bug): Promise<string> {
  const text = await readFile(join(ROOT, file), "utf8");
  const count = text.split(find).length - 1;
  if (count !== 1) throw new Error(`bug ${name}: what it replaces stands ${count} times in ${file}, not once`);
  return text.replace(find, () => replace);
}

/** Copies everything but the dependencies, which are linked one by one: what tools write beside them stays with the copy. */
export async function copyWith(bug: Bug): Promise<Copy> {
  const text = await sabotaged(bug);
  const directory = await mkdtemp(join(tmpdir(), "vmpool-functions-sabotage-"));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    const isWanted = (path: string) => !LEFT_OUT.has(relative(ROOT, path).split(sep)[0] ?? "");
    await cp(ROOT, directory, { recursive: true, filter: isWanted });
    await mkdir(join(directory, "node_modules"));
    for (const entry of await readdir(join(ROOT, "node_modules"))) {
      if (entry.startsWith(".") && entry !== ".bin") continue;
      await symlink(join(ROOT, "node_modules", entry), join(directory, "node_modules", entry));
    }
    await writeFile(join(directory, bug.file), text);
  } catch (error) {
    await remove();
    throw error;
  }
  return { directory, remove };
}
