/** What every place of the registry has in common, whether file or SSM parameters. */

/** The two halves of a cluster's registration; internet-facing functions may read only `webhook`. */
export type RegistryPart = "access" | "webhook";

/** Where entries are kept. What they mean is the registry's to say. */
export interface RegistrySource {
  /** Of every registration, good or bad, in order. */
  names(): Promise<readonly string[]>;
  /** The entry as it was written; undefined for a name that is not registered. */
  read(name: string, part: RegistryPart): Promise<{ readonly value: unknown } | undefined>;
  /** For messages: where the entry is, and its field there. */
  locate(name: string, part: RegistryPart): { readonly place: string; readonly field: readonly string[] };
}

export type RegistryErrorKind =
  /** What is written there is not what it must be. */
  | "invalid"
  /** The reader may not read it. */
  | "denied"
  /** It could not be read now. */
  | "unavailable";

/** The registry, or an entry of it, cannot be used; the message names the field and what to do, never a value. */
export class RegistryError extends Error {
  override readonly name = "RegistryError";
  readonly kind: RegistryErrorKind;
  /** Whether the same question may be answered soon. */
  readonly retryable: boolean;

  constructor(message: string, { kind = "invalid", cause }: { kind?: RegistryErrorKind; cause?: unknown } = {}) {
    super(message, { cause });
    this.kind = kind;
    this.retryable = kind === "unavailable";
  }
}
