import { chmod, chown, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { createFileStore } from "../../infra/cli/registry-store.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";

const ACCESS: ServerAccess = {
  server: "https://west.example",
  auth: { kind: "token", token: "s3cr3t" },
  mode: "observe",
};
const WEBHOOK = { path: ["a".repeat(64)] };

async function aFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "registry-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  return dir;
}

async function contentOf(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, "utf8"));
}

it("makes the file with its first entry, for its owner alone", async () => {
  const dir = await aFolder();
  const path = join(dir, "new", "registry.json");
  const store = createFileStore(path);
  expect(await store.access("west")).toBeUndefined();
  await store.write("west", { access: ACCESS, webhook: WEBHOOK }, { isNew: true });
  expect(await contentOf(path)).toEqual({ clusters: { west: { access: ACCESS, webhook: WEBHOOK } } });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await stat(join(dir, "new"))).mode & 0o777).toBe(0o700);
});

it("changes one half of one entry and nothing else", async () => {
  const dir = await aFolder();
  const path = join(dir, "registry.json");
  const east = { access: { server: "https://east.example", auth: { kind: "token", token: "t" } } };
  await writeFile(path, JSON.stringify({ clusters: { east, west: { access: ACCESS, webhook: WEBHOOK } } }));
  const store = createFileStore(path);
  await store.write("west", { access: { ...ACCESS, mode: "act" } });
  const changed = { access: { ...ACCESS, mode: "act" }, webhook: WEBHOOK };
  expect(await contentOf(path)).toEqual({ clusters: { east, west: changed } });
  await store.remove("west");
  expect(await contentOf(path)).toEqual({ clusters: { east } });
  expect(await readdir(dir)).toEqual(["registry.json"]);
});

it("keeps permissions, owner and link of the file, whatever the umask", async () => {
  const dir = await aFolder();
  const [path, link] = [join(dir, "real.json"), join(dir, "registry.json")];
  await writeFile(path, JSON.stringify({ clusters: {} }));
  await symlink(path, link);
  await chmod(path, 0o664);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) await chown(path, 4_321, 4_321);
  const before = process.umask(0o077);
  try {
    await createFileStore(link).write("west", { access: ACCESS });
  } finally {
    process.umask(before);
  }
  const { mode, uid } = await stat(path);
  expect(mode & 0o777).toBe(0o664);
  if (isRoot) expect(uid).toBe(4_321);
  expect(await contentOf(path)).toMatchObject({ clusters: { west: {} } });
});

it("does not write over an entry that somebody has made meanwhile, nor half of one that is gone", async () => {
  const path = join(await aFolder(), "registry.json");
  const store = createFileStore(path);
  await store.write("west", { access: ACCESS }, { isNew: true });
  await expect(store.write("west", { access: ACCESS }, { isNew: true })).rejects.toThrow("by somebody else just now");
  await expect(store.write("east", { webhook: WEBHOOK })).rejects.toThrow("no longer in the registry");
});

it("writes nothing that the functions would refuse, and repeats no secret of it", async () => {
  const path = join(await aFolder(), "registry.json");
  const entry = { access: { ...ACCESS, server: "http://169.254.169.254" }, webhook: { path: ["s3cr3t"] } };
  const failure = await createFileStore(path)
    .write("west", entry)
    .catch((error: unknown) => String(error));
  expect(failure).toMatch(/west cannot be registered so: access\.server: .*; webhook\.path\.0: /);
  expect(failure).not.toContain("s3cr3t");
  expect(await createFileStore(path).access("west")).toBeUndefined();
});

it("says what is wrong with a file, and leaves it as it is", async () => {
  const path = join(await aFolder(), "registry.json");
  await writeFile(path, "{");
  await expect(createFileStore(path).write("west", { access: ACCESS })).rejects.toThrow("is not JSON");
  expect(await readFile(path, "utf8")).toBe("{");
});
