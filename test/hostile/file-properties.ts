/** Rules of what is read from files and from the environment: registry, kubeconfig, manifest, settings, tokens, page addresses. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { stringify } from "yaml";
import { CommandError } from "../../infra/cli/errors.ts";
import { readPools } from "../../infra/cli/manifest.ts";
import { parsePlanOptions } from "../../infra/cli/plan-options.ts";
import { KubeconfigError, readContext } from "../../shared/clusters/kubeconfig.ts";
import { redact } from "../../shared/clusters/redact.ts";
import { createFileRegistry, RegistryError } from "../../shared/clusters/registry.ts";
import { bearerTokenOf, hashSecret, isKnownSecret } from "../../shared/events/signatures.ts";
import { ConfigError, readConfig, reconcileConfigSchema, resyncConfigSchema } from "../../shared/runtime/config.ts";
import { describeError } from "../../shared/runtime/logger.ts";
import { readPage } from "../../shared/runtime/pages.ts";
import {
  bodyOf,
  CANARY,
  damaged,
  hostileJson,
  hostileText,
  type Json,
  mistyped,
  SECRET_SCRIPT,
  textOf,
} from "./arbitraries.ts";
import { FULL_SPEC } from "./planning-properties.ts";
import { type Property, property } from "./property.ts";

const MESSAGE_LENGTH_MAX = 20_000;

/** What fails, fails with an error of its own kind that tells no secret. */
async function orRefused(act: () => unknown, kind: new (message: string) => Error): Promise<void> {
  try {
    await act();
  } catch (error) {
    assert(error instanceof kind, error instanceof Error ? (error.stack ?? "") : String(error));
    const told = `${error.message} ${JSON.stringify(describeError(error))}`;
    assert(!told.includes(CANARY), told.slice(0, 1_000));
    assert(told.length < MESSAGE_LENGTH_MAX);
  }
}

async function withFile(text: string, act: (path: string) => unknown): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "vmpool-functions-hostile-"));
  try {
    const path = join(folder, "file");
    writeFileSync(path, text);
    await act(path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const SIGNING_SECRET = `whsec_${Buffer.from(CANARY.padEnd(32)).toString("base64")}`;
const REGISTRY = {
  clusters: {
    west: {
      access: {
        server: "https://west.example:6443",
        auth: { kind: "token", token: CANARY },
        mode: "act",
        namespaces: ["ci"],
      },
      webhook: { bearer: ["a".repeat(64)], standardWebhooks: [SIGNING_SECRET] },
    },
    east: {
      access: {
        server: "https://east.example:6443",
        certificateAuthorityData: "YQ==",
        auth: { kind: "clientCertificate", certificateData: "YQ==", keyData: Buffer.from(CANARY).toString("base64") },
      },
    },
  },
};
const KUBECONFIG = {
  apiVersion: "v1",
  kind: "Config",
  "current-context": "west",
  contexts: [{ name: "west", context: { cluster: "west", user: "me", namespace: "ci" } }],
  clusters: [{ name: "west", cluster: { server: "https://west.example:6443", "certificate-authority-data": "YQ==" } }],
  users: [{ name: "me", user: { token: CANARY } }],
};
const ENVIRONMENT = {
  DEPLOYMENT: "here",
  REGISTRY_FILE: "registry.json",
  PASSES_QUEUE_URL: "https://sqs.example/passes.fifo",
  LATE_QUEUE_URL: "https://sqs.example/late.fifo",
  EVENT_BUS_NAME: "pools",
  STOPPED: "false",
  RESYNC_SETTLED_MINUTES: "10",
};
const MANIFEST = {
  apiVersion: "pool.kubevirt.io/v1beta1",
  kind: "VirtualMachinePool",
  metadata: { name: "web" },
  spec: FULL_SPEC,
};

/** YAML where that can say it, JSON else, and both broken off. */
const yamlOf = (object: unknown): fc.Arbitrary<string> =>
  fc.oneof(
    bodyOf(fc.oneof(damaged(object), mistyped(object), hostileJson)),
    fc.tuple(fc.constant(stringify(object)), fc.nat(), hostileText).map(([text, at, inserted]) => {
      const place = at % (text.length + 1);
      return `${text.slice(0, place)}${inserted}${text.slice(place)}`;
    }),
  );

async function registered([text, name]: readonly [string, string]): Promise<void> {
  await withFile(text, (path) =>
    orRefused(async () => {
      const registry = createFileRegistry(path);
      const names = await registry.names();
      const [access, webhook] = [await registry.access(name), await registry.webhook(name)];
      if (!names.includes(name)) assert.deepEqual([access, webhook], [undefined, undefined]);
      assert(access?.server === undefined || new URL(access.server).protocol === "https:");
    }, RegistryError),
  );
}

async function configured(env: Readonly<Record<string, string>>): Promise<void> {
  for (const schema of [reconcileConfigSchema, resyncConfigSchema])
    await orRefused(() => readConfig(schema, env), ConfigError);
}

function shown(value: Json): void {
  const text = textOf(redact(value));
  assert(!text.includes(CANARY), text.slice(0, 500));
}

export const FILES: readonly Property[] = [
  property("a registry is read or refused", {
    weight: 1,
    input: fc.tuple(
      bodyOf(fc.oneof(damaged(REGISTRY), mistyped(REGISTRY))),
      fc.oneof(fc.constant("west"), hostileText),
    ),
    holds: registered,
  }),
  property("a kubeconfig is read or refused", {
    weight: 1,
    input: yamlOf(KUBECONFIG),
    holds: (text) =>
      withFile(text, (path) => orRefused(() => readContext([path], { mode: "observe" }), KubeconfigError)),
  }),
  property("a manifest is read or refused", {
    weight: 1,
    input: bodyOf(fc.oneof(damaged(MANIFEST), mistyped(MANIFEST), hostileJson)),
    holds: (text) => orRefused(() => readPools(text, "the file"), CommandError),
  }),
  property("settings are read or refused without their values", {
    weight: 1,
    input: fc
      .tuple(
        fc.constantFrom(...Object.keys(ENVIRONMENT)),
        fc.oneof(hostileText, fc.constantFrom(CANARY, SECRET_SCRIPT)),
      )
      .map(([name, value]) => ({ ...ENVIRONMENT, [name]: value })),
    holds: configured,
  }),
  property("a token that is not registered is none", {
    weight: 2,
    input: fc.tuple(hostileText, fc.boolean(), fc.array(hostileText, { maxLength: 2 })),
    holds: ([token, isRegistered, others]) => {
      const hashes = [...others, ...(isRegistered ? [hashSecret(token)] : [])];
      // Nothing is never a secret, even where somebody has registered its hash.
      assert.equal(isKnownSecret(token, hashes), token !== "" && hashes.includes(hashSecret(token)));
      assert(["", token].includes(bearerTokenOf(`Bearer ${token}`)));
    },
  }),
  property("pages and options are read or refused", {
    weight: 2,
    input: fc.tuple(
      fc.constantFrom("limit", "continue", "x"),
      fc.oneof(
        hostileText,
        hostileJson.map((value) => Buffer.from(textOf(value)).toString("base64url")),
      ),
    ),
    holds: ([name, value]) => {
      readPage(new URLSearchParams([[name, value]]).toString());
      parsePlanOptions(["plan", value, `--${name}`, value]);
    },
  }),
  property("what is shown of a spec holds no script", { weight: 2, input: damaged(FULL_SPEC), holds: shown }),
];
