/** What a client of AWS throws, told by its code alone: its message names accounts, roles and callers. */

const DENIED = new Set([
  "AccessDeniedException",
  "AccessDenied",
  "UnrecognizedClientException",
  "InvalidClientTokenId",
  "InvalidKeyId",
]);

/** The code of AWS, or of the network where AWS did not answer. */
export function awsErrorCode(error: unknown): string {
  if (!(error instanceof Error)) return "unknown error";
  // The SDK has no code for this one, which is not AWS's but the caller's.
  if (error.message === "Region is missing") return "no AWS region is set: set AWS_REGION";
  return error.name === "Error" && "code" in error ? String(error.code) : error.name;
}

/** Whether somebody has to allow it first. */
export function isDenied(code: string): boolean {
  return DENIED.has(code);
}
