"""The image space of a run: given by its keys or measured on its training split, and kept in its workdir."""

import json

from pyrseg_jax.data.image_space import ImageSpace, make_image_space, to_values
from pyrseg_jax.errors import UserError
from pyrseg_jax.run.config import Config, Data
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.workdir import IMAGES, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there


@naming("data")
def declared_image_space(data: Data) -> ImageSpace:
    """Return the image space that the keys describe; its percentiles are not measured yet; raises UserError naming the key."""
    return make_image_space(data.channels, data.scaling, data.nodata)


def image_space_of(config: Config, workdir: Workdir) -> ImageSpace:
    """Return the image space of the run in a workdir, or of a run that would start there: then it may have to be measured.

    The numbers in the workdir win: they are not measured again, and other training images do not change them.

    Raises:
      UserError: naming the file, if it is damaged or speaks of another number of channels.
    """
    declared, path = declared_image_space(config.data), workdir.path / IMAGES
    if declared.is_photograph or not (workdir.has_run() and is_there(path)):
        return declared
    stored = documents.read_json(path, ImageSpace, "restore it, or use another --workdir")
    if stored.channels != declared.channels or not stored.is_measured:
        raise UserError(
            f"{path} describes images of {stored.describe()}, and config.data.channels is {declared.channels}: restore it, or use "
            "another --workdir"
        )
    return stored


def known_image_space(config: Config, workdir: Workdir) -> ImageSpace:
    """Return the image space of a run that was trained; raises UserError if its measured numbers are missing."""
    space = image_space_of(config, workdir)
    if not space.is_measured:
        raise UserError(
            f"{workdir.path / IMAGES} is missing: it holds the scaling that the run measured on its images; restore it, or train "
            "again"
        )
    return space


def keep_image_space(workdir: Workdir, space: ImageSpace) -> None:
    """Write the image space of a new run to its workdir; a run on photographs has no such file; raises UserError if it cannot."""
    path = workdir.path / IMAGES
    if space.is_photograph or is_there(path):
        return
    try:
        write_atomically(path, json.dumps(to_values(space), indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, or choose another folder with "
            "--workdir"
        ) from error
