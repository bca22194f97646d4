import { expect, it } from "vitest";
import { parseOptions, type StartOptions } from "../../infra/local/options.ts";

const DEFAULTS: StartOptions = {
  example: true,
  standIn: true,
  exitWhenReady: false,
  port: 8080,
  webhooks: true,
  resyncSeconds: 60,
  dir: ".local",
  kubeconfig: undefined,
  act: true,
};
const EXISTING: Partial<StartOptions> = {
  example: false,
  standIn: false,
  act: false,
  webhooks: false,
  kubeconfig: "k",
};

it.each<[string, Partial<StartOptions>]>([
  ["", {}],
  ["--no-example", { example: false }],
  ["--no-stand-in", { standIn: false }],
  ["--exit-when-ready", { exitWhenReady: true }],
  ["--no-webhooks", { webhooks: false }],
  ["--resync-seconds 0", { resyncSeconds: 0 }],
  ["--port 1", { port: 1 }],
  ["--port 65535", { port: 65_535 }],
  ["--port=9090", { port: 9_090 }],
  ["--resync-seconds 1", { resyncSeconds: 1 }],
  ["--resync-seconds 86400", { resyncSeconds: 86_400 }],
  ["--dir /tmp/x", { dir: "/tmp/x" }],
  ["--dir=other", { dir: "other" }],
  ["--kubeconfig k", EXISTING],
  ["--kubeconfig k --act", { ...EXISTING, act: true }],
  ["--kubeconfig k --no-example --no-stand-in", EXISTING],
  ["--port 1 --port 2", { port: 2 }],
  ["--no-example --exit-when-ready --port 3 --dir d", { example: false, exitWhenReady: true, port: 3, dir: "d" }],
])("reads npm start -- %s", (line, fields) => {
  expect(parseOptions(wordsOf(line))).toEqual({ kind: "options", options: { ...DEFAULTS, ...fields } });
});

it.each(["--help", "-h", "--help --port x", "--no-example --help"])("shows the help for %s", (line) => {
  const parsed = parseOptions(wordsOf(line));
  const text = parsed.kind === "help" ? parsed.text : "";

  for (const option of OPTIONS) expect(text).toMatch(new RegExp(`^  ${option}\\b`, "m"));
  expect(text).toMatch(/^Usage: npm start -- \[options\]\n/);
  expect(text.split("\n").every((row) => row.length <= 110)).toBe(true);
});

const OPTIONS = [
  "--no-example",
  "--no-stand-in",
  "--exit-when-ready",
  "--port N",
  "--no-webhooks",
  "--resync-seconds N",
  "--dir PATH",
  "--kubeconfig PATH",
  "--act",
  "--help",
];
const A_PORT = "--port needs a whole number from 1 to 65535";
const SECONDS = "--resync-seconds needs a whole number from 0 to 86400";

it.each([
  ["--port 0", `${A_PORT}, not "0"`],
  ["--port 65536", `${A_PORT}, not "65536"`],
  ["--port 8080.5", `${A_PORT}, not "8080.5"`],
  ["--port 1e3", `${A_PORT}, not "1e3"`],
  ["--port 0x10", `${A_PORT}, not "0x10"`],
  ["--port web", `${A_PORT}, not "web"`],
  ["--port=", `${A_PORT}, not ""`],
  ["--port=-1", `${A_PORT}, not "-1"`],
  ["--port 9999999", `${A_PORT}, not "9999999"`],
  ["--resync-seconds=-1", `${SECONDS}, not "-1"`],
  ["--no-webhooks --resync-seconds 0", "without webhooks --resync-seconds 0 leaves nothing to drive the passes"],
  ["--resync-seconds 86401", `${SECONDS}, not "86401"`],
  ["--resync-seconds=-1", `${SECONDS}, not "-1"`],
  ["--resync-seconds 1.5", `${SECONDS}, not "1.5"`],
  ["--dir=", "--dir needs a folder, such as --dir .local"],
  ["--act", "--act only goes with --kubeconfig: the local cluster is always acted on"],
  ["--act --no-example", "--act only goes with --kubeconfig: the local cluster is always acted on"],
  ["--prot 1", "Unknown option '--prot'"],
  ["-p", "Unknown option '-p'"],
  ["start", "Unexpected argument 'start'"],
  ["--port 1 2", "Unexpected argument '2'"],
  ["--no-example=yes", "Option '--no-example' does not take an argument"],
  ["--port", "Option '--port <value>' argument missing"],
  ["--kubeconfig", "Option '--kubeconfig <value>' argument missing"],
])("refuses npm start -- %s", (line, message) => {
  expect(parseOptions(wordsOf(line))).toEqual({ kind: "wrong", message });
});

// `start.ts` puts a full stop behind the message.
it.each(["--port -1", "--dir --no-example", "--kubeconfig --act"])("ends no message with a full stop: %s", (line) => {
  expect(parseOptions(wordsOf(line))).toEqual({ kind: "wrong", message: expect.stringMatching(/[^.]$/) });
});

it("asks for a file when --kubeconfig is empty", () => {
  expect(parseOptions(["--kubeconfig="])).toEqual({
    kind: "wrong",
    message: expect.stringContaining("--kubeconfig needs a file"),
  });
});

it("keeps spaces and dashes of a path", () => {
  expect(parseOptions(["--dir", "my folder", "--kubeconfig", "-"])).toMatchObject({
    options: { dir: "my folder", kubeconfig: "-" },
  });
});

function wordsOf(line: string): readonly string[] {
  return line === "" ? [] : line.split(" ");
}
