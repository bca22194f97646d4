/** A pool's spec without what may be secret: cloud-init, credentials, free text that nobody can judge. What is left out shows that it was there. */
import { DEPTH_MAX, isRecord } from "../planning/json.ts";

export const LEFT_OUT = "(left out)";

/** Fields that carry scripts, credentials or references to them, in whatever depth; matched as a whole, in lower case. */
const FIELDS = new Set([
  "accesscredentials",
  "annotations",
  "args",
  "command",
  "dhcert",
  "env",
  "extraheaders",
  "httpheaders",
  "kernelargs",
  "managedfields",
  "networkdata",
  "networkdatabase64",
  "session",
  "sysprep",
  "userdata",
  "userdatabase64",
]);
/** Names that say what they hold, such as `secretRef`, `cloudInitNoCloud` or `bearerToken`. */
const TELLING = /cloudinit|secret|passw|token|credential|privatekey|apikey|authorization|ignition/i;
/** Longer text, or text of several lines, is a script, a key or a certificate rather than a setting. */
const TEXT_LENGTH_MAX = 512;

/**
 * `value` with everything left out that may be secret. Rules are by name, so that fields that are not known yet are covered.
 * What lies deeper than any pool is left out, too.
 */
export function redact(value: unknown, depth = 0): unknown {
  if (depth > DEPTH_MAX) return LEFT_OUT;
  if (Array.isArray(value)) return value.map((entry) => redact(entry, depth + 1));
  if (typeof value === "string") return redactText(value);
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, entry]) => [name, isSecret(name, entry) ? LEFT_OUT : redact(entry, depth + 1)]),
  );
}

/** A switch tells nothing, whatever its name, as in `automountServiceAccountToken: false`. */
function isSecret(name: string, value: unknown): boolean {
  if (typeof value === "boolean" || value === null) return false;
  return FIELDS.has(name.toLowerCase()) || TELLING.test(name);
}

/** Addresses lose user, query and fragment, which may hold a password or a signature. */
function redactText(text: string): string {
  if (text.length > TEXT_LENGTH_MAX || text.includes("\n")) return LEFT_OUT;
  return text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^/?#\s]*@/gi, `$1${LEFT_OUT}@`)
    .replace(/([a-z][a-z0-9+.-]*:\/\/[^?#\s]*)[?#]\S*/gi, `$1?${LEFT_OUT}`);
}
