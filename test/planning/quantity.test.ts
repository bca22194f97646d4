import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalQuantity } from "../../shared/planning/quantity.ts";

const SAME: readonly (readonly unknown[])[] = [
  ["1Gi", "1024Mi", "1048576Ki", "1073741824", 1_073_741_824, "1.0Gi", "+1Gi", "01Gi"],
  ["1", 1, "1000m", "1000000u", "1000000000n", "1e0", "10e-1", "1.", "0.001k", "1".padStart(100, "0")],
  ["0.5", ".5", "500m", "5e-1", 0.5],
  ["1.5Gi", "1536Mi"],
  ["1E", "1e18", "1000P", "1E18", "1E+18"],
  ["1Ei", "1024Pi", "1152921504606846976"],
  ["1k", "1e3", "1000"],
  ["2M", "2000k"],
  ["3G", "3000M"],
  ["4T", "4000G"],
  ["5P", "5000T"],
  ["6Pi", "6144Ti"],
  ["0", 0, "0Gi", "-0", "0.000", "0e9"],
  ["-1", -1, "-1000m"],
  ["1e21", 1e21, "1000E"],
];

const DIFFERENT: readonly (readonly [unknown, unknown])[] = [
  ["1G", "1Gi"],
  ["1m", "1M"],
  ["1", "-1"],
  ["1E", "1Ei"],
  ["9007199254740993", "9007199254740992"],
  ["1n", "2n"],
  ["0.1", "0.10000000000000001"],
];

const NONE: readonly unknown[] = [
  ...["", "Gi", "-", ".", "1gi", "1 Gi", " 1", "1e", "1e1.5", "1Kii", "1mi", "0x10", "NaN", "1,5", "1e9999999999"],
  ...["9".repeat(101), Number.NaN, Number.POSITIVE_INFINITY, true, null, undefined, {}, ["1"]],
];

describe("a quantity", () => {
  for (const texts of SAME) {
    it(`is the same however it is written: ${texts.map(String).join(", ")}`, () => {
      const [first] = texts;
      expect(canonicalQuantity(first)).toBeDefined();
      for (const text of texts) expect(canonicalQuantity(text)).toBe(canonicalQuantity(first));
    });
  }

  for (const [a, b] of DIFFERENT) {
    it(`is another: ${a} and ${b}`, () => expect(canonicalQuantity(a)).not.toBe(canonicalQuantity(b)));
  }

  for (const text of NONE) {
    it(`is not ${typeof text === "string" ? JSON.stringify(text.slice(0, 20)) : String(text)}`, () =>
      expect(canonicalQuantity(text)).toBeUndefined());
  }

  it("is a fixed point of its canonical text, whatever its size", () =>
    fc.assert(
      fc.property(fc.bigInt(), fc.constantFrom("", "n", "m", "k", "E", "Ki", "Ei", "e-7", "E12"), (number, suffix) => {
        const text = canonicalQuantity(`${number}${suffix}`);
        expect(text === undefined ? "too long" : canonicalQuantity(text)).toBe(text ?? "too long");
      }),
    ));

  it("is as much as its number of the next smaller unit", () =>
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom("Gi/Mi", "Ki/", "Ei/Pi"), (number, units) => {
        const [big = "", small = ""] = units.split("/");
        expect(canonicalQuantity(`${number}${big}`)).toBe(canonicalQuantity(`${number * 1024}${small}`));
      }),
    ));
});
