/** The registry as the cluster command writes it to SSM: what the functions read is what was written. */
import {
  DescribeParametersCommand,
  GetParametersByPathCommand,
  PutParameterCommand,
  SSMClient,
} from "@aws-sdk/client-ssm";
import { afterAll, beforeAll, expect, it } from "vitest";
import * as z from "zod";
import { createSsmStore } from "../../infra/cli/registry-store.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { createSsmRegistry } from "../../shared/clusters/registry.ts";
import { startMoto } from "../support/moto.ts";

const ACCESS: ServerAccess = {
  server: "https://west.example",
  auth: { kind: "token", token: "s3cr3t" },
  mode: "observe",
};
const WEBHOOK = { path: ["a".repeat(64)] };

let moto: Awaited<ReturnType<typeof startMoto>>;
let client: SSMClient;

beforeAll(async () => {
  moto = await startMoto();
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  client = new SSMClient({ endpoint: moto.endpoint, region: "eu-west-1", credentials });
});

afterAll(async () => {
  client.destroy();
  await moto.stop();
});

let count = 0;

/** Nobody else's. */
function aPrefix(): string {
  count += 1;
  return `/test-${count}/clusters`;
}

/** Reads everything, and writes until what names this parameter, which is lost. */
function cutOffBefore(parameter: string): Pick<SSMClient, "send"> {
  const broken = new SSMClient({
    endpoint: moto.endpoint,
    region: "eu-west-1",
    credentials: { accessKeyId: "t", secretAccessKey: "t" },
  });
  broken.middlewareStack.add(
    (next, { commandName = "" }) =>
      async (args) => {
        if (/^(Put|Delete)/.test(commandName) && JSON.stringify(args.input).includes(parameter))
          throw Object.assign(new Error("s3cr3t of arn:aws:…"), { name: "AccessDeniedException" });
        return next(args);
      },
    { step: "initialize" },
  );
  return broken;
}

const putSchema = z.object({ Name: z.string(), KeyId: z.string().optional() });

/** Notes by which key each parameter is to be encrypted. */
function recordingKeys() {
  const keys: Record<string, string | undefined> = {};
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  const recorder = new SSMClient({ endpoint: moto.endpoint, region: "eu-west-1", credentials });
  recorder.middlewareStack.add(
    (next, { commandName = "" }) =>
      (args) => {
        if (commandName === "PutParameterCommand") {
          const { Name, KeyId } = putSchema.parse(args.input);
          keys[Name] = KeyId;
        }
        return next(args);
      },
    { step: "initialize" },
  );
  return { recorder, keys };
}

async function parametersBelow(prefix: string): Promise<readonly string[]> {
  const { Parameters = [] } = await client.send(new GetParametersByPathCommand({ Path: prefix, Recursive: true }));
  return Parameters.map(({ Name = "" }) => Name.slice(prefix.length + 1)).sort();
}

it("writes both halves as encrypted parameters, which the functions' registry reads", async () => {
  const prefix = aPrefix();
  const store = createSsmStore(prefix, client);
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  const registry = createSsmRegistry(prefix, { client });
  expect(await registry.access("west")).toEqual(ACCESS);
  expect(await registry.webhook("west")).toEqual(WEBHOOK);
  const filter = { Key: "Name", Option: "BeginsWith", Values: [prefix] };
  const { Parameters = [] } = await client.send(new DescribeParametersCommand({ ParameterFilters: [filter] }));
  expect(Parameters.map(({ Name, Type, Tier }) => ({ Name, Type, Tier }))).toEqual([
    { Name: `${prefix}/west/webhook`, Type: "SecureString", Tier: "Advanced" },
    { Name: `${prefix}/west/access`, Type: "SecureString", Tier: "Advanced" },
  ]);
});

it("changes one half and leaves the other", async () => {
  const store = createSsmStore(aPrefix(), client);
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  await store.write("west", { access: { ...ACCESS, mode: "act" } });
  expect(await store.access("west")).toEqual({ ...ACCESS, mode: "act" });
  await store.write("west", { webhook: {} });
  expect(await store.webhook("west")).toEqual({});
  expect(await store.access("west")).toEqual({ ...ACCESS, mode: "act" });
});

it("writes over a parameter with the key that it is encrypted with", async () => {
  const prefix = aPrefix();
  const key = "alias/registry";
  await createSsmStore(prefix, client).write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  const own = { Name: `${prefix}/west/access`, Value: JSON.stringify(ACCESS), Type: "SecureString" } as const;
  await client.send(new PutParameterCommand({ ...own, Tier: "Advanced", KeyId: key, Overwrite: true }));
  const { recorder, keys } = recordingKeys();
  await createSsmStore(prefix, recorder).write("west", { access: { ...ACCESS, mode: "act" }, webhook: {} });
  // Unlike SSM, the stand-in keeps the key of what is written over without one: what is sent counts.
  expect(keys).toEqual({ [`${prefix}/west/webhook`]: "alias/aws/ssm", [`${prefix}/west/access`]: key });
});

it("does not write over an entry that somebody has made meanwhile, nor half of one that is gone", async () => {
  const prefix = aPrefix();
  const store = createSsmStore(prefix, client);
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  const other = { access: { ...ACCESS, server: "https://other.example" }, webhook: { path: ["b".repeat(64)] } };
  await expect(store.write("west", other, { isNew: true })).rejects.toThrow("by somebody else just now");
  expect(await store.access("west")).toEqual(ACCESS);
  expect(await store.webhook("west")).toEqual(WEBHOOK);
  await expect(store.write("east", { webhook: WEBHOOK })).rejects.toThrow("no longer in the registry");
  expect(await parametersBelow(prefix)).toEqual(["west/access", "west/webhook"]);
});

it("registers nobody before both halves are there; the same command finishes what was cut off", async () => {
  const prefix = aPrefix();
  const entry = { access: ACCESS, webhook: { path: ["b".repeat(64)] } };
  const failure = await createSsmStore(prefix, cutOffBefore("/west/access"))
    .write("west", entry, { isNew: true })
    .catch((error: unknown) => String(error));
  expect(failure).toContain(`the parameter ${prefix}/west/access was not changed (AccessDeniedException)`);
  expect(failure).not.toContain("s3cr3t");
  expect(await parametersBelow(prefix)).toEqual(["west/webhook"]);
  const store = createSsmStore(prefix, client);
  expect(await store.names()).toEqual([]);
  expect(await store.access("west")).toBeUndefined();
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  expect(await store.webhook("west")).toEqual(WEBHOOK);
});

it("removes the half first that lets events in, and finishes what was cut off", async () => {
  const prefix = aPrefix();
  const store = createSsmStore(prefix, client);
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  await expect(createSsmStore(prefix, cutOffBefore("/west/access")).remove("west")).rejects.toThrow("was not changed");
  expect(await parametersBelow(prefix)).toEqual(["west/access"]);
  await store.remove("west");
  expect(await parametersBelow(prefix)).toEqual([]);
});

it("refuses an entry that no parameter can hold before it writes any of it", async () => {
  const prefix = aPrefix();
  const namespaces = Array.from({ length: 400 }, (_, index) => `a-namespace-with-a-long-name-${index}`);
  const entry = { access: { ...ACCESS, namespaces }, webhook: WEBHOOK };
  const store = createSsmStore(prefix, client);
  const message = "SSM takes 8192: name fewer namespaces";
  expect(() => store.check("west", entry)).toThrow(message);
  await expect(store.write("west", entry, { isNew: true })).rejects.toThrow(message);
  expect(await parametersBelow(prefix)).toEqual([]);
});
