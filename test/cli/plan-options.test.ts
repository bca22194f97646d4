import { expect, it } from "vitest";
import { parsePlanOptions } from "../../infra/cli/plan-options.ts";

const DEFAULTS = {
  name: "web",
  namespace: undefined,
  file: undefined,
  kubeconfig: undefined,
  context: undefined,
  output: "text",
};

it.each([
  [["web"], {}],
  [["ci/web"], { namespace: "ci" }],
  [["web", "-n", "ci"], { namespace: "ci" }],
  [["ci/web", "--namespace", "ci"], { namespace: "ci" }],
  [["-f", "pool.yaml"], { name: undefined, file: "pool.yaml" }],
  [["web", "--filename", "-"], { file: "-" }],
  [["-o", "json", "web"], { output: "json" }],
  [["web", "--kubeconfig", "/k", "--context", "east"], { kubeconfig: "/k", context: "east" }],
])("reads %j", (args, options) => {
  expect(parsePlanOptions(args)).toEqual({ kind: "options", options: { ...DEFAULTS, ...options } });
});

it.each([
  [[], "say which pool: a NAME, NAMESPACE/NAME or -f FILE"],
  [["a", "b"], 'one pool at a time: "b" is too much'],
  [["a/b/c"], '"a/b/c" is no pool: write NAME or NAMESPACE/NAME'],
  [["a/"], '"" is no name that Kubernetes allows'],
  [["Web"], '"Web" is no name that Kubernetes allows'],
  [["a/web", "-n", "b"], '"a/web" and --namespace b name different namespaces'],
  [["web", "-o", "yaml"], '--output is text or json, not "yaml"'],
  [["web", "--context", ""], "--context is empty"],
  [["web", "--act"], "Unknown option '--act'"],
])("refuses %j and says what is wrong", (args, message) => {
  expect(parsePlanOptions(args)).toEqual({ kind: "wrong", message });
});

it.each(["--help", "-h"])("explains options and exit codes with %s", (flag) => {
  const parsed = parsePlanOptions([flag]);

  expect(parsed.kind === "help" && parsed.text).toMatch(/^Usage: npm run pool -- plan[\s\S]*Exit codes:/);
});
