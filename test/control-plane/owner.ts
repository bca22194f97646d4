/** Runs a control plane in the folder given, for the test that kills its owner. */
import { findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { startControlPlane } from "../../infra/local/control-plane/control-plane.ts";

const [dir = ""] = process.argv.slice(2);
const common = { onProgress: () => undefined, signal: new AbortController().signal };
const binaries = await findBinaries({ ...common, env: process.env });
const controlPlane = await startControlPlane({ ...common, dir, binaries });
process.stdout.write("serving\n");
await controlPlane.died;
