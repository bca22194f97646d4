/** Lists: selectors, pages whose tokens grow too old, metadata alone. */
import type { Kind } from "./kinds.ts";
import { type LabelTest, parseLabelSelector } from "./label-selectors.ts";
import type { KubeObject } from "./objects.ts";
import { badRequest, expired } from "./refusal.ts";

/** How long the server can still show an old state. */
const PAGE_TTL_MS = 5 * 60_000;
const KNOWN_PARAMETERS = ["limit", "continue", "labelSelector"];

/** Page tokens and the states that they stand for. */
export interface Pages {
  keep(rest: readonly KubeObject[], version: number): string;
  /** What the token stands for. Throws `Refusal` when it is too old or none. */
  take(token: string): { readonly rest: readonly KubeObject[]; readonly version: number };
  expire(): void;
}

export function createPages(now: () => number): Pages {
  const kept = new Map<string, { rest: readonly KubeObject[]; version: number; until: number }>();
  return {
    keep(rest, version) {
      const start = `/${rest[0]?.metadata.name}`;
      const text = JSON.stringify({ v: "meta.k8s.io/v1", rv: version, start, page: kept.size });
      const token = Buffer.from(text).toString("base64url");
      kept.set(token, { rest, version, until: now() + PAGE_TTL_MS });
      return token;
    },
    take(token) {
      const page = kept.get(token);
      if (page !== undefined && now() < page.until) return page;
      const isToken = Buffer.from(token, "base64url").toString().startsWith('{"v":"meta.k8s.io/v1"');
      throw isToken ? expired(token) : badRequest("invalid continue token");
    },
    expire: () => kept.clear(),
  };
}

export interface ListRequest {
  readonly kind: Kind;
  readonly apiVersion: string;
  /** What there is now, in order. */
  readonly objects: () => readonly KubeObject[];
  readonly version: number;
  readonly pages: Pages;
  readonly metadataOnly: boolean;
  readonly parameters: URLSearchParams;
}

/** The body of a list. */
export function listObjects({
  kind,
  apiVersion,
  objects,
  version: newest,
  pages,
  metadataOnly,
  parameters,
}: ListRequest) {
  for (const name of parameters.keys())
    if (!KNOWN_PARAMETERS.includes(name)) throw new Error(`not known here: ?${name}`);
  const limit = parameters.get("limit") ?? "";
  if (!/^-?\d*$/.test(limit)) throw badRequest("the limit is not a number");
  const test = parseLabelSelector(parameters.get("labelSelector") ?? "");
  if (test === undefined) throw badRequest("unable to parse requirement");
  const token = parameters.get("continue") ?? "";
  const { rest: all, version } = token === "" ? { rest: objects(), version: newest } : pages.take(token);
  const { page, rest } = cut(all, test, Number(limit));
  const more = rest.length === 0 ? "" : pages.keep(rest, version);
  const hasSelector = (parameters.get("labelSelector") ?? "") !== "";
  const metadata = {
    resourceVersion: String(version),
    ...(more === "" && (metadataOnly || !kind.isCustom) ? {} : { continue: more }),
    ...(more === "" || hasSelector ? {} : { remainingItemCount: rest.length }),
  };
  if (metadataOnly) {
    const items = page.map((object) => ({
      kind: "PartialObjectMetadata",
      apiVersion: "meta.k8s.io/v1",
      metadata: object.metadata,
    }));
    // A surprise: an empty list of this kind has null for its items.
    return {
      kind: "PartialObjectMetadataList",
      apiVersion: "meta.k8s.io/v1",
      metadata,
      items: items.length === 0 ? null : items,
    };
  }
  return { kind: kind.listKind, apiVersion, metadata, items: page.map((object) => itemOf(kind, object, apiVersion)) };
}

/** Up to `limit` objects that pass the test, and what is to be looked at after them. */
function cut(all: readonly KubeObject[], test: NonNullable<LabelTest>, limit: number) {
  const matches = (object: KubeObject) => test(object.metadata.labels ?? {});
  if (!(limit > 0)) return { page: all.filter(matches), rest: [] };
  const page: KubeObject[] = [];
  for (const [index, object] of all.entries()) {
    if (!matches(object)) continue;
    if (page.length === limit) return { page, rest: all.slice(index) };
    page.push(object);
  }
  return { page, rest: [] };
}

/** A surprise: items of built-in kinds do not say what they are. */
function itemOf({ isCustom }: Kind, object: KubeObject, apiVersion: string): unknown {
  if (isCustom) return { ...object, apiVersion };
  const { apiVersion: _version, kind: _kind, ...rest } = object;
  return rest;
}
