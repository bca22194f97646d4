/** Downloads the envtest release (etcd, kube-apiserver, kubectl), verified by its SHA-512; a failure is a value, not an error. */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { isExecutable } from "./files.ts";
import type { RunCommand } from "./processes.ts";
import type { Step } from "./progress.ts";

const RELEASES = "https://github.com/kubernetes-sigs/controller-tools/releases/download";
/** Without the beginning of an answer by then, there is no way to the server. */
const BEGINNING_TIMEOUT_MS = 10_000;
/** The longest silence in the middle of a download. */
const STALL_TIMEOUT_MS = 30_000;
/** The archives are about 70 MB. */
const ARCHIVE_BYTES_MAX = 400 * 1024 * 1024;
const MEBIBYTE = 1024 * 1024;
/** Where the archive has its programs. */
const FOLDER = join("controller-tools", "envtest");
const PROGRAMS = ["etcd", "kube-apiserver", "kubectl"] as const;

/** What a download needs of the web; `fetch` has it. Tests put fakes here. */
export type Fetch = (url: string, options: { readonly signal: AbortSignal }) => Promise<Response>;

export interface EnvtestDownload {
  /** Kubernetes' version of the release, such as `v1.35.0`. */
  readonly version: string;
  /** In Go's words, such as `linux` and `amd64`. */
  readonly os: string;
  readonly arch: string;
  /** An empty folder, for the archive and for what it holds. */
  readonly workDir: string;
  readonly env: NodeJS.ProcessEnv;
  readonly fetch: Fetch;
  readonly run: RunCommand;
  readonly step: Step;
  readonly signal: AbortSignal;
  readonly beginningTimeoutMs?: number | undefined;
}

export type DownloadOutcome =
  | { readonly kind: "downloaded"; readonly dir: string }
  | { readonly kind: "failed"; readonly why: string };

/** Fetches, verifies and unpacks the release; throws only the reason of the signal. */
export async function downloadEnvtest(download: EnvtestDownload): Promise<DownloadOutcome> {
  const { version, os, arch, workDir, env, run, signal } = download;
  const url = `${RELEASES}/envtest-${version}/envtest-${version}-${os}-${arch}.tar.gz`;
  const archive = join(workDir, basename(url));
  try {
    const expected = await fetchChecksum(download, `${url}.sha512`);
    const actual = await fetchArchive(download, url, archive);
    if (actual !== expected) return { kind: "failed", why: "the archive does not match its checksum" };
    const unpacked = await run("tar", ["-xzf", archive, "-C", workDir], { env, signal });
    if (unpacked.code !== 0) return { kind: "failed", why: `the archive cannot be unpacked: ${unpacked.errorLines}` };
    const dir = join(workDir, FOLDER);
    const there = await Promise.all(PROGRAMS.map((program) => isExecutable(join(dir, program))));
    if (there.includes(false)) return { kind: "failed", why: `the archive does not hold ${PROGRAMS.join(", ")}` };
    return { kind: "downloaded", dir };
  } catch (error) {
    signal.throwIfAborted();
    return { kind: "failed", why: explain(error) };
  }
}

async function fetchChecksum(download: EnvtestDownload, url: string): Promise<string> {
  const path = join(download.workDir, basename(url));
  await fetchArchive(download, url, path);
  const [checksum = ""] = (await readFile(path, "utf8")).trim().split(/\s+/);
  return checksum.toLowerCase();
}

/** Stores the answer's body as a file and returns its SHA-512, in hex. */
async function fetchArchive(download: EnvtestDownload, url: string, path: string): Promise<string> {
  const patience = new AbortController();
  const wait = (ms: number, what: string) =>
    setTimeout(() => patience.abort(new Error(`${what} in ${ms / 1_000} s`)), ms);
  let timer = wait(download.beginningTimeoutMs ?? BEGINNING_TIMEOUT_MS, "no answer began");
  const signal = AbortSignal.any([download.signal, patience.signal]);
  try {
    const response = await download.fetch(url, { signal });
    if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
    const total = Number(response.headers.get("content-length") ?? 0);
    const hash = createHash("sha512");
    let bytes = 0;
    const body = response.body;
    const chunks = async function* () {
      for await (const chunk of body) {
        clearTimeout(timer);
        timer = wait(STALL_TIMEOUT_MS, "nothing arrived");
        bytes += chunk.byteLength;
        if (bytes > ARCHIVE_BYTES_MAX) throw new Error(`the archive exceeds ${ARCHIVE_BYTES_MAX} bytes`);
        download.step.report(describeBytes(bytes, total));
        hash.update(chunk);
        yield chunk;
      }
    };
    await pipeline(chunks, createWriteStream(path), { signal });
    return hash.digest("hex");
  } catch (error) {
    // The reason of our own patience says more than the stream's AbortError.
    patience.signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function describeBytes(bytes: number, total: number): string {
  const done = Math.floor(bytes / MEBIBYTE);
  return total > 0 ? `${done} of ${Math.ceil(total / MEBIBYTE)} MiB` : `${done} MiB`;
}

/** `fetch` hides the reason in `cause`. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}
