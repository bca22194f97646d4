/** How a plan is shown: as text for people, as JSON for programs. */
import type { Foreseen } from "../../shared/clusters/foresee.ts";
import type { PoolPlace } from "../../shared/clusters/observe.ts";
import type { Problem } from "../../shared/planning/errors.ts";
import { isRecord } from "../../shared/planning/json.ts";
import type { Vm } from "../../shared/planning/model.ts";
import type { Observation } from "../../shared/planning/plan.ts";

interface Common {
  readonly place: PoolPlace;
  /** Whether the pool is planned as a manifest has it, and what that would do; undefined for the pool as it is. */
  readonly edit: "edited" | "created" | undefined;
}

/** What is foreseen for one pool. */
export type Forecast =
  | (Common & { readonly kind: "illegal"; readonly problems: readonly Problem[] })
  | (Common & {
      readonly kind: "planned";
      readonly seen: Observation;
      /** Undefined when they were not read, because the pool is being deleted. */
      readonly members: readonly Vm[] | undefined;
      readonly actions: Foreseen["actions"];
      readonly reasons: readonly string[];
      /** What a reader may not expect of the manifest. */
      readonly notes: readonly string[];
    });

export interface Formatted {
  readonly text: string;
  readonly json: object;
}

const FIRST_STEP =
  "This is the pass's first step. It looks again after each, and later passes follow as machines become ready or go.";

export function formatForecast(forecast: Forecast): Formatted {
  const { place, edit, kind } = forecast;
  const base = { ...place, edit: edit ?? "none" };
  if (kind === "illegal") {
    const { problems } = forecast;
    return {
      text: lines(headOfIllegal(forecast), ...problems.map(({ field, message }) => `  ${field}: ${message}`)),
      json: { ...base, problems, actions: [], reasons: [], notes: [] },
    };
  }
  const { seen, actions, reasons, notes } = forecast;
  const machines = countMachines(forecast);
  return {
    text: lines(
      `${titleOf(forecast)}, generation ${seen.pool.generation}: ${describeMachines(machines)}`,
      ...(actions.length === 0
        ? ["The next pass would write nothing."]
        : ["The next pass would begin with:", ...actions.map(({ text }) => `  ${text}`), FIRST_STEP]),
      ...section("Why, and what waits:", reasons),
      ...section("Note:", notes),
    ),
    json: { ...base, generation: seen.pool.generation, machines, problems: [], actions, reasons, notes },
  };
}

function headOfIllegal(forecast: Forecast): string {
  const held = "nothing is done to its machines until this is mended:";
  return forecast.edit === undefined
    ? `${titleOf(forecast)} is held, ${held}`
    : `${titleOf(forecast)} is illegal. It would be refused or, where admission is off, held: ${held}`;
}

function titleOf({ place: { namespace, name }, edit }: Common): string {
  const pool = `${namespace}/${name}`;
  switch (edit) {
    case undefined:
      return pool;
    case "edited":
      return `${pool} as in the manifest`;
    case "created":
      return `${pool}, created from the manifest`;
  }
}

interface Machines {
  readonly wanted: number;
  /** Without those on their way out; null when they were not read. */
  readonly there: number | null;
  readonly ready: number | null;
  readonly leaving: number | null;
}

function countMachines({ seen: { pool }, members }: Extract<Forecast, { kind: "planned" }>): Machines {
  const replicas = isRecord(pool.spec) ? pool.spec["replicas"] : undefined;
  const wanted = pool.deleting ? 0 : typeof replicas === "number" ? replicas : 1;
  if (members === undefined) return { wanted, there: null, ready: null, leaving: null };
  const live = members.filter(({ terminating }) => !terminating);
  const ready = live.filter((vm) => vm.ready).length;
  return { wanted, there: live.length, ready, leaving: members.length - live.length };
}

function describeMachines({ wanted, there, ready, leaving }: Machines): string {
  const count = wanted === 1 ? "1 machine" : `${wanted} machines`;
  if (there === null) return `${count} wanted`;
  return `${count} wanted, ${there} there, ${ready} ready${leaving === 0 ? "" : `, ${leaving} on the way out`}`;
}

function section(title: string, entries: readonly string[]): readonly string[] {
  return entries.length === 0 ? [] : [title, ...entries.map((entry) => `  ${entry}`)];
}

function lines(...all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join("");
}
