"""Read the safetensors format: eight bytes with the length of a header, a JSON header, and the numbers."""

import math
from pathlib import Path
from typing import Annotated

import ml_dtypes
import numpy as np
from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.regular_file import open_regular_file

MAX_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 16 * 2**20  # the largest published files of this package's networks need 0.5 MiB
MAX_DIMENSIONS = 8
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"{kind.upper()}{bits}": np.dtype(f"<{kind}{bits // 8}") for kind in "iu" for bits in (8, 16, 32, 64)},
}
_ADVICE = "it is cut off or of another format; download it again"

Size = Annotated[int, Field(ge=0)]


class _Tensor(documents.Document):
    dtype: str
    shape: Annotated[tuple[Size, ...], Field(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[Size, Size]


class _Header(documents.Document):
    model_config = ConfigDict(frozen=True, extra="allow")

    metadata: Annotated[dict[str, str], Field(alias="__metadata__")] = {}
    __pydantic_extra__: dict[str, _Tensor]  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic reads its type


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.safetensors` file by name; bfloat16 as float32, all others as stored.

    Raises:
      UserError: naming the file and the tensor, if the header is damaged or does not describe all of the file.
      OSError: if the file cannot be read.
    """
    problem = f"{path} cannot be read as safetensors"
    with open_regular_file(path, MAX_BYTES) as file:
        num_bytes = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if num_bytes < 8 or length > num_bytes - 8:
            raise UserError(
                f"{problem} (its header is said to have {length} bytes, the file has {num_bytes}): {_ADVICE}"
            )
        if length > MAX_HEADER_BYTES:
            raise UserError(f"{problem}: its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")
        header = documents.parse_json(file.read(length), _Header, f"{problem} (its header)", _ADVICE)
        tensors = header.__pydantic_extra__
        start = 8 + length
        end = 0  # of the tensors so far: each must begin where the one before ends, so that no bytes are read twice
        result = {}
        for name, about in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
            where = f"{problem} (tensor {documents.shorten(name)}"
            if about.dtype not in DTYPES:
                raise UserError(
                    f"{where} has the type {documents.shorten(about.dtype)}): expected one of {', '.join(DTYPES)}"
                )
            dtype, (first, last) = DTYPES[about.dtype], about.data_offsets
            num_numbers = math.prod(about.shape)
            # NumPy multiplies the sides of empty arrays, too.
            is_possible = math.prod(side or 1 for side in about.shape) < MAX_BYTES
            if (
                first != end
                or last - first != num_numbers * dtype.itemsize
                or start + last > num_bytes
                or not is_possible
            ):
                shape = documents.shorten(about.shape)
                raise UserError(f"{where}, {about.dtype} {shape}, cannot lie at {first} to {last}): {_ADVICE}")
            end = last
            array = np.frombuffer(file.read(last - first), dtype).reshape(about.shape)
            result[name] = array.astype(np.float32) if about.dtype == "BF16" else array
    if start + end != num_bytes:
        raise UserError(f"{problem} ({num_bytes - start - end} bytes at its end belong to no tensor): {_ADVICE}")
    return {name: result[name] for name in sorted(result)}
