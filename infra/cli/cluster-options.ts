/** The options of `npm run cluster`. */
import { parseArgs } from "node:util";
import { clusterNameSchema } from "../../shared/clusters/registry.ts";

export interface ClusterOptions {
  readonly command: "check" | "mode";
  readonly name: string;
  /** What `mode` is to set; undefined for `check`. */
  readonly mode: "observe" | "act" | undefined;
  /** The registry's file; undefined when `dir` says it. */
  readonly registry: string | undefined;
  /** Folder of a local session; undefined for the default one. */
  readonly dir: string | undefined;
  /** To look with, in the place of the registry's own credentials. */
  readonly kubeconfig: string | undefined;
  readonly context: string | undefined;
  readonly output: "text" | "json";
}

export type ParsedClusterOptions =
  | { readonly kind: "options"; readonly options: ClusterOptions }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "wrong"; readonly message: string };

export const CLUSTER_HELP = `Usage: npm run cluster -- check NAME [options]
       npm run cluster -- mode NAME observe|act [options]

check  says whether the cluster can be reached and whether KubeVirt's own pool controller is seen to run there.
mode   has the functions only plan and report in the cluster (observe), or do what they plan (act). act is refused
       while check finds anything against it; observe never is. Functions that run take it up within five minutes.

Both only read the cluster.

Options:
      --registry PATH   file with the registered clusters (default: registry.json in --dir)
      --dir PATH        folder of npm start (default .local)
      --kubeconfig PATH look for KubeVirt's controller with these rights, not with the functions' own: those do not
                        reach Deployments
      --context NAME    context of the kubeconfig (default: its current one)
  -o, --output FORMAT   of check: text (default) or json
  -h, --help            show this

Exit codes:
  0   check: nothing against acting was found; mode: the cluster is in that mode
  1   check: something was found, or the cluster cannot be used; mode: refused for that, nothing is changed
  2   an error: no such cluster, a registry that cannot be read, a wrong option
`;

const OPTIONS = {
  registry: { type: "string" },
  dir: { type: "string" },
  kubeconfig: { type: "string" },
  context: { type: "string" },
  output: { type: "string", short: "o", default: "text" },
  help: { type: "boolean", short: "h", default: false },
} as const;

/** Reads the command line; the message of a wrong one says what is wrong and what is accepted. */
export function parseClusterOptions(args: readonly string[]): ParsedClusterOptions {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      strict: true,
      allowPositionals: true,
      options: OPTIONS,
    });
    if (values.help) return { kind: "help", text: CLUSTER_HELP };
    const empty = (["registry", "dir", "kubeconfig", "context"] as const).find((name) => values[name] === "");
    if (empty !== undefined) return wrong(`--${empty} is empty`);
    const { registry, dir, kubeconfig, context, output } = values;
    if (output !== "text" && output !== "json") return wrong(`--output is text or json, not "${output}"`);
    if (registry !== undefined && dir !== undefined)
      return wrong("--registry and --dir both name the registry: give one");
    if (context !== undefined && kubeconfig === undefined) return wrong("--context needs --kubeconfig");
    const wanted = readWanted(positionals);
    if (typeof wanted === "string") return wrong(wanted);
    return { kind: "options", options: { ...wanted, registry, dir, kubeconfig, context, output } };
  } catch (error) {
    return wrong(error instanceof Error ? firstSentence(error.message) : "the options cannot be read");
  }
}

/** What is asked for, or what is wrong. */
function readWanted(positionals: readonly string[]): Pick<ClusterOptions, "command" | "name" | "mode"> | string {
  const [command, name, mode, ...rest] = positionals;
  if (command === undefined) return "a command is missing: there are check and mode";
  if (command !== "check" && command !== "mode") return `"${command}" is no command: there are check and mode`;
  if (name === undefined) return "say which cluster: a NAME of the registry";
  if (!clusterNameSchema.safeParse(name).success) return `"${name}" is no name of a cluster`;
  const [more] = command === "check" ? positionals.slice(2) : rest;
  if (more !== undefined) return `"${more}" is too much`;
  if (command === "check") return { command, name, mode: undefined };
  if (mode !== "observe" && mode !== "act") {
    return mode === undefined ? "say which mode: observe or act" : `the mode is observe or act, not "${mode}"`;
  }
  return { command, name, mode };
}

function wrong(message: string): ParsedClusterOptions {
  return { kind: "wrong", message };
}

function firstSentence(text: string): string {
  return text.split(/\. |\n/)[0] ?? text;
}
