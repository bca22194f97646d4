/** FIFO queues of a stand-in for AWS, and Lambda's poller of one: made as those that are deployed are, but for shorter times. */
import { randomUUID } from "node:crypto";
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import type { SQSBatchResponse, SQSEvent } from "aws-lambda";
import { type Moto, motoClient } from "./moto.ts";

const RECEIPTS_MAX = 3;
const BATCH_MAX = 10;

export interface QueueTimes {
  readonly delaySeconds?: number;
  readonly visibilitySeconds?: number;
}

export interface MotoQueue {
  readonly url: string;
  readonly arn: string;
  /** Where messages go after three receipts. */
  readonly deadLettersUrl: string;
  readonly client: SQSClient;
  /** Up to ten messages; waits so long for the first. */
  receive(waitSeconds?: number, url?: string): Promise<readonly Message[]>;
  acknowledge(messages: readonly Message[]): Promise<void>;
}

/** `name` ends a name that no other queue has. */
export async function aMotoQueue(
  moto: Pick<Moto, "endpoint">,
  name: string,
  { delaySeconds = 0, visibilitySeconds = 30 }: QueueTimes = {},
): Promise<MotoQueue> {
  const client = new SQSClient(motoClient(moto));
  const prefix = randomUUID();
  const fifo = { FifoQueue: "true", DeduplicationScope: "messageGroup", FifoThroughputLimit: "perMessageGroupId" };
  const deadLettersUrl = await create(client, `${prefix}-dead-${name}.fifo`, fifo);
  const deadLetterTargetArn = await arnOf(client, deadLettersUrl);
  const url = await create(client, `${prefix}-${name}.fifo`, {
    ...fifo,
    DelaySeconds: String(delaySeconds),
    VisibilityTimeout: String(visibilitySeconds),
    RedrivePolicy: JSON.stringify({ deadLetterTargetArn, maxReceiveCount: RECEIPTS_MAX }),
  });
  return {
    url,
    arn: await arnOf(client, url),
    deadLettersUrl,
    client,
    receive: async (waitSeconds = 0, from = url) => {
      const wanted = { MaxNumberOfMessages: BATCH_MAX, WaitTimeSeconds: waitSeconds };
      const answer = await client.send(
        new ReceiveMessageCommand({ QueueUrl: from, ...wanted, MessageSystemAttributeNames: ["All"] }),
      );
      return answer.Messages ?? [];
    },
    async acknowledge(messages) {
      if (messages.length === 0) return;
      const Entries = messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
      await client.send(new DeleteMessageBatchCommand({ QueueUrl: url, Entries }));
    },
  };
}

/** What Lambda's poller hands to a function, in the form of a version of the event that AWS documents. */
export function sqsEvent(queue: Pick<MotoQueue, "arn">, messages: readonly Message[]): SQSEvent {
  return {
    Records: messages.map(({ MessageId = "", ReceiptHandle = "", Body = "", MD5OfBody = "", Attributes = {} }) => ({
      messageId: MessageId,
      receiptHandle: ReceiptHandle,
      body: Body,
      attributes: {
        ApproximateReceiveCount: Attributes["ApproximateReceiveCount"] ?? "",
        SentTimestamp: Attributes["SentTimestamp"] ?? "",
        SenderId: Attributes["SenderId"] ?? "",
        ApproximateFirstReceiveTimestamp: Attributes["ApproximateFirstReceiveTimestamp"] ?? "",
        MessageGroupId: Attributes["MessageGroupId"] ?? "",
        MessageDeduplicationId: Attributes["MessageDeduplicationId"] ?? "",
      },
      messageAttributes: {},
      md5OfBody: MD5OfBody,
      eventSource: "aws:sqs",
      eventSourceARN: queue.arn,
      awsRegion: "eu-central-1",
    })),
  };
}

/** One turn of Lambda's poller: a batch to the function, and what it has not reported as failed is acknowledged. Undefined when nothing came. */
export async function pollOnce(
  queue: MotoQueue,
  invoke: (event: SQSEvent) => Promise<SQSBatchResponse>,
  waitSeconds = 10,
): Promise<{ readonly messages: readonly Message[]; readonly failed: readonly string[] } | undefined> {
  const messages = await queue.receive(waitSeconds);
  if (messages.length === 0) return undefined;
  const { batchItemFailures } = await invoke(sqsEvent(queue, messages));
  const failed = batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);
  await queue.acknowledge(messages.filter(({ MessageId = "" }) => !failed.includes(MessageId)));
  return { messages, failed };
}

async function create(client: SQSClient, QueueName: string, Attributes: Record<string, string>): Promise<string> {
  const { QueueUrl } = await client.send(new CreateQueueCommand({ QueueName, Attributes }));
  if (QueueUrl === undefined) throw new Error("the queue has no address");
  return QueueUrl;
}

async function arnOf(client: SQSClient, QueueUrl: string): Promise<string> {
  const { Attributes } = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }));
  return Attributes?.["QueueArn"] ?? "";
}
