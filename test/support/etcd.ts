/** The etcd behind a local control plane, by its JSON gateway: every change that was stored, none left out, and a database that runs full. */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Pki } from "../../infra/local/control-plane/certificates.ts";
import { accessFor } from "../../infra/local/control-plane/kubeconfig.ts";
import { openConnection } from "../../shared/clusters/connection.ts";

const REQUEST_TIMEOUT_MS = 15_000;
const RECONNECT_MS = 200;
const FILLER = "/filler/";
const FILLER_BYTES = 1024 * 1024;
/** A database that takes more than this is not full. */
const FILLERS_MAX = 200;

/** One object that was stored, or, without a value, deleted. */
export interface StoredChange {
  /** Of the whole database: they order all changes. */
  readonly revision: number;
  readonly key: string;
  /** Its JSON; undefined when it was deleted. */
  readonly value: unknown;
}

export interface Etcd {
  /** Follows the keys from now on, through anything that happens to the server, until the signal; throws when changes were lost. */
  follow(keys: { readonly from: string; readonly to: string }, options: FollowOptions): Promise<void>;
  /** Stores until the server refuses for want of room. */
  fill(): Promise<void>;
  /** What an administrator does then: deletes, compacts, defragments, disarms. */
  makeRoom(): Promise<void>;
  close(): Promise<void>;
}

export interface FollowOptions {
  readonly onChange: (change: StoredChange) => void;
  readonly signal: AbortSignal;
}

const headerSchema = z.object({ header: z.object({ revision: z.coerce.number() }) });
const alarmsSchema = z.object({ alarms: z.array(z.object({ memberID: z.string(), alarm: z.string() })).default([]) });
const watchSchema = z.object({
  result: z.object({
    header: z.object({ revision: z.coerce.number() }),
    compact_revision: z.string().optional(),
    canceled: z.boolean().default(false),
    events: z
      .array(
        z.object({
          type: z.string().default("PUT"),
          kv: z.object({ key: z.string(), mod_revision: z.coerce.number(), value: z.string().default("") }),
        }),
      )
      .default([]),
  }),
});

export function openEtcd(url: string, pki: Pki): Etcd {
  const connection = openConnection(accessFor(url, pki.ca, pki.etcd));
  const call = async (path: string, body: object) => {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const answer = await connection.send({ method: "POST", path: `/v3/${path}`, body, signal });
    return { isDone: answer.status === 200, text: JSON.stringify(answer.body), body: answer.body };
  };
  const must = async (path: string, body: object) => {
    const answer = await call(path, body);
    if (!answer.isDone) throw new Error(`etcd refuses ${path}: ${answer.text.slice(0, 300)}`);
    return answer.body;
  };
  const revision = async () => headerSchema.parse(await must("kv/range", { key: encode("none") })).header.revision;
  return {
    async follow(keys, { onChange, signal }) {
      let next = (await revision()) + 1;
      while (!signal.aborted) {
        const range = { key: encode(keys.from), range_end: encode(keys.to), start_revision: String(next) };
        try {
          for await (const line of watch(url, { pki, body: { create_request: range }, signal })) {
            const { result } = watchSchema.parse(JSON.parse(line));
            if (result.compact_revision !== undefined) throw new LostError(next, result.compact_revision);
            for (const { type, kv } of result.events) {
              next = Math.max(next, kv.mod_revision + 1);
              onChange({
                revision: kv.mod_revision,
                key: decode(kv.key),
                value: type === "DELETE" ? undefined : JSON.parse(decode(kv.value)),
              });
            }
            if (result.canceled) break;
          }
        } catch (error) {
          if (error instanceof LostError) throw error;
        }
        await sleep(RECONNECT_MS, undefined, { signal }).catch(() => undefined);
      }
    },
    async fill() {
      const value = encode("x".repeat(FILLER_BYTES));
      for (let count = 0; count < FILLERS_MAX; count += 1) {
        const answer = await call("kv/put", { key: encode(`${FILLER}${count}`), value });
        if (!answer.isDone && answer.text.includes("space exceeded")) return;
        if (!answer.isDone) throw new Error(`etcd refuses a write: ${answer.text.slice(0, 300)}`);
      }
      throw new Error("etcd does not run full");
    },
    async makeRoom() {
      await must("kv/deleterange", { key: encode(FILLER), range_end: encode("/filler0") });
      const last = await revision();
      // Whoever follows is behind by less.
      await sleep(1_000);
      await must("kv/compaction", { revision: String(last), physical: true });
      await must("maintenance/defragment", {});
      const { alarms } = alarmsSchema.parse(await must("maintenance/alarm", { action: "GET" }));
      for (const alarm of alarms) await must("maintenance/alarm", { action: "DEACTIVATE", ...alarm });
    },
    close: () => connection.close(),
  };
}

/** History that nobody followed was compacted. */
class LostError extends Error {
  override readonly name = "LostError";

  constructor(wanted: number, compacted: string) {
    super(`changes from revision ${wanted} on are wanted, and those up to ${compacted} are gone`);
  }
}

interface Watch {
  readonly pki: Pki;
  readonly body: object;
  readonly signal: AbortSignal;
}

async function* watch(url: string, { pki, body, signal }: Watch): AsyncGenerator<string> {
  const { hostname, port } = new URL(url);
  const { certificate: cert, key } = pki.etcd;
  const options = { hostname, port, method: "POST", path: "/v3/watch", ca: pki.ca.certificate, cert, key, signal };
  const sent = request(options);
  const answered = once(sent, "response");
  sent.end(JSON.stringify(body));
  const [answer]: IncomingMessage[] = await answered;
  // Whoever reads the answer is told, too.
  sent.on("error", () => undefined);
  let rest = "";
  for await (const chunk of answer?.setEncoding("utf8") ?? []) {
    const lines = `${rest}${String(chunk)}`.split("\n");
    rest = lines.pop() ?? "";
    yield* lines.filter((line) => line !== "");
  }
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64");
}

function decode(text: string): string {
  return Buffer.from(text, "base64").toString("utf8");
}
