/** Whether KubeVirt's own pool controller is seen to run in a cluster, from what may be read there. Writes nothing. */
import * as z from "zod";
import { parsePool } from "../planning/model.ts";
import { CLAIM_ANNOTATION, REFERENCE_MANAGER } from "../planning/names.ts";
import { findSecondWriter } from "../planning/second-writer.ts";
import { type ApiFailure, type Cluster, DEPLOYMENTS, isMissing, KUBEVIRTS, poolsOf } from "./cluster.ts";

/** KubeVirt's flag that says how many threads look after pools. */
const FLAG = "pool-controller-threads";
/** A controller that has written within this time is taken to run. */
const WROTE_WITHIN_MS = 10 * 60_000;
const NAMES_MAX = 5;

/** `bad` keeps the functions from acting; `unseen` may not be read; `note` is for people. */
export interface Finding {
  readonly verdict: "good" | "bad" | "unseen" | "note";
  readonly text: string;
}

export interface Sight {
  /** As the functions. */
  readonly cluster: Cluster;
  /** The same, or somebody who may see more. */
  readonly viewer: Cluster;
  /** Those that the functions serve; all when undefined. */
  readonly namespaces: readonly string[] | undefined;
  /** Used when the server sends no date. */
  readonly now: () => number;
}

export function isGreen(findings: readonly Finding[]): boolean {
  return findings.every(({ verdict }) => verdict !== "bad");
}

/** What was found, in the order in which it was looked for; nothing more where the cluster does not answer. */
export async function lookForInTreeController(sight: Sight): Promise<readonly Finding[]> {
  const version = await sight.cluster.poolVersion();
  if (!version.ok) return [bad(`the cluster cannot be used: ${version.failure.message}`)];
  const [kubevirts, deployments, pools] = await Promise.all([
    seeKubevirts(sight.viewer),
    seeDeployments(sight.viewer),
    seePools(sight, version.value),
  ]);
  const reached: Finding = { verdict: "good", text: `it answers, and serves pools in version ${version.value}` };
  return [reached, ...judgeInstallation(kubevirts, deployments), ...pools];
}

type Seen<T> =
  | { readonly kind: "seen"; readonly items: readonly T[] }
  | { readonly kind: "unseen"; readonly why: string };

interface Installation {
  readonly name: string;
  readonly isOff: boolean;
}

interface Controller {
  readonly name: string;
  /** Started without threads for pools. */
  readonly isOff: boolean;
  /** Every pod is of the Deployment's present template. */
  readonly isRolledOut: boolean;
}

const nameSchema = z.object({ name: z.string(), namespace: z.string().optional() });
const kubevirtSchema = z.object({
  metadata: nameSchema,
  spec: z
    .object({
      customizeComponents: z
        .object({ flags: z.object({ controller: z.record(z.string(), z.string()).nullish() }).nullish() })
        .nullish(),
    })
    .nullish(),
});
const deploymentSchema = z.object({
  metadata: nameSchema.extend({ generation: z.int().optional() }),
  spec: z.object({
    replicas: z.int().nullish(),
    template: z.object({
      spec: z.object({
        containers: z.array(z.object({ command: z.array(z.string()).nullish(), args: z.array(z.string()).nullish() })),
      }),
    }),
  }),
  status: z
    .object({
      observedGeneration: z.int().optional(),
      replicas: z.int().optional(),
      updatedReplicas: z.int().optional(),
    })
    .nullish(),
});

async function seeKubevirts(viewer: Cluster): Promise<Seen<Installation>> {
  const answer = await viewer.list(KUBEVIRTS, {});
  if (!answer.ok) return unseen(answer.failure, "the KubeVirt resource");
  const parsed = z.array(kubevirtSchema).safeParse(answer.value);
  if (!parsed.success) return { kind: "unseen", why: "the KubeVirt resource is not what the API promises" };
  const items = parsed.data.map(({ metadata, spec }) => ({
    name: fullName(metadata),
    isOff: spec?.customizeComponents?.flags?.controller?.[FLAG] === "0",
  }));
  return { kind: "seen", items };
}

async function seeDeployments(viewer: Cluster): Promise<Seen<Controller>> {
  const answer = await viewer.list(DEPLOYMENTS, {}, { labelSelector: `kubevirt.io=${REFERENCE_MANAGER}` });
  if (!answer.ok) return unseen(answer.failure, `the Deployments of ${REFERENCE_MANAGER}`);
  const parsed = z.array(deploymentSchema).safeParse(answer.value);
  if (!parsed.success)
    return { kind: "unseen", why: `a Deployment of ${REFERENCE_MANAGER} is not what the API promises` };
  const items = parsed.data.map(({ metadata, spec, status }) => {
    const words = spec.template.spec.containers.flatMap(({ command, args }) => [...(command ?? []), ...(args ?? [])]);
    const { observedGeneration = 0, replicas = 0, updatedReplicas = 0 } = status ?? {};
    return {
      name: fullName(metadata),
      isOff: (spec.replicas === 0 && replicas === 0) || threadsIn(words) === "0",
      isRolledOut: observedGeneration >= (metadata.generation ?? 0) && updatedReplicas === replicas,
    };
  });
  return { kind: "seen", items };
}

/** The last one counts, as with the program itself. */
function threadsIn(words: readonly string[]): string | undefined {
  const index = words.findLastIndex((word) => new RegExp(`^--?${FLAG}(=|$)`).test(word));
  const [, value] = (words[index] ?? "").split("=");
  return value ?? (index < 0 ? undefined : words[index + 1]);
}

/** A kind that the cluster does not serve is one of which there is nothing. */
function unseen(failure: ApiFailure, what: string): Seen<never> {
  if (isMissing(failure)) return { kind: "seen", items: [] };
  return { kind: "unseen", why: `${what} cannot be seen: ${failure.message}` };
}

const HOW_TO_SWITCH_OFF = `set spec.customizeComponents.flags.controller["${FLAG}"] to "0" there (docs/hand-over.md)`;

function judgeInstallation(kubevirts: Seen<Installation>, deployments: Seen<Controller>): readonly Finding[] {
  const hidden = [kubevirts, deployments].flatMap((seen): Finding[] =>
    seen.kind === "seen" ? [] : [{ verdict: "unseen", text: seen.why }],
  );
  if (kubevirts.kind !== "seen") {
    if (deployments.kind === "seen") return [...hidden, ...judgeControllers(deployments.items, [])];
    const text = "whether KubeVirt's pool controller runs cannot be told: look with more rights, see --kubeconfig";
    return [...hidden, bad(text)];
  }
  const resources = kubevirts.items;
  const judged = resources.map(({ name, isOff }): Finding => {
    if (isOff) return { verdict: "good", text: `KubeVirt ${name} switches its pool controller off (${FLAG} is "0")` };
    if (deployments.kind === "seen" && deployments.items.length === 0)
      return { verdict: "note", text: `KubeVirt ${name} would start its pool controller: ${HOW_TO_SWITCH_OFF}` };
    return bad(`KubeVirt ${name} runs its own pool controller: ${HOW_TO_SWITCH_OFF}`);
  });
  const none: readonly Finding[] =
    resources.length > 0 ? [] : [{ verdict: "good", text: "there is no KubeVirt resource" }];
  return [
    ...none,
    ...judged,
    ...hidden,
    ...(deployments.kind === "seen" ? judgeControllers(deployments.items, resources) : []),
  ];
}

function judgeControllers(controllers: readonly Controller[], resources: readonly Installation[]): readonly Finding[] {
  if (controllers.length === 0) return [{ verdict: "good", text: `there is no ${REFERENCE_MANAGER}` }];
  const isTold = resources.length > 0 && resources.every(({ isOff }) => isOff);
  return controllers.map(({ name, isOff, isRolledOut }): Finding => {
    if (isOff && isRolledOut) return { verdict: "good", text: `Deployment ${name} runs without a pool controller` };
    if (isOff) return bad(`Deployment ${name} is being rolled out: pods with a pool controller may run, wait for it`);
    const advice = isTold ? "it has not taken the flag up yet, wait for it" : `start it with --${FLAG}=0`;
    return bad(`Deployment ${name} runs a pool controller: ${advice}`);
  });
}

async function seePools({ cluster, namespaces, now }: Sight, version: string): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const recent: string[] = [];
  const held: string[] = [];
  let last = 0;
  for (const place of namespaces?.map((namespace) => ({ namespace })) ?? [{}]) {
    const answer = await cluster.list(poolsOf(version), place, { metadataOnly: true });
    if (!answer.ok) return [bad(`the pools cannot be listed: ${answer.failure.message}`)];
    const time = answer.serverTimeMs ?? now();
    for (const pool of answer.value.map(parsePool).filter((one) => one !== undefined)) {
      const { inTreeWroteAt = 0 } = pool;
      if (inTreeWroteAt > time - WROTE_WITHIN_MS) recent.push(fullName(pool));
      last = Math.max(last, inTreeWroteAt);
      if (findSecondWriter({ pool, now: time, by: undefined }) !== undefined) held.push(fullName(pool));
    }
  }
  if (recent.length > 0) {
    const until = new Date(last + WROTE_WITHIN_MS).toISOString();
    findings.push(
      bad(`${REFERENCE_MANAGER} has written to ${listed(recent)} lately: it must be silent until ${until}`),
    );
  } else {
    const text = `${REFERENCE_MANAGER} has written to no pool in the last ${WROTE_WITHIN_MS / 60_000} minutes`;
    findings.push({ verdict: "good", text });
  }
  if (held.length > 0) {
    const text = `${listed(held)} had been taken over before ${REFERENCE_MANAGER} wrote: passes will hold until the claim is removed, kubectl annotate vmpool -n NAMESPACE NAME ${CLAIM_ANNOTATION}-`;
    findings.push({ verdict: "note", text });
  }
  return findings;
}

function bad(text: string): Finding {
  return { verdict: "bad", text };
}

function fullName({ namespace, name }: { readonly namespace?: string | undefined; readonly name: string }): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

function listed(names: readonly string[]): string {
  const more = names.length - NAMES_MAX;
  return `${names.slice(0, NAMES_MAX).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
