/** Names that resolve to where a function must not call: whoever names a server does not choose what its name resolves to. */
import { lookup } from "node:dns";
import type { LookupFunction } from "node:net";
import { isForbiddenAddress } from "./access.ts";
import { UnreachableError } from "./unreachable.ts";

/** A name may resolve to anything, and to something else the next time: what is connected to is what was checked. */
export function lookupAllowed(resolve: LookupFunction = lookup): LookupFunction {
  return (hostname, options, callback) =>
    resolve(hostname, options, (error, found, family) => {
      const addresses = typeof found === "string" ? [found] : (found ?? []).map(({ address }) => address);
      if (error === null && addresses.some(isForbiddenAddress)) {
        const message = `${hostname} resolves to a link-local or metadata address, which is not called: correct the entry or the name`;
        callback(new UnreachableError(message), []);
      } else callback(error, found, family);
    });
}
