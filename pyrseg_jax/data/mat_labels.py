"""Read label maps from MATLAB files. COCO-Stuff 10K stores each of its label maps in the variable `S`."""

import io

import h5py
import numpy as np
import scipy.io
from jaxtyping import Num
from PIL import Image

from pyrseg_jax.errors import UserError

VARIABLE = "S"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def mat_to_png(data: bytes, name: str) -> bytes:
    """Convert a `.mat` file with the label map `S` to a PNG of the same values.

    Raises:
      UserError: naming the file, if it cannot be read, has no `S`, or if `S` is not a map of whole numbers from 0 to 255.
    """
    values = read_label_variable(data, name)
    is_whole = values.dtype.kind in "bui" or (np.isfinite(values).all() and (values == np.round(values)).all())
    if not is_whole or values.min() < 0 or values.max() > 255:
        wrong = values[~((values >= 0) & (values <= 255) & (values == np.round(values)))]
        raise UserError(
            f"{name}: the variable {VARIABLE} holds the value {wrong[0]} ({wrong.size} pixels are not whole numbers from 0 to "
            "255): replace the file with the published one"
        )
    buffer = io.BytesIO()
    # Label maps are mostly flat. A higher compression level gains little and takes several times as long.
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def read_label_variable(data: bytes, name: str) -> Num[np.ndarray, "h w"]:
    """Read `S` from a MATLAB file of version 4 to 7 (with SciPy) or 7.3 (which is HDF5); raises UserError naming the file."""
    try:
        if HDF5_SIGNATURE in (data[:8], data[512:520]):  # MATLAB writes a header of 512 bytes first
            with h5py.File(io.BytesIO(data)) as file:
                found = sorted(str(key) for key in file if not str(key).startswith("#"))
                # HDF5 counts rows first and MATLAB columns first: the array is stored transposed.
                values = np.asarray(file[VARIABLE]).T if VARIABLE in found else None
        else:
            values = scipy.io.loadmat(io.BytesIO(data), variable_names=[VARIABLE]).get(VARIABLE)
            found = [] if values is not None else [key for key, *_ in scipy.io.whosmat(io.BytesIO(data))]
    # Depending on the damage, SciPy and HDF5 raise ValueError, TypeError, OSError, KeyError, zlib.error …
    except Exception as error:
        reason = (
            "it is empty" if not data else f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        raise UserError(
            f"{name} cannot be read as a MATLAB file ({reason}): replace it with the published one"
        ) from error
    if values is None:
        held = ", ".join(found) or "nothing"
        raise UserError(
            f"{name} has no variable {VARIABLE}, the label map (it holds {held}): replace it with the published one"
        )
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        raise UserError(
            f"{name}: the variable {VARIABLE} is not a map of numbers (shape {values.shape}, type {values.dtype}): replace the "
            "file with the published one"
        )
    return values
