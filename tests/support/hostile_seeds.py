"""Small valid files of every kind that a reader takes, from which `benchmarks/fuzz.py` starts."""

import dataclasses
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features

from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.run import config as config_lib
from support.hostile_readers import SPACE, is_available
from support.native_files import mat, mat_73

Seeds = dict[str, bytes]
ORIENTATION = 0x0112  # the EXIF tag
JPEG2000 = ("JPEG2000", {"irreversible": False})


def _pixels(height: int = 12, width: int = 16) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9, columns * 9, rows + columns], -1).astype(np.uint8)


def _labels(height: int = 12, width: int = 16) -> np.ndarray:
    return np.repeat(np.arange(height) // 5 + 1, width).reshape(height, width).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(values: np.ndarray, depth: int, color: int = 0, chunks: bytes = b"") -> bytes:
    """Write a PNG of any bit depth; PIL writes only some of them."""
    height, width = values.shape[:2]
    if depth == 16:
        rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        rows = values.astype(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=-1)
    data = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Write a chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def image_seeds() -> Seeds:
    """Return a photograph of every format, and metadata of several kinds."""
    image = Image.fromarray(_pixels())
    found = {
        kind.lower(): _saved(image, kind)
        for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
        if kind != "WEBP" or features.check("webp")
    }
    if features.check("avif"):
        found["avif"] = _saved(image, "AVIF")
    if features.check("jpg_2000"):
        found["jp2"] = _saved(image, *JPEG2000[:1], **JPEG2000[1])
    for turn in (3, 6):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        found[f"turned_{turn}"] = _saved(image, "JPEG", exif=exif)
    exif[0x9286] = b"comment"
    found["exif_png"] = _saved(image, "PNG", exif=exif)
    found["progressive"] = _saved(image, "JPEG", progressive=True)
    found["cmyk"] = _saved(image.convert("CMYK"), "JPEG")
    found["gray"] = _saved(image.convert("L"), "JPEG")
    found["alpha"] = _saved(image.convert("RGBA"), "PNG")
    found["palette"] = _saved(image.convert("P"), "PNG", transparency=3)
    found["float"] = _saved(Image.fromarray(_pixels()[..., 0].astype(np.float32) / 7), "TIFF")
    found["lzw"] = _saved(image, "TIFF", compression="tiff_lzw")
    found["gray16"] = png(_pixels()[..., 0].astype(np.uint16) * 200, 16)
    found["mpo"] = _saved(image, "MPO", save_all=True, append_images=[image])
    found["empty"] = b""
    return found


def label_seeds() -> Seeds:
    """Return a label map of every format and bit depth."""
    values = _labels()
    found = {f"gray{depth}": png(values & ((1 << min(depth, 8)) - 1), depth) for depth in (1, 2, 4, 8, 16)}
    palette = png_chunk(b"PLTE", bytes(range(48)))
    found |= {f"palette{depth}": png(values & ((1 << depth) - 1), depth, 3, palette) for depth in (2, 4, 8)}
    image = Image.fromarray(values)
    found |= {"tiff": _saved(image, "TIFF"), "bmp": _saved(image, "BMP"), "gif": _saved(image, "GIF")}
    found["tiff16"] = _saved(Image.fromarray(values.astype(np.uint16)), "TIFF")
    found["bilevel_tiff"] = _saved(Image.fromarray(values > 1), "TIFF")
    found["transparent"] = png(values, 8, 0, png_chunk(b"tRNS", b"\x00\x01"))
    found["colors"], found["jpeg"] = _saved(Image.fromarray(_pixels()), "PNG"), _saved(image, "JPEG")
    return found


def pair_seeds() -> Seeds:
    """Return images with label maps: the length of the image, the image, and the label map."""
    images, label = image_seeds(), png(_labels(), 8)
    turned = png(_labels(16, 12), 8)
    pairs = {
        "plain": (images["jpeg"], label), "turned": (images["turned_6"], turned), "stored": (images["turned_6"], label),
        "png": (images["exif_png"], label), "other": (images["jpeg"], png(_labels(8, 8), 8)),
    }  # fmt: skip
    return {name: len(image).to_bytes(4, "little") + image + label for name, (image, label) in pairs.items()}


def mat_seeds() -> Seeds:
    """Return label maps of each version of MATLAB's format."""
    import scipy.io

    values = _labels()
    old, plain = io.BytesIO(), io.BytesIO()
    scipy.io.savemat(old, {"S": values.astype(float)}, format="4")
    scipy.io.savemat(plain, {"S": values, "T": {"a": 1, "b": "text"}})
    return {
        "v4": old.getvalue(), "v5": plain.getvalue(), "v5_compressed": mat(values, captions=np.array(["x"], object)),
        "v5_float": mat(values.astype(float)), "v73": mat_73(values), "other": mat(None, T=values),
    }  # fmt: skip


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def zip_seeds() -> Seeds:
    """Return zips of a data set."""
    label = png(_labels(), 8)
    entries = {"set/images/training/a.png": label, "set/annotations/training/a.png": label}
    return {
        "deflated": _zip(entries), "stored": _zip(entries, zipfile.ZIP_STORED), "bzip2": _zip(entries, zipfile.ZIP_BZIP2),
        "lzma": _zip(entries, zipfile.ZIP_LZMA), "escaping": _zip(entries | {"set/../../x": b"x"}),
        "other": _zip({"holiday.jpg": b""}),
    }  # fmt: skip


def _tar(entries: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as file:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_seeds() -> Seeds:
    """Return tars of a data set."""
    label = png(_labels(), 8)
    entries = {"set/images/training/a.png": label, "set/annotations/training/a.png": label}
    long = entries | {"set/" + "long/" * 30 + "ä.txt": b"x"}
    return {
        "ustar": _tar(entries, form=tarfile.USTAR_FORMAT), "gnu": _tar(long, form=tarfile.GNU_FORMAT), "pax": _tar(long),
        "gzip": _tar(entries, "w:gz"), "escaping": _tar(entries | {"set/../../x": b"x"}), "other": _tar({"holiday.jpg": b""}),
    }  # fmt: skip


def export_seeds() -> Seeds:
    """Return an exported model of a network with two weights."""
    from support.exports import write_toy

    with tempfile.TemporaryDirectory() as folder:
        return {"tiny": write_toy(Path(folder) / "model.zip", sizes=((16, 24),)).read_bytes()}


def document_seeds() -> Seeds:
    """Return a document of each kind, after a line with the name of the kind."""
    report = DatasetReport.empty(2)
    report.add(np.array([[0, 1], [255, 1]], np.uint8).repeat(32, 0).repeat(32, 1))
    shard = {"report": report.to_json(), "checksums": [["a", "0" * 64, "f" * 64]]}
    texts = {
        "config": config_lib.to_json(config_lib.resolve(config_lib.defaults())),
        "classes": json.dumps(dataclasses.asdict(SPACE) | {"names": SPACE.names[:3], "file_ids": [1, 2, 3]}),
        "initialisation": json.dumps({"file": "w.pth", "sha256": "0" * 64, "source": "torchvision"}),
        "reports": json.dumps({"training": report.to_json()}),
        "shard": json.dumps(shard),
        "origin": json.dumps({"is_whole": True, "place": "x"}),
        "check": json.dumps({"num_pairs": 1, "report": report.to_json() | {"digests": [[0, "0" * 64, "f" * 64]]}}),
        "result": json.dumps({"step": 4, "miou": 0.5, "protocol": {}, "confusion": [[1, 0], [0, 1]], "images": 3}),
        "written": json.dumps(
            {
                "model": "run",
                "step": 7,
                "weights": "w",
                "protocol": {"name": "single"},
                "threshold": 0.5,
                "image": "a.jpg",
                "bytes": 3,
                "modified": 1,
                "sha256": "0" * 64,
                "height": 1,
                "width": 1,
                "outputs": {"a.png": {"bytes": 3, "sha256": "0" * 64}},
                "seconds": 0.5,
                "time": "2026-01-01",
            }
        ),
        "scores": json.dumps({"2": 0.5, "4": 0.75}),
    }
    return {kind: f"{kind}\n{text}".encode() for kind, text in texts.items()} | {"random": b'initialisation\n"random"'}


def weight_seeds() -> Seeds:
    """Return two arrays as safetensors."""
    from safetensors.numpy import save

    return {"two": save({"a/kernel": np.ones((2, 3), np.float32), "n": np.array([1, 2])}), "none": save({})}


def pth_seeds() -> Seeds:
    """Return two tensors in PyTorch's two formats, and an object that its reader must refuse."""
    import torch

    found = {}
    for name, is_zip in (("zip", True), ("old", False)):
        buffer = io.BytesIO()
        state = {"a": torch.ones(2, 3), "n": torch.tensor([1, 2])}
        torch.save({"state_dict": state}, buffer, _use_new_zipfile_serialization=is_zip)
        found[name] = buffer.getvalue()
    return found


def text_seeds() -> Seeds:
    """Return lists of names."""
    return {
        "plain": b"sky\nground\npost\n", "accents": "straße\nmer\u0301\n".encode(), "mark": b"\xef\xbb\xbfa\nb",
        "returns": b"a\r\nb\r\n", "twice": b"a\na\n", "escape": b"a\x1b[31m\nb\n", "latin": b"stra\xdfe\n",
    }  # fmt: skip


def metric_seeds() -> Seeds:
    """Return records of training steps."""
    lines = [json.dumps({"step": step, "loss": 0.5, "images_per_second": 3.0}) for step in range(1, 8)]
    return {
        "whole": "\n".join(lines).encode() + b"\n",
        "cut": "\n".join(lines).encode()[:-9],
        "twice": (lines[0] * 2).encode(),
    }


def name_seeds() -> Seeds:
    """Return names of pictures."""
    names = (
        "beach",
        "../x",
        "a/b",
        "con",
        "..",
        "",
        "a" * 300,
        "e\u0301",
        "a%2Fb",
        "a\nerror: b",
        "a\u202eb",
        "\udcff",
    )
    return {f"name{i}": name.encode(errors="surrogateescape") for i, name in enumerate(names)}


SEEDS: dict[str, Callable[[], Seeds]] = {
    "image": image_seeds,
    "label": label_seeds,
    "pair": pair_seeds,
    "mat": mat_seeds,
    "zip": zip_seeds,
    "tar": tar_seeds,
    "export": export_seeds,
    "document": document_seeds,
    "safetensors": weight_seeds,
    "pth": pth_seeds,
    "classes": text_seeds,
    "metrics": metric_seeds,
    "name": name_seeds,
}


def seeds_of(name: str) -> Seeds:
    """Return the seeds of a reader; none if the package that it needs is missing."""
    return SEEDS[name]() if is_available(name) else {}
