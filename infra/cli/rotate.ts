/** `npm run cluster -- rotate`: changes the secrets of senders without a gap. The new ones are valid beside the old ones until those are dropped. */
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { applyObjects, formatObjects, identityOf, requireRights } from "./cluster-objects.ts";
import type { RotateOptions } from "./cluster-options.ts";
import { CommandError } from "./errors.ts";
import { findEndpoint, type Outcome, objectsOf, printed, type RegisterDeps, tellSecrets } from "./registration.ts";
import { unknownCluster } from "./registry-store.ts";
import { addSecrets, dropSecrets, makeSecrets, SECRET_KINDS, type SecretKind, secretKindsOf } from "./secrets.ts";

export async function runRotate(options: RotateOptions, deps: RegisterDeps): Promise<Outcome> {
  const { name, drop } = options;
  const { store } = deps;
  const access = await store.access(name);
  if (access === undefined) throw await unknownCluster(name, store);
  const webhook = (await store.webhook(name)) ?? {};
  const kinds = kindsOf(options, webhook);
  if (drop !== undefined) return runDrop(options, { webhook, kinds, deps });
  const double = kinds.find((kind) => (webhook[kind]?.length ?? 0) > 1);
  if (double !== undefined) {
    throw new CommandError(
      `${name} has two valid secrets already: run rotate ${name} --drop-old when its senders use the new one, or --drop-new when they never got it`,
    );
  }
  const endpoint = await findEndpoint(options, deps);
  const secrets = makeSecrets(kinds);
  // Only what holds a new secret: everything else of the cluster stays as it is.
  const objects =
    secrets.path === undefined
      ? []
      : objectsOf({
          ...options,
          ...access,
          sources: ["admission"],
          namespaces: access.namespaces,
          identity: identityOf(access).identity,
          endpoint,
          secrets,
        }).filter((object) => JSON.stringify(object).includes(secrets.path ?? ""));
  const rights = options.apply ? deps.readContext(options.rights.context).access : undefined;
  if (rights !== undefined) await requireRights(name, { access, rights }, deps.connect);
  // Valid before anybody sends it.
  await store.write(name, { webhook: addSecrets(webhook, secrets) });
  const stderr = [
    `${name} has new secrets in ${store.place}; the old ones stay valid until npm run cluster -- rotate ${name} --drop-old`,
    "functions that run take the new ones up when they first see them, after a minute at most",
    ...tellSecrets(secrets, { name, endpoint, objects }),
  ];
  if (rights === undefined) return { stdout: formatObjects(objects), stderr, exitCode: 0 };
  const connection = deps.connect(rights);
  try {
    const { lines, failures } = await applyObjects(connection, objects);
    const advice = `the cluster did not take the new secret: run rotate ${name} --drop-new, mend what was refused, and rotate again`;
    const told = failures.length === 0 ? [] : [...failures, advice];
    return { stdout: printed(lines), stderr: [...stderr, ...told], exitCode: failures.length === 0 ? 0 : 1 };
  } finally {
    await connection.close();
  }
}

/** Those that are asked for, else all that there are. */
function kindsOf({ name, sources }: RotateOptions, webhook: ClusterWebhook): readonly SecretKind[] {
  const present = SECRET_KINDS.filter((kind) => (webhook[kind]?.length ?? 0) > 0);
  const wanted = sources === undefined ? present : secretKindsOf(sources);
  const missing = wanted.find((kind) => !present.includes(kind));
  if (wanted.length === 0 || missing !== undefined) {
    throw new CommandError(`${name} has no such secret: show ${name} lists those it has`);
  }
  return wanted;
}

interface Dropping {
  readonly webhook: ClusterWebhook;
  readonly kinds: readonly SecretKind[];
  readonly deps: RegisterDeps;
}

async function runDrop({ name, drop = "old" }: RotateOptions, { webhook, kinds, deps }: Dropping): Promise<Outcome> {
  const double = kinds.filter((kind) => (webhook[kind]?.length ?? 0) > 1);
  if (double.length === 0) {
    return { stdout: "", stderr: [`${name} has one secret of a kind: there is none to drop`], exitCode: 0 };
  }
  await deps.store.write(name, { webhook: dropSecrets(webhook, drop, double) });
  const other = drop === "old" ? "new" : "old";
  const line = `${name}: the ${drop} secrets are dropped, the ${other} ones alone are valid within five minutes`;
  return { stdout: "", stderr: [line], exitCode: 0 };
}
