"""Write a trained model as one portable file, whose layout `format.py` describes."""

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export as jax_export
from jaxtyping import Real

from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace, to_values
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.export.expiry import readers_of
from pyrseg_jax.export.format import (
    ABOUT,
    FORMAT,
    HOW_TO,
    PLATFORMS,
    README,
    WEIGHTS,
    problem_of_weights,
    program_name,
)
from pyrseg_jax.models.resample import class_of_pixels
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.storage.atomic import Buffer, write_bytes_atomically


def write_export(
    path: Path,
    model: Segmenter,
    variables: dict,
    label_space: LabelSpace,
    sizes: Sequence[tuple[int, int]],
    threshold: float,
    about: dict,
    image_space: ImageSpace = PHOTOGRAPH,
) -> None:
    """Write a model for batches of any number of images of the given sizes, for CPU, CUDA and TPU.

    Args:
      path: path of the file. The file holds the weights once, and one program per size.
      model: the segmenter.
      variables: the parameters and batch statistics.
      label_space: the classes.
      sizes: (height, width) in pixels, multiples of the coarsest stride.
      threshold: τ of the fuser.
      about: more entries for `about.json`.
      image_space: what the values of images mean.

    Raises:
      UserError: if a size is not a multiple of the coarsest stride, or a weight is not finite.
    """
    coarsest = max(model.strides)
    for height, width in sizes:
        if height % coarsest or width % coarsest:
            raise UserError(
                f"--sizes={height}x{width}: expected multiples of {coarsest}, the coarsest stride of the model"
            )
    weights = {"/".join(at): np.asarray(array) for at, array in flatten_dict(variables).items()}
    problem = problem_of_weights(weights)
    if problem:
        raise UserError(f"this checkpoint cannot be exported: {problem}; choose an earlier one with --step")

    @jax.jit
    def run(weights, images):
        return segment(model, weights, images, threshold)

    programs = {size: serialize(run, weights, size, image_space) for size in sizes}
    about = about | {"threshold": threshold}
    pack(path, weights, programs, (label_space, image_space), tuple(model.prediction_strides), about)


class Serialized(NamedTuple):
    """A serialized program, and the number of its calling convention."""

    content: bytes
    calling_convention: int


def pack(
    path: Path,
    weights: Mapping[str, np.ndarray],
    programs: Mapping[tuple[int, int], Serialized],
    spaces: tuple[LabelSpace, ImageSpace],
    strides: tuple[int, ...],
    about: dict,
) -> None:
    """Write the file of serialized programs and their weights.

    Args:
      path: path of the file.
      weights: arrays by name.
      programs: what `serialize` returns, by (height, width) in pixels.
      spaces: the classes, and what the values of images mean.
      strides: pixels per cell of each level, coarse → fine.
      about: more entries for `about.json`; `threshold` must be among them.
    """
    label_space, image_space = spaces
    (height, width), first = next(iter(programs.items()))
    parts: dict[str, Buffer] = {WEIGHTS: _write_npz(weights)}
    parts |= {program_name(size): program.content for size, program in programs.items()}
    words = {"name": json.dumps(path.name), "program": program_name((height, width)), "height": height, "width": width}
    words |= {"labels": label_space.dtype.name, "images": _describe(image_space)}
    parts[README] = HOW_TO.format(**words).encode()
    if not image_space.is_photograph:
        about = about | {"image_space": to_values(image_space)}
    readers = readers_of(jax.__version__, first.calling_convention)
    if readers is not None:
        about = about | {"readers": readers.model_dump(mode="json")}
    about = about | {
        "format": FORMAT,
        "classes": label_space.names,
        "label_space": dataclasses.replace(label_space, hierarchy=None).to_json(),
        "strides": strides,
        "sizes": [list(size) for size in programs],
        "jax": jax.__version__,
        "sha256": {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
    }
    write_bytes_atomically(path, _write_zip({ABOUT: json.dumps(about, indent=1).encode()} | parts))


def _write_npz(arrays: Mapping[str, np.ndarray]) -> Buffer:
    """Return the arrays in the format of `np.savez`, but equal bytes for equal arrays: without the time of writing."""
    parts: dict[str, Buffer] = {}
    for name, array in arrays.items():
        part = io.BytesIO()
        np.lib.format.write_array(part, array, allow_pickle=False)
        parts[f"{name}.npy"] = part.getbuffer()
    return _write_zip(parts)


def _write_zip(parts: Mapping[str, Buffer]) -> Buffer:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, part in parts.items():
            info = zipfile.ZipInfo(name)  # dated 1980, so that equal parts give equal files
            info.external_attr = 0o644 << 16  # the permissions of the part, once unpacked
            file.writestr(info, part)  # pyright: ignore[reportArgumentType]  # any buffer is written
    return content.getbuffer()


def segment(model: Segmenter, weights: dict, images: Real[jax.Array, "n h w c"], threshold: float) -> dict:
    """Compute the results of an exported program from weights by name. `HOW_TO` explains each result."""
    variables = unflatten_dict({tuple(name.split("/")): array for name, array in weights.items()})
    prediction = predict(model, variables, images, threshold)
    return {
        "labels": class_of_pixels(prediction.fused, (images.shape[1], images.shape[2])),
        "level": prediction.level.astype(jnp.uint8),
        "probs": prediction.fused,
        "semantic": prediction.semantic,
        "unity": prediction.unity,
    }


def _describe(space: ImageSpace) -> str:
    """Describe the images that a program takes, after their height and width."""
    if space.is_photograph:
        return "3) uint8 RGB"
    scaled = ', values scaled to 0 … 255 by the limits in about["image_space"]' if space.is_scaled else ""
    return f"{space.channels}) {space.dtype.name}{scaled}"


def serialize(
    run: jax.stages.Wrapped, weights: Mapping[str, np.ndarray], size: tuple[int, int], image_space: ImageSpace
) -> Serialized:
    """Serialize the program for one size of image and any number of images.

    Args:
      run: the jitted function of the weights by name and the images.
      weights: arrays by name, for their shapes.
      size: (height, width) in pixels.
      image_space: what the values of images mean.
    """
    (num_images,) = jax_export.symbolic_shape("n")
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    images = jax.ShapeDtypeStruct((num_images, *size, image_space.channels), image_space.dtype)
    with _without_places():
        exported = jax_export.export(run, platforms=PLATFORMS)(shapes, images)
        return Serialized(bytes(exported.serialize()), exported.calling_convention_version)


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keep the folders of this machine, and the callers of this code, out of programs that are lowered inside."""
    settings = {
        "jax_include_full_tracebacks_in_locations": False,
        "jax_hlo_source_file_canonicalization_regex": r".*[/\\]",  # leaves `layers.py` of the path of that file
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
