/** A small stable hash for order and names; not for secrets. */

const OFFSET = 0xcbf29ce484222325n;
const PRIME = 0x100000001b3n;
const MASK = 0xffffffffffffffffn;

/** FNV-1a (64 bit) of the UTF-8 bytes of `text`, as 16 lower-case hex digits. Hex order is number order. */
export function fnv1a(text: string): string {
  let hash = OFFSET;
  for (const byte of new TextEncoder().encode(text)) hash = ((hash ^ BigInt(byte)) * PRIME) & MASK;
  return finish(hash).toString(16).padStart(16, "0");
}

/** Mixes the high bits (the finalizer of splitmix64): plain FNV-1a barely moves them for inputs that differ at the end. */
function finish(hash: bigint): bigint {
  const first = ((hash ^ (hash >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  const second = ((first ^ (first >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return second ^ (second >> 31n);
}
