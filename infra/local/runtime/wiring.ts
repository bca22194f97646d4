/** What leads to which function, and on what terms: the local runtime runs by it, and a test compares it with what is deployed. Does nothing. */
import { FACT_SOURCE, RECONCILED, SCALE_REQUESTED } from "../../../shared/events/facts.ts";
import { QUEUE_DELAY_MS, type QueueName } from "../../../shared/events/wake-ups.ts";
import type { QueueSettings } from "./fifo-queue.ts";

/** How long each function may take, in milliseconds. */
export const TIMEOUT_MS = {
  webhook: 10_000,
  admission: 10_000,
  audit: 30_000,
  resync: 50_000,
  reconcile: 60_000,
  status: 30_000,
  scale: 29_000,
  fleet: 29_000,
} as const;
export type FunctionName = keyof typeof TIMEOUT_MS;

const QUEUE = { visibilityMs: 90_000, retentionMs: 10 * 60_000, receiptsMax: 3 } as const;
/** Both lead to `reconcile`. */
export const QUEUES: Readonly<Record<QueueName, QueueSettings>> = {
  passes: { ...QUEUE, name: "passes", delayMs: QUEUE_DELAY_MS.passes },
  late: { ...QUEUE, name: "late", delayMs: QUEUE_DELAY_MS.late },
};

export interface RouteWiring {
  readonly functionName: FunctionName;
  readonly method: string;
  readonly path: string;
  /** Whether the gateway asks who the client is; the others ask themselves. */
  readonly authorized: boolean;
}

const SCALE_PATH =
  "/clusters/{cluster}/apis/pool.kubevirt.io/{version}/namespaces/{namespace}/virtualmachinepools/{name}/scale";

export const ROUTES: readonly RouteWiring[] = [
  { functionName: "webhook", method: "POST", path: "/clusters/{cluster}/events", authorized: false },
  // A sender of CloudEvents may ask first whether they are expected.
  { functionName: "webhook", method: "OPTIONS", path: "/clusters/{cluster}/events", authorized: false },
  { functionName: "admission", method: "POST", path: "/clusters/{cluster}/admission/{token}", authorized: false },
  { functionName: "scale", method: "GET", path: SCALE_PATH, authorized: true },
  { functionName: "scale", method: "PUT", path: SCALE_PATH, authorized: true },
  { functionName: "scale", method: "PATCH", path: SCALE_PATH, authorized: true },
  { functionName: "fleet", method: "GET", path: "/pools", authorized: true },
  {
    functionName: "fleet",
    method: "GET",
    path: "/clusters/{cluster}/namespaces/{namespace}/pools/{name}",
    authorized: true,
  },
];

/** The routes of one function. */
export function routesOf(functionName: FunctionName): readonly RouteWiring[] {
  return ROUTES.filter((route) => route.functionName === functionName);
}

/** Every field named has to hold one of the values. */
type EventPattern = Readonly<Record<string, readonly string[]>>;

/** The rules of the bus. */
export const RULES: Readonly<Record<"status" | "scale", EventPattern>> = {
  status: { source: [FACT_SOURCE], "detail-type": [RECONCILED] },
  scale: { "detail-type": [SCALE_REQUESTED] },
};

/** Whether the bus hands an event to the function. */
export function leadsTo(functionName: keyof typeof RULES, event: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(RULES[functionName]).every(([field, values]) => values.some((value) => value === event[field]));
}

/** The clock that invokes `resync`. */
export const SCHEDULE_SECONDS = 60;
