"""The paper's experiments by name: the rows of Table 2a and the methods of Table 1, as words after a config's file name.

`configs/camvid.py:cpu,F` is row F on CamVid at a size for two CPU cores; `configs/ade20k.py:anl,pyramid` is ANL with a pyramid.
"""

import dataclasses

import ml_collections


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of Table 2a (HRNet-W32, ADE20K, a random 16K/4K split of the training images).

    Attributes:
      context, representation, procedure: values of the keys of these names; the three choices are independent.
      paper_miou: in percent.
    """

    context: str
    representation: str
    procedure: str
    paper_miou: float

    def describe(self) -> str:
        """Name the three choices in a table's cell."""
        if self.representation == "pyramid":
            return f"{self.context}, pyramid, {self.procedure}"
        return f"{self.context}, {self.representation.replace('_', '-')}"


TABLE_2A = {
    "A": Row("none", "per_pixel", "raw", 40.42),
    "B": Row("anl", "per_pixel", "raw", 42.02),
    "C": Row("coarse_to_fine", "per_pixel", "raw", 42.00),
    "D": Row("none", "pyramid", "raw", 40.41),
    "E": Row("none", "pyramid", "gt", 41.54),
    "F": Row("none", "pyramid", "tp", 42.07),
    "G": Row("anl", "pyramid", "tp", 43.07),
    "H": Row("coarse_to_fine", "pyramid", "tp", 44.31),
    "I": Row("coarse_to_fine", "auxiliary", "raw", 42.63),
}

# Table 1 (HRNet-W48, several scales and mirrored), mIoU in percent: ADE20K validation, COCO-Stuff 10K test.
TABLE_1 = {
    "hrnet": (44.20, 37.9),
    "ccnet": (45.65, 39.8),
    "anl": (45.23, 40.6),
    "ocr": (45.50, 40.6),
    "ours": (47.37, 41.4),
}

# The differences that the paper's text speaks of.
COMPARISONS = ("AB", "AC", "AD", "AE", "EF", "AF", "BG", "CH", "FG", "FH", "GH", "CI", "IH")

# HRNet's recipe keeps 131072 pixels of each process's four crops; these are for all sixteen.
OHEM_THRESHOLD, OHEM_MIN_KEPT = 0.9, 4 * 131072


def read_variant(file: str, variant: str, *groups: tuple[str, ...]) -> set[str]:
    """Split the words after a config's file name.

    Args:
      file: name of the config, for the message.
      variant: words joined by commas, or "".
      groups: words that are known; of each group at most one may be given.

    Raises:
      ValueError: naming a word that is not known, or two that exclude each other.
    """
    words = [word for word in variant.split(",") if word]
    known = "; ".join(" | ".join(group) for group in groups)
    for word in words:
        if not any(word in group for group in groups):
            raise ValueError(
                f"{file}:{variant}: {word!r} is not known; expected words joined by commas, of each: {known}"
            )
    for group in groups:
        chosen = [word for word in words if word in group]
        if len(chosen) > 1:
            raise ValueError(
                f"{file}:{variant}: {' and '.join(chosen)} exclude each other; expected one of {' | '.join(group)}"
            )
    return set(words)


def choose_row(config: ml_collections.ConfigDict, words: set[str]) -> None:
    """Set context, representation and procedure to those of the row of Table 2a that is among the words, if any.

    Chosen: the auxiliary classifier of ANL is left out of the loss, so that the rows differ in these three choices alone.
    """
    for letter in words & TABLE_2A.keys():
        row = TABLE_2A[letter]
        config.model.context, config.model.representation = row.context, row.representation
        config.training.procedure, config.training.auxiliary_weight = row.procedure, 0.0


def choose_method(config: ml_collections.ConfigDict, words: set[str]) -> None:
    """Set the network and the loss to those of the method of Table 1 that is among the words; without one: ours.

    The published methods predict per pixel, are supervised at the label map's size and learn from hard pixels; with the word
    `pyramid` they predict a pyramid with our loss instead.
    """
    for method in words & set(METHODS):
        config.model.context = "none" if method == "hrnet" else method
        if "pyramid" in words:
            continue
        config.model.representation = "per_pixel"
        config.training.supervision = "full_size"
        config.training.ohem_threshold, config.training.ohem_min_kept = OHEM_THRESHOLD, OHEM_MIN_KEPT


ROWS = tuple(TABLE_2A)
METHODS = tuple(method for method in TABLE_1 if method != "ours")
