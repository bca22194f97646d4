/** `npm run package` and `npm run deploy`: bundles, zips, the template, and what judges them; one line a step. */
import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { environment } from "../../shared/runtime/config.ts";
import { createConsole } from "../local/console.ts";
import { beginStep } from "../local/control-plane/progress.ts";
import { SetupError } from "../local/control-plane/setup-error.ts";
import { formatSizes, judgeSizes, readBudgets, writeBudgets } from "./budgets.ts";
import { BUILD_DIR, type Bundle, bundleFunctions } from "./bundle.ts";
import { lintTemplate, makeTemplate, OSLS } from "./template.ts";

const ROOT = join(import.meta.dirname, "../..");
const TEMPLATE_DIR = join(ROOT, ".serverless");
const PACKAGE_HELP = `Usage: npm run package [-- options]

Makes what a deploy sends, without network, credentials or an account: a bundle and a zip for each function in .build, and
the CloudFormation template in .serverless. Fails when a zip is over its budget or cfn-lint finds something.

Options:
      --stage NAME      stage of the template (default: prod)
      --region NAME     region of the template (default: eu-central-1)
      --no-lint         leave out cfn-lint, which is installed at its first use
      --set-budgets     make the sizes of today, and a fifth more, the budgets (infra/package/budgets.json)
  -h, --help            show this

Exit codes:
  0   everything is there and as it should be
  1   a budget is exceeded, or cfn-lint found something
  2   something cannot be made, or a wrong option
`;
const DEPLOY_HELP = `Usage: npm run deploy [-- options]

Bundles the functions and brings the stack of serverless.yml to AWS, with the credentials of your environment.

Options:
      --stage NAME           stage (default: prod); a second one needs a registryPrefix of its own
      --region NAME          region (default: eu-central-1)
      --param stopped=true   hold every pass of every cluster
      all others that osls deploy takes, such as --aws-profile NAME and --verbose
  -h, --help                 show this

Exit codes:
  0   deployed
  1   AWS, or osls, refused
  2   the functions cannot be bundled, or are over their budgets
`;

const shown = createConsole(process.stdout, process.stderr);
const [command, ...args] = process.argv.slice(2);
process.exitCode = await run();
process.exit();

async function run(): Promise<number> {
  try {
    return await (command === "deploy" ? deploy(args) : packageAll(args));
  } catch (error) {
    if (error instanceof SetupError) shown.error(`${error.message} ${error.advice}`);
    else shown.error(error instanceof Error ? error.message : String(error));
    return 2;
  }
}

async function packageAll(given: readonly string[]): Promise<number> {
  const options = readOptions(given);
  if (typeof options === "string") {
    shown.error(`${options}. See npm run package -- --help`);
    return 2;
  }
  if (options.help) return say(PACKAGE_HELP);
  const bundles = await bundle();
  if (options["set-budgets"]) await writeBudgets(bundles);
  const complaints = [...(await judge(bundles))];
  const chosen = (["stage", "region"] as const).flatMap((name) => {
    const value = options[name];
    return value === undefined ? [] : [`--${name}`, value];
  });
  await rm(TEMPLATE_DIR, { recursive: true, force: true });
  const path = await step("template", () => makeTemplate({ zips: BUILD_DIR, folder: TEMPLATE_DIR, args: chosen }));
  if (!options["no-lint"]) complaints.push(...(await step("cfn-lint", () => lintTemplate(path))));
  for (const complaint of complaints) shown.error(complaint);
  if (complaints.length > 0) return 1;
  shown.line(`packaged: ${relative(ROOT, BUILD_DIR)}/*.zip and ${relative(ROOT, path)}`);
  return 0;
}

async function deploy(given: readonly string[]): Promise<number> {
  if (given.includes("--help") || given.includes("-h")) return say(DEPLOY_HELP);
  const complaints = await judge(await bundle());
  for (const complaint of complaints) shown.error(complaint);
  if (complaints.length > 0) return 2;
  const child = spawn(process.execPath, [OSLS, "deploy", ...given], { cwd: ROOT, env: environment, stdio: "inherit" });
  return new Promise((resolve) => {
    child.once("error", () => resolve(1));
    child.once("exit", (code) => resolve(code === 0 ? 0 : 1));
  });
}

async function bundle(): Promise<readonly Bundle[]> {
  return step("bundles and zips", () => bundleFunctions());
}

async function judge(bundles: readonly Bundle[]): Promise<readonly string[]> {
  const budgets = await readBudgets();
  shown.line(formatSizes(bundles, budgets));
  return judgeSizes(bundles, budgets);
}

async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  const begun = beginStep(shown.progress, name);
  try {
    const result = await work();
    begun.finish();
    return result;
  } finally {
    begun.fail("see below");
  }
}

function readOptions(given: readonly string[]) {
  try {
    return parseArgs({
      args: [...given],
      strict: true,
      options: {
        stage: { type: "string" },
        region: { type: "string" },
        "no-lint": { type: "boolean", default: false },
        "set-budgets": { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    return error instanceof Error ? error.message.replace(/\.$/, "") : "the options cannot be read";
  }
}

function say(text: string): number {
  process.stdout.write(text);
  return 0;
}
