"""The folder of a demo: its page, its scripts, and what the page knows about the model."""

import html
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.demo.runtime import FILES, Runtime
from pyrseg_jax.demo.samples import Sample
from pyrseg_jax.errors import escaped
from pyrseg_jax.reporting.palette import colors_of, level_colors, probability_colors
from pyrseg_jax.reporting.scripts import SHARED, shared_script

PAGE, DESCRIPTION, NOTICE = "index.html", "demo.json", "ONNXRUNTIME.txt"
ASSETS = ("demo.css", "page.js", "views.js", "photograph.js", "pixels.js", "png.js", "resize.js", "worker.js")
# The page may load what lies in its own folder, and nothing else. WebAssembly counts as evaluating a program.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; img-src 'self' data: "
    "blob:; media-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
)
_NOTICE = """The files {files} are of ONNX Runtime Web ({origin}).
Copyright (c) Microsoft Corporation. All rights reserved. Licensed under the MIT License:
https://github.com/microsoft/onnxruntime/blob/main/LICENSE
"""


class DemoModel(NamedTuple):
    """What a demo page must know about its model.

    title: for people.
    label_space: the classes.
    threshold: τ of the model.
    strides: of its levels, in pixels of the network's input, coarse → fine.
    networks: size (height, width) → size of the file in bytes.
    temperatures: T of each level, if the model was calibrated.
    """

    title: str
    label_space: LabelSpace
    threshold: float
    strides: tuple[int, ...]
    networks: Mapping[tuple[int, int], int]
    temperatures: tuple[float, ...] | None = None


def network_name(size: tuple[int, int]) -> str:
    """Return the name of the file with the network for pictures of (height, width) pixels."""
    return f"model-{size[0]}x{size[1]}.onnx"


def file_names(sizes: Sequence[tuple[int, int]], samples: Sequence[Sample]) -> list[str]:
    """Return the names of all files of a demo with networks of these sizes; the page is the last."""
    fixed = (*FILES, *SHARED, *ASSETS, NOTICE, DESCRIPTION, PAGE)
    return [*map(network_name, sizes), *(sample.file for sample in samples), *fixed]


def describe(model: DemoModel, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the content of demo.json; `page.js` and `worker.js` read it."""
    space, num_levels = model.label_space, len(model.strides)
    return {
        "networks": [
            {"height": size[0], "width": size[1], "file": network_name(size), "megabytes": num_bytes / 1e6}
            for size, num_bytes in model.networks.items()
        ],
        "input": "image",
        "probabilities": [f"semantic_{level}" for level in range(1, num_levels + 1)],
        "unity": [f"unity_{level}" for level in range(1, num_levels)],
        "strides": list(model.strides),
        "threshold": model.threshold,
        "temperatures": None if model.temperatures is None else list(model.temperatures),
        "names": [escaped(name) for name in space.names],
        "values": list(map(int, space.file_ids)),
        "isWide": space.file_dtype != np.uint8,
        "colors": colors_of(space).tolist(),
        "levelColors": level_colors(num_levels).tolist(),
        "unityColors": probability_colors(np.linspace(0, 1, 256)).tolist(),
        "samples": [{"name": escaped(sample.name), "file": sample.file} for sample in samples],
    }


def contents(model: DemoModel, samples: Sequence[Sample], runtime: Runtime) -> dict[str, bytes]:
    """Return all files of a demo but the networks, by name."""
    sizes = " and ".join(f"{width} × {height}" for height, width in model.networks)
    page = string.Template(_asset(PAGE)).substitute(
        policy=POLICY,
        title=_text(model.title),
        about=_text(f"Semantic segmentation in your browser: {model.label_space.num_classes} classes."),
        notes=_text(
            f"A picture is resized to the network's input ({sizes} pixels, whichever fits its shape), and the result is "
            "enlarged to the size of the picture."
        ),
    )
    scripts = {name: shared_script(name) for name in SHARED} | {name: _asset(name) for name in ASSETS}
    notice = _NOTICE.format(files=", ".join(FILES), origin=runtime.origin)
    texts = scripts | {NOTICE: notice, DESCRIPTION: json.dumps(describe(model, samples)), PAGE: page}
    found = {sample.file: sample.content for sample in samples} | dict(runtime.files)
    return found | {name: text.encode() for name, text in texts.items()}


def _asset(name: str) -> str:
    return (importlib.resources.files("pyrseg_jax.demo") / name).read_text(encoding="utf-8")


def _text(value: str) -> str:
    """Return a plain text as HTML. Names come from strangers."""
    return html.escape(escaped(value), quote=True)
