/** The local cluster's own certificates and keys under `<dir>/pki`: issued once, reused, renewed in time. Trusts nothing else. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
// selfsigned: issues PEM pairs under a CA from plain data, over the well-kept @peculiar/x509, which alone needs a polyfill.
import { generate } from "selfsigned";
import { OWN_GROUP } from "../../../shared/events/changes.ts";
import { writeAtomically } from "./files.ts";
import { errorCode } from "./setup-error.ts";

const DAY_MS = 24 * 60 * 60 * 1_000;
/** With less validity left a certificate is renewed at the next start. */
const RENEWAL_MS = 7 * DAY_MS;
const AUTHORITY_VALIDITY_MS = 3_650 * DAY_MS;
const VALIDITY_MS = 365 * DAY_MS;
/** Certificates begin this much in the past, for clocks that are a little behind. */
const BACKDATE_MS = 5 * 60 * 1_000;

type Extensions = NonNullable<NonNullable<Parameters<typeof generate>[1]>["extensions"]>;

export interface KeyPair {
  /** PEM. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
  readonly certificatePath: string;
  readonly keyPath: string;
}

export interface Pki {
  readonly ca: KeyPair;
  /** For kube-apiserver's and kube-controller-manager's listeners on 127.0.0.1. */
  readonly serving: KeyPair;
  /** For etcd's listeners, and for its clients. */
  readonly etcd: KeyPair;
  /** Client certificate of `admin` in the group `system:masters`. */
  readonly admin: KeyPair;
  readonly controllerManager: KeyPair;
  /** Client certificate of the functions, in the group that `infra/kubernetes/rbac.yaml` binds. */
  readonly functions: KeyPair;
  /** Signs and verifies the tokens of service accounts. */
  readonly serviceAccount: { readonly keyPath: string; readonly publicKeyPath: string };
}

interface Subject {
  readonly file: string;
  readonly commonName: string;
  readonly organization?: string;
  readonly usage: "serving" | "client" | "both";
}

/** Reads or issues everything that the control plane needs, in `<dir>/pki`. */
export async function ensurePki(dir: string, now: Date = new Date()): Promise<Pki> {
  const pkiDir = await ensurePkiDir(dir);
  const ca = await ensureAuthority(pkiDir, now);
  const issue = (subject: Subject) => ensureIssued(pkiDir, ca, subject, now);
  return {
    ca,
    serving: await issue({ file: "serving", commonName: "kube-apiserver", usage: "serving" }),
    etcd: await issue({ file: "etcd", commonName: "etcd", usage: "both" }),
    admin: await issue({ file: "admin", commonName: "admin", organization: "system:masters", usage: "client" }),
    controllerManager: await issue({
      file: "kube-controller-manager",
      commonName: "system:kube-controller-manager",
      usage: "client",
    }),
    functions: await issue({ file: "functions", commonName: OWN_GROUP, organization: OWN_GROUP, usage: "client" }),
    serviceAccount: await ensureServiceAccountKeys(pkiDir),
  };
}

/**
 * A serving certificate for 127.0.0.1 and localhost from the same authority, for a listener of our own; kept in `<dir>/pki` under
 * `name`. Whoever trusts `ca` of `ensurePki` (its PEM goes into a webhook's `caBundle`) trusts the listener.
 */
export async function ensureServingCertificate(dir: string, name: string, now: Date = new Date()): Promise<KeyPair> {
  const pkiDir = await ensurePkiDir(dir);
  const ca = await ensureAuthority(pkiDir, now);
  return ensureIssued(pkiDir, ca, { file: name, commonName: name, usage: "serving" }, now);
}

async function ensurePkiDir(dir: string): Promise<string> {
  const pkiDir = join(dir, "pki");
  await mkdir(pkiDir, { recursive: true, mode: 0o700 });
  return pkiDir;
}

async function ensureAuthority(pkiDir: string, now: Date): Promise<KeyPair> {
  const kept = await readPair(pkiDir, "ca");
  if (kept !== undefined && isUsable(kept, kept, now)) return kept;
  const issued = await generate([{ name: "commonName", value: "vmpool-functions local" }], {
    ...period(now, AUTHORITY_VALIDITY_MS),
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, cRLSign: true, digitalSignature: true, critical: true },
    ],
  });
  return writePair(pkiDir, "ca", issued.cert, issued.private);
}

async function ensureIssued(pkiDir: string, ca: KeyPair, subject: Subject, now: Date): Promise<KeyPair> {
  const kept = await readPair(pkiDir, subject.file);
  if (kept !== undefined && isUsable(kept, ca, now)) return kept;
  const organization =
    subject.organization === undefined ? [] : [{ name: "organizationName", value: subject.organization }];
  const issued = await generate([...organization, { name: "commonName", value: subject.commonName }], {
    ...period(now, VALIDITY_MS),
    keyType: "ec",
    algorithm: "sha256",
    ca: { key: ca.key, cert: ca.certificate },
    extensions: extensionsFor(subject.usage),
  });
  return writePair(pkiDir, subject.file, issued.cert, issued.private);
}

function extensionsFor(usage: Subject["usage"]): Extensions {
  const serverAuth = usage !== "client";
  const common: Extensions = [
    { name: "basicConstraints", cA: false, critical: true },
    { name: "keyUsage", digitalSignature: true, critical: true },
    { name: "extKeyUsage", serverAuth, clientAuth: usage !== "serving" },
  ];
  if (!serverAuth) return common;
  const altNames = [
    { type: 2 as const, value: "localhost" },
    { type: 7 as const, ip: "127.0.0.1" },
  ];
  return [...common, { name: "subjectAltName", altNames }];
}

function period(now: Date, validityMs: number): { readonly notBeforeDate: Date; readonly notAfterDate: Date } {
  return {
    notBeforeDate: new Date(now.getTime() - BACKDATE_MS),
    notAfterDate: new Date(now.getTime() + validityMs),
  };
}

/** Whether the certificate is in its time with a week to spare, belongs to its key and comes from this authority. */
function isUsable(pair: KeyPair, ca: KeyPair, now: Date): boolean {
  try {
    const certificate = new X509Certificate(pair.certificate);
    const inTime =
      Date.parse(certificate.validFrom) <= now.getTime() &&
      Date.parse(certificate.validTo) - now.getTime() >= RENEWAL_MS;
    const authority = new X509Certificate(ca.certificate);
    return inTime && certificate.checkPrivateKey(createPrivateKey(pair.key)) && certificate.verify(authority.publicKey);
  } catch {
    return false;
  }
}

async function readPair(pkiDir: string, file: string): Promise<KeyPair | undefined> {
  const { certificatePath, keyPath } = pairPaths(pkiDir, file);
  const certificate = await readIfThere(certificatePath);
  const key = await readIfThere(keyPath);
  if (certificate === undefined || key === undefined) return undefined;
  return { certificate, key, certificatePath, keyPath };
}

/** The key goes first: whoever finds an old certificate with a new key sees that they do not match. */
async function writePair(pkiDir: string, file: string, certificate: string, key: string): Promise<KeyPair> {
  const { certificatePath, keyPath } = pairPaths(pkiDir, file);
  await writeAtomically(keyPath, key, 0o600);
  await writeAtomically(certificatePath, certificate, 0o644);
  return { certificate, key, certificatePath, keyPath };
}

function pairPaths(pkiDir: string, file: string): { readonly certificatePath: string; readonly keyPath: string } {
  return { certificatePath: join(pkiDir, `${file}.crt`), keyPath: join(pkiDir, `${file}.key`) };
}

/** The pair must stay the same for as long as tokens signed with it are to be good; it does not expire. */
async function ensureServiceAccountKeys(pkiDir: string): Promise<Pki["serviceAccount"]> {
  const keyPath = join(pkiDir, "service-account.key");
  const publicKeyPath = join(pkiDir, "service-account.pub");
  const kept = await readIfThere(keyPath);
  if (kept === undefined) {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    await writeAtomically(keyPath, privateKey.export({ type: "pkcs8", format: "pem" }).toString(), 0o600);
  }
  const publicKey = createPublicKey(await readFile(keyPath, "utf8"));
  await writeAtomically(publicKeyPath, publicKey.export({ type: "spki", format: "pem" }).toString(), 0o644);
  return { keyPath, publicKeyPath };
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}
