/** Unpacks zip archives, as far as deployment packages use them. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { crc32, inflateRawSync } from "node:zlib";

export interface ZipEntry {
  readonly name: string;
  readonly bytes: Buffer;
}

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const METHOD = { stored: 0, deflated: 8 } as const;
/** Lambda runs a function as a user to whom its files do not belong. */
const READABLE_BY_OTHERS = 0o4;

/** The files of an archive, in its order; folders are left out. */
export function readZip(zip: Buffer): readonly ZipEntry[] {
  // A comment may follow the end record, so it is looked for from behind.
  let end = zip.length - END_BYTES;
  while (end >= 0 && zip.readUInt32LE(end) !== END_SIGNATURE) end -= 1;
  if (end < 0) throw new Error("this is no zip archive");
  const entries: ZipEntry[] = [];
  let at = zip.readUInt32LE(end + 16);
  for (let left = zip.readUInt16LE(end + 10); left > 0; left -= 1) {
    if (zip.readUInt32LE(at) !== ENTRY_SIGNATURE) throw new Error("the archive's directory is broken");
    const [nameLength, extraLength] = [zip.readUInt16LE(at + 28), zip.readUInt16LE(at + 30)];
    const name = zip.toString("utf8", at + ENTRY_BYTES, at + ENTRY_BYTES + nameLength);
    if (!name.endsWith("/")) entries.push({ name, bytes: readEntry(zip, at) });
    const mode = zip.readUInt32LE(at + 38) >>> 16;
    if ((mode & READABLE_BY_OTHERS) === 0) throw new Error(`${name} is not readable by others: ${mode.toString(8)}`);
    at += ENTRY_BYTES + nameLength + extraLength + zip.readUInt16LE(at + 32);
  }
  return entries;
}

function readEntry(zip: Buffer, at: number): Buffer {
  const [method, packedBytes, local] = [
    zip.readUInt16LE(at + 10),
    zip.readUInt32LE(at + 20),
    zip.readUInt32LE(at + 42),
  ];
  const start = local + LOCAL_BYTES + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
  const bytes = decompress(zip.subarray(start, start + packedBytes), method);
  if (crc32(bytes) !== zip.readUInt32LE(at + 16))
    throw new Error("a file of the archive is not what its checksum says");
  return bytes;
}

function decompress(packed: Buffer, method: number): Buffer {
  if (method === METHOD.stored) return packed;
  if (method === METHOD.deflated) return inflateRawSync(packed);
  throw new Error(`the archive is compressed by method ${method}`);
}

/** Writes the files below the folder. */
export async function unpackZip(zip: Buffer, folder: string): Promise<void> {
  for (const { name, bytes } of readZip(zip)) {
    const path = join(folder, name);
    if (!path.startsWith(join(folder, "/"))) throw new Error(`the archive holds ${name}`);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, bytes);
  }
}
