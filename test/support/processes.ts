/** What is in the process table. */
import { execFileSync } from "node:child_process";

const TABLE_BYTES_MAX = 16 * 1024 * 1024;

export interface TableEntry {
  readonly pid: number;
  readonly command: string;
}

/** The living processes that have `text` in their command line; those that only wait for their parent are dead. */
export function processesWith(text: string): readonly TableEntry[] {
  const options = { encoding: "utf8", maxBuffer: TABLE_BYTES_MAX } as const;
  const table = execFileSync("ps", ["-A", "-ww", "-o", "pid=,stat=,args="], options);
  return table.split("\n").flatMap((line) => {
    const [, pid, state = "", command = ""] = /^\s*(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    return command.includes(text) && !state.startsWith("Z") ? [{ pid: Number(pid), command }] : [];
  });
}
