/** What is deployed is what runs locally, what the functions ask for, what the documents describe; read off the packaged template. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { BATCH_MAX } from "../../infra/local/runtime/fifo-queue.ts";
import { QUEUES, ROUTES, RULES, SCHEDULE_SECONDS, TIMEOUT_MS } from "../../infra/local/runtime/wiring.ts";
import { functionNames } from "../../infra/package/bundle.ts";
import { makeTemplate, readTemplate } from "../../infra/package/template.ts";
import { isRecord } from "../../shared/planning/json.ts";
import * as config from "../../shared/runtime/config.ts";

const ROOT = join(import.meta.dirname, "../..");
type Json = Readonly<Record<string, unknown>>;

const folder = await mkdtemp(join(tmpdir(), "vmpool-functions-template-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const names = await functionNames();
for (const name of names) await writeFile(join(folder, `${name}.zip`), "");
const template = await readTemplate(await makeTemplate({ zips: folder, folder: join(folder, "out") }));
const resources = record(record(template)["Resources"]);

function record(value: unknown): Json {
  if (isRecord(value)) return value;
  throw new Error(`expected an object, got ${JSON.stringify(value)}`);
}

function list(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw new Error(`expected a list, got ${JSON.stringify(value)}`);
}

/** Logical name → properties, of all resources of a type. */
function ofType(type: string): readonly (readonly [string, Json])[] {
  return Object.entries(resources)
    .filter(([, resource]) => record(resource)["Type"] === type)
    .map(([name, resource]) => [name, record(record(resource)["Properties"] ?? {})]);
}

function properties(name: string): Json {
  return record(record(resources[name])["Properties"]);
}

/** The one logical name that an intrinsic function leads to, wherever it stands in it. */
function target(value: unknown): string {
  if (!isRecord(value)) return String(value);
  if (typeof value["Ref"] === "string") return value["Ref"];
  const attribute = value["Fn::GetAtt"];
  if (Array.isArray(attribute)) return String(attribute[0]);
  const joined = value["Fn::Join"];
  if (Array.isArray(joined)) return target(list(joined[1]).at(-1));
  throw new Error(`cannot tell what ${JSON.stringify(value)} leads to`);
}

/** `webhook` of `WebhookLambdaFunction`. */
function functionOf(logicalName: string): string {
  const name = /^(\w+)LambdaFunction$/.exec(logicalName)?.[1] ?? `no function: ${logicalName}`;
  return name.toLowerCase();
}

const lambdas = new Map(ofType("AWS::Lambda::Function").map(([name, lambda]) => [functionOf(name), lambda]));

function permissions(service: string): readonly (readonly [string, string])[] {
  return ofType("AWS::Lambda::Permission")
    .filter(([, { Principal }]) => Principal === service)
    .map(([, { FunctionName, SourceArn }]) => [functionOf(target(FunctionName)), JSON.stringify(SourceArn)]);
}

describe("the functions that are deployed", () => {
  it("are those of the source, each from its own zip", () => {
    expect([...lambdas.keys()].sort()).toEqual(names);
    for (const [name, lambda] of lambdas) {
      expect(lambda).toMatchObject({
        Handler: `${name}.handler`,
        Runtime: "nodejs24.x",
        Architectures: ["arm64"],
        TracingConfig: { Mode: "Active" },
      });
      expect(JSON.stringify(lambda["Code"])).toContain(`/${name}.zip`);
    }
  });

  it("have as much time as they have locally", () => {
    const timeouts = Object.fromEntries([...lambdas].map(([name, { Timeout }]) => [name, Number(Timeout) * 1_000]));
    expect(timeouts).toEqual(TIMEOUT_MS);
  });

  it("get the settings that they ask for, and no others", () => {
    const schemas: ReadonlyMap<string, { readonly shape?: unknown } | unknown> = new Map(Object.entries(config));
    for (const [name, lambda] of lambdas) {
      const asked = Object.keys(record(record(schemas.get(`${name}ConfigSchema`))["shape"]));
      const given = Object.keys(record(record(lambda["Environment"])["Variables"]));
      // The registry is a file locally, and parameters on AWS.
      expect([name, ...given.sort()]).toEqual([name, ...asked.filter((key) => key !== "REGISTRY_FILE").sort()]);
    }
  });

  it("keep their logs for a limited time", () => {
    const groups = ofType("AWS::Logs::LogGroup");
    expect(groups).toHaveLength(names.length + 1);
    for (const [, group] of groups) expect(group["RetentionInDays"]).toBeGreaterThan(0);
  });
});

describe("the HTTP API", () => {
  const routes = ofType("AWS::ApiGatewayV2::Route").map(([, route]) => {
    const integration = properties(target(route["Target"]));
    const [method = "", path = ""] = String(route["RouteKey"]).split(" ");
    const authorized = route["AuthorizationType"] !== undefined;
    return { functionName: functionOf(target(integration["IntegrationUri"])), method, path, authorized };
  });
  const byKey = (a: { method: string; path: string }, b: { method: string; path: string }) =>
    `${a.path} ${a.method}` < `${b.path} ${b.method}` ? -1 : 1;

  it("has the routes of the local runtime", () => {
    expect(routes.toSorted(byKey)).toEqual(ROUTES.toSorted(byKey));
  });

  it("may invoke the functions that its routes lead to", () => {
    const allowed = permissions("apigateway.amazonaws.com").map(([name]) => name);
    expect(new Set(allowed)).toEqual(new Set(routes.map(({ functionName }) => functionName)));
  });

  it("limits every route, and those that anybody may call by themselves", () => {
    const stage = properties("HttpApiStage");
    expect(record(stage["DefaultRouteSettings"])["ThrottlingRateLimit"]).toBeGreaterThan(0);
    const open = ROUTES.filter(({ authorized }) => !authorized).map(({ method, path }) => `${method} ${path}`);
    expect(Object.keys(record(stage["RouteSettings"])).sort()).toEqual(open.sort());
  });

  it("logs routes, and neither paths, which hold tokens, nor addresses", () => {
    const format = String(record(properties("HttpApiStage")["AccessLogSettings"])["Format"]);
    const fields = [...format.matchAll(/\$context\.([\w.]+)/g)].map(([, field]) => field);
    expect(fields).toEqual([
      "requestTimeEpoch",
      "requestId",
      "routeKey",
      "status",
      "responseLatency",
      "responseLength",
      "integrationErrorMessage",
    ]);
    expect(() => JSON.parse(format)).not.toThrow();
  });
});

describe("the queues", () => {
  for (const [name, settings] of Object.entries(QUEUES)) {
    const queue = properties(name === "passes" ? "PassesQueue" : "LateQueue");

    it(`make ${name} what it is locally`, () => {
      expect(queue).toMatchObject({
        FifoQueue: true,
        FifoThroughputLimit: "perMessageGroupId",
        DeduplicationScope: "messageGroup",
        DelaySeconds: settings.delayMs / 1_000,
        VisibilityTimeout: settings.visibilityMs / 1_000,
        MessageRetentionPeriod: settings.retentionMs / 1_000,
        RedrivePolicy: { maxReceiveCount: settings.receiptsMax },
      });
      const dead = target(record(queue["RedrivePolicy"])["deadLetterTargetArn"]);
      expect(properties(dead)).toMatchObject({ FifoQueue: true, MessageRetentionPeriod: 14 * 24 * 3_600 });
    });

    it(`give ${name} a name that \`reconcile\` knows it by`, () => {
      expect(queue["QueueName"]).toMatch(new RegExp(`-${name}\\.fifo$`));
    });
  }

  it("lead to `reconcile`, batch by batch, which says what failed", () => {
    const sources = ofType("AWS::Lambda::EventSourceMapping").map(([, mapping]) => mapping);
    expect(sources.map(({ EventSourceArn }) => target(EventSourceArn)).sort()).toEqual(["LateQueue", "PassesQueue"]);
    for (const mapping of sources) {
      expect(functionOf(target(mapping["FunctionName"]))).toBe("reconcile");
      expect(mapping).toMatchObject({ BatchSize: BATCH_MAX, FunctionResponseTypes: ["ReportBatchItemFailures"] });
      expect(record(mapping["ScalingConfig"])["MaximumConcurrency"]).toBeGreaterThanOrEqual(2);
    }
  });

  it("hide a message for longer than `reconcile` may take", () => {
    for (const { visibilityMs } of Object.values(QUEUES)) expect(visibilityMs).toBeGreaterThan(TIMEOUT_MS.reconcile);
  });
});

describe("the bus", () => {
  const rules = ofType("AWS::Events::Rule");

  it("has the rules of the local runtime", () => {
    const patterns = rules.map(([, { Targets, EventPattern }]) => {
      const [only] = list(Targets);
      return [functionOf(target(record(only)["Arn"])), EventPattern];
    });
    expect(Object.fromEntries(patterns)).toEqual(RULES);
    for (const [, rule] of rules) expect(target(rule["EventBusName"])).toBe("Bus");
  });

  it("may invoke what its rules lead to", () => {
    const allowed = permissions("events.amazonaws.com");
    expect(allowed.map(([name]) => name).sort()).toEqual(Object.keys(RULES).sort());
    for (const [, source] of allowed) expect(source).toMatch(/(Status|Scale)Rule/);
  });

  it("lets events be late by a minute at most, and tries nothing again", () => {
    for (const [, { Targets }] of rules)
      expect(list(Targets)).toMatchObject([{ RetryPolicy: { MaximumEventAgeInSeconds: 60, MaximumRetryAttempts: 0 } }]);
    const configurations = ofType("AWS::Lambda::EventInvokeConfig").map(([, one]) => one);
    expect(configurations.map(({ FunctionName }) => functionOf(target(FunctionName))).sort()).toEqual([
      "resync",
      "scale",
      "status",
    ]);
    for (const one of configurations)
      expect(one).toMatchObject({ MaximumEventAgeInSeconds: 60, MaximumRetryAttempts: 0 });
  });

  it("archives facts, and no requests, which would scale again when they are replayed", () => {
    expect(properties("BusArchive")["EventPattern"]).toEqual(RULES.status);
  });
});

describe("the schedule", () => {
  it("invokes `resync` as often as it does locally, to the minute", () => {
    const schedule = properties("ResyncSchedule");
    expect(schedule).toMatchObject({
      ScheduleExpression: `rate(${SCHEDULE_SECONDS / 60} minute)`,
      FlexibleTimeWindow: { Mode: "OFF" },
    });
    expect(functionOf(target(record(schedule["Target"])["Arn"]))).toBe("resync");
  });
});

describe("the outputs", () => {
  it("are those that the documents read", async () => {
    const pages = await Promise.all(
      ["deploy", "operations"].map((page) => readFile(join(ROOT, `docs/${page}.md`), "utf8")),
    );
    const named = [...pages.join("\n").matchAll(/OutputKey=='(\w+)'/g)].map(([, name]) => name);
    expect(named).toContain("HttpApiUrl");
    const clusterRoles = ["Resync", "Reconcile", "Status", "Scale", "Fleet"].map((name) => `${name}Role`);
    const outputs = Object.keys(record(record(template)["Outputs"]));
    expect(outputs).toEqual(expect.arrayContaining([...named, ...clusterRoles, "AlarmsTopic"]));
  });
});

describe("the roles", () => {
  const roles = new Map(ofType("AWS::IAM::Role"));

  it("are one a function, and one of the schedule's", () => {
    const used = [...lambdas.values()].map(({ Role }) => target(Role));
    expect(new Set(used).size).toBe(names.length);
    expect([...roles.keys()].sort()).toEqual([...used, "ScheduleRole"].sort());
  });

  it("name resources of this stage, but for traces, which have none", () => {
    const unbounded = [...roles].flatMap(([, role]) =>
      list(role["Policies"]).flatMap((policy) =>
        list(record(record(policy)["PolicyDocument"])["Statement"])
          .map(record)
          .filter(({ Resource }) => [Resource].flat().includes("*"))
          .flatMap(({ Action }) => [Action].flat()),
      ),
    );
    expect([...new Set(unbounded)].sort()).toEqual(["xray:PutTelemetryRecords", "xray:PutTraceSegments"]);
  });

  it("keep how clusters are reached from what the internet reaches", () => {
    for (const name of ["WebhookRole", "AdmissionRole", "AuditRole"])
      expect(JSON.stringify(record(roles.get(name))["Policies"])).not.toMatch(/\/access|GetParametersByPath|sts:|eks:/);
    expect(JSON.stringify(roles.get("AuditRole"))).not.toContain("ssm:");
    for (const name of ["ReconcileRole", "StatusRole", "ScaleRole", "FleetRole", "ResyncRole"])
      expect(JSON.stringify(roles.get(name))).not.toContain("/webhook");
  });
});

describe("metrics and alarms", async () => {
  const alarms = ofType("AWS::CloudWatch::Alarm");
  const filters = ofType("AWS::Logs::MetricFilter");
  const sources = await readSources();
  const namespace = "vmpool-functions-prod";

  async function readSources(): Promise<string> {
    const files = (
      await Promise.all(
        ["functions", "shared"].map((part) => readdir(join(ROOT, part), { recursive: true, withFileTypes: true })),
      )
    )
      .flat()
      .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"));
    return (await Promise.all(files.map((file) => readFile(join(file.parentPath, file.name), "utf8")))).join("\n");
  }

  function metricOf(filter: Json): Json {
    const [only] = list(filter["MetricTransformations"]);
    return record(only);
  }

  it("count messages that the code logs", () => {
    expect(filters.length).toBeGreaterThan(0);
    for (const [name, filter] of filters) {
      const message = /^\{ \$\.message = "([^"]+)" \}$/.exec(String(filter["FilterPattern"]))?.[1];
      expect([name, sources.includes(`"${message}"`)]).toEqual([name, true]);
    }
  });

  it("count messages of the functions that log them", async () => {
    for (const [name, filter] of filters) {
      const functionName = target(filter["LogGroupName"])
        .replace(/LogGroup$/, "")
        .toLowerCase();
      expect([name, names.includes(functionName)]).toEqual([name, true]);
    }
  });

  it("have a use for every count, and a count for every use", () => {
    const counted = new Set(filters.map(([, filter]) => metricOf(filter)["MetricName"]));
    expect(new Set(filters.map(([, filter]) => metricOf(filter)["MetricNamespace"]))).toEqual(new Set([namespace]));
    const used = alarms.filter(([, { Namespace }]) => Namespace === namespace).map(([, { MetricName }]) => MetricName);
    const dashboard = JSON.stringify(properties("Dashboard"));
    for (const metric of used) expect(counted).toContain(metric);
    for (const metric of counted) expect(dashboard).toContain(`"${metric}\\"`);
  });

  it("tell the topic, when something begins and when it ends", () => {
    for (const [, alarm] of alarms)
      expect(alarm).toMatchObject({ AlarmActions: [{ Ref: "Alarms" }], OKActions: [{ Ref: "Alarms" }] });
  });

  it("watch every function for errors and throttles", () => {
    for (const name of ["FunctionErrorsAlarm", "FunctionThrottlesAlarm"]) {
      const watched = list(properties(name)["Metrics"])
        .map((metric) => String(record(metric)["Id"]))
        .filter((id) => id !== "all");
      expect(watched.sort()).toEqual(names);
    }
  });

  it("are documented, each under a heading of its own", async () => {
    const page = await readFile(join(ROOT, "docs/operations.md"), "utf8");
    const headings = [...page.matchAll(/^### (\w+Alarm)$/gm)].map(([, name]) => name);
    expect(headings.sort()).toEqual(alarms.map(([name]) => name).sort());
  });

  it("stand on the dashboard, whose body is JSON", () => {
    const body = record(properties("Dashboard")["DashboardBody"])["Fn::Sub"];
    expect(() => JSON.parse(String(body))).not.toThrow();
    for (const [name] of alarms) expect(body).toContain(`\${${name}.Arn}`);
  });
});
