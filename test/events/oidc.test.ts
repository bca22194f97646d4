import type { LookupFunction } from "node:net";
import { generateKeyPair, SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, it } from "vitest";
import { isAcceptedServer } from "../../shared/clusters/access.ts";
import { lookupAllowed } from "../../shared/clusters/lookup.ts";
import { judgeToken } from "../../shared/events/oidc.ts";
import { AUDIENCE, anIssuer, SUBJECT, type TokenFields } from "../support/issuer.ts";
import { NOW } from "../support/transport-objects.ts";

const MINUTE_MS = 60_000;

/** An issuer, and a judge of its tokens who keeps its keys. */
async function aJudge(deps: Parameters<Awaited<ReturnType<typeof anIssuer>>["keys"]>[0] = {}) {
  const clock = { now: NOW };
  const issuer = await anIssuer(clock);
  const keys = issuer.keys(deps);
  return {
    ...issuer,
    clock,
    keys,
    judge: (token: string) => judgeToken(token, issuer.rules, { keys, nowMs: clock.now }),
  };
}

describe("a token", () => {
  it("of the registered issuer, audience and subject is valid, and its keys are fetched once", async () => {
    const { judge, token, asked } = await aJudge();
    expect([await judge(await token()), await judge(await token())]).toEqual(["valid", "valid"]);
    expect(asked).toEqual(["/.well-known/openid-configuration", "/keys"]);
  });

  it("may be for several audiences, as those of Kubernetes are", async () => {
    const { judge, token } = await aJudge();
    expect(await judge(await token({ claims: { aud: ["https://other.example", AUDIENCE] } }))).toBe("valid");
  });

  it.each<[string, TokenFields]>([
    ["another audience", { claims: { aud: "https://functions.example/clusters/east" } }],
    ["an audience that only begins like it", { claims: { aud: `${AUDIENCE}/x` } }],
    ["another subject", { claims: { sub: "system:serviceaccount:ci:default" } }],
    ["a subject that only begins like it", { claims: { sub: `${SUBJECT}s` } }],
    ["no expiry", { lifetime: null }],
    ["an expiry that is past", { lifetime: -31 }],
    ["a time that has not come", { claims: { nbf: NOW / 1_000 + 31 } }],
  ])("with %s is invalid", async (_what, fields) => {
    const { judge, token } = await aJudge();
    expect(await judge(await token(fields))).toBe("invalid");
  });

  it.each(["", "a.b.c", "not a token", `${"x".repeat(4_096)}`])(
    "that is none is invalid, and nobody is asked: %s",
    async (text) => {
      const { judge, asked } = await aJudge();
      expect([await judge(text), asked]).toEqual(["invalid", []]);
    },
  );

  it("of another issuer is invalid, and neither is asked for keys", async () => {
    const [ours, other] = [await aJudge(), await aJudge()];
    expect(await ours.judge(await other.token())).toBe("invalid");
    expect([ours.asked, other.asked]).toEqual([[], []]);
  });

  it("without a signature is invalid", async () => {
    const { judge, rules } = await aJudge();
    const unsigned = new UnsecuredJWT({ iss: rules.issuer, aud: AUDIENCE, sub: SUBJECT, exp: NOW }).encode();
    expect(await judge(unsigned)).toBe("invalid");
  });

  it("signed with the text of a public key is invalid", async () => {
    const { judge, rules } = await aJudge();
    const payload = { iss: rules.issuer, aud: AUDIENCE, sub: SUBJECT, exp: NOW };
    const forged = await new SignJWT(payload)
      .setProtectedHeader({ alg: "HS256", kid: "key-1" })
      .sign(new TextEncoder().encode("the public key, which everybody knows"));
    expect(await judge(forged)).toBe("invalid");
  });

  it("signed with a key of one's own under a published name is invalid", async () => {
    const { judge, rules } = await aJudge();
    const { privateKey } = await generateKeyPair("ES256");
    const payload = { iss: rules.issuer, aud: AUDIENCE, sub: SUBJECT, exp: NOW / 1_000 + 600 };
    const forged = await new SignJWT(payload).setProtectedHeader({ alg: "ES256", kid: "key-1" }).sign(privateKey);
    expect(await judge(forged)).toBe("invalid");
  });

  it("whose last character but one is another is invalid", async () => {
    const { judge, token } = await aJudge();
    const text = await token();
    expect(await judge(`${text.slice(0, -2)}${text.at(-2) === "A" ? "B" : "A"}${text.slice(-1)}`)).toBe("invalid");
  });
});

describe("the issuer's keys", () => {
  it("are looked up once a minute at most, whoever brings tokens of unknown keys", async () => {
    const { judge, token, asked, clock } = await aJudge();
    const knock = async () => expect(await judge(await token({ kid: "unknown" }))).toBe("invalid");
    for (let knocks = 0; knocks < 5; knocks += 1) await knock();
    expect(asked).toHaveLength(2);
    clock.now += MINUTE_MS - 1;
    await knock();
    expect(asked).toHaveLength(2);
    clock.now += 1;
    for (let knocks = 0; knocks < 5; knocks += 1) await knock();
    expect(asked).toHaveLength(4);
  });

  it("that are new are found by the first token of theirs, a minute after the last look", async () => {
    const { judge, token, pairs, clock } = await aJudge();
    expect(await judge(await token())).toBe("valid");
    pairs.set("key-2", await generateKeyPair("ES256", { extractable: true }));
    clock.now += MINUTE_MS;
    expect(await judge(await token({ kid: "key-2" }))).toBe("valid");
  });

  it("that are withdrawn count for five minutes at most", async () => {
    const { judge, token, pairs, clock } = await aJudge();
    const old = await token();
    expect(await judge(old)).toBe("valid");
    pairs.set("key-2", await generateKeyPair("ES256", { extractable: true }));
    pairs.delete("key-1");
    clock.now += 5 * MINUTE_MS;
    expect(await judge(old)).toBe("invalid");
  });

  it("are asked for once a minute at most while they cannot be had, and nothing is said of tokens", async () => {
    const { judge, token, answers, asked, clock } = await aJudge();
    answers.set("/.well-known/openid-configuration", (_request, response) => void response.writeHead(500).end());
    const verdicts = [await judge(await token()), await judge(await token())];
    expect([verdicts, asked]).toEqual([["unavailable", "unavailable"], ["/.well-known/openid-configuration"]]);
    answers.clear();
    clock.now += MINUTE_MS;
    expect(await judge(await token())).toBe("valid");
  });

  it("count for an hour more when the issuer is away", async () => {
    const { judge, token, answers, clock } = await aJudge();
    expect(await judge(await token())).toBe("valid");
    answers.set("/keys", (_request, response) => void response.destroy());
    clock.now += 59 * MINUTE_MS;
    expect(await judge(await token())).toBe("valid");
    clock.now += 6 * MINUTE_MS;
    expect(await judge(await token())).toBe("unavailable");
  });

  it.each([
    ["a redirect", "the answer is 302"],
    ["another issuer's document", "of another issuer"],
    ["a document without end", "exceeds 65536 bytes"],
    ["keys at a metadata address", "not one that may be called"],
    ["keys over http", "not one that may be called"],
    ["keys by a name that resolves to a metadata address", "localhost resolves to a link-local or metadata address"],
    ["text", "expected object"],
  ])("are not taken from %s", async (what, why) => {
    const resolve: LookupFunction = (_name, _options, found) =>
      found(null, [{ address: "169.254.169.254", family: 4 }]);
    const { judge, token, answers, rules, keys } = await aJudge({
      isAcceptedUrl: isAcceptedServer,
      lookup: lookupAllowed(resolve),
    });
    const jwksUris: Record<string, string> = {
      "keys at a metadata address": "https://169.254.169.254/keys",
      "keys over http": rules.issuer.replace("https:", "http:"),
      "keys by a name that resolves to a metadata address": `${rules.issuer.replace("127.0.0.1", "localhost")}/keys`,
    };
    answers.set("/.well-known/openid-configuration", (_request, response) => {
      if (what === "a redirect") return void response.writeHead(302, { location: "/elsewhere" }).end("{}");
      if (what === "a document without end") return void response.end(`{"x":"${"x".repeat(70_000)}`);
      if (what === "text") return void response.end("hello");
      const issuer = what === "another issuer's document" ? "https://other.example" : rules.issuer;
      response.end(JSON.stringify({ issuer, jwks_uri: jwksUris[what] ?? `${rules.issuer}/keys` }));
    });
    expect(await judge(await token())).toBe("unavailable");
    expect(keys.failures).toEqual([expect.stringContaining(why)]);
  });

  it.each([
    ["does not answer", ""],
    ["stops in the middle", "{"],
  ])("are given up when the issuer %s", async (_what, begin) => {
    const { judge, token, answers, keys } = await aJudge();
    answers.set("/.well-known/openid-configuration", (_request, response) => {
      if (begin !== "") response.write(begin);
    });
    expect(await judge(await token())).toBe("unavailable");
    expect(keys.failures).toEqual([expect.stringMatching(/abort|timeout/i)]);
  });

  it("are not taken from an answer that is cut off", async () => {
    const { judge, token, answers, keys } = await aJudge();
    answers.set("/.well-known/openid-configuration", (_request, response) => {
      response.writeHead(200, { "content-length": "1000" }).write("{");
      setImmediate(() => response.destroy());
    });
    expect(await judge(await token())).toBe("unavailable");
    expect(keys.failures).toHaveLength(1);
  });

  it("that are secrets are not read as keys", async () => {
    const { judge, answers, rules } = await aJudge();
    const secret = Buffer.from("a shared secret of thirty-two chars");
    const k = secret.toString("base64url");
    answers.set(
      "/keys",
      (_request, response) =>
        void response.end(JSON.stringify({ keys: [{ kty: "oct", kid: "key-1", k, alg: "HS256" }] })),
    );
    const payload = { iss: rules.issuer, aud: AUDIENCE, sub: SUBJECT, exp: NOW / 1_000 + 600 };
    const token = await new SignJWT(payload).setProtectedHeader({ alg: "HS256", kid: "key-1" }).sign(secret);
    expect(await judge(token)).toBe("invalid");
  });
});
