"""`pyrseg demo RUN`: write a static folder in which a browser runs the trained model, and serve it on this machine if asked."""

import dataclasses
import functools
import importlib.util
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.demo import folder as demo_folder
from pyrseg_jax.demo.runtime import find_runtime
from pyrseg_jax.demo.samples import read_samples, render_sample
from pyrseg_jax.demo.server import make_server, serve
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.export.onnx.session import MAX_DIFFERENCE, open_session, run_session
from pyrseg_jax.export.onnx.write import prepare
from pyrseg_jax.pyramid.levels import nearest_multiple
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.output_folder import check_output_folder, write_output_folder
from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)

LEAST_SHORT_SIDE_PX = 352  # of the network's input, without --sizes
ASPECT = 4 / 3  # of its sides
NEEDED = ("onnx", "onnxruntime")


class Network(NamedTuple):
    """An ONNX file, and what it says about the model, a text for each name."""

    content: bytes
    about: dict[str, str]


def demo(
    config: Config,
    workdir: Workdir,
    output: str,
    sizes: Sequence[str] = (),
    step: int | None = None,
    samples: str | None = None,
    runtime: str | None = None,
    is_served: bool = False,
    port: int = 8000,
    overwrite: bool = False,
) -> Path:
    """Write the folder, print the path of its page, and return it; serve the folder until Ctrl-C if asked.

    Args:
      config: the run's configuration.
      workdir: the run's folder, or a model folder.
      output: the folder; any web server can serve it.
      sizes: sizes of the network's input, as "HEIGHTxWIDTH" in pixels; if empty, one for wide pictures and one for tall ones. The
        page takes the one that is nearest to a picture in shape, as an exported model does in Python.
      step: step of the checkpoint; by default the newest.
      samples: a photograph, or a folder of some, that the page offers; without it, a rendered scene if the model knows streets.
      runtime: the package onnxruntime-web, see `demo.runtime.find_runtime`.
      is_served: whether to serve the folder, on this machine alone.
      port: to serve it at; 0 for any that is free.
      overwrite: whether a demo in the folder may be replaced.

    Raises:
      UserError: if the model reads other images than photographs or cannot be converted, a package is missing or cannot be
        downloaded, or the folder cannot be written.
    """
    _need_packages()
    if not known_image_space(config, workdir).is_photograph:
        raise UserError(
            "demo needs a model that reads photographs (RGB of 8 bits), as browsers do, and this one does not"
        )
    coarsest = config.model.strides[0]
    shapes = [_read_size(text, coarsest) for text in dict.fromkeys(sizes)]
    shapes = shapes or default_sizes(config.data.crop_px, coarsest)
    names = workdir.read_label_space().names
    pictures = read_samples(samples) if samples is not None else render_sample(names)
    folder = check_output_folder(output, demo_folder.file_names(shapes, pictures), overwrite, "demo")
    if is_served:
        make_server(folder, port).server_close()  # a port that is taken is said before the work, not after it
    library = find_runtime(runtime)
    networks = {size: _convert(config, workdir, size, step) for size in shapes}
    described = _describe(networks, workdir, config.evaluation.threshold)
    files = {demo_folder.network_name(size): network.content for size, network in networks.items()}
    write_output_folder(folder, files | demo_folder.contents(described, pictures, library))
    print(escaped(str(folder / demo_folder.PAGE)), flush=True)
    if is_served:
        serve(folder, port)
    else:
        log.info(
            "browsers open the page from a web server, not from the disk: --serve serves the folder on this machine"
        )
    return folder / demo_folder.PAGE


def default_sizes(crop_px: int, coarsest: int) -> list[tuple[int, int]]:
    """Return a wide and a tall size (height, width) for a network that was trained with crops of `crop_px` pixels.

    Chosen: sides of 3 to 4, as most cameras have them, the shorter one as long as a crop, but at least 352 pixels.

    Args:
      crop_px: side of a crop.
      coarsest: stride of the coarsest level, of which the sides are multiples.
    """
    short = -(-max(crop_px, LEAST_SHORT_SIDE_PX) // coarsest) * coarsest
    long = nearest_multiple(round(short * ASPECT), coarsest)
    return [(short, long), (long, short)]


def _need_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"demo needs the package {missing[0]}, which is not installed: install the extra `onnx` (`pip install "
            "'pyrseg-jax[onnx]'`)"
        )


def _read_size(text: str, coarsest: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    height, width = map(int, found.groups()) if found else (0, 0)
    if not (height and width) or height % coarsest or width % coarsest:
        raise UserError(
            f"--sizes={text}: expected HEIGHTxWIDTH in pixels, multiples of {coarsest}, the coarsest stride of the model, for "
            f"example {11 * coarsest}x{15 * coarsest}; separate several sizes with commas"
        )
    return height, width


def _describe(networks: Mapping[tuple[int, int], Network], workdir: Workdir, threshold: float) -> demo_folder.DemoModel:
    about = next(iter(networks.values())).about
    return demo_folder.DemoModel(
        workdir.path.name or "Demo",
        workdir.read_label_space(),
        threshold,
        tuple(json.loads(about["strides"])),
        {size: len(network.content) for size, network in networks.items()},
        json.loads(about.get("temperatures", "null")),
    )


def _convert(config: Config, workdir: Workdir, size: tuple[int, int], step: int | None) -> Network:
    """Convert the network for images of a size, and compare it with the model in onnxruntime, on noise."""
    from pyrseg_jax.export.onnx.model import make_model  # here, because it imports onnx

    # The page resizes pictures to the size of the network, whatever the protocol of the run.
    evaluation = dataclasses.replace(config.evaluation, protocol="single", short_side_px=None, long_side_px=max(size))
    found = prepare(dataclasses.replace(config, evaluation=evaluation), workdir, "", size, step)
    start = time.perf_counter()
    program = found.program._replace(run=functools.partial(_pyramids, found.program.run))
    about = {name: value for name, value in found.metadata.items() if name != "run"}
    content = make_model(program, found.weights, found.threshold, about, found.name).SerializeToString()
    seconds = time.perf_counter() - start
    results = run_session(open_session(content), found.images)
    difference = max(float(np.abs(results[name] - found.expected[name]).max()) for name in results)
    log.info(
        "%s: %.1f MB, converted in %.1f s; its probabilities differ from the network's by at most %.1e",
        *(demo_folder.network_name(size), len(content) / 1e6, seconds, difference),
    )
    if not difference <= MAX_DIFFERENCE:
        raise UserError(
            f"the probabilities of {found.name} differ by {difference:.1e} from the network's in onnxruntime, and at most "
            f"{MAX_DIFFERENCE:.0e} is rounding: nothing was written; use another model, or report this"
        )
    return Network(content, about)


def _pyramids(run: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Leave out the results that the page computes by itself."""
    return {name: value for name, value in run(*arguments).items() if name.startswith(("semantic_", "unity_"))}
