/** What can go wrong with one call to an API server, and which call that was: the two sides of the table that says what the simulation has met. */
import type { ApiRequest } from "../../shared/clusters/connection.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { GUARDED_ANNOTATION } from "../../shared/planning/names.ts";
import { recordAt } from "./objects.ts";
import type { Random } from "./random.ts";
import type { PendingCall, World } from "./world.ts";

/** A server that answers with a refusal does nothing; one that fails may have done it, or may do it yet. */
const STATUSES = {
  "401": [401, "Unauthorized"],
  "403": [403, "Forbidden"],
  "404": [404, "NotFound"],
  "409": [409, "Conflict"],
  "410": [410, "Expired"],
  "422": [422, "Invalid"],
  "429": [429, "TooManyRequests"],
  "500": [500, "InternalError"],
  "503": [503, "ServiceUnavailable"],
  "504": [504, "Timeout"],
} as const;
type Status = keyof typeof STATUSES;

/** What the scheduler does to a call, and what befalls it when its function ends or its time runs out. */
export const FAULTS = [
  "reset before",
  "reset after",
  "no answer",
  "cut short",
  "stale",
  ...(["401", "403", "404", "409", "410", "422", "429", "500", "503", "504"] as const),
  ...(["token", "not served", "down", "killed before", "killed after", "late"] as const),
] as const;
export type Fault = (typeof FAULTS)[number];

/** How often each comes up, next to the others. */
const WEIGHTS: readonly (readonly [fault: Fault, weight: number])[] = [
  ["reset before", 6],
  ["reset after", 10],
  ["no answer", 16],
  ["cut short", 5],
  ["stale", 10],
  ["401", 2],
  ["403", 3],
  ["404", 3],
  ["409", 2],
  ["410", 2],
  ["422", 2],
  ["429", 4],
  ["500", 5],
  ["503", 4],
  ["504", 4],
];

export function drawFault(random: Random): Fault {
  const sum = WEIGHTS.reduce((total, [, weight]) => total + weight, 0);
  let draw = random.int(sum);
  for (const [fault, weight] of WEIGHTS) {
    if (draw < weight) return fault;
    draw -= weight;
  }
  return "no answer";
}

/** Whether the fault can befall such a call: only what is read can be old, and only what is written can come late. */
export function canBefall(fault: Fault, method: ApiRequest["method"]): boolean {
  if (fault === "stale") return method === "GET";
  return fault !== "late" || method !== "GET";
}

const SNAPSHOTS = 10;

/** Lets the call go wrong. */
export function strike(world: World, call: PendingCall, fault: Fault, random: Random): void {
  const { method } = call.request;
  switch (fault) {
    case "reset before":
      world.lose(call, reset());
      return;
    case "reset after":
      world.perform(call);
      world.lose(call, reset());
      return;
    case "no answer":
      world.abandon(call, reset());
      return;
    case "cut short":
      world.perform(call);
      world.reply(call, { status: method === "POST" ? 201 : 200, headers: {}, body: '{"kind":"V', bytes: 10 }, false);
      return;
    case "stale":
      world.answerStale(call, 1 + random.int(SNAPSHOTS));
      return;
    default: {
      if (!isStatus(fault)) return;
      const [status, reason] = STATUSES[fault];
      const told = { kind: "Status", status: "Failure", reason, message: reason, code: status };
      const body = fault === "404" ? notFoundOf(call, random) : told;
      const isUnclear = status >= 500;
      // A proxy that tries a deletion again finds the object gone.
      if ((isUnclear || (fault === "404" && method === "DELETE")) && random.chance(0.3)) world.perform(call);
      const headers = status === 429 || status === 503 ? { "retry-after": "1" } : {};
      world.reply(call, { status, headers, body, bytes: 0 }, isUnclear && random.chance(0.5));
    }
  }
}

function isStatus(fault: Fault): fault is Status {
  return Object.hasOwn(STATUSES, fault);
}

function reset(): Error {
  return Object.assign(new Error("the connection was reset"), { code: "ECONNRESET" });
}

/** Of an object that is there only what stands before the API server says so; of one that was deleted a proxy that has done it. */
function notFoundOf({ request: { method } }: PendingCall, random: Random): unknown {
  const told = { kind: "Status", status: "Failure", reason: "NotFound", message: "not found", code: 404 };
  return method === "DELETE" ? told : random.pick(["404 page not found\n", "<html>not found</html>"]);
}

/** What a call is for: reads by what they read, writes by the action that they are part of. */
export const CALLS = [
  ...(["discover", "get pool", "list pools", "list VMs", "list VM metadata", "get VM", "list instances"] as const),
  ...(["get instance", "list revisions", "get revision", "list disks", "get disk", "get namespace"] as const),
  ...(["list KubeVirts", "get event"] as const),
  ...(["writeClaim", "createRevision", "tryVm", "createVm", "deleteVm", "updateVm", "restartInstance"] as const),
  ...(["labelInstance", "releaseVm", "dropVmFinalizer", "dropPoolFinalizer", "revokeDelete"] as const),
  ...(["revokeRestart", "changeDisk", "markVm", "pruneRevision", "tell", "status", "scale"] as const),
] as const;
export type CallKind = (typeof CALLS)[number];

export function callKindOf({ method, path, body, accept }: ApiRequest): CallKind {
  const [place = "", query = ""] = path.split("?");
  const parts = place.split("/").slice(place.startsWith("/api/") ? 3 : 4);
  const [plural = "", name, subresource] = parts[0] === "namespaces" && parts.length > 2 ? parts.slice(2) : parts;
  if (method !== "GET") return writeOf({ method, plural, subresource, query, body });
  const isOne = name !== undefined;
  switch (plural) {
    case "virtualmachinepools":
      return subresource === "scale" ? "scale" : isOne ? "get pool" : "list pools";
    case "virtualmachines":
      if (isOne) return "get VM";
      return accept?.includes("PartialObjectMetadata") === true ? "list VM metadata" : "list VMs";
    case "virtualmachineinstances":
      return isOne ? "get instance" : "list instances";
    case "controllerrevisions":
      return isOne ? "get revision" : "list revisions";
    case "datavolumes":
    case "persistentvolumeclaims":
      return isOne ? "get disk" : "list disks";
    case "namespaces":
      return "get namespace";
    case "kubevirts":
      return "list KubeVirts";
    case "events":
      return "get event";
    default:
      return "discover";
  }
}

interface Write {
  readonly method: ApiRequest["method"];
  readonly plural: string;
  readonly subresource: string | undefined;
  readonly query: string;
  readonly body: unknown;
}

function writeOf({ method, plural, subresource, query, body }: Write): CallKind {
  const metadata = isRecord(body) ? recordAt(body, "metadata") : {};
  switch (plural) {
    case "virtualmachinepools":
      if (subresource === "scale" || subresource === "status") return subresource;
      return Array.isArray(body) ? "writeClaim" : "dropPoolFinalizer";
    case "virtualmachines":
      if (method === "POST") return query.includes("dryRun=All") ? "tryVm" : "createVm";
      if (method === "DELETE") return "deleteVm";
      if (subresource === "status") return "restartInstance";
      if ("ownerReferences" in metadata) return "releaseVm";
      if ("finalizers" in metadata) return "dropVmFinalizer";
      if (isRecord(body) && "spec" in body) return "updateVm";
      return GUARDED_ANNOTATION in recordAt(metadata, "annotations") ? "markVm" : "revokeDelete";
    case "virtualmachineinstances":
      if (method === "DELETE") return "restartInstance";
      return "labels" in metadata ? "labelInstance" : "revokeRestart";
    case "controllerrevisions":
      return method === "POST" ? "createRevision" : "pruneRevision";
    case "datavolumes":
    case "persistentvolumeclaims":
      return "changeDisk";
    default:
      return "tell";
  }
}

/** How often which fault has befallen which call. */
export type FaultTable = Map<CallKind, Map<Fault, number>>;

export function countFault(table: FaultTable, call: CallKind, fault: Fault): void {
  const row = table.get(call) ?? new Map<Fault, number>();
  row.set(fault, (row.get(fault) ?? 0) + 1);
  table.set(call, row);
}

export function addFaults(total: FaultTable, more: FaultTable): void {
  for (const [call, row] of more) {
    for (const [fault, count] of row) {
      const known = total.get(call) ?? new Map<Fault, number>();
      known.set(fault, (known.get(fault) ?? 0) + count);
      total.set(call, known);
    }
  }
}

const READ_COUNT = CALLS.indexOf("writeClaim");

/** One line a call and one column a fault; `-` where the fault cannot befall the call, `0` where it never has. */
export function describeFaults(table: FaultTable): string {
  const width = Math.max(...CALLS.map((call) => call.length));
  const columns = FAULTS.map((fault) => ({ fault, width: Math.max(6, fault.length) }));
  const head = `${"".padEnd(width)} ${columns.map((column) => column.fault.padStart(column.width)).join(" ")}`;
  const lines = CALLS.map((call, index) => {
    const cells = columns.map((column) => {
      const count = table.get(call)?.get(column.fault) ?? 0;
      const isPossible = canBefall(column.fault, index < READ_COUNT ? "GET" : "PATCH");
      return (isPossible ? String(count) : "-").padStart(column.width);
    });
    return `${call.padEnd(width)} ${cells.join(" ")}`;
  });
  return [head, ...lines].join("\n");
}

/** Those that can be and never were. */
export function unmetFaults(table: FaultTable): readonly string[] {
  return CALLS.flatMap((call, index) =>
    FAULTS.filter((fault) => canBefall(fault, index < READ_COUNT ? "GET" : "PATCH"))
      .filter((fault) => (table.get(call)?.get(fault) ?? 0) === 0)
      .map((fault) => `${call} × ${fault}`),
  );
}
