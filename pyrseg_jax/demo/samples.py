"""The pictures that a demo page offers: photographs that the user names, or a rendered scene."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyrseg_jax.data.datasets.scenes import LABEL_SPACE, render_photograph
from pyrseg_jax.data.images.open_image import recognize
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.storage.regular_file import read_regular_file

# What every browser reads.
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
MOST = 12
MAX_BYTES = 32 * 2**20
SCENE = 7  # number of the rendered scene: a street with cars, people and trees
NUM_KNOWN = 4  # a model that knows so many classes of the rendered scenes can say something about them


class Sample(NamedTuple):
    """A picture of the demo.

    name: for people.
    file: its name in the folder of the demo.
    content: the file.
    """

    name: str
    file: str
    content: bytes


def read_samples(place: str) -> list[Sample]:
    """Read the user's own samples, unchanged.

    Args:
      place: a photograph, or a folder of at most `MOST`.

    Raises:
      UserError: if there is none, one is not a JPEG, PNG or WebP file, or there are too many.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise UserError(f"--input={place}: there is no such file or folder")
    files = [path]
    if path.is_dir():
        suffixes = (*SUFFIXES.values(), ".jpeg")
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise UserError(f"--input={place} holds no photographs: expected files that end in .jpg, .png or .webp")
    if len(files) > MOST:
        raise UserError(f"--input={place} holds {len(files)} photographs: expected at most {MOST} samples for a demo")
    return [_read_sample(file, index) for index, file in enumerate(files, 1)]


def _read_sample(path: Path, index: int) -> Sample:
    try:
        content = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError(
            f"{escaped(str(path))} cannot be read ({error.strerror or error}): name another sample"
        ) from error
    kind = recognize(content, escaped(str(path)), tuple(SUFFIXES))
    return Sample(path.stem, f"sample-{index}{SUFFIXES[kind]}", content)


def render_sample(class_names: Sequence[str]) -> list[Sample]:
    """Render a street scene for a model that knows what is in it; other models get no sample."""
    known = {name.casefold() for name in LABEL_SPACE.names} & {name.casefold() for name in class_names}
    if len(known) < NUM_KNOWN:
        return []
    return [Sample("Rendered scene", "sample-1.jpg", render_photograph(SCENE))]
