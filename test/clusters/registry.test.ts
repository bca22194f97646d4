import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { accessSchema, type ServerAccess } from "../../shared/clusters/access.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import { createEntryCache } from "../../shared/clusters/entry-cache.ts";
import {
  createFileRegistry,
  createSenderCache,
  openRegistry,
  type Registry,
  RegistryError,
} from "../../shared/clusters/registry.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { aFolder } from "../control-plane/support.ts";
import { aDirectory } from "../support/handlers.ts";
import { aWire } from "../support/transport.ts";
import { NOW } from "../support/transport-objects.ts";

const SECRET = "s3cr3t";
const ACCESS = { server: "https://api.example:6443", auth: { kind: "token", token: SECRET } };

function aRegistryOf(content: unknown): Registry {
  const path = join(aFolder(), "registry.json");
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return createFileRegistry(path);
}

/** What is said about a registry whose one cluster has this entry. */
async function complaintAbout(access: unknown): Promise<string> {
  const registry = aRegistryOf({ clusters: { west: { access } } });
  return registry.access("west").then(
    () => "",
    (error: unknown) => (error instanceof Error ? `${error.name}: ${error.message}` : ""),
  );
}

function isServer(server: string): boolean {
  return accessSchema.safeParse({ ...ACCESS, server }).success;
}

it("reads the entries of a file, and observes unless told to act", async () => {
  const registry = aRegistryOf({
    clusters: { west: { access: ACCESS }, east: { access: { ...ACCESS, mode: "act", namespaces: ["ci"] } } },
  });

  expect(await registry.names()).toEqual(["east", "west"]);
  expect(await registry.access("west")).toEqual({ ...ACCESS, mode: "observe" });
  expect(await registry.access("east")).toEqual({ ...ACCESS, mode: "act", namespaces: ["ci"] });
  expect(await registry.webhook("west")).toBeUndefined();
});

it("opens the registry that the configuration names", async () => {
  const path = join(aFolder(), "registry.json");
  writeFileSync(path, JSON.stringify({ clusters: { west: { access: ACCESS } } }));

  expect(await openRegistry({ REGISTRY_FILE: path }).names()).toEqual(["west"]);
  expect(() => openRegistry({})).toThrow("set REGISTRY_FILE or REGISTRY_PREFIX");
});

it.each(["north", "__proto__", "constructor", ""])("knows no cluster called %j", async (name) => {
  const registry = aRegistryOf({ clusters: { west: { access: ACCESS } } });

  expect(await registry.access(name)).toBeUndefined();
  expect(await registry.webhook(name)).toBeUndefined();
});

it("reads the file anew at each question", async () => {
  const path = join(aFolder(), "registry.json");
  writeFileSync(path, '{"clusters":{}}');
  const registry = createFileRegistry(path);
  expect(await registry.names()).toEqual([]);
  writeFileSync(path, JSON.stringify({ clusters: { west: { access: ACCESS } } }));

  expect(await registry.names()).toEqual(["west"]);
  rmSync(path);
  await expect(registry.names()).rejects.toMatchObject({
    name: "RegistryError",
    message: `the cluster registry ${path} cannot be read`,
  });
});

it.each([
  ["clusters as a list", { clusters: [] }, "clusters"],
  ["a setting that there is not", { clusters: {}, defaultToken: SECRET }, "defaultToken"],
])("refuses a file with %s, and names the field", async (_what, content, field) => {
  const reading = aRegistryOf(content).names();

  await expect(reading).rejects.toMatchObject({ name: "RegistryError", message: expect.stringContaining(field) });
  await expect(reading).rejects.not.toMatchObject({ message: expect.stringContaining(SECRET) });
});

it.each([
  ["without access", "west", {}, "clusters.west.access: "],
  ["with a name that is no DNS label", "West/1", { access: ACCESS }, "clusters.West/1: "],
  ["with a third part", "west", { access: ACCESS, token: SECRET }, "clusters.west"],
  ["that is a list", "west", [SECRET], "clusters.west: "],
  ["with a bad server", "west", { access: { ...ACCESS, server: SECRET } }, "clusters.west.access.server: "],
])("refuses a registration %s, names the field, and serves the others", async (_what, name, entry, field) => {
  const registry = aRegistryOf({ clusters: { [name]: entry, zulu: { access: ACCESS } } });
  const reading = registry.access(name);

  await expect(reading).rejects.toMatchObject({ name: "RegistryError", kind: "invalid", retryable: false });
  await expect(reading).rejects.toMatchObject({ message: expect.stringContaining(field) });
  await expect(reading).rejects.not.toMatchObject({ message: expect.stringContaining(SECRET) });
  expect(await registry.names()).toEqual([name, "zulu"]);
  expect(await registry.access("zulu")).toMatchObject({ server: ACCESS.server });
});

it("keeps what may send events apart from what reaches the cluster: one may be wrong", async () => {
  const registry = aRegistryOf({
    clusters: {
      west: { access: ACCESS, webhook: { bearer: SECRET } },
      east: { access: { server: SECRET }, webhook: { bearer: ["0".repeat(64)] } },
    },
  });

  expect(await registry.access("west")).toMatchObject({ server: ACCESS.server });
  await expect(registry.webhook("west")).rejects.toThrow("clusters.west.webhook.bearer: ");
  expect(await registry.webhook("east")).toEqual({ bearer: ["0".repeat(64)] });
  await expect(registry.access("east")).rejects.toThrow("clusters.east.access.auth: ");
});

describe("what may send events", () => {
  const signing = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString("base64")}`;
  const oidc = {
    issuer: "https://oidc.example/id/1",
    audience: "vmpool-functions",
    subject: "system:serviceaccount:a:b",
  };
  const hash = "0".repeat(64);

  it.each<[string, object]>([
    ["two secrets to sign with", { standardWebhooks: [signing(24), signing(64)] }],
    ["two hashes of tokens", { bearer: [hash, hash], path: [hash, hash] }],
    ["an issuer with a path", { oidc }],
    ["nothing", {}],
  ])("is %s", async (_what, webhook) => {
    expect(await aRegistryOf({ clusters: { west: { access: ACCESS, webhook } } }).webhook("west")).toEqual(webhook);
  });

  it.each<[string, object, string]>([
    ["a third secret", { standardWebhooks: [signing(24), signing(32), signing(40)] }, "standardWebhooks"],
    ["a secret that is too short", { standardWebhooks: [signing(23)] }, "standardWebhooks.0"],
    ["a secret that is too long", { standardWebhooks: [signing(65)] }, "standardWebhooks.0"],
    ["a secret that is no base64", { standardWebhooks: [`whsec_${"-".repeat(32)}`] }, "standardWebhooks.0"],
    ["a secret without its padding", { standardWebhooks: [signing(32).replace("=", "")] }, "standardWebhooks.0"],
    ["a secret without its prefix", { standardWebhooks: [signing(24).slice(6)] }, "standardWebhooks.0"],
    ["a token in the place of its hash", { bearer: [SECRET] }, "bearer.0"],
    ["an issuer over http", { oidc: { ...oidc, issuer: "http://oidc.example" } }, "oidc.issuer"],
    ["an issuer at a metadata address", { oidc: { ...oidc, issuer: "https://169.254.169.254" } }, "oidc.issuer"],
    ["an issuer with a query", { oidc: { ...oidc, issuer: "https://oidc.example/?a=b" } }, "oidc.issuer"],
    ["no audience", { oidc: { ...oidc, audience: "" } }, "oidc.audience"],
    ["any subject", { oidc: { ...oidc, subject: undefined } }, "oidc.subject"],
  ])("is not %s", async (_what, webhook, field) => {
    const reading = aRegistryOf({ clusters: { west: { access: ACCESS, webhook } } }).webhook("west");
    await expect(reading).rejects.toThrow(`clusters.west.webhook.${field}: `);
    await expect(reading).rejects.not.toThrow(SECRET);
  });
});

it.each([
  ["text", `token: ${SECRET}`],
  ["a list", [SECRET]],
  ["null", null],
])("says what is wrong with a file that is %s", async (_what, content) => {
  const complaint = await aRegistryOf(content)
    .names()
    .then(() => "", String);

  expect(complaint).toMatch(/is not (valid|JSON)/);
  expect(complaint).not.toMatch(/: :/);
  expect(complaint).not.toContain(SECRET);
});

it.each([
  ["an unknown kind of auth", { auth: { kind: "exec", command: SECRET } }, "auth.kind"],
  ["no auth", { auth: undefined }, "auth"],
  ["an empty token", { auth: { kind: "token", token: "" } }, "auth.token"],
  ["a token that is a list", { auth: { kind: "token", token: [SECRET] } }, "auth.token"],
  ["a token and a key", { auth: { kind: "token", token: SECRET, keyData: SECRET } }, "auth"],
  [
    "a key that is no base64",
    { auth: { kind: "clientCertificate", certificateData: "AA==", keyData: "-----BEGIN" } },
    "auth.keyData",
  ],
  ["an authority that is no base64", { certificateAuthorityData: "-----BEGIN" }, "certificateAuthorityData"],
  ["a switched-off verification", { insecureSkipTlsVerify: true }, "insecureSkipTlsVerify"],
  ["an unknown mode", { mode: "force" }, "mode"],
  ["no namespace at all", { namespaces: [] }, "namespaces"],
  ["a server without https", { server: `http://user:${SECRET}@api.example` }, "server"],
])("refuses an entry with %s: it names the field and no value", async (_what, fields, field) => {
  const complaint = await complaintAbout({ ...ACCESS, ...fields });

  expect(complaint).toContain("RegistryError: the cluster registry");
  expect(complaint).toContain("clusters.west.access");
  expect(complaint).toContain(field);
  expect(complaint).not.toContain(SECRET);
  expect(complaint).not.toContain("BEGIN");
});

it("gathers all that is wrong with an entry", async () => {
  const complaint = await complaintAbout({ server: "x", auth: { kind: "token" }, mode: "y" });

  for (const field of ["server", "auth.token", "mode"]) expect(complaint).toContain(`clusters.west.access.${field}: `);
});

const EKS = { kind: "eks", clusterName: "prod", region: "eu-central-1" };

it("takes a cluster of EKS without server and authority, which EKS tells", async () => {
  const auth = { ...EKS, roleArn: "arn:aws:iam::123456789012:role/clusters/reader" };
  const registry = aRegistryOf({ clusters: { west: { access: { auth } }, east: { access: { auth: EKS } } } });

  expect(await registry.access("west")).toEqual({ auth, mode: "observe" });
  expect(await registry.access("east")).toEqual({ auth: EKS, mode: "observe" });
});

it.each([
  ["a server of its own", { auth: EKS, server: "https://api.example" }, "server"],
  ["an authority of its own", { auth: EKS, certificateAuthorityData: "AA==" }, "certificateAuthorityData"],
  ["no region", { auth: { kind: "eks", clusterName: "prod" } }, "auth.region"],
  ["a region that is a host", { auth: { ...EKS, region: "eu-1.example.com/?" } }, "auth.region"],
  ["a cluster name that is a path", { auth: { ...EKS, clusterName: "../prod" } }, "auth.clusterName"],
  ["a user for a role", { auth: { ...EKS, roleArn: "arn:aws:iam::123456789012:user/me" } }, "auth.roleArn"],
  ["a token besides", { auth: { ...EKS, token: SECRET } }, "auth"],
])("refuses a cluster of EKS with %s", async (_what, access, field) => {
  const complaint = await complaintAbout(access);

  expect(complaint).toContain(`clusters.west.access.${field}: `);
  expect(complaint).not.toContain(SECRET);
});

it("needs the server of any other cluster", async () => {
  expect(await complaintAbout({ auth: ACCESS.auth })).toContain("clusters.west.access.server: expected an https URL");
});

it.each([
  "https://api.example:6443",
  "https://10.0.0.1",
  "https://127.0.0.1:34567",
  "https://[2001:db8::1]:6443",
  "https://rancher.example/k8s/clusters/c-1",
  "https://ABC.gr7.eu-central-1.eks.amazonaws.com",
  "https://metadata-service.example",
])("takes the server %s", (server) => {
  expect(isServer(server)).toBe(true);
});

it.each([
  "http://api.example",
  "HTTP://api.example",
  "ftp://api.example",
  "file:///etc/passwd",
  "api.example:6443",
  "//api.example",
  "",
  "https://",
  "https://user:secret@api.example",
  "https://user@api.example",
  "https://api.example/?token=secret",
  "https://api.example/#x",
])("refuses the server %s", (server) => {
  expect(isServer(server)).toBe(false);
});

it.each([
  "https://169.254.169.254",
  "https://169.254.1.2:6443",
  "https://169.254.169.254.",
  "https://2852039166",
  "https://0xa9fea9fe",
  "https://0251.0376.0251.0376",
  "https://169.254.43518",
  "https://[fe80::1]",
  "https://[febf:ffff::1]:6443",
  "https://[fd00:ec2::254]",
  "https://0.0.0.0",
  "https://0",
  "https://metadata.google.internal",
  "https://METADATA.google.internal.",
  "https://instance-data.ec2.internal",
])("refuses the link-local or metadata host of %s", (server) => {
  expect(isServer(server)).toBe(false);
});

it.each([
  "https://[::ffff:169.254.169.254]",
  "https://[::ffff:a9fe:a9fe]",
  "https://[::169.254.169.254]",
  "https://[::]",
  "https://metadata",
  "https://instance-data",
])("refuses another spelling of such a host: %s", (server) => {
  expect(isServer(server)).toBe(false);
});

it("never shows a secret, whatever an entry looks like", async () => {
  const odd = fc.oneof(fc.constant(SECRET), fc.constant([SECRET]), fc.constant({ [`k`]: SECRET }), fc.constant(null));
  const entry = fc.record(
    {
      server: fc.oneof(odd, fc.constant(`https://x:${SECRET}@y`)),
      certificateAuthorityData: fc.oneof(odd, fc.constant(`-${SECRET}`)),
      auth: fc.oneof(
        odd,
        fc.record({ kind: odd, token: odd }),
        fc.record({ kind: fc.constant("token"), token: odd, extra: odd }),
        fc.record({ kind: fc.constant("clientCertificate"), certificateData: odd, keyData: fc.constant(`-${SECRET}`) }),
      ),
      mode: odd,
      namespaces: odd,
    },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(entry, async (access) => {
      const parsed = accessSchema.safeParse(access);
      const told = parsed.success
        ? []
        : parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
      expect(told.join("; ")).not.toContain(SECRET);
    }),
  );
});

it("remembers a name that is not registered, as long as any other", async () => {
  const clock = { now: NOW };
  const clusters: Record<string, Parameters<typeof aDirectory>[0][string]> = {};
  const { directory, reads } = aDirectory(clusters, () => clock.now);
  expect(await directory.find("west")).toBeUndefined();
  clusters["west"] = { wire: aWire() };
  clock.now += 5 * 60_000 - 1;
  expect(await directory.find("west")).toBeUndefined();
  clock.now += 1;

  expect(await directory.find("west")).toMatchObject({ name: "west", access: { mode: "act" } });
  expect(reads).toEqual(["west", "west"]);
});

it("opens one connection when several ask for a cluster at once", async () => {
  const { directory, connected } = aDirectory({ west: { wire: aWire() } }, () => NOW);
  const found = await Promise.all([directory.find("west"), directory.find("west"), directory.find("west")]);

  expect(new Set(found).size).toBe(1);
  expect(connected).toHaveLength(1);
});

it("ends the connection of a cluster that is not registered any more", async () => {
  const clock = { now: NOW };
  const wire = aWire();
  const clusters: Record<string, Parameters<typeof aDirectory>[0][string]> = { west: { wire } };
  const { directory } = aDirectory(clusters, () => clock.now);
  await directory.find("west");
  delete clusters["west"];
  clock.now += 5 * 60_000;

  expect(await directory.find("west")).toBeUndefined();
  expect(wire.closed).toBe(1);
});

it("does not mind a refusal of a cluster that it never found", () => {
  const { directory } = aDirectory({}, () => NOW);

  expect(() => directory.refuse("west")).not.toThrow();
});

/** A cache whose reads have these outcomes in order, the last again and again. */
function aCache(...outcomes: readonly (string | undefined | Error)[]) {
  const clock = { now: NOW };
  const reads: string[] = [];
  const cache = createEntryCache<string | undefined>(
    async (name) => {
      const outcome = outcomes[Math.min(reads.length, outcomes.length - 1)];
      reads.push(name);
      if (outcome instanceof Error) throw outcome;
      return outcome;
    },
    () => clock.now,
  );
  return { cache, clock, reads };
}

const BAD = new RegistryError("the entry is not valid");
const DOWN = new RegistryError("the entry cannot be read", { kind: "unavailable" });
const MINUTE_MS = 60_000;

it("remembers a bad entry, as long as any other", async () => {
  const { cache, clock, reads } = aCache(BAD, "good");
  await expect(cache.find("west")).rejects.toBe(BAD);
  clock.now += 5 * MINUTE_MS - 1;
  await expect(cache.find("west")).rejects.toBe(BAD);
  expect(reads).toHaveLength(1);
  clock.now += 1;

  expect(await cache.find("west")).toBe("good");
});

it("does not serve by an entry that has become bad", async () => {
  const { cache, clock } = aCache("good", BAD);
  await cache.find("west");
  clock.now += 5 * MINUTE_MS;

  await expect(cache.find("west")).rejects.toBe(BAD);
});

it("serves by what it read last for half an hour when the registry is down, and asks each ten seconds", async () => {
  const { cache, clock, reads } = aCache("good", DOWN);
  await cache.find("west");
  clock.now += 5 * MINUTE_MS;
  expect([await cache.find("west"), await cache.find("west")]).toEqual(["good", "good"]);
  expect(reads).toHaveLength(2);
  clock.now += 10_000;
  await cache.find("west");
  expect(reads).toHaveLength(3);
  clock.now = NOW + 30 * MINUTE_MS;

  await expect(cache.find("west")).rejects.toBe(DOWN);
});

it("serves by what it read last while the whole file is broken, and by the file again when it is mended", async () => {
  const path = join(aFolder(), "registry.json");
  const text = JSON.stringify({ clusters: { west: { access: ACCESS } } });
  writeFileSync(path, text);
  const clock = { now: NOW };
  const directory = createDirectory({
    registry: createFileRegistry(path),
    now: () => clock.now,
    connect: () => aWire(),
  });
  await directory.find("west");
  for (const broken of [text.slice(0, -1), '{"cluster":{}}']) {
    writeFileSync(path, broken);
    clock.now += 5 * MINUTE_MS;
    expect(await directory.find("west")).toMatchObject({ access: { server: ACCESS.server } });
  }
  writeFileSync(path, JSON.stringify({ clusters: {} }));
  clock.now += 10_000;

  expect(await directory.find("west")).toBeUndefined();
});

it("asks each ten seconds for what it never could read", async () => {
  const { cache, clock, reads } = aCache(DOWN, "good");
  await expect(cache.find("west")).rejects.toBe(DOWN);
  clock.now += 9_999;
  await expect(cache.find("west")).rejects.toBe(DOWN);
  expect(reads).toHaveLength(1);
  clock.now += 1;

  expect(await cache.find("west")).toBe("good");
});

it("reads an entry early after a refusal, once a minute at most", async () => {
  const { cache, clock, reads } = aCache("old", "old", "new");
  await cache.find("west");
  clock.now += MINUTE_MS - 1;
  cache.refuse("west");
  await cache.find("west");
  expect(reads).toHaveLength(1);
  clock.now += 1;
  cache.refuse("west");
  expect(await cache.find("west")).toBe("old");
  expect(reads).toHaveLength(2);
  cache.refuse("west");
  await cache.find("west");

  expect(reads).toHaveLength(2);
});

it("keeps registered clusters while names are guessed", async () => {
  const reads: string[] = [];
  const cache = createEntryCache<string | undefined>(
    async (name) => {
      reads.push(name);
      return name === "west" ? "registered" : undefined;
    },
    () => NOW,
  );
  await cache.find("west");
  for (let guess = 0; guess < 3_000; guess += 1) await cache.find(`guess-${guess}`);
  await cache.find("west");

  expect(reads.filter((name) => name === "west")).toHaveLength(1);
});

it("passes on what the registry says is wrong, and asks again next time", async () => {
  const access: ServerAccess = { server: ACCESS.server, auth: { kind: "token", token: SECRET }, mode: "act" };
  let asked = 0;
  const registry = {
    names: async () => ["west"],
    webhook: async () => undefined,
    async access() {
      asked += 1;
      if (asked === 1) throw new RangeError("unreadable");
      return access;
    },
  };
  const directory = createDirectory({ registry, now: () => NOW, connect: () => aWire() });

  await expect(directory.find("west")).rejects.toThrow("unreadable");
  expect(isRecord(await directory.find("west"))).toBe(true);
});

it("looks up sixty names that are new in a minute, whoever guesses them, and goes on with those that it knows", async () => {
  const clock = { now: NOW };
  const asked: string[] = [];
  const rules = { bearer: ["a".repeat(64)] };
  const webhook = async (name: string) => {
    asked.push(name);
    return name === "west" ? rules : undefined;
  };
  const senders = createSenderCache({ webhook }, () => clock.now);
  await senders.find("west");
  for (let guess = 1; guess < 60; guess += 1) expect(await senders.find(`guess-${guess}`)).toBeUndefined();

  await expect(senders.find("guess-60")).rejects.toMatchObject({ name: "RegistryError", kind: "unavailable" });
  expect(asked).toHaveLength(60);
  clock.now += 5 * 60_000;
  expect(await senders.find("west")).toBe(rules);
  expect(await senders.find("guess-60")).toBeUndefined();
});
