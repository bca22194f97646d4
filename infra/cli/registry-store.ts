/** The registry as people change it: in a file or in SSM parameters, both halves of an entry. What is not changed stays as it was written. */
import { existsSync } from "node:fs";
import { mkdir, readFile, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import {
  DeleteParametersCommand,
  DescribeParametersCommand,
  type DescribeParametersResult,
  PutParameterCommand,
  SSMClient,
} from "@aws-sdk/client-ssm";
import type * as z from "zod";
import { accessSchema } from "../../shared/clusters/access.ts";
import { createFileRegistry, createSsmRegistry, type Registry, webhookSchema } from "../../shared/clusters/registry.ts";
import { describeProblems } from "../../shared/planning/errors.ts";
import { parseJson, recordOf } from "../../shared/planning/json.ts";
import { replaceAtomically, writeAtomically } from "../local/control-plane/files.ts";
import { CommandError } from "./errors.ts";

/** One half or both; a half that is absent stays as it is. */
export interface RegistryEntry {
  readonly access?: z.input<typeof accessSchema>;
  readonly webhook?: z.input<typeof webhookSchema>;
}

export interface WriteOptions {
  /** The name was free: refuses when somebody has registered it meanwhile. */
  readonly isNew?: boolean;
}

export interface RegistryStore extends Registry {
  /** For messages: a file or a prefix. */
  readonly place: string;
  /** Throws what would keep an entry from being written: what the functions would refuse, or what has no room. */
  check(name: string, entry: RegistryEntry): void;
  /** Both halves are checked before either is written. A registration counts from the moment that `access` is there, so that comes last. */
  write(name: string, entry: RegistryEntry, options?: WriteOptions): Promise<void>;
  /** The webhook half goes first: nobody is let in to a cluster that is half gone. */
  remove(name: string): Promise<void>;
}

/** Throws what is wrong with an entry, field by field, never with a value. */
export function checkEntry(name: string, { access, webhook }: RegistryEntry): void {
  const halves = [
    ["access", accessSchema, access],
    ["webhook", webhookSchema, webhook],
  ] as const;
  const problems = halves.flatMap(([half, schema, value]) => {
    const issues = value === undefined ? [] : (schema.safeParse(value).error?.issues ?? []);
    return issues.map(({ path, message }) => ({ field: [half, ...path].map(String).join("."), message }));
  });
  if (problems.length === 0) return;
  throw new CommandError(`${name} cannot be registered so: ${describeProblems(problems)}`);
}

function alreadyThere(name: string, place: string): CommandError {
  return new CommandError(`${name} was registered in ${place} by somebody else just now: look at it with show ${name}`);
}

/** A registry in a JSON file; made with the first entry. The file is read anew for each change, so that what was changed meanwhile is kept. */
export function createFileStore(path: string): RegistryStore {
  const registry = createFileRegistry(path);
  /** Throws what is wrong with the file as a whole. */
  const readAll = async () => {
    if (!existsSync(path)) return {};
    await registry.names();
    return recordOf(parseJson(await readFile(path, "utf8")));
  };
  const replace = async (clusters: object, rest: object) => {
    const text = `${JSON.stringify({ ...rest, clusters }, null, 2)}\n`;
    await writeRegistry(path, text).catch(() => {
      throw new CommandError(
        `the registry ${path} cannot be written: check that you may write to its folder and that the file is yours`,
      );
    });
  };
  return {
    ...registry,
    place: path,
    check: checkEntry,
    access: async (name) => (existsSync(path) ? registry.access(name) : undefined),
    async write(name, entry, { isNew = false } = {}) {
      checkEntry(name, entry);
      const all = await readAll();
      const clusters = recordOf(all["clusters"]);
      const before = Object.hasOwn(clusters, name) ? recordOf(clusters[name]) : undefined;
      if (isNew && before !== undefined) throw alreadyThere(name, path);
      if (before === undefined && entry.access === undefined) {
        throw new CommandError(`the cluster ${name} is no longer in the registry ${path}`);
      }
      await replace({ ...clusters, [name]: { ...before, ...entry } }, all);
    },
    async remove(name) {
      const all = await readAll();
      const { [name]: _gone, ...others } = recordOf(all["clusters"]);
      await replace(others, all);
    },
  };
}

/** A new file is its owner's alone; one that is there keeps its owner and its permissions, and a link goes on leading to it. */
async function writeRegistry(path: string, text: string): Promise<void> {
  if (existsSync(path)) return replaceAtomically(await realpath(path), text);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  return writeAtomically(path, text, 0o600);
}

/** What an advanced parameter holds. */
const PARAMETER_BYTES_MAX = 8 * 1024;

/** A registry in SSM: `<prefix>/<name>/access` and `<prefix>/<name>/webhook`, encrypted. */
export function createSsmStore(prefix: string, client: Pick<SSMClient, "send">): RegistryStore {
  const registry = createSsmRegistry(prefix, { client });
  const put = async (name: string, half: "access" | "webhook", { value, isNew }: Half) => {
    const parameter = {
      Name: `${prefix}/${name}/${half}`,
      Value: JSON.stringify(value),
      Type: "SecureString",
      Tier: "Advanced",
    } as const;
    // Without its key, what is written over is encrypted with the account's default one from then on.
    const key = isNew ? undefined : await keyOf(parameter.Name, client);
    try {
      await client.send(new PutParameterCommand({ ...parameter, KeyId: key, Overwrite: !isNew }));
    } catch (error) {
      if (nameOf(error) === "ParameterAlreadyExists") throw alreadyThere(name, prefix);
      throw ssmFailure(error, { parameter: parameter.Name, action: "ssm:PutParameter" });
    }
  };
  const check = (name: string, entry: RegistryEntry) => {
    checkEntry(name, entry);
    checkSizes(name, entry);
  };
  return {
    ...registry,
    place: `SSM ${prefix}`,
    check,
    async write(name, entry, { isNew = false } = {}) {
      check(name, entry);
      const isThere = (isNew || entry.access === undefined) && (await registry.access(name)) !== undefined;
      // Before the other half is written: the secrets of whoever was first stay.
      if (isNew && isThere) throw alreadyThere(name, prefix);
      if (entry.access === undefined && !isThere) {
        throw new CommandError(`the cluster ${name} is no longer in the registry ${prefix}`);
      }
      // A webhook half without the other is what an add has left that was cut off: it is written over.
      if (entry.webhook !== undefined) await put(name, "webhook", { value: entry.webhook, isNew: false });
      if (entry.access !== undefined) await put(name, "access", { value: entry.access, isNew });
    },
    async remove(name) {
      for (const half of ["webhook", "access"] as const) {
        const parameter = `${prefix}/${name}/${half}`;
        try {
          await client.send(new DeleteParametersCommand({ Names: [parameter] }));
        } catch (error) {
          throw ssmFailure(error, { parameter, action: "ssm:DeleteParameters" });
        }
      }
    },
  };
}

/** By which key of KMS a parameter is encrypted; undefined when there is no such parameter. */
async function keyOf(name: string, client: Pick<SSMClient, "send">): Promise<string | undefined> {
  const filter = { Key: "Name", Option: "Equals", Values: [name] };
  let token: string | undefined;
  do {
    const command = new DescribeParametersCommand({ ParameterFilters: [filter], NextToken: token });
    const page: DescribeParametersResult = await client.send(command).catch((error: unknown) => {
      throw ssmFailure(error, { parameter: name, action: "ssm:DescribeParameters" });
    });
    const [found] = page.Parameters ?? [];
    if (found !== undefined) return found.KeyId;
    // A page may be empty and not be the last one.
    token = page.NextToken;
  } while (token !== undefined);
  return undefined;
}

function checkSizes(name: string, entry: RegistryEntry): void {
  for (const [half, value] of Object.entries(entry)) {
    const bytes = Buffer.byteLength(JSON.stringify(value));
    if (bytes <= PARAMETER_BYTES_MAX) continue;
    throw new CommandError(
      `${name}/${half} has ${bytes} bytes, SSM takes ${PARAMETER_BYTES_MAX}: name fewer namespaces`,
    );
  }
}

interface Half {
  readonly value: object;
  readonly isNew: boolean;
}

/** With the person's own credentials, as every AWS tool finds them. */
export function createSsmClient(region: string | undefined): SSMClient {
  return new SSMClient(region === undefined ? {} : { region });
}

/** SSM's own message names the account and the caller, and may repeat what it was given. */
function ssmFailure(
  error: unknown,
  { parameter, action }: { readonly parameter: string; readonly action: string },
): CommandError {
  return new CommandError(
    `the parameter ${parameter} was not changed (${nameOf(error)}): check your AWS credentials, --region and the right to ${action}`,
  );
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "unknown error";
}

/** With the names that there are. */
export async function unknownCluster(name: string, store: Pick<Registry, "names">): Promise<CommandError> {
  const names = await store.names();
  return new CommandError(`there is no cluster "${name}" in the registry: it holds ${names.join(", ") || "none"}`);
}
