import { expect, it } from "vitest";
import { runPlan } from "../../infra/cli/plan.ts";
import { parsePlanOptions } from "../../infra/cli/plan-options.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { aWire, networkError, on, refusal, type Wire, writesOf } from "../support/transport.ts";
import {
  aClaimText,
  aClusterWith,
  aList,
  aPool,
  aSettledPool,
  aVm,
  DISCOVERY,
  INSTANCES,
  NOW,
  poolPath,
  REVISIONS,
  served,
  VMS,
} from "../support/transport-objects.ts";

const GET_POOL = `GET ${poolPath()}`;
const GONE = refusal(404, "NotFound");

/** Runs the command on a cluster; nothing that it does may ever send a write. */
async function plan(wire: Wire, args: readonly string[], input?: unknown) {
  const parsed = parsePlanOptions(args);
  if (parsed.kind !== "options") throw new Error("the test's own options are wrong");
  const outcome = await runPlan(parsed.options, {
    access: { server: "https://api.example", auth: { kind: "token", token: "s3cr3t" }, mode: "observe" },
    contextNamespace: "ci",
    connect: () => wire,
    readText: async () => (typeof input === "string" ? input : JSON.stringify(input)),
    now: () => NOW,
  });
  expect(writesOf(wire)).toEqual([]);
  expect(wire.closed).toBe(1);
  return { ...outcome, json: parseJson(outcome.stdout) };
}

it("shows each action with its reason, and that it is only the first step", async () => {
  const { stdout, exitCode } = await plan(aClusterWith(aPool({ replicas: 2 })), ["web"]);

  expect(exitCode).toBe(1);
  expect(stdout).toBe(`ci/web, generation 1: 2 machines wanted, 0 there, 0 ready
The next pass would begin with:
  write the claim: before machines are created, deleted or restarted
  create revision web-1: machines are to name it
  create web-0: 2 machines are missing
  create web-1: 2 machines are missing
This is the pass's first step. It looks again after each, and later passes follow as machines become ready or go.
`);
});

it("says that nothing would be written to a pool that is as it should be", async () => {
  const { stdout, exitCode } = await plan(aClusterWith(aSettledPool(), [aVm(0)]), ["ci/web"]);

  expect(exitCode).toBe(0);
  expect(stdout).toBe(`ci/web, generation 1: 1 machine wanted, 1 there, 1 ready\nThe next pass would write nothing.\n`);
});

it("says what a pool waits for", async () => {
  const annotations = { [CLAIM_ANNOTATION]: aClaimText({ waitUntil: NOW + 60_000 }) };
  const pool = aPool({ replicas: 2, annotations, finalizers: [POOL_FINALIZER] });

  const { stdout, exitCode } = await plan(aClusterWith(pool, [aVm(0)]), ["web"]);

  expect(exitCode).toBe(0);
  expect(stdout).toContain("waiting until 2026-05-01T12:01:00.000Z: calls of an unknown earlier pass may still land");
});

it("names each problem of a pool that is held, with its field", async () => {
  const pool = aPool({ spec: { maxUnavailable: 0, selector: { matchLabels: { app: "other" } } } });

  const { stdout, exitCode } = await plan(aClusterWith(pool), ["web"]);

  expect(exitCode).toBe(2);
  expect(stdout).toContain("ci/web is held");
  expect(stdout).toMatch(/^ {2}spec\.selector: /m);
  expect(stdout).toMatch(
    /^ {2}spec\.maxUnavailable: maxUnavailable must be greater than 0: write a percentage such as 25%/m,
  );
});

it("answers with JSON that holds no template", async () => {
  const { json, exitCode } = await plan(aClusterWith(aSettledPool(), [aVm(0), aVm(1)]), ["web", "-o", "json"]);

  expect(exitCode).toBe(1);
  expect(json).toEqual({
    namespace: "ci",
    name: "web",
    edit: "none",
    generation: 1,
    machines: { wanted: 1, there: 2, ready: 2, leaving: 0 },
    problems: [],
    actions: [
      expect.objectContaining({ kind: "writeClaim" }),
      {
        kind: "deleteVm",
        machine: expect.stringMatching(/^web-[01]$/),
        why: "the pool has more machines than spec.replicas",
        text: expect.stringMatching(/^delete web-[01]: /),
      },
    ],
    reasons: [],
    notes: [],
  });
});

it.each([
  ["is gone", aClusterWith, "there is no pool ci/web in https://api.example"],
  [
    "cannot be read",
    () => aWire(on(DISCOVERY, served("v1beta1")), on(GET_POOL, refusal(403, "Forbidden", "you may not"))),
    "ci/web cannot be planned: the pool cannot be read: you may not",
  ],
  [
    "is in a cluster that is away",
    () => aWire(on(DISCOVERY, networkError("ECONNREFUSED"))),
    "ci/web cannot be planned: API discovery cannot be read: the API server cannot be reached (ECONNREFUSED)",
  ],
])("fails when the pool %s", async (_how, cluster, message) => {
  expect(await plan(cluster(undefined), ["web"])).toMatchObject({ stdout: "", errors: [message], exitCode: 2 });
});

it("plans the pool as if it were edited: the claim stays, the generation grows", async () => {
  const manifest = aPool({ replicas: 3, uid: "ignored" });

  const { stdout, exitCode } = await plan(aClusterWith(aSettledPool(), [aVm(0)]), ["-f", "pool.yaml"], manifest);

  expect(exitCode).toBe(1);
  expect(stdout).toContain("ci/web as in the manifest, generation 2: 3 machines wanted, 1 there, 1 ready");
  expect(stdout).toContain("  create web-1: 2 machines are missing\n  create web-2: 2 machines are missing\n");
  expect(stdout).not.toContain("create web-0");
});

it("finds nothing to do for a manifest that says what the cluster has", async () => {
  const manifest = { ...aPool(), metadata: { name: "web", creationTimestamp: null } };

  const { stdout, exitCode } = await plan(aClusterWith(aSettledPool(), [aVm(0)]), ["web", "-f", "-"], manifest);

  expect(exitCode).toBe(0);
  expect(stdout).toContain("as in the manifest, generation 1");
});

it("plans a pool that does not exist yet", async () => {
  const { stdout, exitCode } = await plan(aClusterWith(undefined), ["-f", "pool.yaml"], aPool({ replicas: 1 }));

  expect(exitCode).toBe(1);
  expect(stdout).toContain("ci/web, created from the manifest, generation 1: 1 machine wanted, 0 there, 0 ready");
  expect(stdout).toContain("create web-0: 1 machine is missing");
});

it("says what admission would refuse, a new selector included", async () => {
  const labels = { app: "new" };
  const spec = {
    selector: { matchLabels: labels },
    virtualMachineTemplate: { metadata: { labels }, spec: { template: { metadata: { labels }, spec: {} } } },
  };

  const { stdout, exitCode } = await plan(aClusterWith(aSettledPool()), ["-f", "pool.yaml"], aPool({ spec }));

  expect(exitCode).toBe(2);
  expect(stdout).toContain("ci/web as in the manifest is illegal");
  expect(stdout).toContain("  spec.selector: selector is immutable after creation: keep");
});

it("warns when the manifest leaves out how many machines there are to be", async () => {
  const pool = aSettledPool({ replicas: 2 });
  const manifest = aPool({ spec: { replicas: undefined } });

  const { stdout } = await plan(aClusterWith(pool, [aVm(0), aVm(1)]), ["-f", "pool.yaml"], manifest);

  expect(stdout).toContain("1 machine wanted, 2 there");
  expect(stdout).toContain("the manifest does not say spec.replicas, which means 1; the pool asks for 2 now");
});

it("plans every pool of a manifest, whatever is beside them", async () => {
  const service = { apiVersion: "v1", kind: "Service", metadata: { name: "web" } };
  const list = { apiVersion: "v1", kind: "List", items: [aPool({ name: "api" })] };
  const manifest = [service, aPool(), list].map((object) => JSON.stringify(object)).join("\n---\n");
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(GET_POOL, GONE),
    on(`GET ${poolPath("api")}`, refusal(403, "Forbidden", "you may not")),
    on(`GET ${VMS}`, aList([])),
    on(`GET ${INSTANCES}`, aList([])),
    on(`GET ${REVISIONS}/web-1`, GONE),
  );

  const { stdout, errors, exitCode } = await plan(wire, ["-f", "all.yaml"], manifest);

  expect(stdout).toContain("ci/web, created from the manifest");
  expect(errors).toEqual(["ci/api cannot be planned: the pool cannot be read: you may not"]);
  expect(exitCode).toBe(2);
});

it.each([
  [["other", "-f", "f"], aPool(), "f holds ci/web, while ci/other was asked for"],
  [["-n", "other", "-f", "f"], aPool(), "f holds ci/web, while namespace other was asked for"],
  [
    ["-f", "-"],
    { apiVersion: "v1", kind: "Pod" },
    "standard input holds no VirtualMachinePool of pool.kubevirt.io: it holds Pod (v1)",
  ],
  [["-f", "f"], "", "f holds no VirtualMachinePool of pool.kubevirt.io: it holds nothing"],
  [["-f", "f"], "hello", "f is no manifest: a document of it has no apiVersion and kind"],
  [["-f", "f"], "a: b: c", /^f is not YAML: /],
  [["-f", "f"], "a: *nothing", /^f is not YAML: Unresolved alias/],
  [["-f", "f"], { ...aPool(), metadata: {} }, /^a pool of f cannot be read: metadata\.name: /],
])("refuses %j with what is not meant", async (args, manifest, message) => {
  const wire = aWire();

  await expect(plan(wire, args, manifest)).rejects.toThrow(message);
  expect(wire.sent).toEqual([]);
});
