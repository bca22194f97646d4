/** The options of `npm run pool -- plan`. */
import { parseArgs } from "node:util";
import { OBJECT_NAME } from "../../shared/planning/names.ts";

export interface PlanOptions {
  /** Undefined with a manifest alone: all pools of it. */
  readonly name: string | undefined;
  /** Undefined when only the context, or the manifest, says it. */
  readonly namespace: string | undefined;
  /** `-` is standard input. */
  readonly file: string | undefined;
  readonly kubeconfig: string | undefined;
  readonly context: string | undefined;
  readonly output: "text" | "json";
}

export type ParsedPlanOptions =
  | { readonly kind: "options"; readonly options: PlanOptions }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "wrong"; readonly message: string };

export const PLAN_HELP = `Usage: npm run pool -- plan [NAMESPACE/]NAME [options]
       npm run pool -- plan -f FILE [options]

Shows what the next pass would do to a pool, action by action with the reason. Only reads the cluster.

Options:
  -f, --filename FILE   plan as if the pool were edited to this manifest, or created from it; - reads standard
                        input. Without NAME: every pool of the file
  -n, --namespace NAME  namespace of the pool (default: the manifest's, then the context's, then default)
  -o, --output FORMAT   text (default) or json
      --kubeconfig PATH kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
      --context NAME    context of the kubeconfig (default: its current one)
  -h, --help            show this

Exit codes:
  0   the next pass would write nothing
  1   it would write something
  2   an error: no such pool, an illegal spec, a cluster that cannot be read, a wrong option
`;

const OPTIONS = {
  filename: { type: "string", short: "f" },
  namespace: { type: "string", short: "n" },
  output: { type: "string", short: "o", default: "text" },
  kubeconfig: { type: "string" },
  context: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

/** Reads the command line; the message of a wrong one says what is wrong and what is accepted. */
export function parsePlanOptions(args: readonly string[]): ParsedPlanOptions {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      strict: true,
      allowPositionals: true,
      options: OPTIONS,
    });
    if (values.help) return { kind: "help", text: PLAN_HELP };
    const empty = (["filename", "namespace", "kubeconfig", "context"] as const).find((name) => values[name] === "");
    if (empty !== undefined) return wrong(`--${empty} is empty`);
    const { output } = values;
    if (output !== "text" && output !== "json") return wrong(`--output is text or json, not "${output}"`);
    const place = readPlace(positionals, values.namespace);
    if (typeof place === "string") return wrong(place);
    if (place.name === undefined && values.filename === undefined) {
      return wrong("say which pool: a NAME, NAMESPACE/NAME or -f FILE");
    }
    const { filename: file, kubeconfig, context } = values;
    return { kind: "options", options: { ...place, file, kubeconfig, context, output } };
  } catch (error) {
    return wrong(error instanceof Error ? firstSentence(error.message) : "the options cannot be read");
  }
}

/** The pool's place as far as the command line says it, or what is wrong. */
function readPlace(
  positionals: readonly string[],
  option: string | undefined,
): Pick<PlanOptions, "name" | "namespace"> | string {
  const [text, more] = positionals;
  if (more !== undefined) return `one pool at a time: "${more}" is too much`;
  const [name, prefix, ...rest] = (text ?? "").split("/").reverse();
  if (rest.length > 0) return `"${text}" is no pool: write NAME or NAMESPACE/NAME`;
  if (prefix !== undefined && option !== undefined && prefix !== option) {
    return `"${text}" and --namespace ${option} name different namespaces`;
  }
  const namespace = prefix ?? option;
  const bad = [text === undefined ? undefined : name, namespace].find(
    (part) => part !== undefined && !OBJECT_NAME.test(part),
  );
  if (bad !== undefined) return `"${bad}" is no name that Kubernetes allows`;
  return { name: text === undefined ? undefined : name, namespace };
}

function wrong(message: string): ParsedPlanOptions {
  return { kind: "wrong", message };
}

function firstSentence(message: string): string {
  return message.split(/\.\s|\n/)[0] ?? message;
}
