import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { type BinariesOptions, findBinaries } from "../../infra/local/control-plane/binaries.ts";
import type { Fetch } from "../../infra/local/control-plane/envtest-download.ts";
import { runCommand } from "../../infra/local/control-plane/processes.ts";
import type { Progress } from "../../infra/local/control-plane/progress.ts";
import { aFolder, aProgram, never, processesWith, until } from "./support.ts";

const GO_VERSION = 'version) echo "go version go1.26.0 linux/amd64" ;;';
/** Does what Go does, as far as we see it: lists two packages, says what it compiles, writes the program. */
const GO_BUILD = `
  list) printf 'one\\ntwo\\n' ;;
  build) while [ "$1" != -o ]; do shift; done; echo one >&2; echo two >&2; printf '#!/bin/sh\\n' >"$2" ;;`;

interface World {
  readonly options: BinariesOptions;
  readonly folder: string;
  /** Folder of the PATH. */
  readonly bin: string;
  readonly progress: Progress[];
  readonly requests: string[];
  /** The arguments of each call of Go that builds. */
  builds(): readonly string[];
  /** What is in the cache's innermost folder. */
  cached(): readonly string[];
}

interface WorldOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly fetch?: Fetch;
  readonly signal?: AbortSignal;
  /** The cases of Go's shell script; null for a machine without Go. */
  readonly go?: string | null;
}

/** A machine with an empty cache, no network and a Go that builds at once, unless told otherwise. */
function aWorld({ env, fetch, signal = never(), go = `${GO_VERSION}${GO_BUILD}` }: WorldOptions = {}): World {
  const folder = aFolder();
  const bin = join(folder, "bin");
  const log = join(folder, "go.log");
  if (go !== null) aProgram(bin, "go", `echo "$@" >>${log}\ncase "$1" in ${go} esac`);
  const [progress, requests]: [Progress[], string[]] = [[], []];
  const options: BinariesOptions = {
    env: { PATH: bin, HOME: folder, ...env },
    onProgress: (report) => progress.push(report),
    signal,
    goFolders: [],
    fetch: (url, init) => {
      requests.push(url);
      return fetch === undefined ? Promise.reject(new TypeError("fetch failed")) : fetch(url, init);
    },
    // The scripts' own PATH is bare, so that no program of this machine is found; tar and sleep are needed all the same.
    run: (command, args, run) =>
      runCommand(command, args, { ...run, env: { ...run.env, PATH: `${bin}:/usr/bin:/bin` } }),
  };
  const builds = () =>
    (existsSync(log) ? readFileSync(log, "utf8").trim().split("\n") : []).filter((line) => line.startsWith("build "));
  return { options, folder, bin, progress, requests, builds, cached: () => readdirSync(cacheOf(folder)) };
}

function cacheOf(folder: string): string {
  const parent = join(folder, ".cache", "vmpool-functions", "control-plane");
  const [version = ""] = readdirSync(parent);
  return join(parent, version);
}

/** Answers like the release page, with an archive of three programs. */
function aRelease({ corrupt = false, programs = ["etcd", "kube-apiserver", "kubectl"] } = {}): Fetch {
  const folder = aFolder();
  const files = join(folder, "release", "controller-tools", "envtest");
  for (const name of programs) aProgram(files, name, `echo released ${name}`);
  const archive = join(folder, "release.tar.gz");
  execFileSync("tar", ["-czf", archive, "-C", join(folder, "release"), "controller-tools"]);
  const bytes = readFileSync(archive);
  const checksum = createHash("sha512").update(bytes).digest("hex");
  return async (url) =>
    new Response(
      url.endsWith(".sha512") ? `${corrupt ? checksum.replace(/^./, "x") : checksum}  envtest.tar.gz\n` : bytes,
    );
}

const silence: Fetch = (_url, { signal }) =>
  new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

describe("programs that are there", () => {
  it("takes each one from the named folder that has it, and builds the others into the cache", async () => {
    const world = aWorld();
    const assets = join(world.folder, "assets");
    const etcd = aProgram(assets, "etcd");
    writeFileSync(join(assets, "kube-apiserver"), "not executable");

    const found = await findBinaries({ ...world.options, env: { ...world.options.env, KUBEBUILDER_ASSETS: assets } });

    expect(found.etcd).toBe(etcd);
    expect(found.kubeApiserver).toBe(join(cacheOf(world.folder), "kube-apiserver"));
    expect(world.builds()).toHaveLength(3);
  });

  it("takes kubectl from the PATH before anything else", async () => {
    const world = aWorld();
    const assets = join(world.folder, "assets");
    aProgram(assets, "kubectl");
    const kubectl = aProgram(world.bin, "kubectl");

    const found = await findBinaries({ ...world.options, env: { ...world.options.env, KUBEBUILDER_ASSETS: assets } });

    expect(found.kubectl).toBe(kubectl);
  });

  it("takes from the cache what an earlier start put there, without asking anybody", async () => {
    const world = aWorld();
    const first = await findBinaries(world.options);
    const [requests, builds] = [world.requests.length, world.builds().length];

    expect(await findBinaries(world.options)).toEqual(first);
    expect([world.requests.length, world.builds().length]).toEqual([requests, builds]);
  });
});

describe("programs that are not there", () => {
  it("keeps the cache where XDG_CACHE_HOME says, under the pinned versions", async () => {
    const world = aWorld();
    const cache = join(world.folder, "elsewhere");

    const { etcd } = await findBinaries({ ...world.options, env: { ...world.options.env, XDG_CACHE_HOME: cache } });

    expect(etcd.startsWith(join(cache, "vmpool-functions", "control-plane"))).toBe(true);
    expect(dirname(etcd)).toMatch(/v1\.35\.4-etcd-v3\.6\.5-[a-z]+-[a-z0-9]+$/);
  });

  it("downloads what the release has, and builds only what it does not have", async () => {
    const world = aWorld({ fetch: aRelease() });

    const { etcd } = await findBinaries(world.options);

    expect(execFileSync(etcd, { encoding: "utf8" })).toBe("released etcd\n");
    expect(world.builds()).toEqual([expect.stringContaining("k8s.io/kubernetes/cmd/kube-controller-manager")]);
    expect(
      world.requests.map((url) =>
        url
          .split("/")
          .at(-1)
          ?.replace(/-[a-z]+-[a-z0-9]+\./, "."),
      ),
    ).toEqual(["envtest-v1.35.0.tar.gz.sha512", "envtest-v1.35.0.tar.gz"]);
    expect(world.cached().toSorted()).toEqual(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]);
  });

  it("builds with the versions of go.mod", async () => {
    const world = aWorld();

    await findBinaries(world.options);

    const [etcd = "", apiServer = ""] = world.builds();
    expect(etcd).toContain("go.etcd.io/etcd/server/v3");
    expect(apiServer).toContain("version.gitVersion=v1.35.4");
    expect(apiServer).toContain("version.gitMinor=35 ");
    expect(world.progress).toContainEqual(
      expect.objectContaining({ step: "building kube-apiserver v1.35.4 from source", phase: "finished" }),
    );
  });
});

describe("a download that does not work", () => {
  it("gives way to the build when no answer begins in time, and is not tried again in this run", async () => {
    const world = aWorld({ fetch: silence });

    await findBinaries({ ...world.options, downloadBeginningTimeoutMs: 20 });

    expect(world.requests).toHaveLength(1);
    expect(world.builds()).toHaveLength(4);
    expect(world.progress).toContainEqual(
      expect.objectContaining({ phase: "failed", detail: "no answer began in 0.02 s" }),
    );
  });

  it.each<[string, () => Fetch]>([
    ["there is no such release", () => async () => new Response("not found", { status: 404 })],
    ["the checksum is another", () => aRelease({ corrupt: true })],
    ["the archive lacks a program", () => aRelease({ programs: ["etcd", "kubectl"] })],
    [
      "the connection breaks",
      () => async () => new Response(new ReadableStream({ pull: (stream) => stream.error(new Error("reset")) })),
    ],
  ])("gives way to the build when %s", async (_name, web) => {
    const world = aWorld({ fetch: web() });

    await findBinaries(world.options);

    expect(world.builds()).toHaveLength(4);
    expect(world.cached().toSorted()).toEqual(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]);
  });
});

describe("when a program cannot be had", () => {
  it.each([
    ["Go is not installed", null],
    ["Go 1.19.8 is older than 1.25.0", 'version) echo "go version go1.19.8 linux/amd64" ;;'],
    ["Go does not work here (go: no toolchain)", 'version) echo "go: no toolchain" >&2; exit 1 ;;'],
  ])("says that %s, and what to do", async (why, go) => {
    await expect(findBinaries(aWorld({ go }).options)).rejects.toMatchObject({
      kind: "setup",
      message: `There is no etcd: its download failed (fetch failed), and it cannot be built because ${why}.`,
      advice: expect.stringMatching(/Install Go 1\.25\.0 .* set KUBEBUILDER_ASSETS/),
    });
  });

  it("shows the compiler's last words", async () => {
    const world = aWorld({ go: `${GO_VERSION} list) echo one ;; build) echo "disk full" >&2; exit 1 ;;` });

    await expect(findBinaries(world.options)).rejects.toMatchObject({
      message: "Go could not build go.etcd.io/etcd/server/v3.",
      advice: expect.stringContaining("disk full"),
    });
    expect(world.cached()).toEqual([]);
  });
});

describe("starts that meet or end early", () => {
  it("lets the second of two starts wait and use what the first has built", async () => {
    const world = aWorld({ go: `${GO_VERSION} ${GO_BUILD.replace("build)", "build) sleep 0.2;")}` });

    const found = await Promise.all([findBinaries(world.options), findBinaries(world.options)]);

    expect(found[0]).toEqual(found[1]);
    expect(world.builds()).toHaveLength(4);
    expect(world.progress.map(({ step }) => step)).toContain(`waiting for process ${process.pid}, which gets etcd`);
  });

  it("leaves nothing behind when the signal fires in the middle of a build", async () => {
    const stop = new AbortController();
    const world = aWorld({
      signal: stop.signal,
      go: `${GO_VERSION} list) echo one ;; build) while [ "$1" != -o ]; do shift; done; echo half >"$2"; sleep 600; exit 0 ;;`,
    });
    const searching = findBinaries(world.options);
    await until(
      () => existsSync(join(world.folder, ".cache")) && existsSync(join(cacheOf(world.folder), "etcd.partial", "etcd")),
    );

    stop.abort(new Error("interrupted"));

    await expect(searching).rejects.toThrow("interrupted");
    expect(world.cached()).toEqual([]);
    await until(() => processesWith(world.folder).length === 0);
    expect(world.progress.at(-1)).toMatchObject({ phase: "failed" });
  });
});

it("clears what a start left that was killed", async () => {
  const world = aWorld();
  await findBinaries(world.options);
  const cache = cacheOf(world.folder);
  const dead = {
    pid: 2 ** 22 - 1,
    born: "another boot/1",
    since: "2026-01-01T00:00:00Z",
    purpose: "gets",
    nonce: "1",
  };
  for (const name of ["etcd", "kubectl"]) mkdirSync(join(cache, `${name}.partial`));
  writeFileSync(join(cache, "kubectl.partial", "kubectl"), "half");
  writeFileSync(join(cache, "kubectl.lock"), JSON.stringify(dead));
  execFileSync("rm", [join(cache, "kubectl")]);

  await findBinaries(world.options);

  expect(world.cached().toSorted()).toEqual(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]);
  expect(readFileSync(join(cache, "kubectl"), "utf8")).not.toBe("half");
});
