/** Files that are either whole or absent; knows nothing of what is in them. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { access, open, rename, rm, stat, writeFile } from "node:fs/promises";

/** Writes the file under another name beside it and moves it into place: no reader ever sees half of it. */
export async function writeAtomically(path: string, text: string, mode: number): Promise<void> {
  return moveIntoPlace(path, (temporary) => writeFile(temporary, text, { mode, flag: "wx" }));
}

/** The same for a file that is there: it keeps its owner, its group and its permissions, whoever writes and with whatever umask. */
export async function replaceAtomically(path: string, text: string): Promise<void> {
  const { mode, uid, gid } = await stat(path);
  return moveIntoPlace(path, async (temporary) => {
    const file = await open(temporary, "wx", 0o600);
    try {
      const made = await file.stat();
      if (made.uid !== uid || made.gid !== gid) await file.chown(uid, gid);
      await file.chmod(mode & 0o777);
      await file.writeFile(text);
    } finally {
      await file.close();
    }
  });
}

async function moveIntoPlace(path: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    await write(temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Whether the path leads to a regular file that this user may execute. */
export async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
