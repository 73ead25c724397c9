"""Convert masks to and from COCO's run-length encoding.

The runs go down the columns, from left to right, and alternate between 0 and 1; the first run is one of zeros and may be empty.
COCO writes them as a list of numbers ("uncompressed") or as a text ("compressed"), where each run from the fourth on is replaced
by its difference from the run two before it. Each number is then split into groups of five bits, the lowest first, and each
group becomes a character: 48 + the group, + 32 if another group follows. The highest bit of the last group is the sign.

Source: COCO's data format (cocodataset.org/#format-data) and its library pycocotools, with which the tests compare.
"""

import numpy as np
from jaxtyping import Bool, Integer

BITS, MORE, SIGN, FIRST = 5, 32, 16, 48  # of a character
MAX_GROUPS = 7  # 35 bits: a run of 2^34 pixels


def encode_runs(mask: Bool[np.ndarray, "h w"]) -> Integer[np.ndarray, " runs"]:
    """Return the lengths of the runs of a mask, in pixels."""
    pixels = np.ascontiguousarray(mask.T).reshape(-1)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0] if pixels.size and pixels[0] else [], [0], changes, [pixels.size]])
    return np.diff(starts).astype(np.int64)


def decode_runs(runs: Integer[np.ndarray, " runs"], height: int, width: int) -> Bool[np.ndarray, "{height} {width}"]:
    """Return the mask that runs describe.

    Raises:
      ValueError: if a run is negative, or if the runs do not fill the mask exactly.
    """
    runs = np.asarray(runs, np.int64)
    if runs.size and runs.min() < 0:
        raise ValueError(f"runs has the negative length {runs.min()}")
    if runs.max(initial=0) > height * width or runs.sum() != height * width:
        total = sum(map(int, runs))
        raise ValueError(f"runs has {total} pixels, but the mask has {height} × {width} = {height * width}")
    values = np.zeros(runs.size, bool)
    values[1::2] = True
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def compress_runs(runs: Integer[np.ndarray, " runs"]) -> str:
    """Return the text of runs; inverse of `decompress_runs`."""
    numbers = np.array(runs, np.int64)
    numbers[3:] -= np.asarray(runs, np.int64)[1:-2]
    limits = 1 << (BITS * np.arange(1, MAX_GROUPS, dtype=np.int64) - 1)  # what n groups can hold
    num_groups = 1 + ((numbers[:, None] >= limits) | (numbers[:, None] < -limits)).sum(1)
    group = np.arange(num_groups.sum()) - np.repeat(np.cumsum(num_groups) - num_groups, num_groups)
    bits = (np.repeat(numbers, num_groups) >> (BITS * group)) & (MORE - 1)
    has_more = group < np.repeat(num_groups, num_groups) - 1
    return (bits + MORE * has_more + FIRST).astype(np.uint8).tobytes().decode("ascii")


def decompress_runs(text: str | bytes) -> Integer[np.ndarray, " runs"]:
    """Return the runs of a text, unchecked: `decode_runs` checks that they fill a mask.

    Raises:
      ValueError: if a character is not one of the encoding, or the text ends within a number.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    characters = np.frombuffer(data, np.uint8).astype(np.int64) - FIRST
    if not characters.size:
        return np.zeros(0, np.int64)
    if characters.min() < 0 or characters.max() >= 2 * MORE:
        position = int(np.flatnonzero((characters < 0) | (characters >= 2 * MORE))[0])
        raise ValueError(f"text has {data[position : position + 1]!r} at position {position}, which no RLE contains")
    ends = np.flatnonzero(characters < MORE)
    if not ends.size or ends[-1] != characters.size - 1:
        raise ValueError("text ends within a number: it is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_GROUPS:
        raise ValueError(f"text holds a number of {lengths.max()} characters, more than {MAX_GROUPS}")
    group = np.arange(characters.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((characters & (MORE - 1)) << (BITS * group), starts)
    numbers -= np.where(characters[ends] & SIGN, 1 << (BITS * lengths), 0)
    for first in (1, 2):  # a run from the fourth on is a difference from the run two before it
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
