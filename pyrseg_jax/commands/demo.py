"""`pyrseg demo RUN`: write a static folder in which a browser runs the trained model, and serve it on this machine if asked."""

import importlib.util
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from pyrseg_jax.demo import folder as demo_folder
from pyrseg_jax.demo.runtime import find_runtime
from pyrseg_jax.demo.samples import read_samples, render_sample
from pyrseg_jax.demo.server import make_server, serve
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.pyramid.levels import nearest_multiple
from pyrseg_jax.run import experiment
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.output_folder import check_output_folder, write_output_folder
from pyrseg_jax.run.restore import Trained, restore
from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)

LEAST_SHORT_SIDE_PX = 352  # of the network's input, without --sizes
ASPECT = 4 / 3  # of its sides
MOST_DIFFERENT = 1e-4  # of probabilities, between the file and the network
NEEDED = ("onnx", "onnxruntime")


def demo(
    config: Config,
    workdir: Workdir,
    output: str,
    sizes: Sequence[str] = (),
    step: int | None = None,
    samples: str | None = None,
    runtime: str | None = None,
    port: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the folder, print the path of its page, and return it; with a port, serve the folder until Ctrl-C.

    Args:
      config: the run's configuration.
      workdir: the run's folder, or a model folder.
      output: the folder; any web server can serve it.
      sizes: sizes of the network's input, as "HEIGHTxWIDTH" in pixels; if empty, one for wide pictures and one for tall ones. The
        page takes the one that is nearest to a picture in shape, as an exported model does in Python.
      step: step of the checkpoint; by default the newest.
      samples: a photograph, or a folder of some, that the page offers; without it, a rendered scene if the model knows streets.
      runtime: the package onnxruntime-web, see `demo.runtime.find_runtime`.
      port: to serve the folder at, on this machine alone; 0 for any free port.
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
    label_space = workdir.read_label_space()
    model = experiment.make_model(config, label_space)
    shapes = [_read_size(text, model.strides[0]) for text in dict.fromkeys(sizes)]
    shapes = shapes or default_sizes(config.data.crop_px, model.strides[0])
    pictures = read_samples(samples) if samples is not None else render_sample(label_space.names)
    folder = check_output_folder(output, demo_folder.file_names(shapes, pictures), overwrite, "demo")
    if port is not None:
        make_server(folder, port).server_close()  # a port that is taken is said before the work, not after it
    library = find_runtime(runtime)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    trained = restore(config, model, workdir, sharding, step)
    title = workdir.path.name or "Demo"
    networks = {size: _convert(model, trained, size, config.evaluation.threshold, title) for size in shapes}
    described = demo_folder.DemoModel(
        title,
        label_space,
        config.evaluation.threshold,
        tuple(model.prediction_strides[-model.num_predicted_levels :]),
        {size: len(content) for size, content in networks.items()},
        read_temperatures(config, workdir, trained, model.num_predicted_levels),
    )
    files = {demo_folder.network_name(size): content for size, content in networks.items()}
    write_output_folder(folder, files | demo_folder.contents(described, pictures, library))
    print(escaped(str(folder / demo_folder.PAGE)), flush=True)
    if port is None:
        log.info(
            "browsers open the page from a web server, not from the disk: --port=8000 serves the folder on this machine"
        )
    else:
        serve(folder, port)
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


def _convert(model: Segmenter, trained: Trained, size: tuple[int, int], threshold: float, name: str) -> bytes:
    """Return the network for images of a size as an ONNX file that computes both pyramids; the browser fuses them."""
    from pyrseg_jax.export.onnx.model import make_model  # here, because it imports onnx
    from pyrseg_jax.export.onnx.program import make_program

    start = time.perf_counter()
    variables = jax.device_get(trained.variables)
    weights = {"/".join(at): np.asarray(array) for at, array in flatten_dict(variables).items()}
    whole = make_program(model, size, size, np.dtype(np.uint8))

    def pyramids(weights: dict, images: Any, threshold: Any) -> dict[str, Any]:
        found = whole.run(weights, images, threshold)
        return {key: value for key, value in found.items() if key.startswith(("semantic_", "unity_"))}

    program = whole._replace(run=pyramids)
    content = make_model(program, weights, threshold, {}, name).SerializeToString()
    seconds = time.perf_counter() - start
    difference = _compare(content, jax.jit(pyramids), weights, size)
    log.info(
        "%s: %.1f MB, converted in %.1f s; its probabilities differ from the network's by at most %.1e",
        *(demo_folder.network_name(size), len(content) / 1e6, seconds, difference),
    )
    if not difference <= MOST_DIFFERENT:
        raise UserError(
            f"the network for images of {size[0]} × {size[1]} pixels differs from the model by {difference:.1e} after its "
            f"conversion, more than {MOST_DIFFERENT:.0e}: nothing was written; use another model, or report this"
        )
    return content


def _compare(content: bytes, run: Any, weights: dict[str, np.ndarray], size: tuple[int, int]) -> float:
    """Run an ONNX file and the program that it was made from on noise; return the largest difference of their results."""
    import onnxruntime  # pyright: ignore[reportMissingImports]  # of the extra `onnx`

    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    expected = jax.device_get(run(weights, images, np.float32(0.5)))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = dict(zip(expected, session.run(list(expected), {"image": images}), strict=True))
    return max(float(np.abs(found[name] - array).max(initial=0)) for name, array in expected.items())
