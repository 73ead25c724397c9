"""The paper's numbers: the rows of Table 2a and the methods of Table 1. `variants.py` turns them into configurations."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of Table 2a (HRNet-W32, ADE20K, a random 16K/4K split of the training images).

    Attributes:
      context, representation, procedure: values of the configuration keys of these names. The three choices are independent.
      paper_miou: the published mIoU, in percent.
    """

    context: str
    representation: str
    procedure: str
    paper_miou: float

    def describe(self) -> str:
        """Describe the three choices in one table cell."""
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

# Table 1 (HRNet-W48, several scales, mirrored): mIoU in percent on ADE20K validation and on COCO-Stuff 10K test.
TABLE_1 = {
    "hrnet": (44.20, 37.9),
    "ccnet": (45.65, 39.8),
    "anl": (45.23, 40.6),
    "ocr": (45.50, 40.6),
    "ours": (47.37, 41.4),
}

# The differences between rows that the paper's text discusses.
COMPARISONS = ("AB", "AC", "AD", "AE", "EF", "AF", "BG", "CH", "FG", "FH", "GH", "CI", "IH")
