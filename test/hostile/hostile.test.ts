/** The rules of hostile input, with a few thousand inputs each; `npm run fuzz` tries many more. */
import { expect, it } from "vitest";
import { PROPERTIES } from "./properties.ts";

const INPUTS_A_WEIGHT = 600;
/** The same each time, so that a change is to blame for what breaks; `npm run fuzz` takes others. */
const seed = 1;

it.each(PROPERTIES.map((rule) => [rule.name, rule] as const))("%s", async (_name, { weight, run }) => {
  const inputs = weight * INPUTS_A_WEIGHT;
  expect(await run({ inputs, seed }), `seed ${seed}, ${inputs} inputs`).toBeUndefined();
});
