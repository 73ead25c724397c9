"""Write image files bit by bit, independently of the libraries that read them."""

import struct
import zlib

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def packed_rows(values: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Pack the numbers (H, W) of each row, the first into the highest bits of a byte."""
    if bits >= 8:
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in values]
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> places & 1).astype(np.uint8)).tobytes() for row in values]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows: list[bytes], kinds: list[int], step: int) -> bytes:
    """Filter rows as PNG does: 0 none, 1 left, 2 up, 3 mean, 4 Paeth; `step` is the number of bytes per pixel."""
    result, above = bytearray(), bytes(len(rows[0])) if rows else b""
    for i, row in enumerate(rows):
        kind = kinds[i % len(kinds)]
        result.append(kind)
        for x, value in enumerate(row):
            left = row[x - step] if x >= step else 0
            corner = above[x - step] if x >= step else 0
            up = above[x]
            distances = (abs(up - corner), abs(left - corner), abs(left + up - 2 * corner))
            paeth = (left, up, corner)[distances.index(min(distances))]
            result.append((value - (0, left, up, (left + up) // 2, paeth)[kind]) & 255)
        above = row
    return bytes(result)


def write_png(
    values: np.ndarray,
    bits: int,
    color_type: int = 0,
    filters=(0,),
    is_interlaced=False,
    extra: bytes = b"",
    pieces: int = 1,
) -> bytes:
    """Write a PNG with one number per pixel: gray (color type 0) or indices (3); `extra` chunks precede the pixels."""
    step = max(1, bits // 8)
    if is_interlaced:
        parts = [values[row::down, column::across] for row, column, down, across in PASSES]
        raw = b"".join(filtered(packed_rows(part, bits), filters, step) for part in parts if part.size)
    else:
        raw = filtered(packed_rows(values, bits), filters, step)
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, is_interlaced)
    palette = png_chunk(b"PLTE", bytes(range(3, 251, 1))[: 3 * 2 ** min(bits, 6)]) if color_type == 3 else b""
    if color_type == 3:
        palette = png_chunk(b"PLTE", bytes(i * 7 % 256 for i in range(3 * 2**bits)))
    packed = zlib.compress(raw)
    size = -(-len(packed) // pieces)
    body = b"".join(png_chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + extra + palette + body + png_chunk(b"IEND", b"")


def write_tiff(
    values: np.ndarray,
    bits: int,
    order: str = "<",
    photometric: int = 1,
    sample_format: int = 1,
    is_deflated: bool = False,
    rows_per_strip: int | None = None,
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """Write a TIFF with one number per pixel; `tags` are further tags: number -> (type 2, 3 or 4, values)."""
    height, width = values.shape
    if bits >= 8:
        kind = {1: "u", 2: "i", 3: "f"}[sample_format]
        rows = [row.astype(f"{order}{kind}{bits // 8}").tobytes() for row in values]
    else:
        rows = packed_rows(values, bits)
    per_strip = rows_per_strip or height
    strips = [b"".join(rows[i : i + per_strip]) for i in range(0, height, per_strip)]
    strips = [zlib.compress(strip) for strip in strips] if is_deflated else strips
    found: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits]), 259: (3, [8 if is_deflated else 1]), 262: (3, [photometric]),
        277: (3, [1]), 278: (4, [per_strip]), 279: (4, [len(strip) for strip in strips]), 339: (3, [sample_format]),
    }  # fmt: skip
    if photometric == 3:
        found[320] = (3, [i * 251 % 65536 for i in range(3 * 2**bits)])
    starts = np.cumsum([8, *map(len, strips)])
    found[273] = (4, [int(start) for start in starts[:-1]])
    found |= tags or {}
    return _tiff_with(found, b"".join(strips), order)


def _tiff_with(tags: dict[int, tuple[int, list[int]]], body: bytes, order: str) -> bytes:
    body += b"\0" * (len(body) % 2)
    start = 8 + len(body)
    entries, extra, place = b"", b"", start + 2 + 12 * len(tags) + 4
    for number, (kind, numbers) in sorted(tags.items()):
        letter = {2: "B", 3: "H", 4: "I"}[kind]
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        inside = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", place + len(extra))
        extra += packed if len(packed) > 4 else b""
        entries += struct.pack(order + "HHI", number, kind, len(numbers)) + inside
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra


def write_bmp(values: np.ndarray, bits: int, palette: list[tuple[int, int, int]]) -> bytes:
    """Write a BMP of palette indices, the last row first."""
    rows = [row.ljust(-(-len(row) // 4) * 4, b"\0") for row in packed_rows(values[::-1], bits)]
    colors = b"".join(bytes((*color, 0)) for color in palette)
    start = 54 + len(colors)
    body = b"".join(rows)
    height, width = values.shape
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(body), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + colors + body


def exif_with(kind: int, count: int, value: bytes, order: str = "<", tag: int = 0x0112) -> bytes:
    """Write EXIF data with one entry, the orientation, of any TIFF type; a value above four bytes lies behind the directory."""
    inside = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", 26)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHI", tag, kind, count) + inside
    return b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + bytes(4) + (value if len(value) > 4 else b"")


def jpeg_with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Put EXIF data into a JPEG, as its first segment."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
