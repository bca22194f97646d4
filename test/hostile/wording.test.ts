import { expect, it } from "vitest";
import { describeProblems } from "../../shared/planning/errors.ts";
import { reportStatus } from "../../shared/planning/status.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { quoted, shorten } from "../../shared/planning/wording.ts";
import { describeError } from "../../shared/runtime/logger.ts";
import { aPool, aSpec, type Json, LABELS, NOW } from "../support/builders.ts";

const LONG = "x".repeat(400_000);
/** What stands in the wrong field by a slip: a script with a password in it, a token. */
const SCRIPT = "#cloud-config\npassword: hunter2\n";
const TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.hunter2";

const labelled = (labels: Json) => ({ metadata: { labels }, spec: { template: {} } });
const longLabels = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`key-${index}`, "v".repeat(60)]));

it.each<[string, Json]>([
  ["a value", { replicas: LONG }],
  ["a label", { virtualMachineTemplate: labelled({ app: LONG }) }],
  ["a label's key", { selector: { matchLabels: { [LONG]: "web" } } }],
  ["a key of a text that is none", { selector: { matchLabels: { [LONG]: 1 } } }],
  ["a label that is asked for", { selector: { matchLabels: { app: LONG } } }],
  ["an operator", { selector: { matchExpressions: [{ key: "app", operator: LONG }] } }],
  ["many unknown fields", { selector: Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`f${at}`, 1])) }],
  ["a percentage", { maxUnavailable: `${LONG}%` }],
  ["a duration", { autohealing: { minFailingToStartDuration: LONG } }],
  [
    "a selector of many labels",
    { selector: { matchLabels: longLabels }, virtualMachineTemplate: labelled(longLabels) },
  ],
])("%s of any length makes a short message", (_what, fields) => {
  const pool = aPool({ spec: aSpec(fields) });
  const verdict = judge(pool);
  expect(verdict.legal).toBe(false);
  const { status, announcements } = reportStatus({
    now: NOW,
    pool,
    verdict,
    members: undefined,
    failures: [],
    by: "a",
  });
  expect(status.conditions?.[0]?.message?.length).toBeLessThan(3_000);
  expect(JSON.stringify([verdict, status, announcements]).length).toBeLessThan(20_000);
});

it.each<[string, Json]>([
  ["replicas", { replicas: TOKEN }],
  ["paused", { paused: SCRIPT }],
  ["the selector", { selector: SCRIPT }],
  ["a label that is asked for", { selector: { matchLabels: { app: SCRIPT } } }],
  ["a label of the template", { virtualMachineTemplate: labelled({ app: SCRIPT }) }],
  ["the template", { virtualMachineTemplate: TOKEN }],
  ["a template's metadata", { virtualMachineTemplate: { metadata: TOKEN, spec: { template: {} } } }],
  [
    "a volume",
    { virtualMachineTemplate: { metadata: { labels: LABELS }, spec: { template: { spec: { volumes: [TOKEN] } } } } },
  ],
  ["an object for a text", { autohealing: { minFailingToStartDuration: { userData: SCRIPT } } }],
  ["a duration", { autohealing: { minFailingToStartDuration: TOKEN } }],
  ["a percentage", { maxUnavailable: `${TOKEN}%` }],
  ["a sort policy", { scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: TOKEN } } } }],
])("a secret in the place of %s is not repeated", (_what, fields) => {
  const verdict = judge(aPool({ spec: aSpec(fields) }));
  expect(verdict.legal).toBe(false);
  expect(JSON.stringify(verdict)).not.toContain("hunter2");
});

it("a word in the place of a switch or a number is repeated: the owner is to find it", () => {
  const verdict = judge(aPool({ spec: aSpec({ paused: "yes", replicas: "3" }) }));
  expect(verdict.legal ? "" : describeProblems(verdict.problems)).toBe(
    'spec.replicas: must be a number, not "3"; spec.paused: must be true or false, not "yes"',
  );
});

it("what is cut is cut between characters, so that it comes back from the API as it was sent", () => {
  const cut = shorten("😀".repeat(10), 4);
  expect([cut.isWellFormed(), cut.length]).toEqual([true, 4]);
  expect(shorten("abcd", 4)).toBe("abcd");
});

it.each(["a\u0000b", "a\u202eb", "a\nb", "a\u2028b", "\ud800"])(
  "signs that are no part of a name are not repeated: %j",
  (text) => {
    expect(quoted(text)).toBe(`a text of ${text.length} characters`);
  },
);

it("a message of several lines hides nothing of where an error was thrown", () => {
  const described = describeError(new Error(`one\n${LONG}\nsecret`));
  expect(described["where"]).toEqual([
    expect.stringMatching(/^at /),
    expect.stringMatching(/^at /),
    expect.stringMatching(/^at /),
  ]);
});
