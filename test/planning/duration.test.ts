import { describe, expect, it } from "vitest";
import { parseDuration } from "../../shared/planning/duration.ts";

describe("parseDuration", () => {
  it.each([
    ["5m", 300_000],
    ["1h30m", 5_400_000],
    ["1m1h", 3_660_000],
    ["300ms", 300],
    ["1.5h", 5_400_000],
    [".5s", 500],
    ["1.s", 1_000],
    ["+2s", 2_000],
    ["-2s", -2_000],
    ["0", 0],
    ["-0", 0],
    ["0s", 0],
    ["-0s", 0],
    ["1h".repeat(50), 50 * 3_600_000],
    ["1500us", 1.5],
    ["1500\u00b5s", 1.5],
    ["1500\u03bcs", 1.5],
    ["1ns", 0.000001],
    ["2562047h", 2_562_047 * 3_600_000],
  ])("reads %j as %d ms", (text, expected) => {
    expect(parseDuration(text)).toBe(expected);
  });

  it.each([
    ...["", "+", "banana", "5", "5 m", " 5m", "5m ", "1d", "1h-5m", "--5m", ".s", "5M", "1e3s", "NaNs", "2562048h"],
    ...["9223372036854775808ns", `${"1h".repeat(49)}10h`],
  ])("does not take %j for a duration", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });
});
