"""The layout of an exported model: one zip file of StableHLO programs, weights and class names. JAX alone can run it."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field

from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.expiry import Readers
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.stored_zip import StoredZip

FORMAT = 2  # 1 had no SHA-256 of the parts
SUFFIX = ".zip"
PLATFORMS = ("cpu", "cuda", "tpu")
ABOUT, WEIGHTS, README = "about.json", "weights.npz", "README.txt"
MAX_ABOUT_BYTES = 2**22  # of the description of 10,000 classes
ADVICE = "write the file again with --mode=export"
HOW_TO = """A segmentation model. It needs Python with jax, numpy and flatbuffers, and nothing else:

    import io, json, zipfile
    import jax, numpy as np
    from jax import export

    with zipfile.ZipFile({name}) as file:
        about = json.loads(file.read("about.json"))
        weights = dict(np.load(io.BytesIO(file.read("weights.npz"))))
        run = jax.jit(export.deserialize(bytearray(file.read("{program}"))).call)
    result = run(weights, images)  # images: (N, {height}, {width}, {images}, any N

result["labels"] (N, H, W) {labels}: the class of each pixel, an index into about["classes"].
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
    programs: (height, width) → function of the weights and images (N, height, width, C).
    image_space: what the values in image files mean.
    """

    about: dict
    label_space: LabelSpace
    weights: dict[str, np.ndarray]
    programs: dict
    image_space: ImageSpace = PHOTOGRAPH


class AnyAbout(documents.Document):
    """What every format has: everything else may be different in a newer one."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Annotated[int, Field(ge=1)]


class About(documents.Document):
    """The fields that this package reads from an exported model's about.json; the file contains more for people.

    format: version of the layout.
    classes: names of the classes; the same as in `label_space`.
    label_space: the classes, with their values in label files.
    image_space: what the values in image files mean; absent for photographs.
    strides: pixels per cell of each level, coarse → fine.
    sizes: (height, width) in pixels of the images that the programs take.
    threshold: τ of the fuser.
    jax: version of the JAX that wrote the programs.
    readers: which versions of JAX read them; files of earlier versions do not say it.
    sha256: SHA-256 of every other part of the file, by name; format 1 had none.
    run: identity of the run that the model is of, see `target.run_identity`; format 1 had none.
    temperatures: T of each level, if the run was calibrated; see `evaluation.temperature`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    format: Literal[1, 2]
    classes: tuple[str, ...]
    label_space: LabelSpace
    image_space: ImageSpace = PHOTOGRAPH
    strides: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    sizes: Annotated[list[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]], Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0, le=1)]
    jax: str = "an unknown version"
    readers: Readers | None = None
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] | None = None
    run: str | None = None
    temperatures: tuple[Annotated[float, Field(gt=0, le=1000)], ...] | None = None

    @property
    def parts(self) -> set[str]:
        """Names of all parts that the file must have."""
        return {ABOUT, WEIGHTS, README, *map(program_name, self.sizes)}


def program_name(size: tuple[int, int]) -> str:
    """Return the name of the part that holds the program for images of (height, width) pixels."""
    return f"{size[0]}x{size[1]}.stablehlo"


def read_about(parts: StoredZip, path: Path) -> About:
    """Read and check the description of an exported model, and that the file has exactly the parts that it speaks of.

    Raises:
      UserError: naming the file and the part.
    """
    size = parts.sizes.get(ABOUT)
    if size is None:
        raise UserError(
            f"{path} is not an exported model: it has no part {ABOUT}; name a file that --mode=export wrote"
        )
    if size > MAX_ABOUT_BYTES:
        raise UserError(f"{path}: {ABOUT} has {size} bytes, expected at most {MAX_ABOUT_BYTES}: {ADVICE}")
    content, name = parts.read(ABOUT), f"{path}: {ABOUT}"
    found = documents.parse_json(content, AnyAbout, name, ADVICE).format
    if found > FORMAT:
        raise UserError(
            f"{path} has format {documents.shorten(found)}, and this version of pyrseg_jax reads formats up to {FORMAT}: a newer "
            "version wrote it, so install that version"
        )
    about = documents.parse_json(content, About, name, ADVICE)
    problem = _problem_of(about)
    if problem:
        raise UserError(f"{name}: {problem}; {ADVICE}")
    for names, problem in (
        (about.parts - set(parts.sizes), "is missing"),
        (set(parts.sizes) - about.parts, "is not expected"),
    ):
        if names:
            raise UserError(f"{path}: the part {documents.shorten(min(names))} {problem}: {ADVICE}")
    return about


def _problem_of(about: About) -> str | None:
    """Describe the first contradiction between values of a description; None if there is none."""
    names, strides = about.label_space.names, about.strides
    if about.classes != names:
        return (
            f"expected the same names in classes and in label_space, found {len(about.classes)} and {len(names)} names"
        )
    if any(coarse <= fine or coarse % fine for coarse, fine in itertools.pairwise(strides)):
        return f"strides={documents.shorten(strides)}: expected coarse to fine, each a multiple of the next"
    for size in about.sizes:
        if any(side % strides[0] for side in size):
            return f"sizes: expected multiples of {strides[0]}, the coarsest stride, found {size}"
    if about.temperatures is not None and len(about.temperatures) not in (1, len(strides)):
        return f"temperatures: expected one for each of the {len(strides)} levels, found {len(about.temperatures)}"
    if len(set(about.sizes)) != len(about.sizes):
        return "sizes: expected different sizes, found one of them twice"
    if (about.format == 1) != (about.sha256 is None):
        return f"expected sha256 of the parts from format 2 on, and not before; the format is {about.format}"
    if about.sha256 is not None and about.sha256.keys() != about.parts - {ABOUT}:
        return f"expected sha256 of every part but {ABOUT}, and of nothing else"
    return None


def problem_of_weights(weights: Mapping[str, np.ndarray]) -> str | None:
    """Describe the first array whose numbers cannot be weights; None if there is none."""
    for name, array in weights.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            return f"the array {documents.shorten(name)} holds numbers that are not finite"
        if name.endswith("/var") and (array < 0).any():
            return f"the array {documents.shorten(name)} holds a variance that is negative"
    return None
