/** The options of `npm run cluster`. */
import { clusterNameSchema } from "../../shared/clusters/registry.ts";
import { OBJECT_NAME } from "../../shared/planning/names.ts";
import { CLUSTER_HELP } from "./cluster-help.ts";
import { type Parsed, parseCommandLine, readArguments, readOutput } from "./command-line.ts";
import { CommandError } from "./errors.ts";

/** Where the clusters are registered. */
export type RegistryPlace =
  /** Without either of them, the default folder of a local session. */
  | { readonly kind: "file"; readonly path: string | undefined; readonly dir: string | undefined }
  | { readonly kind: "ssm"; readonly prefix: string; readonly region: string | undefined };

/** A kubeconfig of a person, and one of its contexts. */
export interface Rights {
  readonly kubeconfig: string | undefined;
  readonly context: string | undefined;
}

/** How the functions are to reach a cluster. `-` as a file is standard input. */
export type Credentials =
  | (Target & { readonly kind: "token"; readonly file: string })
  | (Target & { readonly kind: "clientCertificate"; readonly certificate: string; readonly key: string })
  | { readonly kind: "context"; readonly context: string }
  | {
      readonly kind: "eks";
      readonly clusterName: string;
      readonly region: string | undefined;
      readonly roleArn: string | undefined;
    };

interface Target {
  readonly server: string;
  /** A file; undefined for a certificate of a public authority. */
  readonly certificateAuthority: string | undefined;
}

/** What can tell of changes in a cluster, as far as it needs a secret or an object for that. */
export const SOURCES = ["admission", "audit", "knative", "bearer", "standard-webhooks", "gke", "oidc"] as const;
export type Source = (typeof SOURCES)[number];

/** What a cluster is given. */
export interface ManifestWishes {
  readonly endpoint: string | undefined;
  /** A file. */
  readonly caBundle: string | undefined;
  /** Rights of admins and editors to scale pools. */
  readonly users: boolean;
  /** Sends the manifests to the cluster in the place of printing them. */
  readonly apply: boolean;
}

export interface OidcSender {
  readonly issuer: string | undefined;
  readonly audience: string | undefined;
  readonly subject: string | undefined;
}

interface Common {
  readonly registry: RegistryPlace;
  readonly rights: Rights;
}

export interface CheckOptions extends Common {
  readonly command: "check" | "mode";
  readonly name: string;
  /** What `mode` is to set; undefined for `check`. */
  readonly mode: "observe" | "act" | undefined;
  readonly output: "text" | "json";
  /** Makes a harmless change and waits for the notice of it. */
  readonly events: boolean;
  /** Of that change. */
  readonly namespace: string | undefined;
  /** Where the functions log on AWS: what the names of their log groups begin with. */
  readonly logGroups: string | undefined;
  readonly waitSeconds: number;
}

export interface AddOptions extends Common, ManifestWishes {
  readonly command: "add";
  readonly name: string;
  readonly credentials: Credentials;
  readonly namespaces: readonly string[] | undefined;
  readonly sources: readonly Source[];
  readonly oidc: OidcSender;
  readonly replace: boolean;
  /** Makes a ServiceAccount for the functions, by whose token they are to come in. */
  readonly serviceAccount: boolean;
}

export interface CredentialsOptions extends Common {
  readonly command: "credentials";
  readonly name: string;
  readonly credentials: Credentials;
}

export interface RotateOptions extends Common, ManifestWishes {
  readonly command: "rotate";
  readonly name: string;
  /** Of which the secrets are changed; of all that have any when undefined. */
  readonly sources: readonly Source[] | undefined;
  readonly drop: "old" | "new" | undefined;
}

export interface ListOptions extends Common {
  readonly command: "list";
  readonly output: "text" | "json";
}

export interface ShowOptions extends Common {
  readonly command: "show";
  readonly name: string;
  readonly output: "text" | "json";
}

export interface RemoveOptions extends Common {
  readonly command: "remove";
  readonly name: string;
  readonly yes: boolean;
  /** Deletes what was applied to the cluster, too. */
  readonly apply: boolean;
}

export type ClusterOptions =
  | CheckOptions
  | AddOptions
  | CredentialsOptions
  | RotateOptions
  | ListOptions
  | ShowOptions
  | RemoveOptions;

const OPTIONS = {
  registry: { type: "string" },
  dir: { type: "string" },
  "ssm-prefix": { type: "string" },
  region: { type: "string" },
  kubeconfig: { type: "string" },
  context: { type: "string" },
  server: { type: "string" },
  "certificate-authority": { type: "string" },
  "token-stdin": { type: "boolean", default: false },
  "token-file": { type: "string" },
  "client-certificate": { type: "string" },
  "client-key": { type: "string" },
  "from-context": { type: "string" },
  eks: { type: "string" },
  "eks-region": { type: "string" },
  "role-arn": { type: "string" },
  "service-account": { type: "boolean", default: false },
  namespaces: { type: "string" },
  endpoint: { type: "string" },
  "ca-bundle": { type: "string" },
  source: { type: "string", multiple: true },
  "oidc-issuer": { type: "string" },
  "oidc-audience": { type: "string" },
  "oidc-subject": { type: "string" },
  "no-user-roles": { type: "boolean", default: false },
  apply: { type: "boolean", default: false },
  replace: { type: "boolean", default: false },
  "drop-old": { type: "boolean", default: false },
  "drop-new": { type: "boolean", default: false },
  yes: { type: "boolean", short: "y", default: false },
  events: { type: "boolean", default: false },
  namespace: { type: "string", short: "n" },
  "log-groups": { type: "string" },
  "wait-seconds": { type: "string" },
  output: { type: "string", short: "o", default: "text" },
  help: { type: "boolean", short: "h", default: false },
} as const;

type OptionName = keyof typeof OPTIONS;
type Values = ReturnType<typeof readArguments<typeof OPTIONS>>["values"];

const OF_ALL = ["registry", "dir", "ssm-prefix", "region", "help"] as const satisfies readonly OptionName[];
const OF_RIGHTS = ["kubeconfig", "context"] as const satisfies readonly OptionName[];
const OF_CREDENTIALS = [
  ...["server", "certificate-authority", "token-stdin", "token-file", "client-certificate", "client-key"],
  ...["from-context", "kubeconfig", "eks", "eks-region", "role-arn"],
];
const OF_MANIFESTS = ["endpoint", "ca-bundle", "source", "no-user-roles", "apply", ...OF_RIGHTS];
const OF_OIDC = ["oidc-issuer", "oidc-audience", "oidc-subject"];

/** The options of each command beside those of all. */
const COMMANDS: Readonly<Record<ClusterOptions["command"], readonly string[]>> = {
  add: [...OF_CREDENTIALS, ...OF_MANIFESTS, ...OF_OIDC, "service-account", "namespaces", "replace"],
  list: ["output"],
  show: ["output"],
  check: [...OF_RIGHTS, "output", "events", "namespace", "log-groups", "wait-seconds"],
  mode: [...OF_RIGHTS, "output"],
  rotate: [...OF_MANIFESTS, "drop-old", "drop-new"],
  credentials: OF_CREDENTIALS,
  remove: [...OF_RIGHTS, "yes", "apply"],
};
const NAMES = Object.keys(COMMANDS).join(", ");

const WAIT_SECONDS_DEFAULT = 30;
const WAIT_SECONDS_MAX = 900;

function isCommand(word: string): word is ClusterOptions["command"] {
  return Object.hasOwn(COMMANDS, word);
}

/** Reads the command line; the message of a wrong one says what is wrong and what is accepted. */
export function parseClusterOptions(args: readonly string[]): Parsed<ClusterOptions> {
  return parseCommandLine(() => {
    const { values, positionals } = readArguments(args, OPTIONS);
    if (values.help) return { kind: "help", text: CLUSTER_HELP };
    const [command, ...words] = positionals;
    if (command === undefined) throw new CommandError(`a command is missing: there are ${NAMES}`);
    if (!isCommand(command)) throw new CommandError(`"${command}" is no command: there are ${NAMES}`);
    refuseOthers(command, values);
    const common = {
      registry: readRegistry(values),
      rights: { kubeconfig: values.kubeconfig, context: values.context },
    };
    return { kind: "options", options: readCommand(command, words, { values, common }) };
  });
}

/** An option that does nothing would let people think that it did. */
function refuseOthers(command: ClusterOptions["command"], values: Values): void {
  const isDefault = (name: string, value: unknown) => value === false || (name === "output" && value === "text");
  const given = Object.entries(values).filter(([name, value]) => value !== undefined && !isDefault(name, value));
  const known: readonly string[] = [...OF_ALL, ...COMMANDS[command]];
  const other = given.find(([name]) => !known.includes(name));
  if (other !== undefined) throw new CommandError(`--${other[0]} is no option of ${command}`);
}

interface Read {
  readonly values: Values;
  readonly common: Common;
}

function readCommand(
  command: ClusterOptions["command"],
  words: readonly string[],
  { values, common }: Read,
): ClusterOptions {
  const output = readOutput(values.output);
  switch (command) {
    case "list":
      refuseMore(words, 0);
      return { command, ...common, output };
    case "show":
      return { command, name: readName(words, 1), ...common, output };
    case "check":
    case "mode":
      return readCheck(command, words, { values, common });
    case "add":
      return readAdd(readName(words, 1), { values, common });
    case "credentials":
      return { command, name: readName(words, 1), ...common, credentials: readCredentials(values) };
    case "rotate":
      return readRotate(readName(words, 1), { values, common });
    case "remove":
      return { command, name: readName(words, 1), ...common, yes: values.yes, apply: values.apply };
  }
}

function readRegistry({ registry: path, dir, region, "ssm-prefix": prefix }: Values): RegistryPlace {
  const given = Object.entries({ "--registry": path, "--dir": dir, "--ssm-prefix": prefix }).filter(
    ([, value]) => value !== undefined,
  );
  if (given.length > 1) {
    throw new CommandError(`${given.map(([name]) => name).join(" and ")} both name the registry: give one`);
  }
  if (prefix === undefined) return { kind: "file", path, dir };
  if (!/^(\/[\w.-]+)+$/.test(prefix)) {
    throw new CommandError(`--ssm-prefix is a path such as /vmpool-functions/clusters, not "${prefix}"`);
  }
  return { kind: "ssm", prefix, region };
}

function readName(words: readonly string[], most: number): string {
  const [name] = words;
  if (name === undefined) throw new CommandError("say which cluster: a NAME of the registry");
  if (!clusterNameSchema.safeParse(name).success) {
    throw new CommandError(`"${name}" is no name of a cluster: small letters, digits and - (a DNS label)`);
  }
  refuseMore(words, most);
  return name;
}

function refuseMore(words: readonly string[], most: number): void {
  const more = words[most];
  if (more !== undefined) throw new CommandError(`"${more}" is too much`);
}

function readCheck(command: "check" | "mode", words: readonly string[], { values, common }: Read): CheckOptions {
  const name = readName(words, command === "check" ? 1 : 2);
  const { rights } = common;
  if (rights.context !== undefined && rights.kubeconfig === undefined) {
    throw new CommandError("--context needs --kubeconfig");
  }
  const { events, namespace, "log-groups": logGroups } = values;
  if (events && rights.kubeconfig === undefined) {
    throw new CommandError(
      "--events needs --kubeconfig: the functions may not make pools, so the change is made by you",
    );
  }
  if (namespace !== undefined) checkNamespace(namespace, "--namespace");
  return {
    command,
    name,
    mode: command === "check" ? undefined : readMode(words[1]),
    ...common,
    output: readOutput(values.output),
    events,
    namespace,
    logGroups,
    waitSeconds: readWait(values["wait-seconds"]),
  };
}

function readMode(mode: string | undefined): "observe" | "act" {
  if (mode === "observe" || mode === "act") return mode;
  const wrong = mode === undefined ? "say which mode: observe or act" : `the mode is observe or act, not "${mode}"`;
  throw new CommandError(wrong);
}

function readWait(text: string | undefined): number {
  if (text === undefined) return WAIT_SECONDS_DEFAULT;
  const seconds = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (seconds >= 1 && seconds <= WAIT_SECONDS_MAX) return seconds;
  throw new CommandError(`--wait-seconds is a whole number from 1 to ${WAIT_SECONDS_MAX}, not "${text}"`);
}

function readAdd(name: string, { values, common }: Read): AddOptions {
  const sources = readSources(values.source) ?? ["admission"];
  const serviceAccount = values["service-account"];
  if (serviceAccount && (!values.apply || values["from-context"] === undefined)) {
    throw new CommandError(
      "--service-account needs --from-context and --apply: with that context's rights it is made and its token is read",
    );
  }
  return {
    command: "add",
    name,
    ...common,
    credentials: readCredentials(values),
    namespaces: readNamespaces(values.namespaces),
    sources,
    oidc: readOidc(sources, values),
    ...readManifests(values),
    replace: values.replace,
    serviceAccount,
  };
}

function readRotate(name: string, { values, common }: Read): RotateOptions {
  const { "drop-old": dropOld, "drop-new": dropNew } = values;
  if (dropOld && dropNew) throw new CommandError("--drop-old and --drop-new leave nothing: give one");
  const drop = dropOld ? "old" : dropNew ? "new" : undefined;
  if (drop !== undefined && (values.apply || values.endpoint !== undefined)) {
    throw new CommandError(`--drop-${drop} only changes the registry: leave out --endpoint and --apply`);
  }
  const sources = readSources(values.source);
  return { command: "rotate", name, ...common, ...readManifests(values), sources, drop };
}

function readManifests(values: Values): ManifestWishes {
  const { endpoint, apply } = values;
  if (endpoint !== undefined) checkEndpoint(endpoint);
  return {
    endpoint: endpoint?.replace(/\/+$/, ""),
    caBundle: values["ca-bundle"],
    users: !values["no-user-roles"],
    apply,
  };
}

function checkEndpoint(endpoint: string): void {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const isPlain = url?.search === "" && url.hash === "" && url.username === "" && url.password === "";
  if (url?.protocol === "https:" && isPlain) return;
  throw new CommandError(
    `--endpoint is the https address of the deployed API, such as https://abc123.execute-api.eu-west-1.amazonaws.com, not "${endpoint}"`,
  );
}

function isSource(word: string): word is Source {
  return SOURCES.some((source) => source === word);
}

/** `none` alone is no source. */
function readSources(given: readonly string[] | undefined): readonly Source[] | undefined {
  const words = given?.flatMap((text) => text.split(",").map((word) => word.trim()));
  if (words === undefined) return undefined;
  if (words.length === 1 && words[0] === "none") return [];
  const wrong = words.find((word) => !isSource(word));
  if (wrong !== undefined) throw new CommandError(`--source is ${SOURCES.join(", ")} or none, not "${wrong}"`);
  return [...new Set(words.filter(isSource))];
}

/** Those whose senders prove themselves by tokens that somebody else signs. */
const OIDC_SOURCES: readonly Source[] = ["knative", "gke", "oidc"];

function readOidc(sources: readonly Source[], values: Values): OidcSender {
  const { "oidc-issuer": issuer, "oidc-audience": audience, "oidc-subject": subject } = values;
  const [source, other] = sources.filter((one) => OIDC_SOURCES.includes(one));
  if (other !== undefined)
    throw new CommandError(`--source ${source} and ${other} need two issuers: a cluster has one`);
  if (source === undefined && (issuer ?? audience ?? subject) !== undefined) {
    throw new CommandError(`--oidc-… needs --source ${OIDC_SOURCES.join(" or ")}`);
  }
  if (source !== undefined && source !== "knative" && subject === undefined) {
    throw new CommandError("--oidc-subject is missing: the `sub` of the sender's tokens");
  }
  if (source === "oidc" && issuer === undefined) {
    throw new CommandError("--oidc-issuer is missing: the https address of who signs the sender's tokens");
  }
  return { issuer, audience, subject };
}

function readNamespaces(text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined;
  const names = [...new Set(text.split(",").map((name) => name.trim()))];
  for (const name of names) checkNamespace(name, "--namespaces");
  return names;
}

function checkNamespace(name: string, option: string): void {
  if (!OBJECT_NAME.test(name) || name.includes(".")) {
    throw new CommandError(`${option}: "${name}" is no name of a namespace`);
  }
}

const WAYS =
  "--server with --token-file, --token-stdin or --client-certificate and --client-key; --from-context CONTEXT; or --eks CLUSTER";

/** Exactly one way to reach the cluster. */
function readCredentials(values: Values): Credentials {
  const { server, eks, "from-context": context, "token-file": tokenFile, "token-stdin": tokenStdin } = values;
  const { "client-certificate": certificate, "client-key": key, "certificate-authority": authority } = values;
  const chosen = [
    tokenFile !== undefined && "--token-file",
    tokenStdin && "--token-stdin",
    (certificate ?? key) !== undefined && "--client-certificate",
    context !== undefined && "--from-context",
    eks !== undefined && "--eks",
  ].filter((one) => one !== false);
  const [way, other] = chosen;
  if (way === undefined) throw new CommandError(`say how to reach the cluster: ${WAYS}`);
  if (other !== undefined) throw new CommandError(`${way} and ${other} are two ways to reach the cluster: give one`);
  refuseStray(way, values);
  if (eks !== undefined) return readEks(eks, values);
  if (context !== undefined) return { kind: "context", context };
  if (server === undefined) throw new CommandError(`${way} needs --server: the https address of the API server`);
  const target = { server, certificateAuthority: authority };
  if (certificate !== undefined && key !== undefined) return { kind: "clientCertificate", ...target, certificate, key };
  if (way === "--client-certificate") throw new CommandError("--client-certificate and --client-key go together");
  return { kind: "token", ...target, file: tokenFile ?? "-" };
}

/** What belongs to another way than the chosen one. */
function refuseStray(way: string, values: Values): void {
  const stray = {
    "--server": way === "--eks" || way === "--from-context" ? values.server : undefined,
    "--certificate-authority":
      way === "--eks" || way === "--from-context" ? values["certificate-authority"] : undefined,
    "--eks-region": way === "--eks" ? undefined : values["eks-region"],
    "--role-arn": way === "--eks" ? undefined : values["role-arn"],
  };
  const found = Object.entries(stray).find(([, value]) => value !== undefined);
  if (found !== undefined) throw new CommandError(`${found[0]} does not go with ${way}`);
}

function readEks(clusterName: string, values: Values): Credentials {
  const { "eks-region": region, "role-arn": roleArn } = values;
  return { kind: "eks", clusterName, region: region ?? values.region, roleArn };
}
