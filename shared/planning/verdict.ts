/** Judges a pool's spec: legal, or the list of what is wrong with it. The admission webhook and the pass use the same rules. */
import type * as z from "zod";
import { parseDuration } from "./duration.ts";
import type { Problem } from "./errors.ts";
import { isRecord } from "./json.ts";
import { type Pool, type PoolSpec, poolFieldsSchema, poolSpecSchema } from "./model.ts";
import { LABEL_VALUE_LENGTH_MAX, REVISION_LABEL, revisionName } from "./names.ts";
import { selectorsProblems } from "./selection.ts";
import {
  describeLabels,
  describeSelector,
  type LabelSelector,
  type ParsedSelector,
  parseSelector,
} from "./selector.ts";
import { shapeProblems } from "./shape.ts";
import { quoted, shownValue } from "./wording.ts";

const SELECTOR = "spec.selector";
/** How many problems of one pool are told. */
const PROBLEMS_MAX = 20;

export type Verdict =
  | { readonly legal: true; readonly spec: PoolSpec; readonly selector: ParsedSelector }
  | { readonly legal: false; readonly problems: readonly Problem[] };

/** Of later generations only those count that machines are made from: see `chooseRevision`. */
const FIRST_GENERATION = 1;

/** Says whether the pool may be acted on; never throws, whatever the spec holds. */
export function judge(pool: Pick<Pool, "name" | "spec">): Verdict {
  const shape = poolSpecSchema.safeParse(pool.spec, { reportInput: true });
  const problems = [
    ...nameProblems(pool.name, FIRST_GENERATION),
    ...(shape.success ? [] : shapeProblems(shape.error)),
    ...ruleProblems(shape.success ? shape.data : soundFields(pool.spec, shape.error)),
  ];
  if (!shape.success || problems.length > 0) return { legal: false, problems: problems.slice(0, PROBLEMS_MAX) };
  return { legal: true, spec: shape.data, selector: parseSelector(shape.data.selector, SELECTOR).parsed };
}

const legalFieldsSchema = poolFieldsSchema.partial();
type LegalFields = z.infer<typeof legalFieldsSchema>;

/** The fields whose shape is legal, so that all that is wrong with a spec is told at once. */
function soundFields(spec: unknown, { issues }: z.ZodError): LegalFields {
  if (!isRecord(spec)) return {};
  const broken = new Set(issues.map(({ path }) => path[0]));
  const sound = Object.entries(spec).filter(([field]) => !broken.has(field));
  return legalFieldsSchema.safeParse(Object.fromEntries(sound)).data ?? {};
}

function ruleProblems(spec: LegalFields): Problem[] {
  return [
    ...selectorProblems(spec),
    ...maxUnavailableProblems(spec.maxUnavailable),
    ...strategyProblems(spec.updateStrategy, "spec.updateStrategy"),
    ...strategyProblems(spec.scaleInStrategy, "spec.scaleInStrategy"),
    ...policyProblems(spec.updateStrategy, "spec.updateStrategy"),
    ...policyProblems(spec.scaleInStrategy, "spec.scaleInStrategy"),
    ...durationProblems(spec.autohealing?.minFailingToStartDuration),
  ];
}

/** The name of a generation's revision becomes a label value, which has a length limit. */
export function nameProblems(name: string, generation: number): Problem[] {
  const excess = revisionName(name, generation).length - LABEL_VALUE_LENGTH_MAX;
  if (excess <= 0) return [];
  const message = `${quoted(name)} is ${excess} characters too long: <name>-<generation> must fit a label value of ${LABEL_VALUE_LENGTH_MAX} characters; use a shorter name`;
  return [{ field: "metadata.name", message }];
}

function selectorProblems({ selector, virtualMachineTemplate }: LegalFields): readonly Problem[] {
  if (selector === undefined) return [];
  const { parsed, problems } = parseSelector(selector, SELECTOR);
  const own = ownLabelProblems(selector);
  if (problems.length > 0 || own.length > 0) return [...problems, ...own];
  if (parsed.text.length > SELECTOR_LENGTH_MAX) {
    const length = `its text is of ${parsed.text.length} characters, more than the ${SELECTOR_LENGTH_MAX} that fit an address`;
    return [{ field: SELECTOR, message: `${length}: ask for fewer labels` }];
  }
  if (virtualMachineTemplate === undefined) return [];
  const labels = virtualMachineTemplate.metadata?.labels ?? {};
  const empty = Object.keys(labels).length === 0;
  if (!empty && parsed.matches(labels)) return [];
  const shown = empty ? "are empty" : `are ${describeLabels(labels)}`;
  const message = `selector "${describeSelector(parsed.text)}" does not match spec.virtualMachineTemplate.metadata.labels, which ${shown}; give the template the labels that the selector asks for`;
  return [{ field: SELECTOR, message }];
}

/** Machines get this label from the pool, whatever the template says: one that is to be found by it may never be found. */
function ownLabelProblems({ matchLabels, matchExpressions }: LabelSelector): readonly Problem[] {
  const fields = [
    ...(Object.hasOwn(matchLabels ?? {}, REVISION_LABEL) ? [`${SELECTOR}.matchLabels.${REVISION_LABEL}`] : []),
    ...(matchExpressions ?? []).flatMap(({ key }, index) =>
      key === REVISION_LABEL ? [`${SELECTOR}.matchExpressions[${index}].key`] : [],
    ),
  ];
  const message = `the pool itself gives its machines the label ${quoted(REVISION_LABEL)}, another with each new template: ask for other labels of the template`;
  return fields.map((field) => ({ field, message }));
}

/** Every list of machines carries the selector in its address, and the status and each fact repeat it. */
const SELECTOR_LENGTH_MAX = 8_000;
const PERCENT_EXAMPLE = "write a percentage such as 25%, or a number of machines such as 1, without quotes";

function maxUnavailableProblems(value: PoolSpec["maxUnavailable"]): Problem[] {
  const problem = (message: string) => [{ field: "spec.maxUnavailable", message: `${message}: ${PERCENT_EXAMPLE}` }];
  if (value === undefined || value === null) return [];
  if (typeof value === "number") return value > 0 ? [] : problem("maxUnavailable must be greater than 0");
  if (!value.endsWith("%")) return problem("maxUnavailable percentage must end with %");
  const digits = value.slice(0, -1);
  if (!/^[+-]?\d{1,9}$/.test(digits))
    return problem(`maxUnavailable percentage value ${shownValue(digits)} is not an integer`);
  const percent = Number(digits);
  if (percent >= 1 && percent <= 100) return [];
  return problem(`maxUnavailable percentage value ${percent} must be between 1 and 100`);
}

function durationProblems(text: string | null | undefined): Problem[] {
  if (text === undefined || text === null) return [];
  const field = "spec.autohealing.minFailingToStartDuration";
  const durationMs = parseDuration(text);
  if (durationMs === undefined) {
    return [
      { field, message: `${shownValue(text)} is not a duration: write numbers with units, such as 90s, 5m or 1h30m` },
    ];
  }
  if (durationMs > 0) return [];
  const message = `must be longer than 0, not ${shownValue(text)}, or every machine that starts would be replaced at once: write how long a machine may fail to start, such as 5m`;
  return [{ field, message }];
}

const STRATEGIES = ["unmanaged", "opportunistic", "proactive"] as const;

function strategyProblems(
  strategy: Partial<Record<(typeof STRATEGIES)[number], unknown>> | null | undefined,
  field: string,
): Problem[] {
  const found = STRATEGIES.filter((name) => strategy?.[name] !== undefined && strategy[name] !== null);
  if (found.length < 2) return [];
  return [
    {
      field,
      message: `only one strategy can be configured at a time: but found ${found.join(", ")} strategies; keep one of them`,
    },
  ];
}

function policyProblems(
  strategy: PoolSpec["updateStrategy"] | PoolSpec["scaleInStrategy"],
  field: string,
): readonly Problem[] {
  return selectorsProblems(
    strategy?.proactive?.selectionPolicy?.selectors,
    `${field}.proactive.selectionPolicy.selectors`,
  );
}
