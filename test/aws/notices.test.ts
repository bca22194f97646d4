/** Where `check --events` looks for its notice on AWS: the log groups of the functions. */
import {
  CloudWatchLogsClient,
  CreateLogGroupCommand,
  CreateLogStreamCommand,
  PutLogEventsCommand,
} from "@aws-sdk/client-cloudwatch-logs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createCloudWatchNotices } from "../../infra/cli/notices.ts";
import { CHECK_NOTICE } from "../../shared/events/changes.ts";
import { startMoto } from "../support/moto.ts";

const PREFIX = "/aws/lambda/vmpool-functions-prod-";
const POOL = "vmpool-functions-check-0a1b2c3d";

let moto: Awaited<ReturnType<typeof startMoto>>;
let client: CloudWatchLogsClient;

beforeAll(async () => {
  moto = await startMoto();
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  client = new CloudWatchLogsClient({ endpoint: moto.endpoint, region: "eu-west-1", credentials });
});

afterAll(async () => {
  client.destroy();
  await moto.stop();
});

async function log(functionName: string, lines: readonly string[], timestamp: number): Promise<void> {
  const place = { logGroupName: `${PREFIX}${functionName}`, logStreamName: "stream" };
  await client.send(new CreateLogGroupCommand({ logGroupName: place.logGroupName }));
  await client.send(new CreateLogStreamCommand(place));
  const logEvents = lines.map((message) => ({ message, timestamp }));
  await client.send(new PutLogEventsCommand({ ...place, logEvents }));
}

it("finds the notices of its own pool in the groups that exist", async () => {
  const now = Date.now();
  const line = (source: string, pool = POOL) =>
    JSON.stringify({ level: "INFO", message: CHECK_NOTICE, cluster: "west", source, pool });
  await log("admission", ["START RequestId: 1", `${line("admission")}\n`, line("admission", `${POOL}0`)], now);
  await log("webhook", [line("audit", "vmpool-functions-check-ffffffff"), `text with ${POOL}`], now);
  const read = createCloudWatchNotices(PREFIX, client);
  expect(await read(POOL, now - 1_000)).toEqual([{ source: "admission", at: now }]);
  expect(await read("vmpool-functions-check-00000000", now - 1_000)).toEqual([]);
});

it("says which right is missing, and nothing of the account", async () => {
  const denied = { send: () => Promise.reject(Object.assign(new Error("arn:aws:iam::1"), { name: "AccessDenied" })) };
  const failure = await createCloudWatchNotices(PREFIX, denied)(POOL, 0).catch((error: unknown) => String(error));
  expect(failure).toContain(`${PREFIX}webhook cannot be read (AccessDenied): check your AWS credentials`);
  expect(failure).not.toContain("arn:");
});
