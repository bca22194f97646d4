/** Hands out the addresses of 10.244.0.0/16, one to each instance. Pure bookkeeping. */
import { hash } from "./pace.ts";

const ADDRESSES_MAX = 2 ** 16;
/** The first and the last address of the network are nobody's. */
const RESERVED_COUNT = 2;

export interface AddressBook {
  /** The instance's address: the same one until it is released. */
  allocate(uid: string): string;
  /** Notes an address that is in use since before this book was opened. */
  note(uid: string, address: string): void;
  release(uid: string): void;
}

export function createAddressBook(): AddressBook {
  const byUid = new Map<string, string>();
  const used = new Set<string>();

  const note = (uid: string, address: string) => {
    const before = byUid.get(uid);
    if (before !== undefined) used.delete(before);
    byUid.set(uid, address);
    used.add(address);
  };
  return {
    note,
    allocate(uid) {
      const known = byUid.get(uid);
      if (known !== undefined) return known;
      const start = hash(uid);
      const count = ADDRESSES_MAX - RESERVED_COUNT;
      for (let offset = 0; offset < count; offset++) {
        const host = 1 + ((start + offset) % count);
        const address = `10.244.${host >> 8}.${host & 255}`;
        if (used.has(address)) continue;
        note(uid, address);
        return address;
      }
      throw new Error("no address is left in 10.244.0.0/16");
    },
    release(uid) {
      const address = byUid.get(uid);
      if (address !== undefined) used.delete(address);
      byUid.delete(uid);
    },
  };
}
