/** Zip archives of one file, with nothing in them that changes from one run to the next. */
import { crc32, deflateRawSync } from "node:zlib";

const VERSION = 20;
const UTF8_NAMES = 0x08_00;
const DEFLATED = 8;
/** 1 January 1980, as MS-DOS writes it: the beginning of its time. */
const DATE = 0x21;
const MADE_ON_UNIX = 3 << 8;
/** An ordinary file that everybody may read, which Lambda needs. */
const FILE_MODE = 0o100_644;

/** The archive with `content` in a file called `name`. */
export function zipFile(name: string, content: Buffer): Buffer {
  const nameBytes = Buffer.from(name, "utf8");
  const packed = deflateRawSync(content, { level: 9 });
  // What the header of the file and the directory both say of it.
  const described = Buffer.alloc(26);
  described.writeUInt16LE(VERSION, 0);
  described.writeUInt16LE(UTF8_NAMES, 2);
  described.writeUInt16LE(DEFLATED, 4);
  described.writeUInt16LE(DATE, 8);
  described.writeUInt32LE(crc32(content), 10);
  described.writeUInt32LE(packed.length, 14);
  described.writeUInt32LE(content.length, 18);
  described.writeUInt16LE(nameBytes.length, 22);
  const local = Buffer.concat([Buffer.from("PK\u0003\u0004"), described, nameBytes, packed]);
  const attributes = Buffer.alloc(14);
  attributes.writeUInt32LE(FILE_MODE * 2 ** 16, 6);
  const madeBy = Buffer.from([VERSION, MADE_ON_UNIX >> 8]);
  const directory = Buffer.concat([Buffer.from("PK\u0001\u0002"), madeBy, described, attributes, nameBytes]);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(1, 4);
  end.writeUInt16LE(1, 6);
  end.writeUInt32LE(directory.length, 8);
  end.writeUInt32LE(local.length, 12);
  return Buffer.concat([local, directory, Buffer.from("PK\u0005\u0006"), end]);
}
