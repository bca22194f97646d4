import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { stringify } from "yaml";
import { readContext, readEksContext, readKubeconfig } from "../../shared/clusters/kubeconfig.ts";
import { aFolder } from "../control-plane/support.ts";

const SECRET = "s3cr3t";
const CA = Buffer.from("authority").toString("base64");
const CERTIFICATE = Buffer.from("certificate").toString("base64");
const KEY = Buffer.from("key").toString("base64");

interface Parts {
  readonly cluster?: object;
  readonly user?: object;
  readonly context?: string;
  readonly folder?: string;
}

/** A kubeconfig with two contexts, of which `here` has these parts; returns its path. */
function aKubeconfig({
  cluster = {},
  user = { token: SECRET },
  context = "here",
  folder = aFolder(),
}: Parts = {}): string {
  const path = join(folder, "config");
  const text = stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "c", cluster: { server: "https://api.example:6443", "certificate-authority-data": CA, ...cluster } },
      { name: "other", cluster: { server: "https://other.example" } },
    ],
    users: [
      { name: "u", user },
      { name: "other", user: { token: "other" } },
    ],
    contexts: [
      { name: "other", context: { cluster: "other", user: "other" } },
      { name: "here", context: { cluster: "c", user: "u", namespace: "ci" } },
      { name: "half", context: { cluster: "gone", user: "u" } },
    ],
    "current-context": context,
  });
  writeFileSync(path, text);
  return path;
}

/** What is said about a kubeconfig that cannot be used. */
function complaintAbout(path: string): string {
  try {
    readKubeconfig(path, "act");
    return "";
  } catch (error) {
    return error instanceof Error && error.name === "KubeconfigError" ? error.message : `thrown: ${String(error)}`;
  }
}

it.each(["observe", "act"] as const)("reads the current context with a token, to %s", (mode) => {
  expect(readKubeconfig(aKubeconfig(), mode)).toEqual({
    server: "https://api.example:6443",
    certificateAuthorityData: CA,
    auth: { kind: "token", token: SECRET },
    mode,
  });
});

it("follows the current context", () => {
  expect(readKubeconfig(aKubeconfig({ context: "other" }), "act")).toMatchObject({
    server: "https://other.example",
    auth: { token: "other" },
  });
});

it("reads a client certificate", () => {
  const user = { "client-certificate-data": CERTIFICATE, "client-key-data": KEY };

  expect(readKubeconfig(aKubeconfig({ user }), "act").auth).toEqual({
    kind: "clientCertificate",
    certificateData: CERTIFICATE,
    keyData: KEY,
  });
});

it("reads files that are named from the kubeconfig's folder", () => {
  const folder = aFolder();
  mkdirSync(join(folder, "pki"));
  writeFileSync(join(folder, "pki/ca.crt"), "authority");
  writeFileSync(join(folder, "pki/me.crt"), "certificate");
  writeFileSync(join(folder, "me.key"), "key");
  const cluster = { "certificate-authority-data": undefined, "certificate-authority": "pki/ca.crt" };
  const user = { "client-certificate": "pki/me.crt", "client-key": join(folder, "me.key") };

  expect(readKubeconfig(aKubeconfig({ folder, cluster, user }), "act")).toMatchObject({
    certificateAuthorityData: CA,
    auth: { kind: "clientCertificate", certificateData: CERTIFICATE, keyData: KEY },
  });
});

it("does without an authority of its own where the system's will do", () => {
  const cluster = { "certificate-authority-data": undefined };

  expect(readKubeconfig(aKubeconfig({ cluster }), "act").certificateAuthorityData).toBeUndefined();
});

it.each([
  ["a program", { exec: { apiVersion: "client.authentication.k8s.io/v1", command: `touch ${SECRET}` } }],
  ["an auth provider", { "auth-provider": { name: "gcp", config: { token: SECRET } } }],
  ["a password", { username: "me", password: SECRET }],
  ["nothing", {}],
  ["a certificate without its key", { "client-certificate-data": CERTIFICATE }],
])("refuses a user with %s, and says what to use", (_what, user) => {
  const complaint = complaintAbout(aKubeconfig({ user }));

  expect(complaint).toContain('the user "u"');
  expect(complaint).toContain("neither a token nor a client certificate");
  expect(complaint).toContain("kubectl create token");
  expect(complaint).not.toContain(SECRET);
});

it.each(["", "gone", "half"])("asks for a context when the current one is %j", (context) => {
  expect(complaintAbout(aKubeconfig({ context }))).toContain("kubectl config use-context");
});

it("says that the file does not exist", () => {
  const path = join(aFolder(), "gone");

  expect(complaintAbout(path)).toBe(`${path} does not exist: give --kubeconfig a file that kubectl can use`);
});

it.each([
  ["no YAML", "a: b: c:"],
  ["text", "hello"],
  ["nothing", ""],
  ["a list", "- 1"],
  ["clusters that are none", "clusters: 3"],
])("says in one sentence that a file with %s is no kubeconfig", (_what, content) => {
  const path = join(aFolder(), "config");
  writeFileSync(path, content);

  expect(complaintAbout(path)).toMatch(/(is not a kubeconfig|has no usable current context)/);
  expect(complaintAbout(path)).not.toContain("\n");
});

it("says that a folder is no kubeconfig", () => {
  expect(complaintAbout(aFolder())).toContain("is not a kubeconfig");
});

it.each([
  ["client-key", { "client-certificate-data": CERTIFICATE, "client-key": "gone.key" }, {}],
  [
    "certificate-authority",
    { token: SECRET },
    { "certificate-authority-data": undefined, "certificate-authority": "gone.key" },
  ],
])("names the file of %s that cannot be read", (_field, user, cluster) => {
  const folder = aFolder();

  expect(complaintAbout(aKubeconfig({ folder, user, cluster }))).toBe(
    `the kubeconfig names the file ${join(folder, "gone.key")}, which cannot be read`,
  );
});

it.each(["http://api.example:8080", "https://169.254.169.254", "https://me:s3cr3t@api.example"])(
  "refuses the server %s, and says what is expected",
  (server) => {
    const complaint = complaintAbout(aKubeconfig({ cluster: { server } }));

    expect(complaint).toMatch(/cannot be used: server: expected an https URL/);
    expect(complaint).not.toContain(SECRET);
  },
);

it("reads the context that is asked for, with its namespace", () => {
  const path = aKubeconfig({ context: "other" });

  expect(readContext([path], { mode: "observe", context: "here" })).toMatchObject({
    access: { server: "https://api.example:6443", mode: "observe" },
    namespace: "ci",
  });
  expect(readContext([path], { mode: "observe" })).toMatchObject({
    access: { server: "https://other.example" },
    namespace: undefined,
  });
});

it("names a context that does not exist", () => {
  const read = () => readContext([aKubeconfig()], { mode: "observe", context: "moon" });

  expect(read).toThrow(/has no context "moon": kubectl config get-contexts/);
});

it("takes what the first of several files says, and leaves out those that do not exist", () => {
  const [first, second] = [aKubeconfig({ cluster: { server: "https://first.example" } }), aKubeconfig()];

  expect(readContext([join(aFolder(), "gone"), first, second], { mode: "observe" }).access.server).toBe(
    "https://first.example",
  );
});

const GET_TOKEN = ["--region", "eu-west-1", "eks", "get-token", "--cluster-name", "prod", "--output", "json"];
const PROGRAM = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "aws" };

const HERE = { context: undefined, profile: undefined };

it.each([
  ["as aws eks update-kubeconfig has it", { ...PROGRAM, args: GET_TOKEN }, {}],
  [
    "with a role",
    {
      ...PROGRAM,
      command: "/usr/local/bin/aws",
      args: [...GET_TOKEN, "--role", "arn:aws:iam::111122223333:role/admin"],
    },
    { roleArn: "arn:aws:iam::111122223333:role/admin" },
  ],
])("knows a cluster of EKS by its program, without running it, %s", (_what, exec, more) => {
  const path = aKubeconfig({ user: { exec } });
  expect(readEksContext([path], HERE)).toEqual({ kind: "eks", clusterName: "prod", region: "eu-west-1", ...more });
});

it.each([
  ["a token", { token: SECRET }],
  ["another program", { exec: { ...PROGRAM, command: "gke-gcloud-auth-plugin", args: GET_TOKEN } }],
  ["something else of aws", { exec: { ...PROGRAM, args: ["sts", "get-caller-identity"] } }],
  ["no region", { exec: { ...PROGRAM, args: GET_TOKEN.slice(2) } }],
])("takes a user with %s for none of EKS", (_what, user) => {
  expect(readEksContext([aKubeconfig({ user })], HERE)).toBeUndefined();
});

it.each([
  ["its environment", { ...PROGRAM, args: GET_TOKEN, env: [{ name: "AWS_PROFILE", value: "prod" }] }],
  ["its arguments", { ...PROGRAM, args: [...GET_TOKEN, "--profile", "prod"] }],
])("takes a context with an AWS profile in %s for that profile's account only", (_what, exec) => {
  const path = aKubeconfig({ user: { exec } });
  expect(readEksContext([path], { ...HERE, profile: "prod" })).toMatchObject({ clusterName: "prod" });
  for (const profile of [undefined, "dev"])
    expect(() => readEksContext([path], { ...HERE, profile })).toThrow('the AWS profile "prod": set AWS_PROFILE to it');
});
