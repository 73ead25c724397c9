"""Exported models of a toy network, written in a second, and changed part by part."""

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.export.write import write_export
from pyrseg_jax.models.segmenter import Pyramids, Segmenter

CLASSES = tuple(f"class {index}" for index in range(11))
SIZES = ((16, 16), (16, 24))
STRIDES = (8, 4)

Parts = dict[str, bytes]


class Toy(Segmenter):
    """Two levels of logits, each a linear map of the mean color of a cell."""

    @nn.compact
    def __call__(self, images, train=False):
        """Return the logits of both pyramids."""
        cells = [nn.avg_pool(images, (stride, stride), (stride, stride)) for stride in self.strides]
        semantic = tuple(
            nn.Dense(len(CLASSES), name=f"classify_{s}")(c) for s, c in zip(self.strides, cells, strict=True)
        )
        unity = nn.Dense(1, name="unity")(cells[0])[..., 0]
        return Pyramids(tuple(x.astype(jnp.float32) for x in semantic), (unity,))


def toy() -> Toy:
    """Return the toy network."""
    unused = nn.Dense(1)
    return Toy(backbone=unused, context=unused, semantic_head=unused, strides=STRIDES)


def toy_variables() -> dict:
    """Return its weights."""
    return toy().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def write_toy(path: Path, variables: dict | None = None, sizes: tuple[tuple[int, int], ...] = SIZES) -> Path:
    """Write it as an exported model, and return the path."""
    about = {"step": 7, "initialisation": "random", "run": "0123456789abcdef"}
    write_export(path, toy(), variables or toy_variables(), ade_layout(CLASSES), sizes, 0.5, about)
    return path


def read_parts(path: Path) -> Parts:
    """Return the parts of a zip file."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_parts(path: Path, parts: Mapping[str, bytes], has_true_checksums: bool = True, **settings) -> Path:
    """Write a zip file of these parts; the recorded SHA-256 are made true unless told otherwise."""
    parts = dict(parts)
    if has_true_checksums:
        about = json.loads(parts["about.json"])
        if about.get("sha256") is not None:
            about["sha256"] = {n: hashlib.sha256(c).hexdigest() for n, c in parts.items() if n != "about.json"}
        parts["about.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(path, "w", **settings) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def changed_about(parts: Parts, **values) -> Parts:
    """Replace values of about.json; None removes one."""
    about = json.loads(parts["about.json"]) | values
    return parts | {"about.json": json.dumps({k: v for k, v in about.items() if v is not None}).encode()}


def changed_weights(parts: Parts, change: Callable[[dict], dict | None], **settings) -> Parts:
    """Replace arrays of the weights; `change` gets all of them by name, and changes them or returns others."""
    with np.load(io.BytesIO(parts["weights.npz"])) as file:
        arrays = dict(file)
    arrays = change(arrays) or arrays
    content = io.BytesIO()
    np.savez(content, **arrays)
    return parts | {"weights.npz": content.getvalue()}


def serialized(function: Callable, *shapes) -> bytes:
    """Serialize another program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = jax.export.export(
            jax.jit(function), disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("stranger")]
        )(*shapes)
    return bytes(exported.serialize())
