/** `npm run search`: searches the states of a pool under everything that can happen to it, as far as it is let; tells the shortest way to what is wrong. */
import { readOptions, wholeNumber } from "../support/command-line.ts";
import { largeScopes, SCOPES } from "./scopes.ts";
import { type Progress, type SearchResult, search } from "./search.ts";

const HELP = `Searches the states of a pool with the real planner: overlapping passes, late calls, crashes, users, failing machines.

  npm run search -- [options]

  --replicas N  how many machines users may ask for, up to 3 (default 3)
  --acts N      how often users act and machines fail in one story, up to 1000 (default 2); 0 for as often as they like
  --states N    goes on to the next subject when so many states of one are known (default 10000000), 300 bytes of memory each
  --minutes M   ends after so many minutes, which the subjects share
  --small       searches the small systems of the tests instead, each to its end
  --help        this text
`;
const MINUTE_MS = 60_000;

const values = readOptions({
  replicas: { type: "string", default: "3" },
  acts: { type: "string", default: "2" },
  states: { type: "string", default: "10000000" },
  minutes: { type: "string", default: "100000" },
  small: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});

const startedAt = performance.now();

function secondsSince(start: number): number {
  return (performance.now() - start) / 1_000;
}

function showProgress({ states, depth, open }: Progress): void {
  const told = `${states} states, ${Math.round(secondsSince(startedAt))} s, ${depth} steps deep, ${open} to go on from`;
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${told}`);
  else process.stderr.write(`${told}\n`);
}

/** Tells what was searched; false when something is wrong. */
function report(result: SearchResult, start: number): boolean {
  const { failure, states, transitions, depth, complete, open, cut, planned, converged } = result;
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
  const how = complete ? "complete" : `bounded: ${open} states were not gone on from`;
  process.stdout.write(
    `${states} states, ${transitions} transitions, ${depth} steps deep, ${secondsSince(start).toFixed(1)} s, ${failure === undefined ? how : "stopped"}\n` +
      `${planned} observations planned, ${converged} states at rest converge${cut === 0 ? "" : `, ${cut} plans needed more ordinals and were not followed`}\n`,
  );
  if (failure === undefined) return true;
  process.stdout.write(`${failure.join("\n")}\n`);
  return false;
}

function main(): number {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const statesMax = wholeNumber("states", values.states, { max: 100_000_000 });
  const endsAt = startedAt + wholeNumber("minutes", values.minutes, { max: 100_000 }) * MINUTE_MS;
  const large = largeScopes(
    wholeNumber("replicas", values.replicas, { max: 3 }),
    wholeNumber("acts", values.acts, { max: 1_000 }),
  );
  const scopes = values.small ? SCOPES : large;
  for (const [index, { name, rules }] of scopes.entries()) {
    process.stdout.write(`${name}\n`);
    const start = performance.now();
    const millisecondsMax = (endsAt - start) / (scopes.length - index);
    if (!report(search(rules, { statesMax, millisecondsMax }, showProgress), start)) return 1;
  }
  return 0;
}

process.exit(main());
