/** Sends the same operations to two servers and tells the first answer or state in which they differ. */
import { isRecord } from "../../shared/planning/json.ts";
import type { Call } from "./cluster.ts";
import { callOf, emptyMemory, KIND_NAMES, type Memory, type Operation, remember } from "./operations.ts";
import { isSame } from "./patches.ts";

/** One of the two: its answers, status and body. */
export type Server = (call: Call) => Promise<{ readonly status: number; readonly body: unknown }>;

export interface Side {
  readonly name: string;
  readonly server: Server;
  readonly memory: Memory;
  /** UID or version → its number in the order of appearance. */
  readonly numbers: Map<string, string>;
}

export function sideOf(name: string, server: Server, namespace: string): Side {
  return { name, server, memory: emptyMemory(namespace), numbers: new Map() };
}

export interface Difference {
  readonly operation: Operation;
  /** Its position in the sequence. */
  readonly index: number;
  readonly answers: readonly string[];
}

/** More pages than a sequence can make objects. */
const PAGES_MAX = 10;

/** Runs the operations, then lists everything; undefined when the two agree throughout. */
export async function findDifference(
  operations: readonly Operation[],
  sides: readonly Side[],
): Promise<Difference | undefined> {
  const last = KIND_NAMES.map((kind): Operation => ({ do: "list", kind, query: {}, metadataOnly: false }));
  for (const [index, operation] of [...operations, ...last].entries()) {
    const answers = await Promise.all(sides.map((side) => run(side, operation)));
    const [first] = answers;
    if (answers.every((answer) => isSame(answer, first))) continue;
    return {
      operation,
      index,
      answers: answers.map((answer, side) => `${sides[side]?.name}: ${JSON.stringify(answer)}`),
    };
  }
  return undefined;
}

/**
 * What became of each object: there, or on its way out. Which of several dead owners an object still names is left out, for that
 * depends on which of them the collector saw first.
 */
export async function fatesOf({ server, memory }: Side): Promise<readonly string[]> {
  const fates = KIND_NAMES.map(async (kind) => {
    const { body } = await allPages(server, callOf({ do: "list", kind, query: {}, metadataOnly: false }, memory));
    const items = isRecord(body) && Array.isArray(body["items"]) ? body["items"].filter(isRecord) : [];
    return items.map(({ metadata }) => {
      const { name, deletionTimestamp, finalizers } = isRecord(metadata) ? metadata : {};
      return `${kind} ${name} ${deletionTimestamp === undefined ? "stays" : "goes"} ${JSON.stringify(finalizers ?? [])}`;
    });
  });
  return (await Promise.all(fates)).flat();
}

/** The answer in the form that is compared. */
async function run(side: Side, operation: Operation): Promise<unknown> {
  const call = callOf(operation, side.memory);
  const { status, body } = operation.do === "list" ? await allPages(side.server, call) : await side.server(call);
  remember(operation, body, side.memory);
  return compared(side, status, body);
}

/**
 * One list of what all pages hold. Where a page ends is not compared: with a selector the real server sometimes, by what it
 * has in its cache, promises a last page that is empty.
 */
async function allPages(server: Server, call: Call): ReturnType<Server> {
  const items: unknown[] = [];
  let path = call.path;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await server({ ...call, path });
    const { status, body } = answer;
    if (status !== 200 || !isRecord(body)) return answer;
    if (Array.isArray(body["items"])) items.push(...body["items"]);
    const token = isRecord(body["metadata"]) ? body["metadata"]["continue"] : undefined;
    if (typeof token !== "string" || token === "") return { status, body: { ...body, items, metadata: {} } };
    path = `${call.path}&continue=${token}`;
  }
  throw new Error(`${call.path} has more than ${PAGES_MAX} pages`);
}

/** Of a failure status, reason and what it is about; texts and causes are for people. */
function compared(side: Side, status: number, body: unknown): unknown {
  if (!isRecord(body)) return { status, body };
  if (status < 300) return { status, body: normalise(side, body, "") };
  const { reason, details } = body;
  const { name, group, kind } = isRecord(details) ? details : {};
  return { status, reason, name, group, kind };
}

const TIMES = ["creationTimestamp", "deletionTimestamp"];

/** Numbers UIDs and versions, hides times, leaves out managed fields and empty values of built-in kinds. */
export function normalise(side: Side, value: unknown, key: string): unknown {
  if (Array.isArray(value)) return value.map((entry) => normalise(side, entry, ""));
  if (!isRecord(value)) return scalar(side, value, key);
  const isBuiltin = value["kind"] === "Event" || value["kind"] === "ControllerRevision";
  const entries = Object.entries(value).filter(([field, entry]) => {
    if (field === "managedFields") return false;
    const isEmpty = entry === null || entry === "" || (isRecord(entry) && Object.keys(entry).length === 0);
    return !(isEmpty && (isBuiltin || field === "items"));
  });
  // In one order, so that numbers are given in one order.
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([field, entry]) => [field, normalise(side, entry, field)]));
}

function scalar({ numbers, memory }: Side, value: unknown, key: string): unknown {
  if (typeof value !== "string") return value;
  if (TIMES.includes(key)) return "a time";
  if (key === "uid" || key === "resourceVersion") {
    const number = numbers.get(value) ?? `${key} ${numbers.size}`;
    numbers.set(value, number);
    return number;
  }
  return value === memory.namespace ? "the namespace" : value;
}
