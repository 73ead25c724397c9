"""Read label maps from MATLAB files: the variable `S` in COCO-Stuff 10K, `LabelMap` in PASCAL-Context."""

import io

import numpy as np
from jaxtyping import Num, UInt8, UInt16
from PIL import Image

from pyrseg_jax.data.mat_hdf5 import read_mat_73
from pyrseg_jax.data.mat_v5 import read_mat
from pyrseg_jax.data.mat_variable import DamagedError, WrongKindError
from pyrseg_jax.errors import UserError, naming_file

VARIABLE = "S"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_NAMES = 10  # that a message lists
_ADVICE = "replace it with the published one"


def mat_to_png(data: bytes, name: str) -> bytes:
    """Convert a `.mat` file with the label map `S` to a PNG of the same values.

    Raises:
      UserError: naming the file, if it cannot be read, has no `S`, or if `S` is not a map of whole numbers from 0 to 255.
    """
    return encode_label_map(read_whole_numbers(data, name, VARIABLE, 255).astype(np.uint8))


def read_whole_numbers(data: bytes, name: str, variable: str, largest: int) -> UInt16[np.ndarray, "h w"]:
    """Read a label map whose values are whole numbers from 0 to `largest`, at most 65,535.

    Raises:
      UserError: naming the file, if it cannot be read, has no such variable, or if the variable holds another value.
    """
    values = read_label_variable(data, name, variable)
    is_whole = values.dtype.kind in "bui" or (np.isfinite(values).all() and (values == np.round(values)).all())
    if not is_whole or values.min() < 0 or values.max() > largest:
        wrong = values[~((values >= 0) & (values <= largest) & (values == np.round(values)))]
        raise UserError(
            f"{name}: the variable {variable} holds the value {wrong[0]} ({wrong.size} pixels are not whole numbers from 0 to "
            f"{largest}): replace the file with the published one"
        )
    return values.astype(np.uint16)


def encode_label_map(values: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode a label map as PNG."""
    buffer = io.BytesIO()
    # Label maps are mostly flat. A higher compression level gains little and takes several times as long.
    Image.fromarray(values).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def read_label_variable(data: bytes, name: str, variable: str = VARIABLE) -> Num[np.ndarray, "h w"]:
    """Read a label map from a MATLAB file of version 4 to 7, or of version 7.3, which is HDF5.

    Only a two-dimensional map of real numbers that lies in the file itself is read, and its size is checked first.

    Raises:
      UserError: naming the file.
    """
    action = "cannot be read as a MATLAB file"
    if not data:
        raise UserError(f"{name} {action} (it is empty): {_ADVICE}")
    with naming_file(name, action, _ADVICE):
        try:
            is_hdf5 = HDF5_SIGNATURE in (data[:8], data[512:520])  # MATLAB writes a header of 512 bytes first
            values, found = (read_mat_73 if is_hdf5 else read_mat)(data, variable)
        except DamagedError as error:
            raise UserError(f"{name} {action} ({error}): {_ADVICE}") from error
        except WrongKindError as error:
            raise UserError(f"{name}: the variable {variable} {error}; {_ADVICE}") from error
    if values is None:
        held = ", ".join(found[:_MAX_NAMES]) + (", …" if len(found) > _MAX_NAMES else "")
        raise UserError(f"{name} has no variable {variable}, the label map (it holds {held or 'nothing'}): {_ADVICE}")
    return values
