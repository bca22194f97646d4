/** Whether somebody else looks after a pool, too, as far as the pool itself shows it: then passes hold. Performs no I/O. */
import { type Claim, readClaim } from "./claim.ts";
import type { Condition, Pool } from "./model.ts";
import { CLAIM_ANNOTATION, REFERENCE_MANAGER } from "./names.ts";

/** A deployment that has claimed a pool within this time is taken to be alive. Claims of settled pools are older. */
const LIVE_MS = 10 * 60_000;
/**
 * Times of managed fields and of the claim's first writing are whole seconds of clocks that differ a little. A controller
 * that is switched on writes again, so what this hides is seen with its next write.
 */
const CLOCK_SLACK_MS = 2_000;

export interface SecondWriter {
  /** KubeVirt's own pool controller, or another deployment of these functions. */
  readonly kind: "inTree" | "deployment";
  /** The same for as long as the same writer is seen: what was seen, and how to end the hold. */
  readonly message: string;
}

export interface SecondWriterInput {
  readonly pool: Pool;
  /** The API server's clock, in epoch milliseconds. */
  readonly now: number;
  /** This deployment; undefined for a look on which nobody acts, to which every deployment is as good as its own. */
  readonly by: string | undefined;
}

/**
 * Undefined while nobody else is seen to write. A pool without a readable claim has none: its first claim says from when on
 * others are looked for, and what they did before it was their right.
 */
export function findSecondWriter({ pool, now, by }: SecondWriterInput): SecondWriter | undefined {
  const claim = readClaim(pool.annotations?.[CLAIM_ANNOTATION], now);
  if (claim === undefined) return undefined;
  if (hasInTreeWritten(pool, claim)) return { kind: "inTree", message: describeInTree(pool, claim) };
  if (by === undefined || claim.by === by || now >= claim.at + LIVE_MS) return undefined;
  return { kind: "deployment", message: describeDeployment(by, claim) };
}

/** KubeVirt's controller has written to the pool since the claim's deployment looks after it. */
function hasInTreeWritten({ inTreeWroteAt }: Pool, { since }: Claim): boolean {
  return (inTreeWroteAt ?? 0) > since.at + CLOCK_SLACK_MS;
}

function describeInTree({ namespace, name }: Pool, { since }: Claim): string {
  const from = new Date(since.at).toISOString();
  return `KubeVirt's own pool controller (${REFERENCE_MANAGER}) has written to the pool since this one looks after it (${from}): two controllers would delete and create machines against each other. Switch KubeVirt's off (docs/hand-over.md), then take the pool over anew: kubectl annotate vmpool -n ${namespace} ${name} ${CLAIM_ANNOTATION}-`;
}

function describeDeployment(by: string, claim: Claim): string {
  return `deployment "${claim.by}" of vmpool-functions has claimed the pool within ${LIVE_MS / 60_000} minutes, and this is deployment "${by}": stop one of them, or let it observe this cluster; this one goes on when the other has been silent for so long`;
}

/** Of the pool's status, while passes hold. KubeVirt's controller leaves types that it does not know alone. */
export const SECOND_WRITER_CONDITION = "SecondWriter";

export function reasonOf({ kind }: SecondWriter): "InTreeController" | "OtherDeployment" {
  return kind === "inTree" ? "InTreeController" : "OtherDeployment";
}

/** Whether the condition may be what another deployment, which holds, has to say: it is not for this one to remove yet. */
export function isOfAnother({ type, reason, lastTransitionTime }: Condition, now: number): boolean {
  const at = Date.parse(lastTransitionTime ?? "");
  return type === SECOND_WRITER_CONDITION && reason === "OtherDeployment" && now < at + LIVE_MS;
}
