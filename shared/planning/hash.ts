/** A small stable hash for order and names; not for secrets. */

/** FNV's offset basis in two halves of 32 bits; the prime is 2^40 + this. Numbers hold all that comes up exactly. */
const OFFSET_HIGH = 0xcbf29ce4;
const OFFSET_LOW = 0x84222325;
const PRIME_LOW = 0x1b3;
const MASK = 0xffffffffffffffffn;

/** FNV-1a (64 bit) of the UTF-8 bytes of `text`, as 16 lower-case hex digits. Hex order is number order. */
export function fnv1a(text: string): string {
  let high = OFFSET_HIGH;
  let low = OFFSET_LOW;
  for (const byte of new TextEncoder().encode(text)) {
    const mixed = (low ^ byte) >>> 0;
    const product = mixed * PRIME_LOW;
    low = product >>> 0;
    high = (high * PRIME_LOW + mixed * 0x100 + Math.floor(product / 0x1_0000_0000)) >>> 0;
  }
  const hash = finish((BigInt(high) << 32n) | BigInt(low));
  return hash.toString(16).padStart(16, "0");
}

/** Mixes the high bits (the finalizer of splitmix64): plain FNV-1a barely moves them for inputs that differ at the end. */
function finish(hash: bigint): bigint {
  const first = ((hash ^ (hash >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  const second = ((first ^ (first >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return second ^ (second >> 31n);
}
