/** The options of `npm run pool -- plan`. */
import { OBJECT_NAME } from "../../shared/planning/names.ts";
import { type Parsed, parseCommandLine, readArguments, readOutput } from "./command-line.ts";
import { CommandError } from "./errors.ts";

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
export function parsePlanOptions(args: readonly string[]): Parsed<PlanOptions> {
  return parseCommandLine(() => {
    const { values, positionals } = readArguments(args, OPTIONS);
    if (values.help) return { kind: "help", text: PLAN_HELP };
    const output = readOutput(values.output);
    const place = readPlace(positionals, values.namespace);
    if (place.name === undefined && values.filename === undefined) {
      throw new CommandError("say which pool: a NAME, NAMESPACE/NAME or -f FILE");
    }
    const { filename: file, kubeconfig, context } = values;
    return { kind: "options", options: { ...place, file, kubeconfig, context, output } };
  });
}

/** The pool's place as far as the command line says it. */
function readPlace(
  positionals: readonly string[],
  option: string | undefined,
): Pick<PlanOptions, "name" | "namespace"> {
  const [text, more] = positionals;
  if (more !== undefined) throw new CommandError(`one pool at a time: "${more}" is too much`);
  const [name, prefix, ...rest] = (text ?? "").split("/").reverse();
  if (rest.length > 0) throw new CommandError(`"${text}" is no pool: write NAME or NAMESPACE/NAME`);
  if (prefix !== undefined && option !== undefined && prefix !== option) {
    throw new CommandError(`"${text}" and --namespace ${option} name different namespaces`);
  }
  const namespace = prefix ?? option;
  const bad = [text === undefined ? undefined : name, namespace].find(
    (part) => part !== undefined && !OBJECT_NAME.test(part),
  );
  if (bad !== undefined) throw new CommandError(`"${bad}" is no name that Kubernetes allows`);
  return { name: text === undefined ? undefined : name, namespace };
}
