import { expect, it } from "vitest";
import { type Console, createConsole } from "../../infra/local/console.ts";
import type { Progress } from "../../infra/local/control-plane/progress.ts";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { anObservation, aPool, someVms } from "../support/builders.ts";
import { aWakeUp } from "../support/handlers.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they move the cursor
const SEQUENCE = /(\u001b\[-?\d*[A-Z]|\n)/;
const ESCAPE = "\u001b[";

/** A stream that keeps what is written to it. */
function aStream(isTTY: boolean, columns = 80): { readonly stream: NodeJS.WriteStream; text(): string } {
  const written: string[] = [];
  const stream: NodeJS.WriteStream = Object.create(process.stdout, {
    isTTY: { value: isTTY },
    columns: { value: columns },
    write: { value: (text: unknown) => written.push(String(text)) > 0 },
  });
  return { stream, text: () => written.join("") };
}

function aConsole(isTTY: boolean, columns = 80) {
  const [out, err] = [aStream(isTTY, columns), aStream(isTTY, columns)];
  return { shown: createConsole(out.stream, err.stream), out: out.text, err: err.text };
}

/** What stands on the screen after all that was written: control sequences are obeyed. */
function screenOf(text: string): readonly string[] {
  const rows = [""];
  for (const part of text.split(SEQUENCE)) {
    if (part === "\n") rows.push("");
    else if (part.endsWith("J") && part.startsWith(ESCAPE)) rows[rows.length - 1] = "";
    else if (!part.startsWith(ESCAPE)) rows[rows.length - 1] += part;
  }
  return rows;
}

function aProgress(phase: Progress["phase"], elapsedMs: number, detail?: string): Progress {
  return { step: "building etcd", phase, elapsedMs, ...(detail === undefined ? {} : { detail }) };
}

function aResult(fields: Partial<PassResult> = {}): PassResult {
  return {
    outcome: "reconciled",
    pool: undefined,
    view: undefined,
    decisions: [],
    actions: {},
    resourceVersion: undefined,
    status: undefined,
    statusChanged: false,
    failures: [],
    secondWriter: undefined,
    unreadable: undefined,
    complete: true,
    again: false,
    ...fields,
  };
}

/** Everything that a session says. */
function speak(shown: Console): void {
  shown.line("starting");
  shown.progress(aProgress("begun", 0));
  for (let elapsedMs = 500; elapsedMs < 25_000; elapsedMs += 500)
    shown.progress(aProgress("going", elapsedMs, "7 of 9"));
  shown.progress(aProgress("finished", 25_000));
  shown.live("  web: desired 3, current 0, ready 0");
  shown.live("  web: desired 3, current 0, ready 0");
  shown.live("  web: desired 3, current 3, ready 3");
  shown.pass(aWakeUp(), aResult({ decisions: ["create web-0: 3 machines are missing"] }), false);
  shown.endLive();
  shown.error("something is wrong");
  shown.line("stopping …");
}

it("prints plain lines without a terminal: no control characters, each change once", () => {
  const { shown, out, err } = aConsole(false);
  speak(shown);

  expect(out()).not.toMatch(CONTROL);
  expect(err()).toBe("something is wrong\n");
  expect(out().replace(/\d\d:\d\d:\d\d/, "12:00:00")).toBe(
    [
      "starting",
      "  … building etcd: 7 of 9 (10.0 s)",
      "  … building etcd: 7 of 9 (20.0 s)",
      "  ✓ building etcd (25.0 s)",
      "  web: desired 3, current 0, ready 0",
      "  web: desired 3, current 3, ready 3",
      "12:00:00  ci/web  create web-0: 3 machines are missing",
      "stopping …",
      "",
    ].join("\n"),
  );
});

it("shows progress in one changing line on a terminal, which is gone at the end", () => {
  const { shown, out } = aConsole(true);
  speak(shown);

  expect(out()).toContain(ESCAPE);
  expect(screenOf(out()).map((row) => row.replace(/\d\d:\d\d:\d\d/, "12:00:00"))).toEqual([
    "starting",
    "  ✓ building etcd (25.0 s)",
    "12:00:00  ci/web  create web-0: 3 machines are missing",
    "stopping …",
    "",
  ]);
});

it("keeps the changing line below others, and within the terminal", () => {
  const { shown, out } = aConsole(true, 30);
  shown.live("x".repeat(50));
  shown.line("above");

  expect(screenOf(out())).toEqual(["above", "x".repeat(29)]);
});

it("says that a step failed, and why", () => {
  const { shown, out } = aConsole(false);
  shown.progress(aProgress("begun", 0));
  shown.progress(aProgress("failed", 1_234, "no answer"));

  expect(out()).toBe("  ✗ building etcd: no answer (1.2 s)\n");
});

/** The lines of these passes without their time. */
function passLines(results: readonly PassResult[], wouldOnly = false): readonly string[] {
  const { shown, out } = aConsole(false);
  for (const result of results) shown.pass(aWakeUp(), result, wouldOnly);
  const lines = out().split("\n").slice(0, -1);
  expect(lines.every((line) => /^\d\d:\d\d:\d\d {2}/.test(line))).toBe(true);
  return lines.map((line) => line.slice(10));
}

it("says what a pass decided, and nothing of the claim", () => {
  const decisions = ["write the claim: before machines are created or deleted", "create web-0: 1 machine is missing"];

  expect(passLines([aResult({ decisions })])).toEqual(["ci/web  create web-0: 1 machine is missing"]);
});

it("says nothing of a pass that decided nothing", () => {
  expect(passLines([aResult()])).toEqual([]);
});

it("says once what goes on holding, and again when it comes back", () => {
  const held = aResult({ decisions: ["held: spec.selector: no"] });

  expect(passLines([held, held])).toHaveLength(1);
  expect(passLines([held, aResult(), held])).toHaveLength(2);
});

it("keeps the words of several pools apart", () => {
  const { shown, out } = aConsole(false);
  const held = aResult({ decisions: ["held: no"] });
  for (const name of ["web", "api", "web", "api"]) shown.pass(aWakeUp({ name }), held, false);

  expect(out().split("\n").slice(0, -1)).toHaveLength(2);
});

it("says what it would do where it may not act", () => {
  expect(passLines([aResult({ decisions: ["create web-0: 1 machine is missing"] })], true)).toEqual([
    "ci/web  would create web-0: 1 machine is missing",
  ]);
});

it("gives a reason as it stands, where it may not act too, and once a pass", () => {
  const seen = anObservation({ pool: aPool({ deleting: true }), vms: someVms(1) });
  const plan = planPass(seen, { createsMax: 9, deletesMax: 9, updatesMax: 9, restartsMax: 9 });
  const looks = [...plan.reasons, "drop the finalizer of web-0: it goes", ...plan.reasons];
  const result = aResult({ decisions: looks, view: { seen, plan } });

  expect(plan.reasons).toHaveLength(1);
  expect(passLines([result], true)).toEqual([
    `ci/web  ${plan.reasons[0]}`,
    "ci/web  would drop the finalizer of web-0: it goes",
  ]);
});

it("shows eight lines of a pass and counts the rest", () => {
  const decisions = Array.from({ length: 20 }, (_, ordinal) => `create web-${ordinal}: 20 machines are missing`);
  const lines = passLines([aResult({ decisions })]);

  expect(lines).toHaveLength(9);
  expect(lines.at(-1)).toBe("ci/web  … and 12 more");
});

it("shows what failed, and what could not be read", () => {
  const failure = { kind: "forbidden", status: 403, definite: true, retryAfterMs: undefined, message: "no" } as const;
  const results = [
    aResult({ failures: ["scaleOut: exceeded quota"] }),
    aResult({ outcome: "unreadable", unreadable: { what: "the pool", failure } }),
  ];

  expect(passLines(results)).toEqual([
    "ci/web  failed: scaleOut: exceeded quota",
    "ci/web  failed: the pool cannot be read: no",
  ]);
});
