/** The options of `npm start`. */
import { parseArgs } from "node:util";
import { SCHEDULE_SECONDS } from "./runtime/wiring.ts";

const PORT_DEFAULT = 8080;
const RESYNC_SECONDS_DEFAULT = SCHEDULE_SECONDS;

export interface StartOptions {
  readonly example: boolean;
  readonly standIn: boolean;
  readonly exitWhenReady: boolean;
  readonly port: number;
  /** The API server tells of changes; without, the schedule alone drives the passes. */
  readonly webhooks: boolean;
  readonly resyncSeconds: number;
  readonly dir: string;
  /** Serve this existing cluster instead of a local control plane. */
  readonly kubeconfig: string | undefined;
  readonly act: boolean;
}

export type ParsedOptions =
  | { readonly kind: "options"; readonly options: StartOptions }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "wrong"; readonly message: string };

const HELP = `Usage: npm start -- [options]

Starts a local Kubernetes control plane, a stand-in for KubeVirt and the functions, applies
infra/examples/vm-pool-cirros.yaml and keeps its machines up until Ctrl-C.

Options:
  --no-example          apply no example pool
  --no-stand-in         no stand-in for KubeVirt: machines are created and never become ready
  --exit-when-ready     stop everything as soon as the pool is ready (exit code 1 if it never is)
  --port N              port of the HTTP listener on 127.0.0.1 (default ${PORT_DEFAULT})
  --no-webhooks         drive the passes by the schedule alone: every tick wakes every pool
  --resync-seconds N    seconds between ticks of the schedule (default ${RESYNC_SECONDS_DEFAULT}); 0 switches it off
  --dir PATH            folder for kubeconfig, token, logs and data (default .local)
  --kubeconfig PATH     serve the cluster of this kubeconfig's current context: no control plane, no
                        stand-in, no example; plans and prints only
  --act                 with --kubeconfig: do what is planned
  --help                show this
`;

/** Reads the command line; the message of a wrong one says what is wrong and what is accepted. */
export function parseOptions(args: readonly string[]): ParsedOptions {
  try {
    return readOptions(args);
  } catch (error) {
    return {
      kind: "wrong",
      message: error instanceof Error ? firstSentence(error.message) : "the options cannot be read",
    };
  }
}

function readOptions(args: readonly string[]): ParsedOptions {
  const { values } = parseArgs({
    args: [...args],
    strict: true,
    allowPositionals: false,
    options: {
      "no-example": { type: "boolean", default: false },
      "no-stand-in": { type: "boolean", default: false },
      "exit-when-ready": { type: "boolean", default: false },
      port: { type: "string", default: String(PORT_DEFAULT) },
      "no-webhooks": { type: "boolean", default: false },
      "resync-seconds": { type: "string", default: String(RESYNC_SECONDS_DEFAULT) },
      dir: { type: "string", default: ".local" },
      kubeconfig: { type: "string" },
      act: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return { kind: "help", text: HELP };
  const port = wholeNumber(values.port, { option: "--port", min: 1, max: 65_535 });
  const resyncSeconds = wholeNumber(values["resync-seconds"], { option: "--resync-seconds", min: 0, max: 86_400 });
  if (values.kubeconfig === "") {
    return { kind: "wrong", message: "--kubeconfig needs a file, such as --kubeconfig ~/.kube/config" };
  }
  if (values.dir === "") return { kind: "wrong", message: "--dir needs a folder, such as --dir .local" };
  if (values.act && values.kubeconfig === undefined) {
    return { kind: "wrong", message: "--act only goes with --kubeconfig: the local cluster is always acted on" };
  }
  const existing = values.kubeconfig !== undefined;
  const webhooks = !values["no-webhooks"] && !existing;
  if (!webhooks && resyncSeconds === 0) {
    return { kind: "wrong", message: "without webhooks --resync-seconds 0 leaves nothing to drive the passes" };
  }
  return {
    kind: "options",
    options: {
      example: !values["no-example"] && !existing,
      standIn: !values["no-stand-in"] && !existing,
      exitWhenReady: values["exit-when-ready"],
      port,
      webhooks,
      resyncSeconds,
      dir: values.dir,
      kubeconfig: values.kubeconfig,
      act: values.act || !existing,
    },
  };
}

interface NumberRule {
  readonly option: string;
  readonly min: number;
  readonly max: number;
}

function wholeNumber(text: string, { option, min, max }: NumberRule): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new RangeError(`${option} needs a whole number from ${min} to ${max}, not "${text}"`);
}

function firstSentence(message: string): string {
  return message.split(/\.\s|\n/)[0] ?? message;
}
