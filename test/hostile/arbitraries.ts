/** What comes in from outside and is not what it should be: text, JSON, and objects of the API with something wrong in them. */
import * as fc from "fast-check";
import { isRecord } from "../../shared/planning/json.ts";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** What must never be seen again where it is planted: in logs, answers, events, facts and statuses. */
export const CANARY = "canary-4f1c09";
/** As it ends up in the wrong field by a slip: a script of several lines. */
export const SECRET_SCRIPT = `#cloud-config\npassword: ${CANARY}\nchpasswd: { expire: false }\n`;

const KEYS = [
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "metadata",
  "name",
  "labels",
  "items",
  "",
  "a.b",
];
const WORDS = [
  ...["", "0", "-0", "-1", "1e999", "NaN", "null", "true", "100%", "1Gi", "5m", "2026-11-22T10:00:00Z", "__proto__"],
  ...[
    "../..",
    ".",
    "web",
    "web-0",
    "web-0-1",
    "a/b",
    "a=b,c",
    "\u0000",
    "\ud800",
    "\udc00x",
    "😀",
    "ß\u0301",
    "\u202e",
  ],
  ...[
    "<html><body>502 Bad Gateway</body></html>",
    '{"items":[{"metadata":',
    "Bearer x",
    "-1".repeat(50),
    "a-".repeat(200),
  ],
  ...["9".repeat(400), `${"0".repeat(99)}1`, `1.${"0".repeat(300)}Z`, "x".repeat(5_000)],
];

/** Text of every sort: names and their neighbours, numbers, control characters, halves of characters, and more than fits. */
export const hostileText: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...WORDS),
  fc.string({ unit: "binary", maxLength: 30 }),
  fc.string({ unit: "grapheme", maxLength: 30 }),
);

const hostileKey = fc.oneof(
  fc.constantFrom(...KEYS),
  fc.string({ maxLength: 5 }),
  fc.string({ unit: "binary", maxLength: 5 }),
);
const hostileNumber = fc.constantFrom(0, -1, 1, 0.5, -1e300, 1e300, 2 ** 31, 2 ** 53, 5e-324, 250);
const leaf: fc.Arbitrary<Json> = fc.oneof(fc.constantFrom(null, true, false), hostileNumber, hostileText);

/** JSON of any shape, now and then of thousands of levels, or of thousands of elements. */
export const hostileJson: fc.Arbitrary<Json> = fc.oneof(
  { weight: 10, arbitrary: leaf },
  {
    weight: 8,
    arbitrary: fc.letrec<{ value: Json }>((tie) => ({
      value: fc.oneof(
        { depthSize: "small", withCrossShrink: true },
        leaf,
        fc.array(tie("value"), { maxLength: 3 }),
        fc.array(fc.tuple(hostileKey, tie("value")), { maxLength: 3 }).map((entries) => Object.fromEntries(entries)),
      ),
    })).value,
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.integer({ min: 60, max: 5_000 }), fc.boolean())
      .map(([levels, list]) => nested(levels, list)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.integer({ min: 100, max: 2_000 }), leaf)
      .map(([length, value]) => Array.from({ length }, () => value)),
  },
);

function nested(levels: number, list: boolean): Json {
  let value: Json = 1;
  for (let level = 0; level < levels; level += 1) value = list ? [value] : { next: value };
  return value;
}

/** Something done to one place of an object. */
type Damage =
  | { readonly kind: "replace"; readonly value: Json }
  | { readonly kind: "remove" }
  | { readonly kind: "add"; readonly key: string; readonly value: Json };

const damage: fc.Arbitrary<Damage> = fc.oneof(
  { weight: 3, arbitrary: hostileJson.map((value): Damage => ({ kind: "replace", value })) },
  { weight: 1, arbitrary: fc.constant<Damage>({ kind: "remove" }) },
  {
    weight: 1,
    arbitrary: fc.tuple(hostileKey, hostileJson).map(([key, value]): Damage => ({ kind: "add", key, value })),
  },
);

/** The object with one to three places damaged. */
export function damaged(object: unknown): fc.Arbitrary<Json> {
  const base = asJson(object);
  return fc
    .array(fc.tuple(fc.nat(), damage), { minLength: 1, maxLength: 3 })
    .map((all) => all.reduce((value, [at, what]) => damageAt(value, at, what), base));
}

/** The object with another type of value in one place: what no API server sends, and no reader may guess at. */
export function mistyped(object: unknown): fc.Arbitrary<Json> {
  const base = asJson(object);
  return fc.tuple(fc.nat(), fc.nat()).map(([at, choice]) => replaceAt(base, at, (value) => otherType(value, choice)));
}

/** The object with a secret in one of its places. */
export function withSecret(object: unknown): fc.Arbitrary<Json> {
  const base = asJson(object);
  return fc.nat().map((at) => replaceAt(base, at, () => SECRET_SCRIPT));
}

/** As it arrives: undefined is not there, and no prototype but Object's. */
export function asJson(object: unknown): Json {
  const parsed: Json = JSON.parse(JSON.stringify(object ?? null));
  return parsed;
}

function otherType(value: Json, choice: number): Json {
  const others = [7, "text", true, [[]], { strange: {} }].filter((other) => typeOf(other) !== typeOf(value));
  return others[choice % others.length] ?? 7;
}

function typeOf(value: unknown): string {
  return Array.isArray(value) ? "list" : typeof value;
}

function damageAt(value: Json, at: number, what: Damage): Json {
  switch (what.kind) {
    case "replace":
      return replaceAt(value, at, () => what.value);
    case "remove":
      return replaceAt(value, at, () => undefined);
    case "add":
      return replaceAt(value, at, (found) => {
        if (Array.isArray(found)) return [...found, what.value];
        return isRecord(found) ? Object.fromEntries([...Object.entries(found), [what.key, what.value]]) : what.value;
      });
  }
}

/** Each place counts once, in the order of the text; the number is taken round. */
function replaceAt(value: Json, at: number, change: (value: Json) => Json | undefined): Json {
  let left = at % countPlaces(value);
  const walk = (found: Json, depth: number): Json | undefined => {
    if (left === 0) {
      left = -1;
      return change(found);
    }
    if (left > 0) left -= 1;
    if (typeof found !== "object" || found === null || depth > DEPTH_WALKED_MAX) return found;
    if (Array.isArray(found))
      return found.map((entry) => walk(entry, depth + 1)).filter((entry) => entry !== undefined);
    const entries = Object.entries(found).map(([key, entry]) => [key, walk(entry, depth + 1)] as const);
    return Object.fromEntries(entries.flatMap(([key, entry]) => (entry === undefined ? [] : [[key, entry] as const])));
  };
  return walk(value, 0) ?? null;
}

/** What is nested deeper, by damage done before, is one place. */
const DEPTH_WALKED_MAX = 50;

function countPlaces(value: Json, depth = 0): number {
  if (typeof value !== "object" || value === null || depth > DEPTH_WALKED_MAX) return 1;
  const inside: readonly Json[] = Object.values(value);
  return inside.reduce<number>((sum, entry) => sum + countPlaces(entry, depth + 1), 1);
}

/** A body as bytes arrive: JSON, JSON that breaks off, or no JSON at all. */
export function bodyOf(value: fc.Arbitrary<unknown>): fc.Arbitrary<string> {
  const json = value.map(textOf);
  return fc.oneof(
    { weight: 6, arbitrary: json },
    { weight: 1, arbitrary: fc.tuple(json, fc.nat()).map(([text, at]) => text.slice(0, at % (text.length + 1))) },
    { weight: 1, arbitrary: hostileText },
  );
}

/** JSON of any depth: `JSON.stringify` takes only some thousand levels. */
export function textOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? "";
  } catch {
    return `${"[".repeat(5_000)}${"]".repeat(5_000)}`;
  }
}
