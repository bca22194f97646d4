/**
 * Standard Webhooks: a signature over a message's id, time and raw body. Reads no body, and keeps nothing of a message.
 * Node's own HMAC takes the bytes as they came and milliseconds for megabytes; the senders' library signs text, in a
 * hundred times the time, and looks at the clock by itself.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

/** How far the sender's clock may be from ours, which is also how long a message may be sent again. */
const TOLERANCE_MS = 5 * 60_000;
/** A sender that changes its secret signs with both; more than a few is no such thing. */
const SIGNATURES_MAX = 8;

/** Of a secret, before its bytes in base64. */
const PREFIX = "whsec_";

/** A message as it came. */
export interface SignedMessage {
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Whether one of the secrets signed the message within the tolerance; all are tried, whichever matches. `nowMs` is in epoch milliseconds. */
export function isSigned(
  { headers, body }: SignedMessage,
  secrets: readonly string[] | undefined,
  nowMs: number,
): boolean {
  const { "webhook-id": id = "", "webhook-timestamp": timestamp = "", "webhook-signature": signature = "" } = headers;
  if (id === "" || !/^\d{1,12}$/.test(timestamp)) return false;
  const sentAtMs = Number(timestamp) * 1_000;
  if (Math.abs(nowMs - sentAtMs) > TOLERANCE_MS) return false;
  const given = signature.split(" ", SIGNATURES_MAX).map((text) => Buffer.from(text));
  let known = false;
  for (const secret of secrets ?? []) {
    const key = Buffer.from(secret.slice(PREFIX.length), "base64");
    const digest = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
    const expected = Buffer.from(`v1,${digest}`);
    for (const one of given) if (one.length === expected.length && timingSafeEqual(one, expected)) known = true;
  }
  return known;
}
