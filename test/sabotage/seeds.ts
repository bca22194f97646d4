/** Runs inside a copy of the sources with a bug: seed after seed, a line of JSON for each, until one breaks an invariant. */
import { loadKinds } from "../simulation/kinds.ts";
import { simulate } from "../simulation/simulator.ts";

const [first, count] = process.argv.slice(2).map(Number);
if (first === undefined || count === undefined) throw new Error("seeds.ts takes the first seed and how many there are");

const kinds = await loadKinds();
for (let seed = first; seed < first + count; seed += 1) {
  const { failure } = await simulate({ seed, kinds });
  process.stdout.write(`${JSON.stringify({ seed, ...(failure === undefined ? {} : { failure }) })}\n`);
  if (failure !== undefined) break;
}
// The functions' own deadlines are real timers that nobody waits for.
process.exit(0);
