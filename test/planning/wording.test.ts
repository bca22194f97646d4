import { describe, expect, it } from "vitest";
import { assertNever, describeProblems } from "../../shared/planning/errors.ts";
import {
  listed,
  pathStep,
  quoted,
  shorten,
  shownType,
  shownValue,
  withoutNumbers,
} from "../../shared/planning/wording.ts";

describe("a name in a message", () => {
  it("stands in quotes, and without them in a path", () => {
    expect([quoted('a"b'), pathStep('a"b')]).toEqual(['"a\\"b"', 'a"b']);
  });

  it("is only counted when it is longer than 100 characters", () => {
    const [long, longer] = ["n".repeat(100), "n".repeat(101)];
    expect([quoted(long), pathStep(long)]).toEqual([JSON.stringify(long), long]);
    expect([quoted(longer), pathStep(longer)]).toEqual(["a text of 101 characters", "(101 characters)"]);
  });

  it.each(["a\nb", "a\tb", "a\u2028b", "\ud800", "a\u202eb"])(
    "is only counted when signs are in it that no name has: %j",
    (text) => {
      expect([quoted(text), pathStep(text)]).toEqual([
        `a text of ${text.length} characters`,
        `(${text.length} characters)`,
      ]);
    },
  );
});

describe("what stands in a field instead of what belongs there", () => {
  it.each<[unknown, string, string]>([
    [undefined, "nothing", "nothing"],
    [null, "nothing", "nothing"],
    [-1.5, "-1.5", "-1.5"],
    [false, "false", "false"],
    [["a"], "a list", "a list"],
    [{ a: 1 }, "an object", "an object"],
    ["", '""', '""'],
    ["yes", '"yes"', "a text"],
    ["25.5 % +-_", '"25.5 % +-_"', "a text"],
    ["12345678901234567890", '"12345678901234567890"', "a text"],
    ["123456789012345678901", "a text", "a text"],
    ["pass:word", "a text", "a text"],
    ["yes\n", "a text", "a text"],
  ])("%j is %s, and %s where it may be a secret", (value, shown, type) => {
    expect([shownValue(value), shownType(value)]).toEqual([shown, type]);
  });
});

describe("a text that is too long", () => {
  it("ends in a sign for the rest, within the length", () => {
    expect([shorten("abcd", 4), shorten("abcde", 4), shorten("", 0)]).toEqual(["abcd", "abc…", ""]);
  });

  it("is never cut into half a character", () => expect(shorten("a😀😀", 3)).toBe("a\ufffd…"));
});

describe("a text without its numbers", () => {
  it.each([
    ["connect to 10.0.0.1:443 failed", "connect to # failed"],
    ["at 2026-11-22T10:00:00Z", "at #"],
    ["at 2026-11-22T10:00:01.5Z", "at #"],
    ["object 0c5b7a39-2f4e-4c11-9d8a-0b1c2d3e4f50 is gone", "object # is gone"],
    ["server fd00::1 is away", "server # is away"],
    ["after 17 tries, 3,000 ms", "after # tries, #,# ms"],
    ["web-10 is older than web2a34", "web-# is older than web#a#"],
    ["spec.volumes[12].name at [3]", "spec.volumes[12].name at [3]"],
    ["a face, a cafe: dead", "a face, a cafe: dead"],
    ["nothing to see", "nothing to see"],
  ])("of %j is %j", (text, without) => expect(withoutNumbers(text)).toBe(without));
});

describe("a list in words", () => {
  it.each<[readonly string[], string]>([
    [[], ""],
    [["a"], "a"],
    [["a", "b"], "a, b"],
    [["a", "b", "c"], "a, b and 1 more"],
    [["a", "b", "c", "d"], "a, b and 2 more"],
  ])("of %j names two", (texts, words) => expect(listed(texts, 2)).toBe(words));
});

describe("a member of a union that no switch handles", () => {
  it("is an error that shows it, should it come in from outside", () => {
    expect(() => Reflect.apply(assertNever, undefined, [{ kind: "new" }])).toThrow(
      'unhandled member of a union: {"kind":"new"}',
    );
  });
});

describe("problems in one line", () => {
  const problems = (count: number) =>
    Array.from({ length: count }, (_, index) => ({ field: `f${index}`, message: "m" }));

  it("are told with their fields, and without where there is none", () => {
    const told = describeProblems([
      { field: "", message: "all of it" },
      { field: "spec.a", message: "bad" },
    ]);
    expect(told).toBe("all of it; spec.a: bad");
    expect(describeProblems([])).toBe("");
  });

  it("are the first twenty and the number of the others", () => {
    expect(describeProblems(problems(20))).toMatch(/; f19: m$/);
    expect(describeProblems(problems(21))).toMatch(/; f19: m; and 1 more$/);
  });

  it("are cut, each for itself", () => {
    const told = describeProblems([
      { field: "a", message: "x".repeat(5_000) },
      { field: "b", message: "short" },
    ]);
    expect(told).toHaveLength(3_000 + "; b: short".length);
    expect(told).toMatch(/x…; b: short$/);
  });
});
