/** Reads what the functions have logged about a pool of `check`: the file of a local session, or CloudWatch Logs. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CloudWatchLogsClient, FilterLogEventsCommand } from "@aws-sdk/client-cloudwatch-logs";
import * as z from "zod";
import { CHECK_NOTICE, NOTICE_SOURCES } from "../../shared/events/changes.ts";
import { parseJson } from "../../shared/planning/json.ts";
import type { Notice, NoticeReader } from "./delivery.ts";
import { CommandError } from "./errors.ts";

/** The functions that hear of changes. */
const FUNCTIONS = ["webhook", "admission", "audit"];

const lineSchema = z.object({
  message: z.literal(CHECK_NOTICE),
  pool: z.string(),
  source: z.enum(NOTICE_SOURCES),
});

function readLine(text: string, pool: string): Notice["source"] | undefined {
  const line = lineSchema.safeParse(parseJson(text));
  return line.success && line.data.pool === pool ? line.data.source : undefined;
}

const timeSchema = z.object({ time: z.iso.datetime() });

/** The log that `npm start` writes. */
export function createFileNotices(dir: string): NoticeReader {
  const path = join(dir, "logs", "functions.log");
  return async (pool) => {
    const text = await readFile(path, "utf8").catch(() => {
      throw new CommandError(
        `the log ${path} cannot be read: --dir is the folder of the session that serves the cluster`,
      );
    });
    return text.split("\n").flatMap((line) => {
      const source = line.includes(pool) ? readLine(line, pool) : undefined;
      const time = source === undefined ? undefined : timeSchema.safeParse(parseJson(line)).data?.time;
      return source === undefined || time === undefined ? [] : [{ source, at: Date.parse(time) }];
    });
  };
}

/** The log groups of the functions, whose names begin with `prefix`. One that does not exist has no notices. */
export function createCloudWatchNotices(prefix: string, client: Pick<CloudWatchLogsClient, "send">): NoticeReader {
  const readGroup = async (logGroupName: string, pool: string, startTime: number): Promise<readonly Notice[]> => {
    try {
      const command = new FilterLogEventsCommand({ logGroupName, startTime, filterPattern: `"${pool}"` });
      const { events = [] } = await client.send(command);
      return events.flatMap(({ message = "", timestamp }) => {
        const source = readLine(message.trim(), pool);
        return source === undefined || timestamp === undefined ? [] : [{ source, at: timestamp }];
      });
    } catch (error) {
      const name = error instanceof Error ? error.name : "unknown error";
      if (name === "ResourceNotFoundException") return [];
      throw new CommandError(
        `the log group ${logGroupName} cannot be read (${name}): check your AWS credentials, --region and the right to logs:FilterLogEvents`,
      );
    }
  };
  return async (pool, sinceMs) =>
    (await Promise.all(FUNCTIONS.map((name) => readGroup(`${prefix}${name}`, pool, sinceMs)))).flat();
}

/** With the person's own credentials, as every AWS tool finds them. */
export function createLogsClient(region: string | undefined): CloudWatchLogsClient {
  return new CloudWatchLogsClient(region === undefined ? {} : { region });
}
