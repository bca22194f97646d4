/** Pages of pools: where one ended says where the next begins, so that nothing has to be kept between them. */
import * as z from "zod";
import { parseJson } from "../planning/json.ts";
import { compareText } from "../planning/selector.ts";

const LIMIT_DEFAULT = 100;
const LIMIT_MAX = 500;

/** Where a pool stands in the order of all: by cluster, namespace and name. */
export interface Position {
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
}

export interface Page {
  readonly limit: number;
  /** The last pool of the page before. */
  readonly after: Position | undefined;
}

const tokenSchema = z.tuple([z.string().max(63), z.string().max(253), z.string().max(253)]);

/** Reads `limit` and `continue`, or says what is wrong with them. */
export function readPage(queryString: string): Page | string {
  const query = new URLSearchParams(queryString);
  const limit = query.get("limit") ?? String(LIMIT_DEFAULT);
  if (!/^[1-9]\d{0,2}$/.test(limit) || Number(limit) > LIMIT_MAX) {
    return `limit has to be a whole number from 1 to ${LIMIT_MAX}`;
  }
  const token = query.get("continue");
  if (token === null) return { limit: Number(limit), after: undefined };
  const position = tokenSchema.safeParse(parseJson(Buffer.from(token, "base64url").toString("utf8")));
  if (!position.success) return "continue has to be the value of an earlier answer";
  const [cluster, namespace, name] = position.data;
  return { limit: Number(limit), after: { cluster, namespace, name } };
}

export function writeToken({ cluster, namespace, name }: Position): string {
  return Buffer.from(JSON.stringify([cluster, namespace, name])).toString("base64url");
}

/** The order of all pools. */
export function byPosition(a: Position, b: Position): number {
  return compareText(a.cluster, b.cluster) || compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}
