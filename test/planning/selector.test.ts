import { describe, expect, it } from "vitest";
import {
  compareText,
  describeLabels,
  describeSelector,
  parseNodeRequirements,
  parseSelector,
} from "../../shared/planning/selector.ts";

describe("a comparison of numbers on a node", () => {
  const asks = (operator: string, number: string, label: string) => {
    const { parsed, problems } = parseNodeRequirements([{ key: "cores", operator, values: [number] }], "f");
    expect(problems).toEqual([]);
    return parsed.matches({ cores: label });
  };
  const [zeros, tooManyZeros] = ["0".repeat(62), "0".repeat(63)];

  it.each(["5", "+5", "05", "10", "9223372036854775807", `${zeros}5`])("finds %s more than 4", (label) => {
    expect([asks("Gt", "4", label), asks("Lt", "4", label)]).toEqual([true, false]);
  });

  it.each(["3", "0", "-0", "-5", "-9223372036854775808"])("finds %s less than 4", (label) => {
    expect([asks("Gt", "4", label), asks("Lt", "4", label)]).toEqual([false, true]);
  });

  it.each([
    ...["4", "04", "", "5x", "x5", "5.0", "1e9", " 5", "+", "-", "++5", `${tooManyZeros}5`, `-${tooManyZeros}5`],
    ...["9223372036854775808", "-9223372036854775809"],
  ])("finds %s neither more nor less than 4", (label) => {
    expect([asks("Gt", "4", label), asks("Lt", "4", label)]).toEqual([false, false]);
  });

  it("asks nothing of a node without the label, and finds no number there", () => {
    const requirement = { key: "cores", values: ["4"] };
    for (const operator of ["Gt", "Lt"]) {
      expect(parseNodeRequirements([{ ...requirement, operator }], "f").parsed.matches({})).toBe(false);
    }
  });

  it.each([[null], [undefined], [["1", "2"]], [[""]], [["+4"]], [["4x"]], [["x4"]]])(
    "is a problem with %j",
    (values) => {
      const { problems } = parseNodeRequirements([{ key: "cores", operator: "Gt", values }], "f");
      expect(problems.map(({ field }) => field)).toEqual(["f[0].values"]);
    },
  );
});

describe("a key", () => {
  const fieldsOf = (key: string) =>
    parseSelector({ matchLabels: { [key]: "x" } }, "f").problems.map(({ field }) => field);
  it.each(["a", "A_b.c-d", "example.com/a", `${"p".repeat(253)}/a`, "k".repeat(63)])("may be %s", (key) =>
    expect(fieldsOf(key)).toEqual([]),
  );
  it.each(["-a", "a.", "/a", "Example.com/a", "example.com-/a", `${"p".repeat(254)}/a`, "example.com/", "a/b c"])(
    "may not be %s",
    (key) => expect(fieldsOf(key)).toEqual(["f.matchLabels"]),
  );
});

describe("a selector for a message", () => {
  it("shows labels, of those that no label can be only that they are there, and of many the first ten", () => {
    expect(describeLabels({})).toBe("{}");
    expect(describeLabels({ app: "web", empty: "", "a b": "x\ny" })).toBe('{"app":"web", "empty":"", "a b":…}');
    const many = Object.fromEntries(Array.from({ length: 11 }, (_, index) => [`k${index}`, "v"]));
    expect(describeLabels(many)).toMatch(/^\{"k0":"v", .*"k9":"v" and 1 more\}$/);
  });

  it("is cut after 200 characters", () => {
    expect([describeSelector("a".repeat(200)).length, describeSelector("a".repeat(201)).at(-1)]).toEqual([200, "…"]);
  });
});

describe("the order of texts", () => {
  it("is that of code units, and equal texts are in none", () => {
    expect([compareText("a", "b"), compareText("b", "a"), compareText("B", "a"), compareText("a", "a")]).toEqual([
      -1, 1, -1, 0,
    ]);
  });

  it("makes one text of a selector, however its requirements are written", () => {
    const [first, second, third] = [
      { key: "a", operator: "NotIn", values: ["y", "x"] },
      { key: "a", operator: "Exists" },
      { key: "b", operator: "DoesNotExist" },
    ];
    for (const matchExpressions of [
      [first, second, third],
      [third, second, first],
    ]) {
      expect(parseSelector({ matchExpressions }, "f").parsed.text).toBe("a,a notin (x,y),!b");
    }
  });
});
