"""Change files while keeping their outer form: checksums, lengths and compression stay right, so that changes reach the inside."""

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from support.hostile_readers import unpack
from support.hostile_seeds import png_chunk

Mutate = Callable[[bytes, int], bytes]  # changes bytes at random; the number is the largest length of the result
PNG = b"\x89PNG\r\n\x1a\n"
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "a\nb",
    "\x1b[2J", "../x", "\ud800", "x" * 5000, [], [[]], {}, {"": None}, [0] * 300, "0" * 64,
)  # fmt: skip


def mutate_image(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change a chunk of a PNG and repair its checksum; other formats have none."""
    chunks = _png_chunks(data)
    if not chunks:
        return mutate(data, limit)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    if kind == b"IDAT" and rng.random() < 0.5:
        try:
            content = zlib.compress(mutate(zlib.decompress(content), limit))
        except zlib.error:
            content = mutate(content, limit)
    elif rng.random() < 0.1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
    else:
        content = mutate(content, limit)
    chunks[place] = (kind, content)
    return PNG + b"".join(png_chunk(*chunk) for chunk in chunks)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(PNG)
    while data.startswith(PNG) and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        if at + 12 + length > len(data):
            break
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def mutate_pair(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change the image or the label map of a pair."""
    length = int.from_bytes(data[:4], "little")
    parts = [data[4 : 4 + length], data[4 + length :]]
    place = rng.randrange(2)
    parts[place] = mutate_image(parts[place], limit // 2, mutate, rng)
    return len(parts[0]).to_bytes(4, "little") + parts[0] + parts[1]


def mutate_mat(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change the inside of a compressed variable of a version 5 file."""
    elements, at = [], 128
    while data.startswith(b"MATLAB 5") and at + 8 <= len(data):
        kind, length = struct.unpack("<II", data[at : at + 8])
        elements.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length
    packed = [i for i, (kind, _) in enumerate(elements) if kind == 15]
    if not packed:
        return mutate(data, limit)
    place = rng.choice(packed)
    try:
        elements[place] = (15, zlib.compress(mutate(zlib.decompress(elements[place][1]), limit)))
    except zlib.error:
        return mutate(data, limit)
    return data[:128] + b"".join(struct.pack("<II", kind, len(content)) + content for kind, content in elements)


def mutate_zip(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change, rename, exchange, double or remove an entry of a zip."""
    entries = unpack(data)
    if not entries:
        return mutate(data, limit)
    place, other = rng.randrange(len(entries)), rng.randrange(len(entries))
    (name, content), act = entries[place], rng.random()
    if act < 0.6:
        change = mutate_json if name.endswith(".json") else mutate_bytes
        entries[place] = (name, change(content, limit, mutate, rng))
    elif act < 0.75:
        entries[place] = (mutate(name.encode(errors="replace"), 300).decode(errors="replace"), content)
    elif act < 0.85:
        entries[place], entries[other] = (name, entries[other][1]), (entries[other][0], content)
    elif act < 0.95:
        entries.append((name, entries[other][1]))
    else:
        del entries[place]
    return _packed(entries, rng)


def _packed(entries: list[tuple[str, bytes]], rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as file:
        warnings.simplefilter("ignore")  # two entries of one name
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("\ud800", "?")[:60000]
            file.writestr(info, content, method)
    return buffer.getvalue()


def mutate_tar(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change a field of a header of a tar, or double or remove an entry, and repair the header's checksum."""
    blocks = [data[start : start + 512] for start in range(0, len(data), 512)]
    headers = [place for place, block in enumerate(blocks) if block[257:262] == b"ustar"]
    if not headers:
        return mutate(data, limit)
    place, act = rng.choice(headers), rng.random()
    if act < 0.8:
        start, end = rng.choice(((0, 100), (100, 108), (124, 136), (136, 148), (156, 157), (157, 257), (345, 500)))
        header = bytearray(blocks[place].ljust(512, b"\0"))
        header[start:end] = mutate(bytes(header[start:end]), end - start)[: end - start].ljust(end - start, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        blocks[place] = bytes(header)
    elif act < 0.9:
        blocks[place:place] = blocks[headers[0] : headers[0] + 2]
    else:
        del blocks[place]
    return b"".join(blocks)


def mutate_json(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Put a value of another type, sign or size somewhere into a document; a first line that names its kind stays."""
    kind, line, text = data.partition(b"\n") if data[:1].isalpha() else (b"", b"", data)
    try:
        document = json.loads(text)
        document = _changed(document, rng)
        changed = json.dumps(document).encode(errors="replace")
    except (ValueError, RecursionError):
        changed = mutate(text, limit)
    if rng.random() < 0.1:
        changed = mutate(changed, limit)
    return kind + line + changed


def _changed(value: Any, rng: random.Random, depth: int = 0) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.9 and depth < 50:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        act = rng.random()
        if act < 0.1:
            del value[key]
        elif act < 0.2 and isinstance(value, dict):
            value[str(rng.choice(VALUES))[:200]] = value[key]
        elif act < 0.2 and isinstance(value, list):
            value.insert(key, value[key])
        else:
            value[key] = _changed(value[key], rng, depth + 1)
        return value
    return rng.choice(VALUES)


def mutate_safetensors(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change the header and repair the length in front of it."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8:
        return mutate(data, limit)
    header, content = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.7:
        header = mutate_json(header.rstrip(b" "), limit, mutate, rng)
    else:
        content = (mutate(content, limit) + content)[: len(content)]
    return len(header).to_bytes(8, "little") + header + content


def mutate_bytes(data: bytes, limit: int, mutate: Mutate, rng: random.Random) -> bytes:
    """Change any bytes."""
    return mutate(data, limit)


MUTATORS: dict[str, Callable[[bytes, int, Mutate, random.Random], bytes]] = {
    "image": mutate_image,
    "pair": mutate_pair,
    "mat": mutate_mat,
    "zip": mutate_zip,
    "tar": mutate_tar,
    "json": mutate_json,
    "safetensors": mutate_safetensors,
    "text": mutate_bytes,
}
SHARE_OF_PLAIN = 0.2  # of the changes, which may break the outer form, too


def changed(form: str, data: bytes, limit: int, seed: int, mutate: Mutate) -> bytes:
    """Return the bytes of a file after one change.

    Args:
      form: a key of `MUTATORS`.
      data: the bytes.
      limit: the largest length of the result.
      seed: decides which change it is.
      mutate: changes any bytes at random.
    """
    rng = random.Random(seed)
    change = mutate_bytes if rng.random() < SHARE_OF_PLAIN else MUTATORS[form]
    found = change(data, limit, mutate, rng)
    return found if len(found) <= limit else mutate(data, limit)


def plain_mutation(rng: random.Random) -> Mutate:
    """Return a function that changes bytes without a fuzzer: flips, numbers at their limits, cuts, insertions and repetitions."""

    def mutate(data: bytes, limit: int) -> bytes:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            start, stop = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
            act = rng.randrange(6)
            if act == 0 and changed:
                changed[start % len(changed)] ^= 1 << rng.randrange(8)
            elif act == 1:
                changed[start : start + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1")
                )
            elif act == 2:
                del changed[start : min(stop, start + 64)]
            elif act == 3:
                changed[start:start] = rng.randbytes(rng.randrange(1, 9))
            elif act == 4:
                changed[start:start] = changed[start : min(stop, start + 64)]
            else:
                del changed[stop:]
        return bytes(changed[:limit])

    return mutate
