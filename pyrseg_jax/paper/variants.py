"""The paper's experiments as words after a config's name, such as `camvid:cpu,F` or `ade20k:anl,pyramid`.

A config file lists its words in `VARIANTS`: groups of words, each with one line that describes it. `get_config`, its error
message and `pyrseg configs` read the same list.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pyrseg_jax.paper.tables import TABLE_1, TABLE_2A

Words = Mapping[str, str]  # word → its meaning in one line

ROWS: Words = {
    letter: f"row {letter} of Table 2a: {row.describe()}".replace(": none,", ": no context module,")
    + (" (the default)" if letter == "H" else "")
    for letter, row in TABLE_2A.items()
}
_METHOD_NAMES = {"hrnet": "the HRNet baseline", "ccnet": "CCNet", "anl": "ANL", "ocr": "OCR"}
METHODS: Words = {
    method: f"{_METHOD_NAMES[method]} of Table 1 (one class per pixel)" for method in TABLE_1 if method != "ours"
}
PYRAMID: Words = {"pyramid": "combine with one of the methods: predict a pyramid instead"}

# HRNet's recipe keeps 131,072 pixels of the four crops on each of its GPUs. Ours is for a batch of sixteen crops.
OHEM_THRESHOLD, OHEM_MIN_KEPT = 0.9, 4 * 131_072


def read_words(name: str, variant: str, groups: Sequence[Words]) -> set[str]:
    """Split the words after a config's name.

    Args:
      name: the name of the config, for error messages.
      variant: words joined with commas, or "".
      groups: the words that the config knows. Words of one group exclude each other.

    Raises:
      ValueError: naming a word that is not known, or two words that exclude each other.
    """
    words = [word for word in variant.split(",") if word]
    known = "; ".join(" | ".join(group) for group in groups)
    for word in words:
        if not any(word in group for group in groups):
            raise ValueError(
                f"{name}:{variant}: {word!r} is not known; expected words joined with commas, at most one from each group: "
                f"{known}"
            )
    for group in groups:
        chosen = [word for word in words if word in group]
        if len(chosen) > 1:
            raise ValueError(
                f"{name}:{variant}: {' and '.join(chosen)} exclude each other; expected one of {' | '.join(group)}"
            )
    return set(words)


def choose_row(config: Any, words: set[str]) -> None:
    """Set context, representation and procedure to those of the row of Table 2a among the words, if there is one.

    Chosen: the auxiliary classifier of ANL is left out of the loss, so that the rows differ only in these three choices.
    """
    for letter in words & TABLE_2A.keys():
        row = TABLE_2A[letter]
        config.model.context, config.model.representation = row.context, row.representation
        config.training.procedure, config.training.auxiliary_weight = row.procedure, 0.0


def choose_method(config: Any, words: set[str]) -> None:
    """Set the network and the loss to those of the method of Table 1 among the words; without one, keep the paper's own.

    The published methods predict one class per pixel, are supervised at the label map's size, and learn from hard pixels.
    With the word `pyramid` they predict a pyramid with the paper's loss instead.
    """
    for method in words & METHODS.keys():
        config.model.context = "none" if method == "hrnet" else method
        if "pyramid" in words:
            continue
        config.model.representation = "per_pixel"
        config.training.supervision = "full_size"
        config.training.ohem_threshold, config.training.ohem_min_kept = OHEM_THRESHOLD, OHEM_MIN_KEPT
