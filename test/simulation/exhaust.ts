/** `npm run exhaust`: small stories with every fault, every pair of crashes or every order of two passes; tells each failure and how to see it again. */
import { createProgressLine, readOptions, refuse } from "../support/command-line.ts";
import {
  CRASHES,
  explore,
  type Failure,
  type Fault,
  KINDS,
  LATES,
  prepareRest,
  type Rest,
  tell,
} from "./exhaustive.ts";
import { interleave, type OrderFailure, replayOrder, type Surroundings } from "./interleavings.ts";
import { loadKinds } from "./kinds.ts";
import { type Scenario, type Size, scenarioOf, scenariosOf } from "./scenarios.ts";

const HELP = `Tries small stories of a pool to their end: the functions on an API server in memory, with every crash and every wrong answer at
every call, one after the other. Nothing is left to chance.

  npm run exhaust -- [options]

  --scenario NAME   only this one (default: all)
  --small           with the fewest machines
  --pairs           a second crash at every call of what follows a crash
  --interleavings   instead of faults: every order of the calls of two passes, with the fewest machines
  --prompt          of those: KubeVirt does all it can after each write, instead of nothing before the passes end
  --deaths          of those: one of the passes dies at one of its writes, which may take effect at any later time
  --faults LIST     tells one story with these faults, such as 12:diesAfter,20:lands
  --choices LIST    tells one order of two passes, such as 1,0,0,2
  --list            names the scenarios and the faults
  --help            this text
`;

const values = readOptions({
  scenario: { type: "string" },
  small: { type: "boolean", default: false },
  pairs: { type: "boolean", default: false },
  interleavings: { type: "boolean", default: false },
  prompt: { type: "boolean", default: false },
  deaths: { type: "boolean", default: false },
  faults: { type: "string" },
  choices: { type: "string" },
  list: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});

const surroundings: Surroundings = { isPrompt: values.prompt, mayDie: values.deaths };
const isDuel = values.interleavings || values.choices !== undefined;
const size: Size = isDuel || values.small ? "small" : "usual";

function readFaults(text: string): readonly Fault[] {
  return text.split(",").map((part) => {
    const [position = "", name = ""] = part.split(":");
    const kind = KINDS.find((known) => known === name);
    if (kind === undefined || !/^\d{1,5}$/.test(position)) refuse(`--faults takes what --list says, not "${part}"`);
    return { position: Number(position), kind };
  });
}

function readChoices(text: string): readonly number[] {
  if (!/^(\d{1,3}(,\d{1,3})*)?$/.test(text)) refuse(`--choices takes whole numbers, not "${text}"`);
  return text === "" ? [] : text.split(",").map(Number);
}

function rate(runs: number, startedAt: number): string {
  return `${((runs * 1_000) / Math.max(1, performance.now() - startedAt)).toFixed(0)} runs/s`;
}

function options(names: readonly (string | false)[]): string {
  return names.filter((name) => name !== false).join(" ");
}

function showFailure({ name }: Scenario, how: string, { failure, trace }: Failure | OrderFailure): void {
  const story = trace.map((line, index) => `${String(index).padStart(4)}  ${line}`).join("\n");
  process.stdout.write(`\n${name}: ${failure}\n${story}\nreplay: npm run exhaust -- --scenario ${name} ${how}\n\n`);
}

async function exploreFaults(rest: Rest): Promise<number> {
  const { scenario } = rest;
  const startedAt = performance.now();
  const line = createProgressLine();
  const found = await explore(rest, {
    pairs: values.pairs,
    onRun: ({ runs, states }) =>
      line.show(`${scenario.name}: ${runs} runs, ${states} states, ${rate(runs, startedAt)}`),
  });
  line.clear();
  for (const failure of found.failures) {
    const list = failure.faults.map(({ position, kind }) => `${position}:${kind}`).join(",");
    showFailure(scenario, options([size === "small" && "--small", `--faults ${list}`]), failure);
  }
  const { calls, runs, states, longestPath, failures } = found;
  process.stdout.write(
    `${scenario.name}: ${calls} calls, ${runs} runs, ${states} states, longest path ${longestPath} calls, ${failures.length} failures, ${rate(runs, startedAt)}\n`,
  );
  return failures.length;
}

async function exploreOrders(rest: Rest): Promise<number> {
  const { scenario } = rest;
  const startedAt = performance.now();
  const line = createProgressLine();
  const found = await interleave(rest, {
    ...surroundings,
    onRun: ({ runs, states }) =>
      line.show(`${scenario.name}: ${runs} runs, ${states} states, ${rate(runs, startedAt)}`),
  });
  line.clear();
  for (const failure of found.failures) {
    const list = `--choices "${failure.choices.join(",")}"`;
    showFailure(scenario, options([list, values.prompt && "--prompt", values.deaths && "--deaths"]), failure);
  }
  const { runs, states, ends, longestPath, failures } = found;
  process.stdout.write(
    `${scenario.name}: ${runs} runs, ${states} states, ${ends} ends, longest path ${longestPath} steps, ${failures.length} failures, ${rate(runs, startedAt)}\n`,
  );
  return failures.length;
}

async function replay(rest: Rest): Promise<number> {
  const { failure, trace } =
    values.choices === undefined
      ? await tell(rest, readFaults(values.faults ?? ""))
      : await replayOrder(rest, readChoices(values.choices), surroundings);
  process.stdout.write(`${trace.map((line, index) => `${String(index).padStart(4)}  ${line}`).join("\n")}\n`);
  process.stdout.write(`${failure ?? "no invariant broken"}\n`);
  return failure === undefined ? 0 : 1;
}

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const names = scenariosOf(size).map(({ name }) => name);
  if (values.list) {
    process.stdout.write(`scenarios: ${names.join(" ")}\nfaults: ${KINDS.join(" ")}\n`);
    process.stdout.write(`crashes: ${CRASHES.join(" ")}; taking effect late, with lands: ${LATES.join(" ")}\n`);
    return 0;
  }
  const { scenario } = values;
  if (scenario !== undefined && !names.includes(scenario)) refuse(`no such scenario: ${scenario}; --list names them`);
  const isReplay = values.faults !== undefined || values.choices !== undefined;
  if (isReplay && scenario === undefined) refuse("one story needs --scenario");
  const kinds = await loadKinds();
  let failures = 0;
  for (const name of scenario === undefined ? names : [scenario]) {
    const rest = await prepareRest(scenarioOf(name, size), kinds);
    failures += await (isReplay ? replay(rest) : isDuel ? exploreOrders(rest) : exploreFaults(rest));
  }
  if (!isReplay) process.stdout.write(failures === 0 ? "no invariant broken\n" : `${failures} failures\n`);
  return failures === 0 ? 0 : 1;
}

// The functions' own deadlines are real timers that nobody waits for.
process.exit(await main());
