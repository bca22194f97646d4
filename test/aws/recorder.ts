/** Stands before moto, notes who calls what as IAM sees it, and lets a test have calls refused or never answered. */
import { Agent, createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import * as z from "zod";
import { parseJson } from "../../shared/planning/json.ts";
import { forward, listen } from "../support/listener.ts";
import type { Call } from "./iam.ts";

/** One resource of one call. */
export interface RecordedCall extends Call {
  /** The access key that signed it. */
  readonly accessKeyId: string;
}

export type Fault =
  /** As IAM answers what no policy allows. */
  | "denied"
  /** The connection stays open. */
  | "silence";

export interface FaultRule {
  readonly accessKeyId: string;
  readonly action: string;
  /** The end of the resource's ARN. */
  readonly resource?: string;
  readonly fault: Fault;
}

/** Where a cluster of EKS is, in the place of what moto makes up. */
export interface EksPlace {
  readonly endpoint: string;
  readonly certificateAuthorityData: string;
}

export interface AwsRecorder {
  readonly endpoint: string;
  readonly calls: readonly RecordedCall[];
  /** Until the returned function is called. */
  disturb(rule: FaultRule): () => void;
  close(): Promise<void>;
}

export interface RecorderOptions {
  readonly upstream: string;
  readonly account: string;
  readonly eks: EksPlace;
}

export async function startAwsRecorder({ upstream, account, eks }: RecorderOptions): Promise<AwsRecorder> {
  const agent = new Agent({ keepAlive: true });
  const calls: RecordedCall[] = [];
  const rules = new Set<FaultRule>();
  const serve = async (incoming: IncomingMessage, response: ServerResponse) => {
    const body = await buffer(incoming);
    const mine = callsOf(incoming, body.toString("utf8"), account);
    calls.push(...mine);
    const rule = [...rules].find((candidate) => mine.some((call) => isMeant(candidate, call)));
    if (rule?.fault === "silence") return;
    if (rule?.fault === "denied") return deny(response, mine[0]);
    // The host stays what the caller asked for, so that queues get addresses that lead here.
    const { method = "GET", url: path = "/", headers } = incoming;
    const answer = await forward(upstream, { agent, method, path, headers, body });
    const isCluster = mine.some(({ action }) => action === "eks:DescribeCluster");
    const replaced = isCluster && answer.status === 200 ? placeCluster(answer.body, eks) : answer.body;
    response.writeHead(answer.status, { ...answer.headers, "content-length": replaced.length }).end(replaced);
  };
  const server = createServer((incoming, response) => {
    serve(incoming, response).catch(() => response.destroy());
  });
  const listener = await listen(server);
  return {
    endpoint: `http://127.0.0.1:${listener.port}`,
    calls,
    disturb(rule) {
      rules.add(rule);
      return () => void rules.delete(rule);
    },
    async close() {
      await listener.close();
      agent.destroy();
    },
  };
}

function isMeant({ accessKeyId, action, resource = "" }: FaultRule, call: RecordedCall): boolean {
  return call.accessKeyId === accessKeyId && call.action === action && call.resource.endsWith(resource);
}

function deny(response: ServerResponse, call: RecordedCall | undefined): void {
  const message = `User is not authorized to perform: ${call?.action} on resource: ${call?.resource}`;
  const headers = { "content-type": "application/x-amz-json-1.0", "x-amzn-errortype": "AccessDeniedException" };
  response.writeHead(400, headers).end(JSON.stringify({ __type: "AccessDeniedException", message }));
}

/** What IAM is asked about a request. Throws for a request that is not known here, which the caller sees as a broken connection. */
function callsOf({ headers, method = "", url = "/" }: IncomingMessage, body: string, account: string): RecordedCall[] {
  const [, accessKeyId = "", region = "", service = ""] =
    /Credential=([^/]+)\/\d+\/([\w-]+)\/([\w-]+)\//.exec(headers.authorization ?? "") ?? [];
  const [, operation = ""] = /^\w+\.(\w+)$/.exec(String(headers["x-amz-target"] ?? "")) ?? [];
  const arn = (name: string, resource: string) => `arn:aws:${name}:${region}:${account}:${resource}`;
  const call = (action: string, resource: string, context: Call["context"] = {}) => ({
    accessKeyId,
    action,
    resource,
    context,
  });
  const json = parseJson(body);
  switch (service) {
    case "sqs": {
      const { QueueUrl } = z.object({ QueueUrl: z.string() }).parse(json);
      // A batch is allowed as its single calls are.
      return [call(`sqs:${operation.replace(/Batch$/, "")}`, arn("sqs", QueueUrl.split("/").at(-1) ?? ""))];
    }
    case "events": {
      const { Entries } = eventsSchema.parse(json);
      return Entries.map(({ EventBusName, Source, DetailType }) => {
        const bus = EventBusName.startsWith("arn:") ? EventBusName : arn("events", `event-bus/${EventBusName}`);
        return call(`events:${operation}`, bus, { "events:source": Source, "events:detail-type": DetailType });
      });
    }
    case "ssm": {
      const { Name, Path } = z.object({ Name: z.string().optional(), Path: z.string().optional() }).parse(json);
      return [call(`ssm:${operation}`, arn("ssm", `parameter${Name ?? Path}`))];
    }
    case "eks": {
      const [, cluster] = /^\/clusters\/([\w-]+)$/.exec(url) ?? [];
      if (method !== "GET" || cluster === undefined) throw new Error(`${method} ${url} is not known here`);
      return [call("eks:DescribeCluster", arn("eks", `cluster/${cluster}`))];
    }
    case "sts": {
      const form = new URLSearchParams(body);
      return [call(`sts:${form.get("Action")}`, form.get("RoleArn") ?? "*")];
    }
    default:
      throw new Error(`the service ${service} is not known here`);
  }
}

const eventsSchema = z.object({
  Entries: z.array(z.object({ EventBusName: z.string(), Source: z.string(), DetailType: z.string() })),
});

const describedSchema = z.object({ cluster: z.looseObject({}) });

function placeCluster(body: Buffer, { endpoint, certificateAuthorityData: data }: EksPlace): Buffer {
  const { cluster } = describedSchema.parse(parseJson(body.toString("utf8")));
  return Buffer.from(JSON.stringify({ cluster: { ...cluster, endpoint, certificateAuthority: { data } } }));
}
