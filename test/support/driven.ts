/** The functions `reconcile` and `status`, driven pass by pass by a test, with every write recorded and a clock that it can put forward. */
import { randomUUID } from "node:crypto";
import { createReconcile } from "../../functions/reconcile.ts";
import { createStatus } from "../../functions/status.ts";
import { lambdaContext } from "../../infra/local/runtime/lambda-context.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import { FACT_SOURCE, RECONCILED } from "../../shared/events/facts.ts";
import type { Logger } from "../../shared/runtime/logger.ts";
import { type PoolPlace, registryOf } from "./world.ts";

const CLUSTER = "local";

export interface DrivenPass {
  readonly result: PassResult;
  /** In order, such as `PATCH virtualmachines/web-0`; Events are told apart. */
  readonly writes: readonly string[];
  /** Reasons of the Events that were written. */
  readonly events: readonly string[];
}

export interface Driven {
  /** One wide pass of the pool, and the writing of the status that it reports. */
  pass(pool: PoolPlace): Promise<DrivenPass>;
  /** Passes until one writes nothing; the writes of all of them. */
  settle(pool: PoolPlace): Promise<readonly string[]>;
  /** From now on the API server's clock is so far ahead for the functions, as if so much time had passed. */
  waitMs(ms: number): void;
  close(): Promise<void>;
}

export interface DrivenOptions {
  readonly access: ServerAccess;
  readonly logger: Logger;
  readonly deployment?: string;
  /** In the place of a connection of its own. */
  readonly connect?: typeof openConnection;
}

const PASSES_MAX = 100;

export function driveFunctions({
  access,
  logger,
  deployment = CLUSTER,
  connect = openConnection,
}: DrivenOptions): Driven {
  let aheadMs = 0;
  let writes: string[] = [];
  let events: string[] = [];
  const real = connect(access);
  const connection: Connection = {
    ...real,
    async send(request) {
      const answer = await real.send(request);
      if (request.method !== "GET" && answer.status < 300) {
        const [path = ""] = request.path.split("?");
        const line = `${request.method} ${path.split("/namespaces/")[1]?.split("/").slice(1).join("/")}`;
        if (/ events(\/|$)/.test(line)) events.push(reasonOf(request.body));
        else writes.push(line);
      }
      const { date } = answer.headers;
      const time = typeof date === "string" ? Date.parse(date) + aheadMs : undefined;
      return time === undefined
        ? answer
        : { ...answer, headers: { ...answer.headers, date: new Date(time).toUTCString() } };
    },
  };
  const now = Date.now;
  const registry = registryOf({ [CLUSTER]: access });
  const directory = createDirectory({ registry, now, connect: () => connection });
  const wakeUps = { send: async () => [] };
  const status = createStatus(() => ({ directory, wakeUps, now, logger }));
  const pass = async ({ namespace, name }: PoolPlace): Promise<DrivenPass> => {
    [writes, events] = [[], []];
    const { promise, resolve } = Promise.withResolvers<PassResult>();
    const reconcile = createReconcile(() => ({
      directory,
      wakeUps,
      facts: {
        async publishReconciled(detail) {
          await status({ source: FACT_SOURCE, "detail-type": RECONCILED, detail }, lambdaContext("status", 30_000));
          return true;
        },
      },
      deployment,
      stopped: false,
      now,
      sleep: async () => undefined,
      nonce: randomUUID,
      logger,
      onPass: (_key, result) => resolve(result),
    }));
    const body = JSON.stringify({ version: 1, cluster: CLUSTER, namespace, name, cause: "sweep", attempt: 0 });
    const record = {
      messageId: "one",
      body,
      attributes: { SentTimestamp: String(now()) },
      eventSourceARN: "passes.fifo",
    };
    const response = await reconcile({ Records: [record] }, lambdaContext("reconcile", 60_000));
    if (response.batchItemFailures.length > 0) throw new Error("the pass failed");
    return { result: await promise, writes, events };
  };
  return {
    pass,
    async settle(pool) {
      const all: string[] = [];
      for (let count = 0; count < PASSES_MAX; count += 1) {
        const { writes: some } = await pass(pool);
        if (some.length === 0) return all;
        all.push(...some);
      }
      throw new Error(`the passes go on writing: ${all.slice(-10).join(", ")}`);
    },
    waitMs(ms) {
      aheadMs += ms;
    },
    close: () => real.close(),
  };
}

function reasonOf(body: unknown): string {
  return typeof body === "object" && body !== null && "reason" in body ? String(body.reason) : "";
}
