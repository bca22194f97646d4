/** What policies and webhooks of a cluster have made of a machine that was sent to it, where the pool would not know it again. */
import * as z from "zod";
import { isOwnedBy, ownerReferenceSchema, type Pool } from "./model.ts";
import { type Labels, labelsSchema } from "./selector.ts";
import type { Verdict } from "./verdict.ts";
import { listed, quoted } from "./wording.ts";

/** A machine as a create answers it. One that was only tried has no version. */
const answeredSchema = z.object({
  metadata: z.object({
    name: z.string(),
    labels: labelsSchema.nullish(),
    ownerReferences: z.array(ownerReferenceSchema).nullish(),
  }),
});

type Legal = Extract<Verdict, { legal: true }>;

/** How many changes one message names. */
const CHANGES_SHOWN_MAX = 6;

/**
 * Says what was changed, when the pool does not control the machine or its selector does not match it: a pass would make
 * another in its place, and the next one again. Of an answer that is no machine nothing is said.
 */
export function describeAlteration(pool: Pool, { spec, selector }: Legal, answered: unknown): string | undefined {
  const metadata = answeredSchema.safeParse(answered).data?.metadata;
  if (metadata === undefined) return undefined;
  const labels = metadata.labels ?? {};
  const changes = [
    ...(isOwnedBy({ owners: metadata.ownerReferences ?? [] }, pool) ? [] : ["owner references"]),
    ...(selector.matches(labels) ? [] : changedLabels(spec, labels).map((key) => `label ${quoted(key)}`)),
  ];
  if (changes.length === 0) return undefined;
  // No values: one that is another each time would make another message of it in each pass.
  const what = listed(changes, CHANGES_SHOWN_MAX);
  return `an admission policy or webhook of the cluster changes what the pool knows new machines by (${what}): no more are made until it leaves that as it is`;
}

/** The labels that the selector asks for and that are not as the template has them. */
function changedLabels({ selector, virtualMachineTemplate }: Legal["spec"], labels: Labels): readonly string[] {
  const sent = virtualMachineTemplate.metadata?.labels ?? {};
  const { matchLabels, matchExpressions } = selector;
  const asked = [...Object.keys(matchLabels ?? {}), ...(matchExpressions ?? []).map(({ key }) => key)];
  return [...new Set(asked)].filter((key) => labels[key] !== sent[key]);
}
