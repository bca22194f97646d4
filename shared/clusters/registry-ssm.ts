/** The registry in SSM parameters. Reads only what it is asked for; decrypts no entry to learn the names. */
import { GetParameterCommand, GetParametersByPathCommand, SSMClient } from "@aws-sdk/client-ssm";
import { parseJson } from "../planning/json.ts";
import { CLUSTER_NAME } from "../planning/names.ts";
import { awsErrorCode, isDenied } from "./aws-errors.ts";
import { createEntryCache } from "./entry-cache.ts";
import { RegistryError, type RegistrySource } from "./registry-source.ts";

/** The most that SSM gives at once. */
const PAGE_SIZE = 10;
const PAGES_MAX = 200;
const ATTEMPTS_MAX = 2;
const CONNECT_TIMEOUT_MS = 1_000;
const REQUEST_TIMEOUT_MS = 2_000;

export interface SsmSourceOptions {
  readonly client?: Pick<SSMClient, "send">;
  /** Epoch milliseconds. */
  readonly now?: () => number;
}

export function createSsmSource(
  prefix: string,
  { client = createClient(), now = Date.now }: SsmSourceOptions,
): RegistrySource {
  const names = createEntryCache<readonly string[]>(() => listNames(client, prefix), now);
  return {
    names: () => names.find(prefix),
    async read(name, part) {
      // Names come from outside: what cannot be one is not asked for.
      if (!CLUSTER_NAME.test(name)) return undefined;
      const parameter = `${prefix}/${name}/${part}`;
      const text = await readParameter(client, parameter);
      if (text === undefined) return undefined;
      const value = parseJson(text);
      if (value === undefined) throw new RegistryError(`the cluster registry ${parameter} is not JSON`);
      return { value };
    },
    locate: (name, part) => ({ place: `${prefix}/${name}/${part}`, field: [] }),
  };
}

function createClient(): SSMClient {
  return new SSMClient({
    maxAttempts: ATTEMPTS_MAX,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Without it the SDK only warns.
      throwOnRequestTimeout: true,
    },
  });
}

async function readParameter(client: Pick<SSMClient, "send">, parameter: string): Promise<string | undefined> {
  try {
    const answer = await client.send(new GetParameterCommand({ Name: parameter, WithDecryption: true }));
    return answer.Parameter?.Value;
  } catch (error) {
    if (awsErrorCode(error) === "ParameterNotFound") return undefined;
    throw failureOf(error, parameter, "ssm:GetParameter (and kms:Decrypt with a key of your own)");
  }
}

/** The clusters that have an `access` entry. Costs one request for each five clusters. */
async function listNames(client: Pick<SSMClient, "send">, prefix: string): Promise<readonly string[]> {
  const names: string[] = [];
  let token: string | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await client
      .send(
        new GetParametersByPathCommand({
          Path: prefix,
          Recursive: true,
          WithDecryption: false,
          MaxResults: PAGE_SIZE,
          NextToken: token,
        }),
      )
      .catch((error: unknown) => {
        throw failureOf(error, prefix, "ssm:GetParametersByPath");
      });
    for (const { Name = "" } of answer.Parameters ?? []) {
      const name = nameIn(Name, prefix);
      if (name !== undefined) names.push(name);
    }
    token = answer.NextToken;
    if (token === undefined) return names.sort();
  }
  throw new RegistryError(`the cluster registry ${prefix} has more than ${PAGES_MAX * PAGE_SIZE} parameters`);
}

/** The cluster of `<prefix>/<name>/access`; undefined for any other parameter. */
function nameIn(parameter: string, prefix: string): string | undefined {
  const [name = "", part, ...more] = parameter.slice(prefix.length + 1).split("/");
  return part === "access" && more.length === 0 ? name : undefined;
}

/** SSM's own message names the account and the caller: it stays in the cause. */
function failureOf(cause: unknown, parameter: string, action: string): RegistryError {
  const code = awsErrorCode(cause);
  const what = `the cluster registry ${parameter} cannot be read (${code})`;
  return isDenied(code)
    ? new RegistryError(`${what}: allow the function's role ${action} there`, { kind: "denied", cause })
    : new RegistryError(what, { kind: "unavailable", cause });
}
