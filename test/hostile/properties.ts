/** All rules of hostile input. */

import { FILES } from "./file-properties.ts";
import { FUNCTIONS } from "./function-properties.ts";
import { PLANNING } from "./planning-properties.ts";
import type { Property } from "./property.ts";

export const PROPERTIES: readonly Property[] = [...PLANNING, ...FUNCTIONS, ...FILES];
