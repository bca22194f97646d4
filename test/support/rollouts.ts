/** Pools whose template changes: how tests change it, and where a roll-out has come to. */
import { expect } from "vitest";
import { isRecord } from "../../shared/planning/json.ts";
import { eventually } from "./eventually.ts";
import type { KubeObject } from "./objects.ts";
import { isAvailable } from "./recording.ts";
import type { Namespace } from "./world.ts";

export const REVISION_LABEL = "kubevirt.io/vm-pool-revision-name";
export const BEHAVIOUR = "stand-in.vmpool-functions/behaviour";

/** `kubectl patch --type=merge`. */
export async function mergePatch(namespace: Namespace, kind: string, name: string, patch: object): Promise<void> {
  await namespace.kubectl("patch", kind, name, "--type=merge", "--patch", JSON.stringify(patch));
}

/** Changes the pool's `virtualMachineTemplate.spec`. */
export function changeMachine(namespace: Namespace, pool: string, spec: object): Promise<void> {
  return mergePatch(namespace, "vmpool", pool, { spec: { virtualMachineTemplate: { spec } } });
}

/** Changes the spec of the instance in the pool's template. */
export function changeGuest(namespace: Namespace, pool: string, spec: object): Promise<void> {
  return changeMachine(namespace, pool, { template: { spec } });
}

export function instancesOf(namespace: Namespace): Promise<readonly KubeObject[]> {
  return namespace.list("apis/kubevirt.io/v1", "virtualmachineinstances");
}

export function instanceOf(namespace: Namespace, machine: string): Promise<KubeObject | undefined> {
  return namespace.find("apis/kubevirt.io/v1", "virtualmachineinstances", machine);
}

export async function revisionNames(namespace: Namespace): Promise<readonly string[]> {
  return (await namespace.list("apis/apps/v1", "controllerrevisions")).map(({ metadata }) => metadata.name).sort();
}

/** UIDs by name. */
export function uidsOf(objects: readonly KubeObject[]): Readonly<Record<string, string>> {
  return Object.fromEntries(objects.map(({ metadata }) => [metadata.name, metadata.uid]));
}

export function revisionOf({ metadata }: KubeObject): string | undefined {
  return metadata.labels[REVISION_LABEL];
}

/** The value at a dotted path of an object; undefined where there is none. */
export function at(object: unknown, path: string): unknown {
  let value = object;
  for (const step of path.split(".")) {
    if (Array.isArray(value)) value = value[Number(step)];
    else value = isRecord(value) ? value[step] : undefined;
  }
  return value;
}

/** Waits until every machine has the revision, and every guest has it and is available. */
export async function untilRolledOut(
  namespace: Namespace,
  { revision, machines, guests = machines }: { revision: string; machines: number; guests?: number },
): Promise<void> {
  await eventually(async () => {
    const [vms, instances] = await Promise.all([namespace.machines(), instancesOf(namespace)]);
    expect(vms.map(revisionOf)).toEqual(Array.from({ length: machines }, () => revision));
    const inTemplate = vms.map(({ spec }) => at(spec, `template.metadata.labels`));
    expect(inTemplate).toEqual(vms.map(() => expect.objectContaining({ [REVISION_LABEL]: revision })));
    expect(instances.map(revisionOf)).toEqual(Array.from({ length: guests }, () => revision));
    expect(instances.every(isAvailable)).toBe(true);
  });
}
