/** Which machines a selection policy lets us choose, and in which order. Scale-in and updates ask the same questions. */
import { assertNever, type Problem } from "./errors.ts";
import { fnv1a } from "./hash.ts";
import { byNameAndUid } from "./membership.ts";
import type { Pool, SelectionPolicy, Vm } from "./model.ts";
import { type Labels, labelsSchema, parseNodeRequirements, parseSelector } from "./selector.ts";

type Policy = SelectionPolicy | null | undefined;
type Selectors = SelectionPolicy["selectors"];
type SortPolicy = SelectionPolicy["sortPolicy"];

const LABELS = "labelSelector";
const NODES = "nodeSelectorRequirementMatcher";

export interface RankOptions {
  /** Machines that are not ready come first: before all others under `Random`, among equals under the rest. */
  readonly notReadyFirst: boolean;
}

/** The machines in the order of the policy, `Random` when there is none; it does not depend on the order of the list. */
export function rank(
  pool: Pool,
  vms: readonly Vm[],
  policy: SortPolicy,
  { notReadyFirst }: RankOptions,
): readonly Vm[] {
  const keyed = vms.map((vm) => {
    const readiness = notReadyFirst ? Number(vm.ready) : 0;
    return { vm, keys: keysOf(pool, vm, policy ?? "Random", readiness) };
  });
  keyed.sort((a, b) => compareKeys(a.keys, b.keys) || byNameAndUid(a.vm, b.vm));
  return keyed.map(({ vm }) => vm);
}

/** The machines that all that is given of the policy's selectors matches, in their order. One that cannot be read is matched by nothing. */
export function filterBySelectors(policy: Policy, vms: readonly Vm[]): readonly Vm[] {
  const tests = testsOf(policy?.selectors);
  return vms.filter((vm) => tests.every(({ passes }) => passes(vm)));
}

/** What is wrong with the selectors, with paths below `field`; only legal ones may be acted on. */
export function selectorsProblems(selectors: Selectors, field: string): readonly Problem[] {
  const labels = selectors?.labelSelector;
  const nodes = selectors?.nodeSelectorRequirementMatcher;
  return [
    ...(labels ? parseSelector(labels, `${field}.${LABELS}`).problems : []),
    ...(nodes ? parseNodeRequirements(nodes, `${field}.${NODES}`).problems : []),
  ];
}

/** For people: how many of the machines each field leaves out; empty when none does. */
export function describeLeftOut(policy: Policy, vms: readonly Vm[]): string {
  const tests = testsOf(policy?.selectors);
  const readable = vms.filter(({ spec }) => spec !== undefined);
  const counts = tests.map(({ field, passes }) => ({ field, count: readable.filter((vm) => !passes(vm)).length }));
  const unread = tests.length === 0 ? 0 : vms.length - readable.length;
  return [
    ...counts.filter(({ count }) => count > 0).map(({ field, count }) => `${field} leaves out ${count}`),
    ...(unread > 0 ? [`the spec of ${unread} cannot be read`] : []),
  ].join(", ");
}

interface Test {
  /** The field of the selectors that asks for it. */
  readonly field: string;
  passes(vm: Vm): boolean;
}

/** Every field that is given has to pass. One that is not legal, or that this version does not know, passes for nothing. */
function testsOf(selectors: Selectors): readonly Test[] {
  const { labelSelector, nodeSelectorRequirementMatcher, ...others } = selectors ?? {};
  const tests: Test[] = [];
  if (labelSelector) {
    const { parsed, problems } = parseSelector(labelSelector, LABELS);
    tests.push({ field: LABELS, passes: (vm) => problems.length === 0 && isMatch(parsed, instanceLabels(vm)) });
  }
  if (nodeSelectorRequirementMatcher) {
    const { parsed, problems } = parseNodeRequirements(nodeSelectorRequirementMatcher, NODES);
    tests.push({ field: NODES, passes: (vm) => problems.length === 0 && isMatch(parsed, nodeSelector(vm)) });
  }
  for (const [field, value] of Object.entries(others)) {
    if ((value ?? null) !== null) tests.push({ field, passes: () => false });
  }
  return tests;
}

function isMatch(selector: { matches(labels: Labels): boolean }, labels: Labels | undefined): boolean {
  return labels !== undefined && selector.matches(labels);
}

/** The labels that the machine gives its instances, which need not be its own. */
function instanceLabels({ spec }: Vm): Labels | undefined {
  return spec && (spec.template.metadata?.labels ?? {});
}

/** What the machine asks of nodes, which is not what its node has. */
function nodeSelector({ spec }: Vm): Labels | undefined {
  return spec && labelsSchema.safeParse(spec.template.spec?.["nodeSelector"] ?? {}).data;
}

type Keys = readonly (number | string)[];

/** What is not known (a name that the pool does not give, no time) comes last, in whatever direction. */
function keysOf(pool: Pool, vm: Vm, policy: NonNullable<SortPolicy>, readiness: number): Keys {
  const { ordinal, createdAt } = vm;
  const isDated = createdAt !== 0;
  switch (policy) {
    case "AscendingOrder":
      return [ordinal ?? Number.POSITIVE_INFINITY];
    case "DescendingOrder":
      return [ordinal === undefined ? Number.POSITIVE_INFINITY : -ordinal];
    case "Newest":
      return [isDated ? -createdAt : Number.POSITIVE_INFINITY, readiness];
    case "Oldest":
      return [isDated ? createdAt : Number.POSITIVE_INFINITY, readiness];
    case "Random":
      return [readiness, fnv1a(`${pool.uid}/${vm.uid}`)];
    default:
      return assertNever(policy);
  }
}

/** Keys of one policy: equally many, of equal types. */
function compareKeys(a: Keys, b: Keys): number {
  for (const [index, key] of a.entries()) {
    const other = b[index] ?? key;
    if (key !== other) return key < other ? -1 : 1;
  }
  return 0;
}
