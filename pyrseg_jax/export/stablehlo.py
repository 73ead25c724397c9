"""Write a trained model as one portable file of StableHLO programs, weights and class names. JAX alone can run it."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export as jax_export
from jaxtyping import UInt8
from pydantic import ConfigDict, Field

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.models.resample import class_of_pixels
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_bytes_atomically

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
ABOUT, WEIGHTS, README = "about.json", "weights.npz", "README.txt"
HOW_TO = """A segmentation model. It needs Python with jax, numpy and flatbuffers, and nothing else:

    import io, json, zipfile
    import jax, numpy as np
    from jax import export

    with zipfile.ZipFile("{name}") as file:
        about = json.loads(file.read("about.json"))
        weights = dict(np.load(io.BytesIO(file.read("weights.npz"))))
        run = jax.jit(export.deserialize(bytearray(file.read("{program}"))).call)
    result = run(weights, images)  # images: (N, {height}, {width}, 3) uint8 RGB, any N

result["labels"] (N, H, W) uint8: the class of each pixel, an index into about["classes"].
result["level"] (N, h, w) uint8: the level of the pyramid that decides each position of the finest level; 0 is the coarsest.
result["probs"] (N, h, w, C): class probabilities at the finest level.
result["semantic"]: the most likely class of each cell, one map per level, coarse to fine.
result["unity"]: the probability that a cell holds a single class, one map for each level but the finest.
"""


class Exported(NamedTuple):
    """The contents of an exported file.

    about: classes, strides, sizes, and the origin of the model.
    label_space: the classes, with their values in label files.
    weights: arrays by name.
    programs: (height, width) → function of the weights and images (N, height, width, 3) uint8.
    """

    about: dict
    label_space: LabelSpace
    weights: dict[str, np.ndarray]
    programs: dict


def write_export(
    path: Path,
    model: Segmenter,
    variables: dict,
    label_space: LabelSpace,
    sizes: Sequence[tuple[int, int]],
    threshold: float,
    about: dict,
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

    Raises:
      UserError: if a size is not a multiple of the coarsest stride.
    """
    coarsest = max(model.strides)
    for height, width in sizes:
        if height % coarsest or width % coarsest:
            raise UserError(
                f"--sizes={height}x{width}: expected multiples of {coarsest}, the coarsest stride of the model"
            )
    weights = {"/".join(at): np.asarray(array) for at, array in flatten_dict(variables).items()}
    about = {
        "format": FORMAT,
        "classes": label_space.names,
        "label_space": dataclasses.asdict(label_space),
        "strides": tuple(model.strides),
        "threshold": threshold,
        "sizes": [list(size) for size in sizes],
        "jax": jax.__version__,
    } | about
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        arrays = io.BytesIO()
        np.savez(arrays, **weights)  # pyright: ignore[reportArgumentType]  # no array is named allow_pickle
        file.writestr(ABOUT, json.dumps(about, indent=1))
        file.writestr(WEIGHTS, arrays.getbuffer())
        for size in sizes:
            file.writestr(_program_name(size), _lower(model, weights, size, threshold))
        (height, width), program = sizes[0], _program_name(sizes[0])
        file.writestr(README, HOW_TO.format(name=path.name, program=program, height=height, width=width))
    write_bytes_atomically(path, content.getbuffer())


class About(documents.Document):
    """The fields that this package reads from an exported model's about.json; the file contains more for people."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1]  # FORMAT of `write_export`: a file of another format is refused
    label_space: LabelSpace
    sizes: Annotated[list[tuple[int, int]], Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0, le=1)]


def read_export(path: Path) -> Exported:
    """Read a file of `write_export`.

    Raises:
      UserError: naming the file, if it is damaged or another kind of file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            about = documents.parse_json(file.read(ABOUT), About, ABOUT, "it describes the model")
            with np.load(io.BytesIO(file.read(WEIGHTS)), allow_pickle=False) as arrays:
                weights = dict(arrays)
            programs = {s: jax_export.deserialize(bytearray(file.read(_program_name(s)))) for s in about.sizes}
    # A truncated or foreign file fails in zip, JSON, NumPy or StableHLO, and each raises its own errors.
    except Exception as error:
        reason = str(error).split("\n")[0][:160]
        raise UserError(
            f"{path} is not an exported model, or it is damaged ({type(error).__name__}: {reason}): write it again with "
            "--mode=export"
        ) from error
    return Exported(
        about.model_dump(),
        about.label_space,
        weights,
        {size: jax.jit(program.call) for size, program in programs.items()},
    )


def segment(model: Segmenter, weights: dict, images: UInt8[jax.Array, "n h w 3"], threshold: float) -> dict:
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


def _lower(model: Segmenter, weights: dict, size: tuple[int, int], threshold: float) -> bytearray:
    """Serialize the program for one size of image and any number of images."""
    (num_images,) = jax_export.symbolic_shape("n")
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    images = jax.ShapeDtypeStruct((num_images, *size, 3), jnp.uint8)

    @jax.jit
    def run(weights, images):
        return segment(model, weights, images, threshold)

    return jax_export.export(run, platforms=PLATFORMS)(shapes, images).serialize()


def _program_name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}.stablehlo"
