/** Fills DataVolumes: a bound claim, and an import that takes a moment. Never deletes a DataVolume or a claim. */
import * as z from "zod";
import {
  type Claim,
  controllerOf,
  controllerReference,
  DATA_VOLUMES,
  type DataVolume,
  diskKeysOf,
  isDeleting,
  keyOf,
  timestamp,
} from "./objects.ts";
import type { World } from "./world.ts";

/** On a DataVolume: it may take over a claim of its name. KubeVirt says so on each one that it makes from a template. */
export const CLAIM_ADOPTION_ANNOTATION = "cdi.kubevirt.io/allowClaimAdoption";
/** The API server's own, on every claim. */
const CLAIM_FINALIZER = "kubernetes.io/pvc-protection";
const SIZE_DEFAULT = "1Gi";
const DONE = "100.0%";

/** What a claim takes over from a DataVolume's `pvc` or `storage`. */
const claimSpecSchema = z
  .looseObject({
    accessModes: z.array(z.string()).min(1).default(["ReadWriteOnce"]),
    resources: z
      .looseObject({ requests: z.record(z.string(), z.union([z.string(), z.number()])).default({}) })
      .prefault({}),
    storageClassName: z.string().optional(),
    volumeMode: z.string().optional(),
  })
  .prefault({});
const sourceSchema = z.object({ pvc: claimSpecSchema.optional(), storage: claimSpecSchema.optional() }).catch({});

/** Does what is due for the DataVolume of that key; called whenever it or the claim of its name changed. */
export async function syncDataVolume(world: World, key: string): Promise<void> {
  const dataVolume = world.dataVolumes.get(key);
  if (dataVolume === undefined || isDeleting(dataVolume) || dataVolume.status.phase === "Succeeded") return;
  const claim = world.claims.get(key);
  if (claim === undefined) return createClaim(world, dataVolume);
  if (isDeleting(claim)) return;
  const owner = controllerOf(claim);
  const mayAdopt = dataVolume.metadata.annotations[CLAIM_ADOPTION_ANNOTATION] === "true";
  if (owner === undefined && mayAdopt) return adoptClaim(world, dataVolume, claim);
  // Somebody else's claim is in the way.
  if (owner?.uid !== dataVolume.metadata.uid) return reportPhase(world, dataVolume, "Pending", undefined);
  if (claim.status.phase !== "Bound") return bindClaim(world, claim);
  return importStep(world, dataVolume);
}

/** Lets a deleted claim go when no instance uses it: no controller of the control plane does that here. */
export async function syncClaim(world: World, key: string): Promise<void> {
  const claim = world.claims.get(key);
  if (claim === undefined || !isDeleting(claim)) return;
  const finalizers = claim.metadata.finalizers.filter((finalizer) => finalizer !== CLAIM_FINALIZER);
  if (finalizers.length === claim.metadata.finalizers.length) return;
  for (const { metadata, spec } of world.instances.all()) {
    if (metadata.namespace === claim.metadata.namespace && diskKeysOf(metadata.namespace, spec).includes(key)) return;
  }
  await world.claims.patch(claim, { metadata: { finalizers } });
}

async function createClaim(world: World, dataVolume: DataVolume): Promise<void> {
  const { namespace, name, uid, labels } = dataVolume.metadata;
  const source = sourceSchema.parse(dataVolume.spec);
  const { accessModes, resources, storageClassName, volumeMode } =
    source.pvc ?? source.storage ?? claimSpecSchema.parse({});
  await world.claims.create(namespace, {
    metadata: {
      name,
      labels: { ...labels, app: "containerized-data-importer" },
      ownerReferences: [controllerReference(DATA_VOLUMES, dataVolume)],
    },
    spec: {
      accessModes,
      resources: { requests: { storage: SIZE_DEFAULT, ...resources.requests } },
      volumeName: `pvc-${uid}`,
      ...(storageClassName === undefined ? {} : { storageClassName }),
      ...(volumeMode === undefined ? {} : { volumeMode }),
    },
  });
  await reportPhase(world, dataVolume, "Pending", "N/A");
}

/** A claim that was there first already has its content. */
async function adoptClaim(world: World, dataVolume: DataVolume, claim: Claim): Promise<void> {
  const owner = controllerReference(DATA_VOLUMES, dataVolume);
  const adopted = await world.claims.patch(claim, {
    metadata: { ownerReferences: [...claim.metadata.ownerReferences, owner] },
    ...(claim.spec.volumeName === "" ? { spec: { volumeName: `pvc-${claim.metadata.uid}` } } : {}),
  });
  if (adopted !== undefined && adopted.status.phase !== "Bound") await bindClaim(world, adopted);
  await reportPhase(world, dataVolume, "Succeeded", DONE);
}

/** Says that there is a volume; there is none, and no binder here that would mind. */
async function bindClaim(world: World, claim: Claim): Promise<void> {
  const { accessModes, resources } = claimSpecSchema.parse(claim.spec);
  const capacity = { storage: resources.requests["storage"] ?? SIZE_DEFAULT };
  await world.claims.patch(claim, { status: { phase: "Bound", accessModes, capacity } }, "status");
}

/** Scheduled, half way, done. */
async function importStep(world: World, dataVolume: DataVolume): Promise<void> {
  const { phase } = dataVolume.status;
  const remainingMs = world.pacer.remainingMs(dataVolume.metadata.uid, phase, "importStep");
  if (remainingMs > 0) return world.addAfter("dataVolume", keyOf(dataVolume), remainingMs);
  switch (phase) {
    case "ImportScheduled":
      return reportPhase(world, dataVolume, "ImportInProgress", "50.00%");
    case "ImportInProgress":
      return reportPhase(world, dataVolume, "Succeeded", DONE);
    default:
      return reportPhase(world, dataVolume, "ImportScheduled", "N/A");
  }
}

async function reportPhase(
  world: World,
  dataVolume: DataVolume,
  phase: string,
  progress: string | undefined,
): Promise<void> {
  const { status, metadata } = dataVolume;
  if (status.phase === phase && status.progress === progress) return;
  const at = timestamp(world.now());
  const condition = (type: string, isSo: boolean) => ({
    type,
    status: isSo ? "True" : "False",
    lastHeartbeatTime: at,
    lastTransitionTime: at,
  });
  const conditions = [
    condition("Bound", phase !== "Pending"),
    condition("Running", phase === "ImportInProgress"),
    condition("Ready", phase === "Succeeded"),
  ];
  const claimName = progress === undefined ? {} : { claimName: metadata.name };
  await world.dataVolumes.patch(
    dataVolume,
    { status: { phase, ...claimName, ...(progress === undefined ? {} : { progress }), conditions } },
    "status",
  );
}
