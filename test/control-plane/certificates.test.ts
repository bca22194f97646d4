import { X509Certificate } from "node:crypto";
import { readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ensurePki, ensureServingCertificate } from "../../infra/local/control-plane/certificates.ts";
import { aFolder } from "./support.ts";

const DAY_MS = 24 * 60 * 60 * 1_000;
const START = new Date("2026-05-01T12:00:00Z");

function after(days: number): Date {
  return new Date(START.getTime() + days * DAY_MS);
}

it("issues certificates that the authority vouches for, each for its purpose", async () => {
  const { ca, serving, etcd, admin, controllerManager, functions } = await ensurePki(aFolder(), START);
  const authority = new X509Certificate(ca.certificate);
  const issued = [serving, etcd, admin, controllerManager, functions];
  const parsed = issued.map(({ certificate }) => new X509Certificate(certificate));

  expect(authority.ca).toBe(true);
  expect(parsed.every((one) => one.verify(authority.publicKey) && one.checkIssued(authority) && !one.ca)).toBe(true);
  expect(parsed.map(({ subject }) => subject)).toEqual([
    "CN=kube-apiserver",
    "CN=etcd",
    "O=system:masters\nCN=admin",
    "CN=system:kube-controller-manager",
    "O=vmpool-functions\nCN=vmpool-functions",
  ]);
  const [serverAuth, clientAuth] = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"];
  expect(parsed.map(({ keyUsage }) => keyUsage)).toEqual([
    [serverAuth],
    [serverAuth, clientAuth],
    [clientAuth],
    [clientAuth],
    [clientAuth],
  ]);
});

it("serves 127.0.0.1 and localhost and nothing else", async () => {
  const { serving } = await ensurePki(aFolder(), START);
  const certificate = new X509Certificate(serving.certificate);

  expect(certificate.checkIP("127.0.0.1")).toBe("127.0.0.1");
  expect(certificate.checkHost("localhost")).toBe("localhost");
  expect(certificate.checkHost("example.com")).toBeUndefined();
});

it("keeps private keys from other users", async () => {
  const dir = aFolder();
  await ensurePki(dir, START);
  const keys = readdirSync(join(dir, "pki")).filter((name) => name.endsWith(".key"));

  expect(keys).toHaveLength(7);
  expect(keys.map((name) => statSync(join(dir, "pki", name)).mode & 0o777)).toEqual(keys.map(() => 0o600));
});

it("reuses everything at the next start", async () => {
  const dir = aFolder();
  const first = await ensurePki(dir, START);

  expect(await ensurePki(dir, after(357))).toEqual(first);
});

it("renews what has less than a week left, under the same authority", async () => {
  const dir = aFolder();
  const first = await ensurePki(dir, START);
  const renewed = await ensurePki(dir, after(359));

  expect(renewed.ca).toEqual(first.ca);
  expect(renewed.serviceAccount).toEqual(first.serviceAccount);
  expect(renewed.admin.certificate).not.toBe(first.admin.certificate);
  expect(Date.parse(new X509Certificate(renewed.admin.certificate).validTo)).toBe(after(359 + 365).getTime());
});

it("renews everything when the authority's time is over", async () => {
  const dir = aFolder();
  const first = await ensurePki(dir, START);
  const renewed = await ensurePki(dir, after(3_645));
  const authority = new X509Certificate(renewed.ca.certificate);

  expect(renewed.ca.certificate).not.toBe(first.ca.certificate);
  expect(new X509Certificate(renewed.serving.certificate).verify(authority.publicKey)).toBe(true);
});

it("trusts nothing from an authority whose key is lost", async () => {
  const dir = aFolder();
  await ensurePki(dir, START);
  rmSync(join(dir, "pki", "ca.key"));
  const renewed = await ensurePki(dir, START);
  const authority = new X509Certificate(renewed.ca.certificate);

  expect(new X509Certificate(renewed.admin.certificate).verify(authority.publicKey)).toBe(true);
});

it("issues again what was damaged", async () => {
  const dir = aFolder();
  const first = await ensurePki(dir, START);
  truncateSync(first.serving.keyPath);
  const repaired = await ensurePki(dir, START);

  expect(repaired.serving.certificate).not.toBe(first.serving.certificate);
  expect(repaired.admin).toEqual(first.admin);
});

it("issues a serving certificate of our own under the same authority", async () => {
  const dir = aFolder();
  const { ca } = await ensurePki(dir, START);
  const own = await ensureServingCertificate(dir, "webhooks", START);
  const certificate = new X509Certificate(own.certificate);

  expect(certificate.verify(new X509Certificate(ca.certificate).publicKey)).toBe(true);
  expect(certificate.checkIP("127.0.0.1")).toBe("127.0.0.1");
  expect(await ensureServingCertificate(dir, "webhooks", START)).toEqual(own);
});
