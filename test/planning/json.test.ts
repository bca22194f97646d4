import { describe, expect, it } from "vitest";
import {
  canonicalJson,
  DEPTH_MAX,
  flawOf,
  isAbsent,
  isRecord,
  parseJson,
  recordOf,
} from "../../shared/planning/json.ts";

/** Around a text, so many objects or lists. */
function nested(levels: number, wrap: (value: unknown) => unknown): unknown {
  let value: unknown = "text";
  for (let level = 0; level < levels; level += 1) value = wrap(value);
  return value;
}
const inObject = (value: unknown) => ({ next: value });
const inList = (value: unknown) => [0, value];

describe("a value of JSON", () => {
  it.each<[unknown, boolean, boolean]>([
    [{}, true, false],
    [{ a: 1 }, true, false],
    [[], false, false],
    ["text", false, false],
    [0, false, false],
    [null, false, true],
    [undefined, false, true],
  ])("%j is an object: %s, and absent: %s", (value, record, absent) => {
    expect([isRecord(value), isAbsent(value)]).toEqual([record, absent]);
    expect(recordOf(value)).toEqual(record ? value : {});
  });

  it("is read where it is one, and undefined where the text is none", () => {
    expect([parseJson('{"a":[1]}'), parseJson("null"), parseJson("{"), parseJson("")]).toEqual([
      { a: [1] },
      null,
      undefined,
      undefined,
    ]);
  });
});

describe("the canonical text", () => {
  it.each<[unknown, string]>([
    [{ b: [1, { d: 2, c: null }], a: "x" }, '{"a":"x","b":[1,{"d":2}]}'],
    [[], "[]"],
    [{}, "{}"],
    [[[], {}, null], "[[],{},null]"],
    [{ 'a"': { b: undefined, c: false } }, '{"a\\"":{"c":false}}'],
    [[undefined, 0], "[null,0]"],
    [undefined, "null"],
    ["a\n", '"a\\n"'],
  ])("of %j is %s", (value, text) => expect(canonicalJson(value)).toBe(text));
});

describe("a flaw of a value", () => {
  it.each<[unknown]>([["text"], [null], [undefined], [7], [{}], [[]], [{ a: [{ b: null }], proto: 1 }]])(
    "is not in %j",
    (value) => expect(flawOf(value)).toBeUndefined(),
  );

  it("is a level more than are allowed, and is said with its place", () => {
    expect(flawOf(nested(DEPTH_MAX, inObject))).toBeUndefined();
    expect(flawOf(nested(DEPTH_MAX, inList))).toBeUndefined();
    const message = "is nested more than 64 levels deep: write less of it";
    expect(flawOf(nested(DEPTH_MAX + 1, inObject))).toEqual({ path: Array(DEPTH_MAX).fill("next"), message });
    expect(flawOf(nested(DEPTH_MAX + 1, inList))).toEqual({ path: Array(DEPTH_MAX).fill(1), message });
  });

  it("is a field that readers lose, and is said with the object that has it", () => {
    const message = 'has a field "__proto__", which no object can have: take it out';
    const value: unknown = JSON.parse('{"a":[{},{"b":1,"__proto__":{"c":1}}]}');
    expect(flawOf(value)).toEqual({ path: ["a", 1], message });
    expect(flawOf(JSON.parse('{"__proto__":null}'))).toEqual({ path: [], message });
  });

  it("is the first one where there are several", () => {
    const value: unknown = JSON.parse('{"b":{"__proto__":1},"a":{"__proto__":1}}');
    expect(flawOf(value)?.path).toEqual(["b"]);
  });
});
