/** What runs the deployment packages does what Lambda does: otherwise their tests would say nothing of Lambda. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, type TestContext } from "vitest";
import { zipFile } from "../../infra/package/zip.ts";
import { type Lambda, type LambdaOptions, prepareLambda } from "../support/lambda-runtime.ts";

let folder: string;
let packed = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "packages-"));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** A function of this source, with 128 MB and two seconds unless told otherwise. */
async function aLambda(test: TestContext, source: string, changes: Partial<LambdaOptions> = {}): Promise<Lambda> {
  packed += 1;
  const zip = join(folder, `${packed}.zip`);
  await writeFile(zip, zipFile("sample.mjs", Buffer.from(source)));
  const lambda = await prepareLambda({
    functionName: "sample",
    zip,
    handler: "sample.handler",
    memoryMb: 128,
    timeoutMs: 2_000,
    environment: { GREETING: "hello" },
    region: "eu-central-1",
    account: "123456789012",
    accessKeyId: "key",
    endpoint: "http://127.0.0.1:1",
    ...changes,
  });
  test.onTestFinished(() => lambda.stop());
  return lambda;
}

/** The function returns or throws what the expression says. */
function handlerOf(expression: string): string {
  return `export const handler = async (event, context) => (${expression});`;
}

describe("a function", () => {
  it("gets the event and a context whose time runs out", async (test) => {
    const lambda = await aLambda(test, handlerOf("{ event, ...context, left: context.getRemainingTimeInMillis() }"));
    const { outcome, initMs } = await lambda.invoke({ pool: "web" });
    expect(initMs).toBeGreaterThan(0);
    expect(outcome).toMatchObject({
      kind: "answered",
      answer: {
        event: { pool: "web" },
        functionName: "sample",
        memoryLimitInMB: "128",
        invokedFunctionArn: "arn:aws:lambda:eu-central-1:123456789012:function:sample",
        awsRequestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
        left: expect.toSatisfy((left: number) => left > 0 && left <= 2_000),
      },
    });
  });

  it("keeps what it has made for the next call, which finds it warm", async (test) => {
    const lambda = await aLambda(test, `let calls = 0; ${handlerOf("++calls")}`);
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: 1 } });
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: 2 }, initMs: undefined });
  });

  it("stands still between two calls", async (test) => {
    const ticking = "let ticks = 0; setInterval(() => { ticks += 1; }, 5);";
    const lambda = await aLambda(test, `${ticking} ${handlerOf("ticks")}`);
    const ticksAt = async () => {
      const { outcome } = await lambda.invoke({});
      return outcome.kind === "answered" ? Number(outcome.answer) : Number.NaN;
    };
    const before = await ticksAt();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    // A timer that is due fires at once; those that it has missed never do.
    expect((await ticksAt()) - before).toBeLessThan(100);
  });

  it("sees its own variables and those of Lambda, and nothing of whoever runs it", async (test) => {
    const lambda = await aLambda(test, handlerOf("process.env"));
    const { outcome } = await lambda.invoke({});
    expect(outcome).toMatchObject({
      answer: { GREETING: "hello", AWS_REGION: "eu-central-1", _HANDLER: "sample.handler" },
    });
    expect(outcome.kind === "answered" && Object.keys(Object(outcome.answer))).not.toContain("HOME");
  });

  it("has its printed lines told apart by call", async (test) => {
    const lambda = await aLambda(test, handlerOf("console.log(event.say)"), { logFormat: "JSON" });
    for (const say of ["one", "two"]) {
      const { printed } = await lambda.invoke({ say });
      expect(JSON.parse(printed)).toMatchObject({ level: "INFO", message: say });
    }
  });
});

describe("a package is on its own", () => {
  it.for([
    {
      what: "a library that is not in it",
      source: 'import "zod"; export const handler = async () => 1;',
      error: "Cannot find package 'zod'",
    },
    {
      what: "a file of the machine",
      source:
        'import { readFileSync } from "node:fs"; readFileSync("/etc/hostname"); export const handler = async () => 1;',
      error: "Access to this API has been restricted",
    },
  ])("and does not find $what", async ({ source, error }, test) => {
    const lambda = await aLambda(test, source);
    expect(await lambda.invoke({})).toMatchObject({
      outcome: { kind: "failed", errorMessage: expect.stringContaining(error) },
    });
  });

  it("and may write to its temporary folder", async (test) => {
    const writing =
      'import { writeFileSync } from "node:fs"; import { tmpdir } from "node:os"; writeFileSync(tmpdir() + "/file", "");';
    const lambda = await aLambda(test, `${writing} ${handlerOf("1")}`);
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: 1 } });
  });
});

describe("a call that goes wrong", () => {
  it("says what was thrown, and the instance stays", async (test) => {
    const source =
      "export const handler = async ({ bad }) => { if (bad) throw new RangeError('too much'); return 'fine'; };";
    const lambda = await aLambda(test, source);
    expect(await lambda.invoke({ bad: true })).toMatchObject({
      outcome: { kind: "failed", errorType: "RangeError", errorMessage: "too much" },
    });
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: "fine" }, initMs: undefined });
  });

  it("is ended at its deadline, and the next begins anew", async (test) => {
    const source =
      "let calls = 0; export const handler = async ({ hang }) => { calls += 1; if (hang) for (;;); return calls; };";
    const lambda = await aLambda(test, source, { timeoutMs: 300 });
    expect(await lambda.invoke({ hang: true })).toMatchObject({
      outcome: {
        errorType: "Sandbox.Timedout",
        errorMessage: expect.stringMatching(/ Task timed out after 0\.30 seconds$/),
      },
    });
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: 1 }, initMs: expect.any(Number) });
  });

  it("fails when the process ends by itself, and the next begins anew", async (test) => {
    const lambda = await aLambda(test, handlerOf("event.bad ? process.exit(3) : 'fine'"));
    expect(await lambda.invoke({ bad: true })).toMatchObject({
      outcome: { errorType: "Runtime.ExitError", errorMessage: expect.stringContaining("exit status 3") },
    });
    expect(await lambda.invoke({})).toMatchObject({ outcome: { answer: "fine" }, initMs: expect.any(Number) });
  });

  it("fails when it takes more memory than there is", async (test) => {
    const source =
      "const kept = []; export const handler = async () => { for (;;) kept.push(new Array(1e5).fill({})); };";
    const lambda = await aLambda(test, source, { timeoutMs: 60_000 });
    expect(await lambda.invoke({})).toMatchObject({
      outcome: { errorType: "Runtime.ExitError" },
      printed: expect.stringContaining("heap out of memory"),
    });
  });

  it("fails when there is no such handler", async (test) => {
    const lambda = await aLambda(test, handlerOf("1"), { handler: "sample.other" });
    expect(await lambda.invoke({})).toMatchObject({
      outcome: { errorType: "Runtime.HandlerNotFound", errorMessage: "sample.other is undefined or not exported" },
    });
  });

  it("fails when the answer is larger than Lambda's", async (test) => {
    const lambda = await aLambda(test, handlerOf("'x'.repeat(7 * 1024 * 1024)"));
    expect(await lambda.invoke({})).toMatchObject({ outcome: { errorType: "Function.ResponseSizeTooLarge" } });
  });
});
