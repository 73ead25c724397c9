"use strict";
// Write a label map as a PNG with a single channel, which a canvas cannot do.

/** @param {Uint8Array} bytes @returns {number} the checksum that each part of a PNG ends with */
function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** @param {string} kind @param {Uint8Array} content @returns {Uint8Array} */
function pngPart(kind, content) {
  const part = new Uint8Array(content.length + 12), view = new DataView(part.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) part[4 + i] = kind.charCodeAt(i);
  part.set(content, 8);
  view.setUint32(8 + content.length, crc32(part.subarray(4, 8 + content.length)));
  return part;
}

/**
 * Encode a map of numbers as a gray PNG, of 16 bits if a number may be above 255.
 * @param {Uint16Array} values @param {number} height @param {number} width @param {boolean} isWide @returns {Promise<Blob>}
 */
async function encodePng(values, height, width, isWide) {
  const bytes = isWide ? 2 : 1, stride = 1 + bytes * width; // each row begins with the number of its filter, 0: none
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = values[y * width + x], at = y * stride + 1 + bytes * x;
      if (isWide) { rows[at] = value >> 8; rows[at + 1] = value & 255; } else rows[at] = value;
    }
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width); view.setUint32(4, height);
  header[8] = 8 * bytes; // bits; then color type 0, gray
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const compressed = new Uint8Array(await new Response(stream).arrayBuffer());
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([signature, pngPart("IHDR", header), pngPart("IDAT", compressed), pngPart("IEND", new Uint8Array(0))],
    { type: "image/png" });
}
