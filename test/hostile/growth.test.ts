/**
 * Input of megabytes at every entrance. Nothing is timed: what takes steps in proportion to its input is done in moments, and
 * what takes the square of them runs into the limit of the test, by hours.
 */
import { expect, it } from "vitest";
import { createWebhook } from "../../functions/webhook.ts";
import { redact } from "../../shared/clusters/redact.ts";
import { readJsonPatch, readReplacement } from "../../shared/clusters/scale.ts";
import { hintsFor } from "../../shared/events/changes.ts";
import { bearerTokenOf } from "../../shared/events/signatures.ts";
import { parseClaim } from "../../shared/planning/claim.ts";
import { parseDuration } from "../../shared/planning/duration.ts";
import { fnv1a } from "../../shared/planning/hash.ts";
import { canonicalJson } from "../../shared/planning/json.ts";
import { parsePool } from "../../shared/planning/model.ts";
import {
  HEALING_ANNOTATION,
  isRevisionOf,
  OBJECT_NAME,
  ordinalOf,
  poolsOfRevision,
  REVISION_LABEL,
} from "../../shared/planning/names.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { canonicalQuantity } from "../../shared/planning/quantity.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { withoutNumbers } from "../../shared/planning/wording.ts";
import { readPage } from "../../shared/runtime/pages.ts";
import { ACTING } from "../planning/plans.ts";
import { anObservation, aPool, aSpec, LABELS, someVms } from "../support/builders.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN } from "../support/http-events.ts";

const BYTES = 1_000_000;
/** Text on which an expression that tries every beginning, or every end, would never be done. */
const TEXTS = [
  "a",
  "0",
  "-",
  "1-",
  "a.",
  "a-",
  "-1",
  " ",
  "ab:",
  "://a",
  "=",
  "1h",
  "\u00e9",
  "😀",
  "aZ09-_./",
  "-0-",
  "\n",
].flatMap((part) => {
  const text = part.repeat(Math.ceil(BYTES / part.length));
  return [`${text}!`, `web-${text}-1`];
});

const NAME_READERS: Readonly<Record<string, (text: string) => unknown>> = {
  quantity: canonicalQuantity,
  duration: parseDuration,
  claim: parseClaim,
  "name of an object": (text) => OBJECT_NAME.test(text),
  "name of a revision": (text) => [poolsOfRevision(text), isRevisionOf("web", text)],
  ordinal: (text) => ordinalOf("web", text),
  "bearer token": (text) => bearerTokenOf(`Bearer ${text}`),
  page: (text) => readPage(`limit=${text}&continue=${text}`),
  message: withoutNumbers,
  text: redact,
  "changed object": (text) =>
    hintsFor({
      kind: "vm",
      namespace: "ci",
      name: text,
      statusOnly: false,
      object: { metadata: { name: text, labels: { [REVISION_LABEL]: text } } },
      oldObject: undefined,
    }),
};

it.each(Object.entries(NAME_READERS))("a %s of megabytes is read or refused", (_what, read) => {
  for (const text of TEXTS) read(text);
});

const many = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));
const asked = (count: number) => Object.fromEntries(many(count, (index) => [`key-${index}`, "x"]));

it.each<[string, () => unknown]>([
  ["labels that are asked for", () => aSpec({ selector: { matchLabels: asked(100_000) } })],
  [
    "labels of the template",
    () => aSpec({ virtualMachineTemplate: { metadata: { labels: asked(100_000) }, spec: { template: {} } } }),
  ],
  [
    "expressions",
    () =>
      aSpec({ selector: { matchExpressions: many(50_000, () => ({ key: "app", operator: "Is", values: ["x"] })) } }),
  ],
  [
    "values of an expression",
    () => aSpec({ selector: { matchExpressions: [{ key: "app", operator: "In", values: many(200_000, String) }] } }),
  ],
  [
    "volumes and templates of disks",
    () =>
      aSpec({
        virtualMachineTemplate: {
          metadata: { labels: LABELS },
          spec: {
            dataVolumeTemplates: many(30_000, (index) => ({ metadata: { name: `d${index}` } })),
            template: {
              spec: { volumes: many(30_000, (index) => ({ name: `v${index}`, dataVolume: { name: `d${index}` } })) },
            },
          },
        },
      }),
  ],
  [
    "wrong values",
    () =>
      aSpec({
        virtualMachineTemplate: {
          metadata: { labels: Object.fromEntries(many(100_000, (at) => [`k${at}`, 1])) },
          spec: {},
        },
      }),
  ],
])("a pool with more %s than anybody writes is judged", (_what, make) => {
  const metadata = { name: "web" };
  const { refusal } = judgeReview({ metadata, spec: make() }, { metadata, spec: aSpec() });
  expect((refusal?.message ?? "").length).toBeLessThan(70_000);
});

it("annotations of the size that the API server takes are read", () => {
  const memory = Object.fromEntries(many(6_000, (ordinal) => [ordinal, { count: 1, at: "2026-11-22T09:59:00Z" }]));
  const claim = `{"v":1,"delete":"${many(15_000, (at) => `${at}:beef`).join(" ")}"}`;
  const pool = aPool({
    spec: aSpec({ autohealing: {} }),
    claim,
    annotations: { [HEALING_ANNOTATION]: JSON.stringify(memory) },
  });
  expect(planPass(anObservation({ pool, vms: someVms(500) }), ACTING).actions.map(({ kind }) => kind)).toEqual([
    "writeClaim",
  ]);
});

it("objects of any breadth and depth have a canonical text", () => {
  const deep = JSON.parse(`${'{"a":'.repeat(500_000)}1${"}".repeat(500_000)}`);
  const text = canonicalJson([deep, many(500_000, () => [])]);
  expect([text.length > BYTES, fnv1a(text).length]).toEqual([true, 16]);
  expect(
    parsePool({
      metadata: { name: "web", namespace: "ci", uid: "u", resourceVersion: "1", generation: 1 },
      spec: deep,
    }),
  ).toBeDefined();
});

it("a scale's body of a thousand times its size is refused, one of many operations, too", () => {
  const at = { namespace: "ci", name: "web" };
  const operations = many(100_000, () => ({ op: "x", path: "/", value: "y" }));
  expect(readJsonPatch(Buffer.from(JSON.stringify(operations)), at).ok).toBe(false);
  expect(readReplacement(Buffer.from(JSON.stringify({ spec: asked(100_000) })), at)).toMatchObject({
    ok: false,
    status: { message: expect.stringMatching(/^.{0,1000}$/) },
  });
});

it.each([
  [
    "many audit events",
    { apiVersion: "audit.k8s.io/v1", kind: "EventList", items: many(10_000, () => ({ stage: "x".repeat(200) })) },
  ],
  ["one of many fields", { apiVersion: "audit.k8s.io/v1", kind: "EventList", items: [asked(100_000)] }],
  ["a deep one", `${"[".repeat(BYTES / 2)}${"]".repeat(BYTES / 2)}`],
])("a request to the webhook with %s is answered", async (_what, body) => {
  const headers = { authorization: `Bearer ${BEARER_TOKEN}` };
  const event = anHttpEvent({ parameters: { cluster: "west" }, headers, body });
  expect((await createWebhook(aListener().deps)(event, aContext())).statusCode).toBe(400);
});
