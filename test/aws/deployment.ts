/**
 * A packaged template deployed on what stands in for AWS: its queues, bus and rules in moto, its functions as Lambda runs them; and
 * the parts of AWS between them (API Gateway, the poller of queues, the bus's rules), played as they behave.
 */
import { randomUUID } from "node:crypto";
import { CreateClusterCommand, EKSClient } from "@aws-sdk/client-eks";
import {
  CreateEventBusCommand,
  EventBridgeClient,
  PutRuleCommand,
  PutTargetsCommand,
} from "@aws-sdk/client-eventbridge";
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { PutParameterCommand, SSMClient } from "@aws-sdk/client-ssm";
import * as z from "zod";
import type { Bundle } from "../../infra/package/bundle.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { type Invocation, type Lambda, type LambdaOptions, prepareLambda } from "../support/lambda-runtime.ts";
import { startMoto } from "../support/moto.ts";
import { type AwsRecorder, type EksPlace, startAwsRecorder } from "./recorder.ts";
import { resolveStack, resourceOf, resourcesOf, type Stack, type StackResource } from "./stack.ts";

const REGION = "eu-central-1";
const ACCOUNT = "123456789012";
const CREDENTIALS = { accessKeyId: "deployer", secretAccessKey: "secret" };
/** How long one look at a queue waits for something to arrive. */
const LONG_POLL_SECONDS = 5;

export const FUNCTIONS = ["webhook", "admission", "audit", "resync", "reconcile", "status", "scale", "fleet"] as const;
export type FunctionName = (typeof FUNCTIONS)[number];

export interface DeploymentOptions {
  readonly template: unknown;
  readonly bundles: readonly Pick<Bundle, "name" | "zipPath">[];
  readonly stackName: string;
  readonly eks: EksPlace;
}

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What the poller of a queue did with one batch. */
export interface Delivery {
  readonly invocation: Invocation;
  /** Bodies of the messages, in order. */
  readonly bodies: readonly unknown[];
  /** Bodies of those that come again. */
  readonly failed: readonly unknown[];
}

export interface Deployment {
  readonly stack: Stack;
  readonly recorder: AwsRecorder;
  /** Where calls go unnoticed. */
  readonly endpoint: string;
  /** The function as the template configures it; always the same instance unless changes are given. */
  lambda(name: FunctionName, changes?: Partial<LambdaOptions>): Promise<Lambda>;
  /** What the template says of the function. */
  configurationOf(name: FunctionName): Configuration;
  /** What API Gateway makes of a request, and of which function. Throws when no route takes it. */
  route(request: HttpRequest): { readonly functionName: FunctionName; readonly event: object };
  /** Receives once from the queue and invokes the function whose trigger it is; undefined when nothing comes. */
  deliver(queue: QueueLogicalId, lambda?: Lambda): Promise<Delivery | undefined>;
  /** The events that a rule has sent to its target since the last look. */
  takeEvents(rule: "StatusRule" | "ScaleRule"): Promise<readonly unknown[]>;
  /** Messages in the queue, delayed and received ones included. */
  countMessages(queue: QueueLogicalId): Promise<number>;
  putParameter(name: string, value: unknown): Promise<void>;
  putEksCluster(name: string): Promise<void>;
  readonly events: EventBridgeClient;
  stop(): Promise<void>;
}

export type QueueLogicalId = "PassesQueue" | "LateQueue" | "PassesDeadLetters" | "LateDeadLetters";

/** Whom the calls of a function are signed by. */
export function accessKeyOf(name: FunctionName): string {
  return `key-of-${name}`;
}

export async function deploy({ template, bundles, stackName, eks }: DeploymentOptions): Promise<Deployment> {
  const moto = await startMoto();
  const recorder = await startAwsRecorder({ upstream: moto.endpoint, account: ACCOUNT, eks });
  const stack = resolveStack(template, {
    region: REGION,
    account: ACCOUNT,
    name: stackName,
    endpoint: recorder.endpoint,
  });
  const config = { region: REGION, endpoint: moto.endpoint, credentials: CREDENTIALS };
  const clients = {
    sqs: new SQSClient(config),
    events: new EventBridgeClient(config),
    ssm: new SSMClient(config),
    eks: new EKSClient(config),
  };
  for (const queue of queuesInOrder(stack)) await createQueue(clients.sqs, queue);
  for (const { id } of resourcesOf(stack, "AWS::Events::EventBus"))
    await clients.events.send(new CreateEventBusCommand({ Name: id }));
  for (const rule of resourcesOf(stack, "AWS::Events::Rule")) await createRule(clients, rule, stack);
  const lambdas = createLambdas(stack, bundles, recorder.endpoint);
  return {
    stack,
    recorder,
    endpoint: moto.endpoint,
    lambda: lambdas.find,
    configurationOf: (name) => configurationOf(stack, name),
    route(request) {
      const route = findRoute(stack, request);
      return { functionName: route.functionName, event: httpEvent(route, request) };
    },
    events: clients.events,
    async deliver(queue, given) {
      const mapping = mappingOf(stack, queue);
      const lambda = given ?? (await lambdas.find(mapping.functionName));
      return deliverOnce(pollerOf(mapping.functionName, recorder.endpoint), {
        queue: resourceOf(stack, queue),
        mapping,
        lambda,
      });
    },
    async takeEvents(rule) {
      const QueueUrl = `${moto.endpoint}/${ACCOUNT}/${rule}`;
      const { Messages = [] } = await clients.sqs.send(
        new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }),
      );
      if (Messages.length > 0) await acknowledge(clients.sqs, QueueUrl, Messages);
      return Messages.map(({ Body = "" }) => parseJson(Body));
    },
    async countMessages(queue) {
      const QueueUrl = resourceOf(stack, queue).id.replace(recorder.endpoint, moto.endpoint);
      const { Attributes = {} } = await clients.sqs.send(
        new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }),
      );
      const counts = Object.entries(Attributes).filter(([name]) => name.startsWith("ApproximateNumberOfMessages"));
      return counts.reduce((sum, [, count]) => sum + Number(count), 0);
    },
    async putParameter(name, value) {
      const Value = JSON.stringify(value);
      await clients.ssm.send(
        new PutParameterCommand({ Name: name, Value, Type: "SecureString", Tier: "Advanced", Overwrite: true }),
      );
    },
    async putEksCluster(name) {
      const resourcesVpcConfig = { subnetIds: ["subnet-1", "subnet-2"] };
      await clients.eks.send(
        new CreateClusterCommand({ name, roleArn: `arn:aws:iam::${ACCOUNT}:role/eks`, resourcesVpcConfig }),
      );
    },
    async stop() {
      await lambdas.stop();
      await recorder.close();
      await moto.stop();
      for (const client of Object.values(clients)) client.destroy();
    },
  };
}

/** Queues of dead letters first: others refer to them. */
function queuesInOrder(stack: Stack): readonly StackResource[] {
  return resourcesOf(stack, "AWS::SQS::Queue").toSorted(
    (one, other) => Number("RedrivePolicy" in one.properties) - Number("RedrivePolicy" in other.properties),
  );
}

async function createQueue(sqs: SQSClient, { arn, properties }: StackResource): Promise<void> {
  const { QueueName: _name, Tags: _tags, ...settings } = properties;
  const entries = Object.entries(settings).map(([name, value]) => [
    name,
    typeof value === "object" ? JSON.stringify(value) : String(value),
  ]);
  await sqs.send(new CreateQueueCommand({ QueueName: arn.split(":").at(-1), Attributes: Object.fromEntries(entries) }));
}

const ruleSchema = z.object({
  EventBusName: z.string(),
  EventPattern: z.unknown(),
  Targets: z.array(z.object({ Arn: z.string() })).length(1),
});

/** The rule with its pattern; in the place of the function a queue is its target, from which the test invokes the function. */
async function createRule(
  { sqs, events }: { readonly sqs: SQSClient; readonly events: EventBridgeClient },
  { logicalId, properties }: StackResource,
  { region, account }: Stack,
): Promise<void> {
  const { EventBusName, EventPattern } = ruleSchema.parse(properties);
  await sqs.send(new CreateQueueCommand({ QueueName: logicalId }));
  await events.send(new PutRuleCommand({ Name: logicalId, EventBusName, EventPattern: JSON.stringify(EventPattern) }));
  const Targets = [{ Id: "queue", Arn: `arn:aws:sqs:${region}:${account}:${logicalId}` }];
  await events.send(new PutTargetsCommand({ Rule: logicalId, EventBusName, Targets }));
}

const functionSchema = z.object({
  FunctionName: z.string(),
  Handler: z.string(),
  Runtime: z.literal("nodejs24.x"),
  MemorySize: z.int(),
  Timeout: z.int(),
  Environment: z.object({ Variables: z.record(z.string(), z.string()) }),
  LoggingConfig: z.object({ LogFormat: z.enum(["JSON", "Text"]), ApplicationLogLevel: z.string().optional() }),
  Role: z.string(),
  TracingConfig: z.object({ Mode: z.enum(["Active", "PassThrough"]) }),
});

function configurationOf(stack: Stack, name: FunctionName): Configuration {
  return functionSchema.parse(functionResource(stack, name).properties);
}

export type Configuration = z.output<typeof functionSchema>;

function createLambdas(stack: Stack, bundles: DeploymentOptions["bundles"], endpoint: string) {
  const usual = new Map<FunctionName, Promise<Lambda>>();
  const all: Promise<Lambda>[] = [];
  const prepare = (name: FunctionName, changes: Partial<LambdaOptions>) => {
    const { FunctionName, Handler, MemorySize, Timeout, Environment, LoggingConfig } = configurationOf(stack, name);
    const zip = bundles.find((bundle) => bundle.name === name)?.zipPath;
    if (zip === undefined) throw new Error(`there is no bundle of ${name}`);
    const lambda = prepareLambda({
      functionName: FunctionName,
      zip,
      handler: Handler,
      memoryMb: MemorySize,
      timeoutMs: Timeout * 1_000,
      environment: Environment.Variables,
      region: stack.region,
      account: stack.account,
      accessKeyId: accessKeyOf(name),
      endpoint,
      logFormat: LoggingConfig.LogFormat,
      ...(LoggingConfig.ApplicationLogLevel === undefined ? {} : { logLevel: LoggingConfig.ApplicationLogLevel }),
      ...changes,
    });
    all.push(lambda);
    return lambda;
  };
  return {
    find(name: FunctionName, changes?: Partial<LambdaOptions>): Promise<Lambda> {
      if (changes !== undefined) return prepare(name, changes);
      const lambda = usual.get(name) ?? prepare(name, {});
      usual.set(name, lambda);
      return lambda;
    },
    async stop() {
      for (const lambda of all) await (await lambda).stop();
    },
  };
}

/** Serverless' own logical names: `WebhookLambdaFunction`. */
function functionResource(stack: Stack, name: FunctionName): StackResource {
  return resourceOf(stack, `${name.slice(0, 1).toUpperCase()}${name.slice(1)}LambdaFunction`);
}

function functionNamed(stack: Stack, arn: string): FunctionName {
  const found = FUNCTIONS.find((name) => arn.includes(functionResource(stack, name).arn));
  if (found === undefined) throw new Error(`${arn} is no function of the template`);
  return found;
}

interface Mapping {
  readonly functionName: FunctionName;
  readonly batchSize: number;
}

const mappingSchema = z.object({
  EventSourceArn: z.string(),
  FunctionName: z.string(),
  BatchSize: z.int(),
  Enabled: z.literal(true),
  FunctionResponseTypes: z.tuple([z.literal("ReportBatchItemFailures")]),
});

function mappingOf(stack: Stack, queue: QueueLogicalId): Mapping {
  const { arn } = resourceOf(stack, queue);
  const mappings = resourcesOf(stack, "AWS::Lambda::EventSourceMapping").map(({ properties }) =>
    mappingSchema.parse(properties),
  );
  const found = mappings.find(({ EventSourceArn }) => EventSourceArn === arn);
  if (found === undefined) throw new Error(`no function is triggered by ${queue}`);
  return { functionName: functionNamed(stack, found.FunctionName), batchSize: found.BatchSize };
}

/** Lambda polls in the name of the function's role. */
function pollerOf(name: FunctionName, endpoint: string): SQSClient {
  return new SQSClient({
    region: REGION,
    endpoint,
    credentials: { accessKeyId: accessKeyOf(name), secretAccessKey: "secret" },
  });
}

interface Delivering {
  readonly queue: StackResource;
  readonly mapping: Mapping;
  readonly lambda: Lambda;
}

const batchResponseSchema = z.object({ batchItemFailures: z.array(z.object({ itemIdentifier: z.string() })) });

async function deliverOnce(sqs: SQSClient, { queue, mapping, lambda }: Delivering): Promise<Delivery | undefined> {
  const QueueUrl = queue.id;
  // Lambda looks at the queue's settings and length, too.
  await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
  const receiving = { MaxNumberOfMessages: mapping.batchSize, WaitTimeSeconds: LONG_POLL_SECONDS };
  const { Messages = [] } = await sqs.send(
    new ReceiveMessageCommand({ QueueUrl, ...receiving, MessageSystemAttributeNames: ["All"] }),
  );
  if (Messages.length === 0) return undefined;
  const invocation = await lambda.invoke({ Records: Messages.map((message) => recordOf(message, queue.arn)) });
  const again = failedOf(invocation, Messages);
  const done = Messages.filter((message) => !again.has(message));
  if (done.length > 0) await acknowledge(sqs, QueueUrl, done);
  sqs.destroy();
  const bodyOf = ({ Body = "" }: Message) => parseJson(Body);
  return { invocation, bodies: Messages.map(bodyOf), failed: [...again].map(bodyOf) };
}

/** What fails or is not answered comes again. */
function failedOf({ outcome }: Invocation, messages: readonly Message[]): ReadonlySet<Message> {
  const response = outcome.kind === "answered" ? batchResponseSchema.safeParse(outcome.answer).data : undefined;
  if (response === undefined) return new Set(messages);
  const ids = new Set(response.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier));
  return new Set(messages.filter(({ MessageId = "" }) => ids.has(MessageId)));
}

async function acknowledge(sqs: SQSClient, QueueUrl: string, messages: readonly Message[]): Promise<void> {
  const Entries = messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
  await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries }));
}

function recordOf({ MessageId, ReceiptHandle, Body, Attributes, MD5OfBody }: Message, eventSourceARN: string): object {
  const fixed = { messageAttributes: {}, eventSource: "aws:sqs", eventSourceARN, awsRegion: REGION };
  return {
    messageId: MessageId,
    receiptHandle: ReceiptHandle,
    body: Body,
    attributes: Attributes,
    md5OfBody: MD5OfBody,
    ...fixed,
  };
}

interface Route {
  readonly routeKey: string;
  readonly functionName: FunctionName;
  readonly parameters: Readonly<Record<string, string>>;
  readonly authorization: string;
}

const routeSchema = z.object({
  RouteKey: z.string(),
  Target: z.string(),
  AuthorizationType: z.string().default("NONE"),
});
const integrationSchema = z.object({ IntegrationUri: z.string(), PayloadFormatVersion: z.literal("2.0") });

function findRoute(stack: Stack, { method, path }: HttpRequest): Route {
  for (const { properties } of resourcesOf(stack, "AWS::ApiGatewayV2::Route")) {
    const { RouteKey, Target, AuthorizationType } = routeSchema.parse(properties);
    const [routeMethod, pattern = ""] = RouteKey.split(" ");
    const steps = pattern.replaceAll(/[.]/g, "\\.").replaceAll(/\{(\w+)\}/g, "(?<$1>[^/]+)");
    const found = routeMethod === method ? new RegExp(`^${steps}$`).exec(path) : null;
    if (found === null) continue;
    const integration = resourcesOf(stack, "AWS::ApiGatewayV2::Integration").find(
      ({ id }) => Target === `integrations/${id}`,
    );
    const { IntegrationUri } = integrationSchema.parse(integration?.properties);
    const parameters = Object.entries(found.groups ?? {}).map(([name, value]) => [name, decodeURIComponent(value)]);
    return {
      routeKey: RouteKey,
      functionName: functionNamed(stack, IntegrationUri),
      parameters: Object.fromEntries(parameters),
      authorization: AuthorizationType,
    };
  }
  throw new Error(`no route takes ${method} ${path}`);
}

/** Payload version 2.0. Only these types of a body are handed on as text. */
function httpEvent(
  { routeKey, parameters, authorization }: Route,
  { method, path, query = "", headers = {}, body }: HttpRequest,
): object {
  const isText = /^(text\/|application\/(json|xml|javascript)\b)/.test(headers["content-type"] ?? "");
  const isAuthorized = authorization !== "NONE";
  const iam = {
    accessKey: "key",
    accountId: ACCOUNT,
    callerId: "caller",
    userArn: `arn:aws:iam::${ACCOUNT}:user/ops`,
    userId: "ops",
  };
  return {
    version: "2.0",
    routeKey,
    rawPath: path,
    rawQueryString: query,
    headers: { host: "abcdefghij.execute-api.eu-central-1.amazonaws.com", "x-forwarded-proto": "https", ...headers },
    ...(Object.keys(parameters).length === 0 ? {} : { pathParameters: parameters }),
    requestContext: {
      accountId: ACCOUNT,
      apiId: "abcdefghij",
      domainName: "abcdefghij.execute-api.eu-central-1.amazonaws.com",
      http: { method, path, protocol: "HTTP/1.1", sourceIp: "192.0.2.1", userAgent: "test" },
      requestId: randomUUID(),
      routeKey,
      stage: "$default",
      timeEpoch: Date.now(),
      ...(isAuthorized ? { authorizer: { iam } } : {}),
    },
    ...(body === undefined ? {} : { body: isText ? body : Buffer.from(body).toString("base64") }),
    isBase64Encoded: body !== undefined && !isText,
  };
}
