/** What packaging makes and judges, piece by piece; `npm run package` itself is a check of its own. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, inflateRawSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RunCommand } from "../../infra/local/control-plane/processes.ts";
import { judgeSizes } from "../../infra/package/budgets.ts";
import { pythonTool } from "../../infra/package/python-tools.ts";
import { zipFile } from "../../infra/package/zip.ts";

describe("a zip", () => {
  const content = Buffer.from("export const handler = () => 1;\n".repeat(100));
  const zip = zipFile("scale.mjs", content);
  const end = zip.length - 22;
  const directory = zip.readUInt32LE(end + 16);

  it("holds the one file, as it was", () => {
    expect(zip.subarray(30, 39).toString()).toBe("scale.mjs");
    expect(inflateRawSync(zip.subarray(39, directory))).toEqual(content);
    expect(zip.readUInt32LE(14)).toBe(crc32(content));
    expect(zip.readUInt32LE(18)).toBe(directory - 39);
    expect(zip.readUInt32LE(22)).toBe(content.length);
  });

  it("ends with a directory of one entry, which leads to the file", () => {
    expect(zip.readUInt32LE(end)).toBe(0x06_05_4b_50);
    expect([zip.readUInt16LE(end + 8), zip.readUInt16LE(end + 10)]).toEqual([1, 1]);
    expect(zip.readUInt32LE(end + 12)).toBe(end - directory);
    expect(zip.readUInt32LE(directory)).toBe(0x02_01_4b_50);
    expect(zip.readUInt32LE(directory + 42)).toBe(0);
    expect(zip.subarray(directory + 46, end).toString()).toBe("scale.mjs");
  });

  it("says that everybody may read the file, which Lambda needs", () => {
    expect(zip.readUInt8(directory + 5)).toBe(3);
    expect((zip.readUInt32LE(directory + 38) >>> 16).toString(8)).toBe("100644");
  });
});

describe("budgets", () => {
  it("are kept at what they say, and not a byte beyond", () => {
    expect(judgeSizes([{ name: "scale", zipBytes: 100 }], { scale: 100 })).toEqual([]);
    expect(judgeSizes([{ name: "scale", zipBytes: 101 }], { scale: 100 })).toEqual([
      "the zip of scale has 101 bytes, and its budget is 100",
    ]);
  });

  it("are there for every function, and for nothing else", () => {
    expect(judgeSizes([{ name: "scale", zipBytes: 1 }], { fleet: 1 })).toEqual([
      "scale has no budget",
      "there is a budget for fleet, which is no function",
    ]);
  });
});

describe("the tools of Python", () => {
  let home: string;
  let requirements: string;
  let ran: string[];

  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), "vmpool-functions-python-"));
    requirements = join(home, "requirements.txt");
    ran = [];
    await mkdir(join(home, "bin"));
    await writeFile(requirements, "cfn-lint==1.0\n");
    await writeFile(join(home, "bin/python3"), "");
    await chmod(join(home, "bin/python3"), 0o755);
  });
  afterEach(() => rm(home, { recursive: true, force: true }));

  /** Makes what Python would make; `fails` is the part of a command that does not work. */
  function aPython(fails = "nothing"): RunCommand {
    return async (_command, args) => {
      const line = args.join(" ");
      const what = /-m (venv|pip)/.exec(line)?.[1] ?? "version";
      ran.push(what);
      if (what === fails) return { code: 1, stdout: "", errorLines: `${what} is broken` };
      if (what === "venv") {
        const bin = join(args.at(-1) ?? "", "bin");
        await mkdir(bin, { recursive: true });
        await writeFile(join(bin, "python3"), "");
        await chmod(join(bin, "python3"), 0o755);
      }
      return { code: 0, stdout: "", errorLines: "" };
    };
  }
  const find = (run: RunCommand, path = join(home, "bin")) =>
    pythonTool("cfn-lint", {
      env: { HOME: home, PATH: path },
      run,
      requirements,
      onProgress: ({ step, phase }) => {
        if (phase === "begun") ran.push(step.split(" ")[0] ?? "");
      },
    });

  it("are installed once, whoever asks at the same time, and then found", async () => {
    const [first, second] = await Promise.all([find(aPython()), find(aPython())]);
    expect(first).toBe(second);
    expect(first).toMatch(/vmpool-functions\/python-tools\/[0-9a-f]{16}-.*\/bin\/cfn-lint$/);
    expect(ran.filter((what) => what !== "waiting")).toEqual(["installing", "version", "venv", "pip"]);
    ran = [];
    await find(aPython("venv"));
    expect(ran).toEqual([]);
  });

  it("are installed anew when other versions are asked for, and when the interpreter is gone", async () => {
    const first = await find(aPython());
    await writeFile(requirements, "cfn-lint==2.0\n");
    const second = await find(aPython());
    expect(second).not.toBe(first);
    await rm(join(second, "../python3"));
    ran = [];
    expect(await find(aPython())).toBe(second);
    expect(ran).toContain("pip");
  });

  it("are not taken for installed after a failure", async () => {
    await expect(find(aPython("pip"))).rejects.toMatchObject({
      name: "SetupError",
      advice: expect.stringContaining("pip is broken"),
    });
    ran = [];
    await find(aPython());
    expect(ran).toContain("pip");
  });

  it.each([
    ["there is no Python", "nothing", "/nowhere", /no python3/],
    ["Python is too old", "version", undefined, /older than 3\.11/],
    ["it has no virtual environments", "venv", undefined, /cannot make a virtual environment/],
  ])("say what to do when %s", async (_, fails, path, message) => {
    await expect(find(aPython(fails), path)).rejects.toThrow(message);
    await expect(find(aPython(fails), path)).rejects.toMatchObject({ advice: expect.stringMatching(/python3-venv/) });
  });

  it("are pinned to the last package", async () => {
    const lines = (await readFile(join(import.meta.dirname, "../../infra/package/requirements.txt"), "utf8"))
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"));
    expect(lines.length).toBeGreaterThan(20);
    for (const line of lines) expect(line).toMatch(/^[\w.-]+(\[server\])?==[\w.]+$/);
  });
});
