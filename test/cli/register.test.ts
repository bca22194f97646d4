import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { runAdd, runCredentials } from "../../infra/cli/add.ts";
import { parseClusterOptions } from "../../infra/cli/cluster-options.ts";
import { formatEntry, formatJson } from "../../infra/cli/entries.ts";
import { CommandError } from "../../infra/cli/errors.ts";
import type { Outcome } from "../../infra/cli/registration.ts";
import { createFileStore, type RegistryStore } from "../../infra/cli/registry-store.ts";
import { runRemove } from "../../infra/cli/remove.ts";
import { runRotate } from "../../infra/cli/rotate.ts";
import type { ClusterAccess, ServerAccess } from "../../shared/clusters/access.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { aFolder } from "../control-plane/support.ts";
import { aWire, ok, on, refusal, type Wire, writesOf } from "../support/transport.ts";

const TOKEN = "s3cr3t-token";
const SERVER = "https://api.example";
const ENDPOINT = ["--endpoint", "https://vmpools.example"];
const BY_TOKEN = ["--server", SERVER, "--token-stdin"];
/** Of the kubeconfig's context `admin`. */
const ADMIN: ServerAccess = { server: SERVER, auth: { kind: "token", token: "admin-t0ken" }, mode: "observe" };

/** What is asked for before anything is applied. */
const APPLYING = [
  "/api/v1",
  "/apis/rbac.authorization.k8s.io/v1",
  "/apis/flowcontrol.apiserver.k8s.io/v1",
  "/apis/admissionregistration.k8s.io/v1",
  "/apis/sources.knative.dev/v1",
];

interface Given {
  readonly store?: RegistryStore;
  readonly stdin?: string;
  /** What stands for every cluster. */
  readonly wire?: Wire;
  readonly answer?: boolean;
  /** What a context of the kubeconfig leads to; each one to `ADMIN` otherwise. */
  readonly contexts?: (context: string | undefined) => ClusterAccess;
  readonly connect?: (access: ClusterAccess) => Wire;
}

function aStore(): RegistryStore {
  return createFileStore(join(aFolder(), "registry.json"));
}

async function cluster(store: RegistryStore, args: readonly string[], given: Given = {}): Promise<Outcome> {
  const parsed = parseClusterOptions(args);
  if (parsed.kind !== "options") throw new Error(parsed.kind === "wrong" ? parsed.message : "help");
  const { options } = parsed;
  const deps = {
    store,
    readText: async (file: string) => (file === "-" ? (given.stdin ?? TOKEN) : readFile(file, "utf8")),
    readContext: (context: string | undefined) => ({ access: given.contexts?.(context) ?? ADMIN }),
    connect: (access: ClusterAccess) => given.connect?.(access) ?? given.wire ?? aWire(),
    session: async () => undefined,
    confirm: async () => given.answer,
  };
  switch (options.command) {
    case "add":
      return runAdd(options, deps);
    case "credentials":
      return runCredentials(options, deps);
    case "rotate":
      return runRotate(options, deps);
    case "remove":
      return runRemove(options, deps);
    default:
      throw new Error("another command is meant");
  }
}

/** Every secret that the outcome shows, as often as it shows it. */
function secretsIn({ stdout, stderr }: Outcome): readonly string[] {
  return [stdout, ...stderr].join("\n").match(/(?<=admission\/|events: )[\w+/=-]{43,}/g) ?? [];
}

/** As a JWT says whom it is of. */
function tokenOf(sub: string): string {
  return `e30.${Buffer.from(JSON.stringify({ sub, exp: 1_800_000_000 })).toString("base64url")}.x`;
}

function documentsOf({ stdout }: Outcome): readonly unknown[] {
  return [...parseAllDocuments(stdout)].map((document): unknown => document.toJS());
}

it("registers a cluster in mode observe and keeps hashes alone", async () => {
  const store = aStore();
  const args = ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "admission,audit,standard-webhooks"];
  const added = await cluster(store, [...args, "--namespaces", "ci"]);
  expect(added.exitCode).toBe(0);
  expect(await store.access("west")).toEqual({
    server: SERVER,
    auth: { kind: "token", token: TOKEN },
    mode: "observe",
    namespaces: ["ci"],
  });
  const [path = "", ...others] = [...new Set(secretsIn(added))];
  const [bearer = "", key = ""] = others;
  expect(others).toHaveLength(2);
  expect(key).toMatch(/^whsec_[\w+/]{43}=$/);
  expect(await store.webhook("west")).toEqual({
    path: [hashSecret(path)],
    bearer: [hashSecret(bearer)],
    standardWebhooks: [key],
  });
});

it("shows a secret in the manifests or beside them, once, and the token of the cluster never", async () => {
  const args = ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "admission,bearer"];
  const added = await cluster(aStore(), args);
  const [beside, ...more] = added.stderr.filter((line) => line.includes("bearer token for"));
  expect(more).toEqual([]);
  expect(beside).toMatch(/^ {2}bearer token for https:\/\/vmpools\.example\/clusters\/west\/events: [\w-]{43}$/);
  expect(added.stderr.join("\n")).not.toContain("/admission/");
  expect(added.stdout).toContain("https://vmpools.example/clusters/west/admission/");
  expect([added.stdout, ...added.stderr].join("\n")).not.toContain(TOKEN);
});

it("prints what kubectl understands: objects in YAML 1.1, which takes a bare off for no", async () => {
  const added = await cluster(aStore(), ["add", "west", ...BY_TOKEN, ...ENDPOINT]);
  expect(documentsOf(added).length).toBeGreaterThan(4);
  expect(added.stdout).toMatch(/- "off"/);
  expect(added.stdout).not.toMatch(/: (off|on|yes|no)$/m);
});

it("prints the rights alone where nothing is to tell of changes", async () => {
  const store = aStore();
  const added = await cluster(store, ["add", "west", ...BY_TOKEN, "--source", "none"]);
  expect(added.stdout).toContain("kind: ClusterRole");
  expect(added.stdout).not.toContain("Webhook");
  expect(await store.webhook("west")).toEqual({});
});

it("needs to know where the functions are called", async () => {
  await expect(cluster(aStore(), ["add", "west", ...BY_TOKEN])).rejects.toThrow("--endpoint is missing");
});

it.each([
  ["", "standard input holds no token"],
  ["two words", "standard input holds no token"],
])("takes no token from %j", async (stdin, message) => {
  await expect(cluster(aStore(), ["add", "west", ...BY_TOKEN, ...ENDPOINT], { stdin })).rejects.toThrow(message);
});

it("registers a cluster of EKS without an address of its own", async () => {
  const store = aStore();
  const role = "arn:aws:iam::123456789012:role/functions";
  const added = await cluster(store, [
    "add",
    "west",
    "--eks",
    "prod",
    "--region",
    "eu-west-1",
    "--role-arn",
    role,
    ...ENDPOINT,
  ]);
  const auth = { kind: "eks", clusterName: "prod", region: "eu-west-1", roleArn: role };
  expect(await store.access("west")).toEqual({ auth, mode: "observe" });
  expect(added.stderr.join("\n")).toContain("access entry");
  await expect(cluster(store, ["add", "east", "--eks", "prod", ...ENDPOINT])).rejects.toThrow(
    "--eks needs --eks-region",
  );
});

it("lets Google push in the name of one account alone", async () => {
  const store = aStore();
  await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "gke", "--oidc-subject", "1234"]);
  const audience = "https://vmpools.example/clusters/west/events";
  expect(await store.webhook("west")).toEqual({
    oidc: { issuer: "https://accounts.google.com", audience, subject: "1234" },
  });
});

it("asks the cluster who signs the tokens of Knative", async () => {
  const store = aStore();
  const wire = aWire(on("GET /.well-known/openid-configuration", ok({ issuer: "https://oidc.example/west" })));
  await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "knative"], { wire });
  expect(await store.webhook("west")).toMatchObject({ oidc: { issuer: "https://oidc.example/west" } });
  const silent = aWire(on("GET /.well-known/openid-configuration", refusal(403, "Forbidden")));
  const args = ["add", "east", ...BY_TOKEN, ...ENDPOINT, "--source", "knative"];
  await expect(cluster(store, args, { wire: silent })).rejects.toThrow("--oidc-issuer is missing");
});

it("asks the cluster of the context that is registered who signs the tokens of Knative, not that of the current one", async () => {
  const elsewhere: ServerAccess = { ...ADMIN, server: "https://current.example" };
  const asked: (string | undefined)[] = [];
  const connect = ({ server }: ClusterAccess) => {
    asked.push(server);
    return aWire(
      on("GET /.well-known/openid-configuration", ok({ issuer: "https://oidc.example/west" })),
      ...APPLYING.map((path) => on(`GET ${path}`, refusal(403, "Forbidden"))),
    );
  };
  const args = ["add", "west", "--from-context", "west", ...ENDPOINT, "--source", "knative", "--apply"];
  await cluster(aStore(), args, { connect, contexts: (context) => (context === "west" ? ADMIN : elsewhere) });
  expect(new Set(asked)).toEqual(new Set([SERVER]));
});

it("says of whom credentials are that the roles are not bound to", async () => {
  const add = async (stdin: string) => {
    const store = aStore();
    const { stdout, stderr } = await cluster(store, ["add", "west", ...BY_TOKEN, "--source", "none"], { stdin });
    return { stdout, notes: stderr.join("\n") };
  };
  const own = await add(tokenOf("system:serviceaccount:vmpool-functions:vmpool-functions"));
  expect(own.notes).not.toContain("note");
  expect(own.stdout).toContain("kind: ServiceAccount");
  const other = await add(tokenOf("system:serviceaccount:ci:deployer"));
  expect(other.notes).toContain("the token of the ServiceAccount ci/deployer must be of a member of the group");
  expect((await add("opaque")).notes).toContain("the token must be of a member of the group vmpool-functions");
});

it("registers no name twice, unless it is told to; then with new secrets, and to observe", async () => {
  const store = aStore();
  const args = ["add", "west", ...BY_TOKEN, ...ENDPOINT];
  await cluster(store, args);
  const access = await store.access("west");
  if (access === undefined) throw new Error("west is not registered");
  await store.write("west", { access: { ...access, mode: "act" } });
  const before = await store.webhook("west");
  await expect(cluster(store, args)).rejects.toThrow("west is registered already (https://api.example): --replace");
  expect(await store.webhook("west")).toEqual(before);
  await cluster(store, [...args, "--replace"]);
  expect(await store.access("west")).toMatchObject({ mode: "observe" });
  expect(await store.webhook("west")).not.toEqual(before);
});

it.each<[string, ClusterAccess, string]>([
  [
    "of EKS",
    { auth: { kind: "eks", clusterName: "prod", region: "eu-west-1" }, mode: "observe" },
    "--service-account registers a token, and the context is of a cluster of EKS",
  ],
  ["whose entry the registry has no room for", ADMIN, "no room"],
])("changes nothing in a cluster %s", async (_what, access, message) => {
  const store: RegistryStore = {
    ...aStore(),
    check: () => {
      throw new CommandError("no room");
    },
  };
  const wire = aWire();
  const args = ["add", "west", "--from-context", "west", ...ENDPOINT, "--service-account", "--apply"];
  await expect(cluster(store, args, { wire, contexts: () => access })).rejects.toThrow(message);
  expect(wire.sent).toEqual([]);
});

it("registers nothing that the cluster has refused, so that the same command can be run again", async () => {
  const store = aStore();
  const wire = aWire(...APPLYING.map((path) => on(`GET ${path}`, refusal(403, "Forbidden"))));
  const refused = await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--apply"], { wire });
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr.join("\n")).toMatch(/west is not registered: mend what was refused/);
  expect(await store.access("west")).toBeUndefined();
  expect(secretsIn(refused)).toEqual([]);
});

it("has two secrets valid while they are rotated, and ends either", async () => {
  const store = aStore();
  await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "admission,bearer"]);
  const old = await store.webhook("west");
  const rotated = await cluster(store, ["rotate", "west", ...ENDPOINT]);
  const secrets = [...new Set(secretsIn(rotated))];
  expect(secrets).toHaveLength(2);
  const [path = "", bearer = ""] = secrets.map(hashSecret);
  expect(await store.webhook("west")).toEqual({
    path: [path, ...(old?.path ?? [])],
    bearer: [bearer, ...(old?.bearer ?? [])],
  });
  expect(documentsOf(rotated)).toHaveLength(2);
  await expect(cluster(store, ["rotate", "west", ...ENDPOINT])).rejects.toThrow("has two valid secrets already");

  expect(await cluster(store, ["rotate", "west", "--drop-new", "--source", "bearer"])).toMatchObject({ exitCode: 0 });
  expect(await store.webhook("west")).toEqual({ path: [path, ...(old?.path ?? [])], bearer: old?.bearer });
  await cluster(store, ["rotate", "west", "--drop-old"]);
  expect(await store.webhook("west")).toEqual({ path: [path], bearer: old?.bearer });
  expect((await cluster(store, ["rotate", "west", "--drop-old"])).stderr).toEqual([
    "west has one secret of a kind: there is none to drop",
  ]);
  await expect(cluster(store, ["rotate", "west", "--source", "standard-webhooks"])).rejects.toThrow("no such secret");
});

it("changes the credentials and nothing else; another cluster is observed first", async () => {
  const store = aStore();
  await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--namespaces", "ci"]);
  const access = await store.access("west");
  const webhook = await store.webhook("west");
  if (access === undefined) throw new Error("west is not registered");
  await store.write("west", { access: { ...access, mode: "act" } });
  await cluster(store, ["credentials", "west", ...BY_TOKEN], { stdin: "n3w" });
  const auth = { kind: "token", token: "n3w" };
  expect(await store.access("west")).toEqual({ server: SERVER, auth, mode: "act", namespaces: ["ci"] });
  expect(await store.webhook("west")).toEqual(webhook);
  const moved = await cluster(store, ["credentials", "west", "--server", "https://other.example", "--token-stdin"]);
  expect(moved.stderr.join("\n")).toContain("it was https://api.example: its mode is observe now");
  expect(await store.access("west")).toMatchObject({ mode: "observe" });
});

it.each([
  ["111122223333", "act"],
  ["444455556666", "observe"],
])("takes a cluster of EKS in the account %s for one to %s", async (account, mode) => {
  const store = aStore();
  const eks = ["--eks", "prod", "--eks-region", "eu-west-1", "--role-arn"];
  await cluster(store, ["add", "west", ...eks, "arn:aws:iam::111122223333:role/functions", ...ENDPOINT]);
  const access = await store.access("west");
  if (access === undefined) throw new Error("west is not registered");
  await store.write("west", { access: { ...access, mode: "act" } });
  const { stderr } = await cluster(store, ["credentials", "west", ...eks, `arn:aws:iam::${account}:role/others`]);
  expect(await store.access("west")).toMatchObject({ mode });
  const moved = "it was EKS prod in eu-west-1 of the account 111122223333: its mode is observe now";
  expect(stderr.join("\n").includes(moved)).toBe(mode === "observe");
});

it.each([
  ["rotate", []],
  ["remove", ["--yes"]],
])("lets %s change nothing by a kubeconfig that may lead to another cluster", async (command, more) => {
  const store = aStore();
  await cluster(store, ["add", "west", "--server", "https://west.example", "--token-stdin", ...ENDPOINT]);
  const before = await store.webhook("west");
  const wire = aWire(on("GET /api/v1/namespaces/kube-system", refusal(403, "Forbidden")));
  const args = [command, "west", ...more, ...(command === "rotate" ? ENDPOINT : []), "--apply"];
  await expect(cluster(store, args, { wire })).rejects.toThrow(
    "whether the kubeconfig leads to west cannot be told, so nothing was changed: run it without --apply",
  );
  expect(writesOf(wire)).toEqual([]);
  expect(await store.webhook("west")).toEqual(before);
});

it("removes a cluster when it is sure", async () => {
  const store = aStore();
  await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT]);
  await expect(cluster(store, ["remove", "west"])).rejects.toThrow("--yes removes west without a question");
  expect(await cluster(store, ["remove", "west"], { answer: false })).toMatchObject({
    exitCode: 1,
    stderr: ["west stays"],
  });
  const removed = await cluster(store, ["remove", "west"], { answer: true });
  expect(removed.stderr.join("\n")).toContain("vmpool-functions-notices");
  expect(await store.names()).toEqual([]);
  await expect(cluster(store, ["remove", "west", "--yes"])).rejects.toThrow('there is no cluster "west"');
});

it("leaves what a cluster was given while another name leads to it", async () => {
  const store = aStore();
  for (const name of ["west", "again"]) await cluster(store, ["add", name, ...BY_TOKEN, ...ENDPOINT]);
  const first = await cluster(store, ["remove", "again", "--yes"]);
  expect(first.stderr.join("\n")).toContain("what the cluster was given stays: west is the same cluster");
  expect(first.stderr.join("\n")).not.toContain("kubectl delete");
  const last = await cluster(store, ["remove", "west", "--yes"]);
  expect(last.stderr.join("\n")).toContain("kubectl delete");
});

it("deletes no namespace but the functions' own, and says when their ServiceAccount is in another one", async () => {
  const removed = async (namespace: string) => {
    const store = aStore();
    const stdin = tokenOf(`system:serviceaccount:${namespace}:vmpool-functions`);
    const added = await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT], { stdin });
    const { stderr } = await cluster(store, ["remove", "west", "--yes"]);
    return { notes: added.stderr.join("\n"), commands: stderr.join("\n") };
  };
  const shared = await removed("kubevirt");
  expect(shared.commands).not.toContain("namespace/");
  expect(shared.commands).toContain(
    "kubectl delete --ignore-not-found -n kubevirt serviceaccount/vmpool-functions secret/vmpool-functions",
  );
  expect(shared.notes).toContain("note: the ServiceAccount vmpool-functions is in the namespace kubevirt");
  const own = await removed("vmpool-functions");
  expect(own.commands).toContain(" namespace/vmpool-functions");
  expect(own.commands).not.toContain(" -n ");
  expect(own.notes).not.toContain("note");
});

it("shows no secret of a registration, but the beginning of its hash", async () => {
  const store = aStore();
  const added = await cluster(store, ["add", "west", ...BY_TOKEN, ...ENDPOINT, "--source", "bearer,standard-webhooks"]);
  const entry = {
    name: "west",
    access: await store.access("west"),
    webhook: await store.webhook("west"),
    problem: undefined,
  };
  const shown = formatEntry(entry) + JSON.stringify(formatJson(entry));
  const secrets = secretsIn(added);
  expect(secrets).toHaveLength(2);
  for (const secret of [...secrets, TOKEN]) {
    expect(shown).not.toContain(secret);
    expect(shown).not.toContain(hashSecret(secret));
    if (secret !== TOKEN) expect(shown).toContain(hashSecret(secret).slice(0, 8));
  }
});
