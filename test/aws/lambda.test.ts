/**
 * The whole set as it is deployed: bundled functions as Lambda runs them, configured by the packaged template, between the queues
 * and the bus of moto and a real API server that knows them as EKS knows its callers. At the end each role is judged by the calls made.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { PutEventsCommand } from "@aws-sdk/client-eventbridge";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Bundle, bundleFunctions } from "../../infra/package/bundle.ts";
import { makeTemplate, readTemplate } from "../../infra/package/template.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { eventually } from "../support/eventually.ts";
import type { Invocation, Lambda } from "../support/lambda-runtime.ts";
import { aPool } from "../support/pool-manifests.ts";
import { type Namespace, startTestCluster, type TestCluster, WORLD_TIMEOUT_MS } from "../support/world.ts";
import {
  accessKeyOf,
  type Delivery,
  type Deployment,
  deploy,
  FUNCTIONS,
  type FunctionName,
  type HttpRequest,
  type QueueLogicalId,
} from "./deployment.ts";
import { type EksAuthenticator, startEksAuthenticator } from "./eks-authenticator.ts";
import { busStatementsOf, type Call, isAllowed, type Role, rolesOf, type Statement, unusedPermissions } from "./iam.ts";
import { resourceOf } from "./stack.ts";

const STACK = "vmpool-functions-prod";
const CLUSTER = "prod-eu";
/** The same API server under another name, in another namespace, as a role of another account. */
const FOREIGN = "prod-us";
const FOREIGN_ROLE = "arn:aws:iam::123456789012:role/vmpool-functions-cluster-us";
const PREFIX = "/vmpool-functions/clusters";
const BEARER = "a-bearer-token-that-nobody-guesses";
const PATH_TOKEN = "a-path-token-that-nobody-guesses";
const POOL = "web";

let folder: string;
let authenticator: EksAuthenticator;
let cluster: TestCluster;
let bundles: readonly Bundle[];
let aws: Deployment;
let own: Namespace;
let foreign: Namespace;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "deployment-"));
  authenticator = await startEksAuthenticator("vmpool-functions");
  const { apiserverFlags } = authenticator;
  const startCluster = async () => {
    cluster = await startTestCluster({ standIn: true, webhooks: false, apiserverFlags });
  };
  const [template] = await Promise.all([packageAll(), startCluster()]);
  const { server: endpoint, certificateAuthorityData = "" } = cluster.access;
  aws = await deploy({ template, bundles, stackName: STACK, eks: { endpoint, certificateAuthorityData } });
  authenticator.askAt(aws.endpoint);
  [own, foreign] = [await cluster.aNamespace(undefined), await cluster.aNamespace(undefined)];
  await register();
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  process.stdout.write(formatTable());
  await aws?.stop();
  await cluster?.stop();
  await authenticator?.close();
  await rm(folder, { recursive: true, force: true });
});

/** What `npm run package` makes, in a folder of its own; the template. */
async function packageAll(): Promise<unknown> {
  const zips = join(folder, "zips");
  bundles = await bundleFunctions(zips);
  return readTemplate(await makeTemplate({ zips, folder: join(folder, "template") }));
}

/** As `npm run cluster -- add` writes it. */
async function register(): Promise<void> {
  const webhook = { bearer: [hashSecret(BEARER)], path: [hashSecret(PATH_TOKEN)] };
  const entries = [
    { name: CLUSTER, namespaces: [own.name], auth: { kind: "eks", clusterName: CLUSTER, region: "eu-central-1" } },
    {
      name: FOREIGN,
      namespaces: [foreign.name],
      auth: { kind: "eks", clusterName: FOREIGN, region: "eu-central-1", roleArn: FOREIGN_ROLE },
    },
  ];
  for (const { name, namespaces, auth } of entries) {
    await aws.putEksCluster(name);
    await aws.putParameter(`${PREFIX}/${name}/access`, { auth, namespaces, mode: "act" });
    await aws.putParameter(`${PREFIX}/${name}/webhook`, webhook);
  }
}

interface Measured {
  readonly initMs: number[];
  readonly coldMs: number[];
  readonly warmMs: number[];
  memoryMb: number;
}

const measured = new Map<string, Measured>();

/** The answer of a call that went well; its times go to the table. */
function answerOf(name: FunctionName, { outcome, initMs, durationMs, memoryMb = 0 }: Invocation): unknown {
  if (outcome.kind === "failed") throw new Error(`${name} failed: ${outcome.errorType}: ${outcome.errorMessage}`);
  const entry = measured.get(name) ?? { initMs: [], coldMs: [], warmMs: [], memoryMb: 0 };
  measured.set(name, entry);
  if (initMs === undefined) entry.warmMs.push(durationMs);
  else {
    entry.initMs.push(initMs);
    entry.coldMs.push(durationMs);
  }
  entry.memoryMb = Math.max(entry.memoryMb, memoryMb);
  return outcome.answer;
}

function formatTable(): string {
  const cell = (value: string | number | undefined) =>
    String(typeof value === "number" ? Math.round(value) : (value ?? "")).padStart(10);
  const median = (values: readonly number[]) =>
    values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
  const head = ["zip KB", "init ms", "cold ms", "warm ms", "calls", "memory MB"].map(cell).join("");
  const rows = [...measured].map(([name, { initMs, coldMs, warmMs, memoryMb }]) => {
    const zipBytes = bundles.find((bundle) => bundle.name === name)?.zipBytes ?? 0;
    const cells = [
      zipBytes / 1_000,
      median(initMs),
      median(coldMs),
      median(warmMs),
      coldMs.length + warmMs.length,
      memoryMb,
    ];
    return `${name.padEnd(12)}${cells.map(cell).join("")}`;
  });
  return `\n${"".padEnd(12)}${head}\n${rows.join("\n")}\n`;
}

async function invoke(name: FunctionName, event: unknown): Promise<unknown> {
  return answerOf(name, await (await aws.lambda(name)).invoke(event));
}

interface HttpAnswer {
  readonly statusCode: number;
  readonly body: unknown;
}

async function send(name: FunctionName, request: HttpRequest): Promise<HttpAnswer> {
  const { functionName, event } = aws.route(request);
  expect(functionName).toBe(name);
  const answer = Object(await invoke(name, event));
  return { statusCode: Number(answer.statusCode), body: parseJson(String(answer.body)) };
}

/** A change of the pool as Knative's ApiServerSource tells it. */
function aChange(name: string, namespace: Namespace): Pick<HttpRequest, "headers" | "body"> {
  const headers = {
    authorization: `Bearer ${BEARER}`,
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "6f1c7a52-0000-4000-8000-000000000003",
    "ce-type": "dev.knative.apiserver.resource.update",
    "ce-source": "https://10.96.0.1:443",
    "ce-kind": "VirtualMachinePool",
    "ce-name": name,
    "ce-namespace": namespace.name,
  };
  const metadata = { name, namespace: namespace.name };
  return {
    headers,
    body: JSON.stringify({ apiVersion: "pool.kubevirt.io/v1beta1", kind: "VirtualMachinePool", metadata, spec: {} }),
  };
}

/** Lambda takes one batch of the queue as soon as there is one, and none of it comes again; undefined when the queue is empty. */
async function deliver(queue: "PassesQueue" | "LateQueue"): Promise<Delivery | undefined> {
  let delivery: Delivery | undefined;
  while (delivery === undefined) {
    if ((await aws.countMessages(queue)) === 0) return undefined;
    delivery = await aws.deliver(queue);
  }
  answerOf("reconcile", delivery.invocation);
  expect(delivery.failed).toEqual([]);
  return delivery;
}

/** The bus tells `status` of the facts since the last time. */
async function tellStatus(): Promise<readonly unknown[]> {
  const results: unknown[] = [];
  for (const event of await aws.takeEvents("StatusRule")) results.push(await invoke("status", event));
  return results;
}

/** Queue and bus at work until nothing is left to do; how often `reconcile` was invoked. */
async function drain(): Promise<number> {
  let deliveries = 0;
  for (; (await deliver("PassesQueue")) !== undefined; deliveries += 1) {
    expect(deliveries).toBeLessThan(20);
    await tellStatus();
  }
  return deliveries;
}

describe("a change of a pool", () => {
  it("goes from the webhook over queue, pass and bus to the pool's status", async () => {
    await own.create(aPool(POOL, { replicas: 2 }));
    const answer = await send("webhook", {
      method: "POST",
      path: `/clusters/${CLUSTER}/events`,
      ...aChange(POOL, own),
    });
    expect(answer).toMatchObject({ statusCode: 202, body: { woken: 1 } });

    const delivery = await deliver("PassesQueue");
    expect(delivery?.bodies).toMatchObject([{ cluster: CLUSTER, namespace: own.name, name: POOL, cause: "pool" }]);
    expect((await own.machines()).map(({ metadata }) => metadata.name)).toEqual([`${POOL}-0`, `${POOL}-1`]);

    expect(await tellStatus()).toEqual(["written"]);
    expect(await own.pool(POOL)).toMatchObject({ status: { replicas: 2 } });
    await eventually(async () => {
      for (const machine of await own.machines()) expect(machine).toMatchObject({ status: { ready: true } });
    });
    await invoke("resync", scheduledEvent());
    await drain();
    expect(await own.pool(POOL)).toMatchObject({ status: { replicas: 2, readyReplicas: 2 } });
    expect(await aws.countMessages("PassesQueue")).toBe(0);
  });

  it("reaches a cluster of another account by the role that its entry names", async () => {
    await foreign.create(aPool(POOL, { replicas: 1 }));
    await send("webhook", { method: "POST", path: `/clusters/${FOREIGN}/events`, ...aChange(POOL, foreign) });
    await deliver("PassesQueue");
    expect(await tellStatus()).toEqual(["written"]);
    expect(await foreign.pool(POOL)).toMatchObject({ status: { replicas: 1 } });
    await drain();
    expect(new Set(authenticator.verdicts)).toEqual(
      new Set([
        expect.stringContaining("vmpool-functions-cluster-us"),
        expect.stringMatching(/^arn:aws:sts::123456789012:user/),
      ]),
    );
  });

  it("is let through by admission and wakes the pool at once and later", async () => {
    const before = { passes: await aws.countMessages("PassesQueue"), late: await aws.countMessages("LateQueue") };
    const path = `/clusters/${CLUSTER}/admission/${PATH_TOKEN}`;
    const legal = await send("admission", {
      method: "POST",
      path,
      headers: JSON_TYPE,
      body: aReview(aPool(POOL, { replicas: 3 })),
    });
    expect(legal).toMatchObject({ statusCode: 200, body: { response: { uid: "review-1", allowed: true } } });
    expect(await aws.countMessages("PassesQueue")).toBe(before.passes + 1);
    expect(await aws.countMessages("LateQueue")).toBe(before.late + 1);

    const illegal = await send("admission", {
      method: "POST",
      path,
      headers: JSON_TYPE,
      body: aReview(aPool(POOL, { replicas: -1 })),
    });
    expect(illegal).toMatchObject({ statusCode: 200, body: { response: { uid: "review-1", allowed: false } } });
    expect(await drain()).toBe(1);
  });

  it("stands in the audit log of EKS, which wakes the pool", async () => {
    expect(await invoke("audit", auditLog())).toMatchObject({ woken: 1 });
    expect((await deliver("PassesQueue"))?.bodies).toMatchObject([
      { cluster: CLUSTER, namespace: own.name, name: POOL },
    ]);
  });

  it("is found by the schedule, which looks at every cluster", async () => {
    expect(await invoke("resync", scheduledEvent())).toMatchObject({ clusters: 2, unreachable: 0, pools: 2 });
    await drain();
  });

  it("can be asked for over HTTP, and as an event on the bus", async () => {
    const path = `/clusters/${CLUSTER}/apis/pool.kubevirt.io/v1beta1/namespaces/${own.name}/virtualmachinepools/${POOL}/scale`;
    expect(await send("scale", { method: "GET", path })).toMatchObject({
      statusCode: 200,
      body: { spec: { replicas: 2 } },
    });
    const headers = { "content-type": "application/merge-patch+json" };
    const body = JSON.stringify({ spec: { replicas: 3 } });
    expect(await send("scale", { method: "PATCH", path, headers, body })).toMatchObject({
      statusCode: 200,
      body: { spec: { replicas: 3 } },
    });

    const detail = {
      version: 1,
      cluster: FOREIGN,
      namespace: foreign.name,
      name: POOL,
      replicas: 2,
      requestedAt: new Date().toISOString(),
    };
    await tell({
      Source: "alarms",
      DetailType: "Virtual Machine Pool Scale Requested",
      Detail: JSON.stringify(detail),
    });
    const [event] = await aws.takeEvents("ScaleRule");
    expect(await invoke("scale", event)).toEqual({ outcome: "scaled", replicas: 2 });
    await drain();
    expect(await own.machines()).toHaveLength(3);
    expect(await foreign.machines()).toHaveLength(2);
  });

  it("is looked at once more after the write that a review preceded", async () => {
    expect((await deliver("LateQueue"))?.bodies).toMatchObject([{ cluster: CLUSTER, namespace: own.name, name: POOL }]);
    await drain();
  });

  it("can be seen by people", async () => {
    const pools = [
      { cluster: CLUSTER, namespace: own.name, name: POOL },
      { cluster: FOREIGN, namespace: foreign.name, name: POOL },
    ];
    const all = await send("fleet", { method: "GET", path: "/pools" });
    expect(all).toMatchObject({ statusCode: 200, body: { pools, unreachable: [] } });
    const one = await send("fleet", {
      method: "GET",
      path: `/clusters/${CLUSTER}/namespaces/${own.name}/pools/${POOL}`,
    });
    expect(one).toMatchObject({ statusCode: 200, body: { name: POOL, mode: "act", spec: { replicas: 3 } } });
  });
});

const JSON_TYPE = { "content-type": "application/json" };

function aReview(object: object): string {
  const resource = { group: "pool.kubevirt.io", version: "v1beta1", resource: "virtualmachinepools" };
  const metadata = { name: POOL, namespace: own.name, uid: "uid", resourceVersion: "1", generation: 1 };
  const request = {
    uid: "review-1",
    resource,
    name: POOL,
    namespace: own.name,
    operation: "CREATE",
    object: { ...object, metadata },
  };
  return JSON.stringify({ apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", request });
}

/** What CloudWatch Logs sends a subscription. */
function auditLog(): object {
  const message = {
    kind: "Event",
    apiVersion: "audit.k8s.io/v1",
    level: "Metadata",
    auditID: "6f1c7a52-0000-4000-8000-000000000004",
    stage: "ResponseComplete",
    verb: "patch",
    requestURI: `/apis/pool.kubevirt.io/v1beta1/namespaces/${own.name}/virtualmachinepools/${POOL}`,
    user: { username: "jane" },
    objectRef: {
      resource: "virtualmachinepools",
      namespace: own.name,
      name: POOL,
      apiGroup: "pool.kubevirt.io",
      apiVersion: "v1beta1",
    },
    responseStatus: { metadata: {}, code: 200 },
  };
  const delivery = {
    messageType: "DATA_MESSAGE",
    owner: "123456789012",
    logGroup: `/aws/eks/${CLUSTER}/cluster`,
    logStream: "kube-apiserver-audit-0123456789abcdef",
    subscriptionFilters: ["pools"],
    logEvents: [{ id: "1", timestamp: Date.now(), message: JSON.stringify(message) }],
  };
  return { awslogs: { data: gzipSync(JSON.stringify(delivery)).toString("base64") } };
}

/** What the schedule of the template sends. */
function scheduledEvent(): unknown {
  const target = Object(resourceOf(aws.stack, "ResyncSchedule").properties["Target"]);
  return parseJson(String(target.Input));
}

async function tell(entry: {
  readonly Source: string;
  readonly DetailType: string;
  readonly Detail: string;
}): Promise<void> {
  const EventBusName = resourceOf(aws.stack, "Bus").id;
  const { FailedEntryCount } = await aws.events.send(new PutEventsCommand({ Entries: [{ ...entry, EventBusName }] }));
  expect(FailedEntryCount).toBe(0);
}

describe("what goes wrong", () => {
  it("is told by name when the configuration lacks a variable", async () => {
    const { PASSES_QUEUE_URL: _left, ...environment } = aws.configurationOf("webhook").Environment.Variables;
    const lambda = await aws.lambda("webhook", { environment });
    const { outcome } = await lambda.invoke(requestEvent());
    expect(outcome).toMatchObject({
      kind: "failed",
      errorType: "ConfigError",
      errorMessage: expect.stringContaining("PASSES_QUEUE_URL"),
    });
  });

  it.for(["webhook", "admission", "audit", "reconcile", "status", "scale", "fleet"] as const)(
    "is told when %s gets an event that is not for it, in one line that says why",
    async (name) => {
      const invocation = await (await aws.lambda(name)).invoke({ nothing: "of use" });
      expect(invocation.outcome).toMatchObject({ kind: "failed", errorType: "EventError" });
      const [line] = linesOf(invocation);
      expect(line).toMatchObject({
        level: "ERROR",
        message: "function failed",
        errorMessage: expect.stringContaining("not of the expected form"),
      });
    },
  );

  it("ends at the time-out, after which the next call begins anew", async () => {
    const lambda = await aws.lambda("webhook", { timeoutMs: 3_000 });
    const answered = aws.recorder.disturb({
      accessKeyId: accessKeyOf("webhook"),
      action: "sqs:SendMessage",
      fault: "silence",
    });
    const { outcome } = await lambda.invoke(requestEvent()).finally(answered);
    expect(outcome).toMatchObject({ kind: "failed", errorType: "Sandbox.Timedout" });
    expect(await lambda.invoke(requestEvent())).toMatchObject({
      outcome: { answer: { statusCode: 202 } },
      initMs: expect.any(Number),
    });
    await drain();
  });

  it("does not wait for a registry that never answers until its time is up", async () => {
    const answered = aws.recorder.disturb({
      accessKeyId: accessKeyOf("webhook"),
      action: "ssm:GetParameter",
      fault: "silence",
    });
    const lambda = await aws.lambda("webhook", {});
    const { outcome } = await lambda.invoke(requestEvent()).finally(answered);
    expect(outcome).toMatchObject({ answer: { statusCode: 503, headers: { "retry-after": "1" } } });
  });

  it("makes only that message of a batch come again for which nothing else can be done", async () => {
    const second = "second";
    await own.create(aPool(second, { replicas: 1 }));
    const caller = { accessKeyId: accessKeyOf("reconcile"), fault: "denied" } as const;
    const restore = [
      aws.recorder.disturb({ ...caller, action: "events:PutEvents" }),
      aws.recorder.disturb({ ...caller, action: "sqs:SendMessage", resource: "-late.fifo" }),
    ];
    for (const name of [POOL, second]) {
      await send("webhook", { method: "POST", path: `/clusters/${CLUSTER}/events`, ...aChange(name, own) });
    }
    const delivery = await deliverBoth(await aws.lambda("reconcile")).finally(() => {
      for (const allow of restore) allow();
    });
    // The first has nothing to tell. The fact of the second could not be told, nor could it be put off.
    expect(delivery?.bodies).toMatchObject([{ name: POOL }, { name: second }]);
    expect(delivery?.failed).toMatchObject([{ name: second }]);
    const lines = linesOf(delivery?.invocation);
    const told = {
      level: "ERROR",
      message: "pass failed",
      pool: second,
      errorMessage: "the fact could not be published",
    };
    expect(lines).toContainEqual(expect.objectContaining(told));
  });
});

/** What the log holds of a call: JSON, line by line, as the metrics read it. */
function linesOf(invocation: Invocation | undefined): readonly unknown[] {
  const lines = invocation?.printed.trim().split("\n") ?? [];
  return lines.map((line): unknown => JSON.parse(line));
}

/** Both messages are due. */
async function deliverBoth(lambda: Lambda): Promise<Delivery | undefined> {
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  return aws.deliver("PassesQueue", lambda);
}

function requestEvent(): object {
  const path = `/clusters/${CLUSTER}/events`;
  return aws.route({ method: "POST", path, ...aChange(POOL, own) }).event;
}

/** Calls that AWS itself makes in the name of a function: for its log and its traces. */
function platformCallsOf(name: FunctionName): readonly Call[] {
  const { FunctionName, TracingConfig } = aws.configurationOf(name);
  const { region, account } = aws.stack;
  const resource = `arn:aws:logs:${region}:${account}:log-group:/aws/lambda/${FunctionName}:log-stream:any`;
  const logs = ["logs:CreateLogStream", "logs:PutLogEvents"].map((action) => ({ action, resource }));
  if (TracingConfig.Mode !== "Active") return logs;
  return [
    ...logs,
    ...["xray:PutTraceSegments", "xray:PutTelemetryRecords"].map((action) => ({ action, resource: "*" })),
  ];
}

function roleOf(name: FunctionName): Role {
  const { Role: arn } = aws.configurationOf(name);
  const found = rolesOf(aws.stack).find((role) => role.arn === arn);
  if (found === undefined) throw new Error(`${name} has no role of the template`);
  return found;
}

function callsOf(name: FunctionName): readonly Call[] {
  const made = aws.recorder.calls.filter(({ accessKeyId }) => accessKeyId === accessKeyOf(name));
  expect(made).not.toEqual([]);
  return [...made, ...platformCallsOf(name)];
}

describe("roles", () => {
  it("are one a function, which only Lambda may take", () => {
    const roles = FUNCTIONS.map(roleOf);
    expect(new Set(roles.map(({ arn }) => arn)).size).toBe(FUNCTIONS.length);
    for (const { principals } of roles) expect(principals).toEqual(["lambda.amazonaws.com"]);
  });

  it.for(FUNCTIONS)("allow every call that %s has made here", (name) => {
    const { statements } = roleOf(name);
    expect(callsOf(name).filter((call) => !isAllowed(statements, call))).toEqual([]);
  });

  it.for(FUNCTIONS)("allow nothing that %s has not used here", (name) => {
    expect(unusedPermissions(roleOf(name).statements, callsOf(name))).toEqual([]);
  });

  it("allow the schedule to invoke resync and nothing else", () => {
    const others = rolesOf(aws.stack).filter(({ principals }) => !principals.includes("lambda.amazonaws.com"));
    const resource = resourceOf(aws.stack, "ResyncLambdaFunction").arn;
    expect(others).toMatchObject([
      {
        principals: ["scheduler.amazonaws.com"],
        statements: [{ Action: ["lambda:InvokeFunction"], Resource: [resource] }],
      },
    ]);
  });

  it.for([
    {
      what: "how to reach a cluster",
      action: "ssm:GetParameter",
      to: "access",
      who: ["resync", "reconcile", "status", "scale", "fleet"],
    },
    { what: "who may send its events", action: "ssm:GetParameter", to: "webhook", who: ["webhook", "admission"] },
    { what: "another parameter", action: "ssm:GetParameter", to: "other", who: [] },
    { what: "the list of clusters", action: "ssm:GetParametersByPath", to: "registry", who: ["resync", "fleet"] },
    { what: "a registration to be changed", action: "ssm:PutParameter", to: "access", who: [] },
    { what: "a registration to go", action: "ssm:DeleteParameter", to: "access", who: [] },
    {
      what: "a wake-up now",
      action: "sqs:SendMessage",
      to: "PassesQueue",
      who: ["webhook", "admission", "audit", "resync", "reconcile", "status", "scale"],
    },
    { what: "a wake-up later", action: "sqs:SendMessage", to: "LateQueue", who: ["admission", "reconcile"] },
    { what: "a dead letter", action: "sqs:SendMessage", to: "PassesDeadLetters", who: [] },
    { what: "wake-ups of others", action: "sqs:ReceiveMessage", to: "PassesQueue", who: ["reconcile"] },
    { what: "a queue to be emptied", action: "sqs:PurgeQueue", to: "PassesQueue", who: [] },
    { what: "facts", action: "events:PutEvents", to: "Bus", who: ["reconcile"] },
    {
      what: "the role that an entry may name",
      action: "sts:AssumeRole",
      to: "clusterRole",
      who: ["resync", "reconcile", "status", "scale", "fleet"],
    },
    { what: "any other role", action: "sts:AssumeRole", to: "otherRole", who: [] },
    { what: "another function", action: "lambda:InvokeFunction", to: "ReconcileLambdaFunction", who: [] },
  ] as const)("give $what to those only who need it", ({ action, to, who }) => {
    const call = { action, resource: targetOf(to) };
    expect(FUNCTIONS.filter((name) => isAllowed(roleOf(name).statements, call))).toEqual(who);
  });

  it("cannot be widened to facts that no pass has found, or to requests to scale by just anybody", () => {
    // Somebody of the account whose own policy allows everything.
    const statements: readonly Statement[] = [
      { Effect: "Allow", Action: ["*"], Resource: ["*"] },
      ...busStatementsOf(aws.stack),
    ];
    const may = (detailType: string, principal: string) => {
      const context = { "events:detail-type": detailType, "aws:PrincipalArn": principal };
      return isAllowed(statements, { action: "events:PutEvents", resource: resourceOf(aws.stack, "Bus").arn, context });
    };
    const anybody = "arn:aws:iam::123456789012:role/anybody";
    const fact = "Virtual Machine Pool Reconciled";
    expect(FUNCTIONS.filter((name) => may(fact, roleOf(name).arn))).toEqual(["reconcile"]);
    expect(may(fact, anybody)).toBe(false);
    const request = "Virtual Machine Pool Scale Requested";
    expect(may(request, anybody)).toBe(false);
    expect(may(request, "arn:aws:iam::123456789012:role/vmpool-functions-scale-requests-alarms")).toBe(true);
  });
});

type Target =
  | "access"
  | "webhook"
  | "other"
  | "registry"
  | "clusterRole"
  | "otherRole"
  | "Bus"
  | "ReconcileLambdaFunction"
  | QueueLogicalId;

function targetOf(target: Target): string {
  const parameter = (name: string) => `arn:aws:ssm:eu-central-1:123456789012:parameter${name}`;
  switch (target) {
    case "access":
    case "webhook":
      return parameter(`${PREFIX}/${CLUSTER}/${target}`);
    case "other":
      return parameter("/another-application/secret");
    case "registry":
      return parameter(PREFIX);
    case "clusterRole":
      return FOREIGN_ROLE;
    case "otherRole":
      return "arn:aws:iam::123456789012:role/administrator";
    default:
      return resourceOf(aws.stack, target).arn;
  }
}
