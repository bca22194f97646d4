import { createHmac } from "node:crypto";
import { Webhook } from "standardwebhooks";
import { describe, expect, it } from "vitest";
import { isSigned } from "../../shared/events/standard-webhooks.ts";
import { NOW } from "../support/transport-objects.ts";

const SECRET = `whsec_${Buffer.alloc(32, 1).toString("base64")}`;
const NEXT_SECRET = `whsec_${Buffer.alloc(24, 2).toString("base64")}`;
const BODY = '{"hello":"wörld"}';
const MINUTE_MS = 60_000;

interface SentFields {
  readonly secret?: string;
  readonly id?: string;
  readonly timestamp?: string;
  readonly body?: string | Buffer;
}

/** The signature by the specification's own words, with Node's own HMAC. */
function signatureOf({ secret = SECRET, id = "msg_1", timestamp = String(NOW / 1_000), body = BODY }: SentFields = {}) {
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64")}`;
}

function aMessage(fields: SentFields = {}, signature = signatureOf(fields)) {
  const { id = "msg_1", timestamp = String(NOW / 1_000), body = BODY } = fields;
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
  return { headers, body: Buffer.from(body) };
}

const isTaken = (message: ReturnType<typeof aMessage>, secrets: readonly string[] = [SECRET]) =>
  isSigned(message, secrets, NOW);

it("takes the example that senders' libraries are tested with", () => {
  const headers = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  };
  const body = Buffer.from('{"test": 2432232314}');
  expect(isSigned({ headers, body }, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], 1_614_265_330_000)).toBe(true);
});

describe("a signed message", () => {
  it("is taken with either of two secrets, so that one can be changed without a gap", () => {
    for (const secret of [SECRET, NEXT_SECRET]) expect(isTaken(aMessage({ secret }), [SECRET, NEXT_SECRET])).toBe(true);
  });

  it("is taken when one of several signatures is ours", () => {
    const others = [signatureOf({ secret: NEXT_SECRET }), "v1a,AAAA", "", "nothing"];
    expect(isTaken(aMessage({}, [...others, signatureOf()].join(" ")))).toBe(true);
  });

  it.each([
    ["five minutes old", -5 * MINUTE_MS, true],
    ["older than that", -5 * MINUTE_MS - 1_000, false],
    ["five minutes early", 5 * MINUTE_MS, true],
    ["earlier than that", 5 * MINUTE_MS + 1_000, false],
  ])("that is %s is taken or not: %i ms, %s", (_what, offMs, expected) => {
    expect(isTaken(aMessage({ timestamp: String((NOW + offMs) / 1_000) }))).toBe(expected);
  });

  it.each<[string, ReturnType<typeof aMessage>]>([
    ["with another body", { ...aMessage(), body: Buffer.from('{"hello":"world"}') }],
    ["cut short", { ...aMessage(), body: Buffer.from(BODY).subarray(0, -1) }],
    ["of an unknown secret", aMessage({ secret: NEXT_SECRET })],
    ["under another id", aMessage({ id: "msg_2" }, signatureOf())],
    ["sent again with a new time", aMessage({ timestamp: String(NOW / 1_000 + 1) }, signatureOf())],
    ["with a time that only begins as one", aMessage({ timestamp: `${NOW / 1_000}x` })],
    ["without an id", aMessage({ id: "" })],
    ["without a signature", aMessage({}, "")],
    ["with a signature of another version", aMessage({}, signatureOf().replace("v1,", "v2,"))],
    ["whose ninth signature is ours", aMessage({}, [...Array(8).fill("v1,x"), signatureOf()].join(" "))],
  ])("%s is not taken", (_what, message) => {
    expect(isTaken(message)).toBe(false);
  });

  it("is not taken where nothing is registered", () => {
    expect([isTaken(aMessage(), []), isSigned(aMessage(), undefined, NOW)]).toEqual([false, false]);
  });

  it("is of the very bytes: what only reads the same as text is not taken", () => {
    // Both bytes are read as the same sign for what is not UTF-8.
    const [sent, changed] = [Buffer.from([0x22, 0xff, 0x22]), Buffer.from([0x22, 0xfe, 0x22])];
    const message = aMessage({ body: sent });
    expect([isTaken(message), isTaken({ ...message, body: changed })]).toEqual([true, false]);
  });

  it.each([SECRET, NEXT_SECRET])("is taken from the senders' own library: %s", (secret) => {
    const signature = new Webhook(secret).sign("msg_1", new Date(NOW), BODY);
    expect(isTaken(aMessage({}, signature), [secret])).toBe(true);
  });
});
