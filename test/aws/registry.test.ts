/** The registry and the way to clusters of EKS, held to a stand-in for AWS: SSM, EKS and STS. */
import { createServer } from "node:http";
import { CreateClusterCommand, EKSClient } from "@aws-sdk/client-eks";
import { PutParameterCommand, SSMClient } from "@aws-sdk/client-ssm";
import { request } from "undici";
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from "vitest";
import { createDirectory } from "../../shared/clusters/directory.ts";
import { openEksCluster, presignToken } from "../../shared/clusters/eks.ts";
import { createSsmRegistry } from "../../shared/clusters/registry.ts";
import { listen } from "../support/listener.ts";
import { type Moto, motoClient, startMoto } from "../support/moto.ts";
import { NOW } from "../support/transport-objects.ts";

const SECRET = "s3cr3t";
const ACCESS = { server: "https://api.example:6443", auth: { kind: "token", token: SECRET } };
const HASH = "0".repeat(64);

let moto: Moto;
let prefixes = 0;
beforeAll(async () => {
  moto = await startMoto();
});
afterAll(() => moto.stop());

/** SSM with these parameters below a prefix of its own, and the requests that it gets. */
async function aRegistry(parameters: Readonly<Record<string, unknown>>) {
  prefixes += 1;
  const prefix = `/test-${prefixes}/clusters`;
  const client = new SSMClient(motoClient(moto));
  for (const [name, value] of Object.entries(parameters)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const at = { Name: `${prefix}/${name}`, Value: text };
    await client.send(new PutParameterCommand({ ...at, Type: "SecureString", Tier: "Advanced" }));
  }
  const requests: unknown[] = [];
  client.middlewareStack.add(
    (next, { commandName }) =>
      (call) => {
        requests.push([commandName, call.input]);
        return next(call);
      },
    { step: "initialize" },
  );
  const clock = { now: NOW };
  const registry = createSsmRegistry(prefix, { client, now: () => clock.now });
  return { registry, prefix, requests, clock, client };
}

it("reads entries that are stored encrypted, each half on its own", async () => {
  const { registry, prefix, requests } = await aRegistry({
    "west/access": { ...ACCESS, mode: "act" },
    "west/webhook": { bearer: [HASH] },
  });

  expect(await registry.access("west")).toEqual({ ...ACCESS, mode: "act" });
  expect(await registry.webhook("west")).toEqual({ bearer: [HASH] });
  expect(requests).toEqual(
    ["access", "webhook"].map((part) => [
      "GetParameterCommand",
      { Name: `${prefix}/west/${part}`, WithDecryption: true },
    ]),
  );
});

it("knows no cluster that is not registered, and asks for no name that none can have", async () => {
  const { registry, requests } = await aRegistry({ "west/access": ACCESS });

  expect(await registry.access("north")).toBeUndefined();
  expect(await registry.webhook("west")).toBeUndefined();
  expect(requests).toHaveLength(2);
  for (const name of ["", "..", "west/access", "west/../east", "West", "*", "__proto__"])
    expect(await registry.access(name)).toBeUndefined();
  expect(requests).toHaveLength(2);
});

it("lists names over several pages, of access entries only, and decrypts none", async () => {
  const names = Array.from({ length: 13 }, (_, index) => `cluster-${String(index).padStart(2, "0")}`);
  const { registry, prefix, requests } = await aRegistry({
    ...Object.fromEntries(names.toReversed().map((name) => [`${name}/access`, ACCESS])),
    ...Object.fromEntries(names.map((name) => [`${name}/webhook`, {}])),
    "only-events/webhook": {},
    "west/access/old": ACCESS,
    loose: ACCESS,
  });

  expect(await registry.names()).toEqual(names);
  expect(requests.length).toBeGreaterThan(1);
  for (const request of requests) {
    const input = expect.objectContaining({ Path: prefix, Recursive: true, WithDecryption: false, MaxResults: 10 });
    expect(request).toEqual(["GetParametersByPathCommand", input]);
  }
});

it("remembers names for five minutes", async () => {
  const { registry, prefix, requests, clock, client } = await aRegistry({ "west/access": ACCESS });
  expect(await Promise.all([registry.names(), registry.names()])).toEqual([["west"], ["west"]]);
  const added = { Name: `${prefix}/east/access`, Value: JSON.stringify(ACCESS) };
  await client.send(new PutParameterCommand({ ...added, Type: "SecureString" }));
  clock.now += 5 * 60_000 - 1;
  expect(await registry.names()).toEqual(["west"]);
  expect(requests).toHaveLength(2);
  clock.now += 1;

  expect(await registry.names()).toEqual(["east", "west"]);
});

it.each([
  ["is no JSON", `token: ${SECRET}`, /west\/access is not JSON$/],
  ["is no object", [SECRET], /west\/access is not valid: /],
  ["has a field that is wrong", { ...ACCESS, mode: SECRET }, /west\/access is not valid: mode: /],
  ["runs a program", { ...ACCESS, auth: { kind: "exec", command: SECRET } }, /auth\.kind: /],
  ["leads to the metadata of the cloud", { ...ACCESS, server: "https://169.254.169.254" }, /server: expected an https/],
])("names the field, and no value, of an entry that %s, and serves the others", async (_what, entry, message) => {
  const { registry, requests, clock } = await aRegistry({ "east/access": ACCESS, "west/access": entry });
  const directory = createDirectory({ registry, now: () => clock.now });

  expect(await directory.names()).toEqual(["east", "west"]);
  const asked = requests.length;
  for (let time = 0; time < 3; time += 1) {
    const finding = directory.find("west");
    await expect(finding).rejects.toMatchObject({ name: "RegistryError", kind: "invalid", retryable: false });
    await expect(finding).rejects.toThrow(message);
    await expect(finding).rejects.not.toThrow(SECRET);
  }
  // It is remembered like any other.
  expect(requests).toHaveLength(asked + 1);
  expect(await directory.find("east")).toMatchObject({ access: { server: ACCESS.server } });
});

it("does not take a registry that does not answer for an empty one", async () => {
  const client = new SSMClient({ ...motoClient({ endpoint: "http://127.0.0.1:1" }) });
  const registry = createSsmRegistry("/clusters", { client });

  for (const asking of [registry.names(), registry.access("west")]) {
    await expect(asking).rejects.toMatchObject({ name: "RegistryError", kind: "unavailable", retryable: true });
    await expect(asking).rejects.toThrow(/ cannot be read \(ECONNREFUSED\)$/);
  }
});

/** A client whose calls SSM refuses in this way; what moto never does by itself. */
function refusing(status: number, type: string): SSMClient {
  const client = new SSMClient(motoClient(moto));
  client.middlewareStack.add(
    () => async () => {
      throw Object.assign(new Error(`User: arn:aws:sts::123456789012:assumed-role/${SECRET} is not authorized`), {
        name: type,
        $metadata: { httpStatusCode: status },
      });
    },
    { step: "deserialize", priority: "high" },
  );
  return client;
}

it("says which right is missing", async () => {
  const registry = createSsmRegistry("/clusters", { client: refusing(400, "AccessDeniedException") });
  const denied = { name: "RegistryError", kind: "denied", retryable: false };

  const access = registry.access("west");
  await expect(access).rejects.toMatchObject(denied);
  await expect(access).rejects.toThrow(/\/clusters\/west\/access cannot be read .*allow the function's role ssm:GetP/);
  const names = registry.names();
  await expect(names).rejects.toMatchObject(denied);
  await expect(names).rejects.toThrow(/\/clusters cannot be read .*ssm:GetParametersByPath/);
  await expect(names).rejects.not.toThrow(SECRET);
});

it("is asked again when SSM throttles", async () => {
  const registry = createSsmRegistry("/clusters", { client: refusing(400, "ThrottlingException") });

  await expect(registry.access("west")).rejects.toMatchObject({ kind: "unavailable", retryable: true });
});

const AUTH = { kind: "eks", clusterName: "prod", region: "eu-central-1" } as const;

it("learns address and authority from EKS", async () => {
  const client = new EKSClient(motoClient(moto));
  const role = "arn:aws:iam::123456789012:role/eks";
  const made = await client.send(
    new CreateClusterCommand({ name: "prod", roleArn: role, resourcesVpcConfig: { subnetIds: ["subnet-1"] } }),
  );

  expect(made.cluster?.endpoint).toMatch(/^https:/);
  expect(await openEksCluster(AUTH, { client }).endpoint()).toEqual({
    server: made.cluster?.endpoint,
    certificateAuthorityData: made.cluster?.certificateAuthority?.data,
  });
});

it("says that EKS knows no such cluster", async () => {
  const client = new EKSClient(motoClient(moto));

  await expect(openEksCluster({ ...AUTH, clusterName: "test" }, { client }).endpoint()).rejects.toThrow(
    /^the EKS cluster test in eu-central-1 does not exist: check clusterName and region/,
  );
});

it("gives up on an EKS that takes the question and never answers", async () => {
  let asked = 0;
  const silent = createServer(() => {
    asked += 1;
  });
  const { port, close } = await listen(silent);
  onTestFinished(close);
  const { accessKeyId, secretAccessKey } = motoClient(moto).credentials;
  vi.stubEnv("AWS_ENDPOINT_URL_EKS", `http://127.0.0.1:${port}`);
  vi.stubEnv("AWS_ACCESS_KEY_ID", accessKeyId);
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", secretAccessKey);
  onTestFinished(() => void vi.unstubAllEnvs());

  await expect(openEksCluster(AUTH).endpoint()).rejects.toThrow(/^the EKS cluster prod in eu-central-1/);
  expect(asked).toBe(2);
});

it("signs a request that STS answers", async () => {
  const { credentials } = motoClient(moto);
  const token = await presignToken(AUTH, credentials, Date.now());
  const { host, search } = new URL(Buffer.from(token.replace("k8s-aws-v1.", ""), "base64url").toString());
  // moto tells the service of a request by this header, which STS does not need, and reads no host.
  const authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260501/eu-central-1/sts/aws4_request, ";
  const headers = { host, "x-k8s-aws-id": "prod", authorization };
  const answer = await request(`${moto.endpoint}/${search}`, { headers });

  expect(answer.statusCode).toBe(200);
  expect(await answer.body.text()).toMatch(/<Arn>arn:aws:(iam|sts)::\d{12}:/);
});
