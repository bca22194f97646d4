import { inspect } from "node:util";
import { expect, it } from "vitest";
import * as z from "zod";
import { describeError } from "../../shared/runtime/logger.ts";
import { once } from "../../shared/runtime/once.ts";
import { createStack } from "../../shared/runtime/stack.ts";
import { aContext, aLog } from "../support/handlers.ts";

const EVENT = z.object({ pool: z.string(), count: z.int() });

/** A function of two lines behind the stack, and its log. */
function aFunction(handle: (event: z.output<typeof EVENT>) => Promise<unknown> = async (event) => event) {
  const log = aLog();
  return { log, run: createStack({ name: "sample", event: EVENT, logger: () => log }, handle) };
}

it("hands on the parsed event, and returns what the function returns", async () => {
  const { run, log } = aFunction(async ({ pool, count }) => `${pool} ${count}`);

  expect(await run({ pool: "web", count: 2, addedLater: true }, aContext())).toBe("web 2");
  expect(log.lines).toEqual([]);
});

it("refuses an event of another form: all fields are named, no value is", async () => {
  const { run, log } = aFunction();
  const running = run({ pool: ["s3cr3t"], count: "s3cr3t" }, aContext());

  await expect(running).rejects.toMatchObject({
    name: "EventError",
    message: expect.stringMatching(/^the event of sample is not of the expected form: pool: .*; count: /),
  });
  expect(log.lines).toMatchObject([
    { level: "error", message: "function failed", fields: { function: "sample", error: "EventError" } },
  ]);
  expect(JSON.stringify(log.lines)).not.toContain("s3cr3t");
});

it("passes on and logs the name and message of an unexpected error only, since the runtime logs what it gets", async () => {
  const error = Object.assign(new TypeError("a bug"), { headers: { authorization: "s3cr3t" }, body: "s3cr3t" });
  const { run, log } = aFunction(async () => {
    throw error;
  });

  const thrown: unknown = await run({ pool: "web", count: 1 }, aContext()).catch((reason: unknown) => reason);
  expect(thrown).toMatchObject({ name: "TypeError", message: "a bug", stack: error.stack });
  expect(inspect(thrown, { showHidden: true, depth: null })).not.toContain("s3cr3t");
  expect(log.lines).toMatchObject([{ fields: { error: "TypeError", message: "a bug" } }]);
  expect(JSON.stringify(log.lines)).not.toContain("s3cr3t");
});

it.each([["text"], [undefined], [null], [{ authorization: "s3cr3t" }]])(
  "describes a thrown %j without showing it",
  (thrown) => {
    expect(describeError(thrown)).toEqual({ error: "a value that is not an Error was thrown" });
  },
);

it("cuts a long message, and says where it was thrown", () => {
  const described = describeError(new RangeError("x".repeat(2_000)));

  expect(described["message"]).toBe(`${"x".repeat(499)}…`);
  expect(described["where"]).toEqual([expect.stringMatching(/^at /), expect.any(String), expect.any(String)]);
});

it("makes something once, when it is first asked for", () => {
  let made = 0;
  const given = once(() => {
    made += 1;
    return { made };
  });
  expect(made).toBe(0);

  expect(given()).toBe(given());
  expect(made).toBe(1);
});

it("keeps undefined too, and tries again after a failure", () => {
  const answers = [() => fail(), () => undefined];
  let asked = 0;
  const given = once(() => {
    asked += 1;
    return answers[asked - 1]?.();
  });

  expect(given).toThrow("not yet");
  given();
  given();
  expect(asked).toBe(2);
});

function fail(): never {
  throw new RangeError("not yet");
}
