"""The paper's numbers: the rows of Table 2a and those of Table 1. `variants.py` turns them into configurations."""

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

# The differences between rows that the paper's text discusses.
COMPARISONS = ("AB", "AC", "AD", "AE", "EF", "AF", "BG", "CH", "FG", "FH", "GH", "CI", "IH")

SEVERAL, UNKNOWN = "several scales", "protocol not stated"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of Table 1.

    Attributes:
      name, venue: as printed.
      method: the word of the method, a key of `methods.METHODS`.
      backbone: `"ResNet-101"` or `"HRNet-W48"`.
      backbone_stride, stride: the columns "bos" and "os", in pixels: output strides of the backbone and of the prediction.
      ade20k, coco_stuff10k: mIoU in percent on ADE20K's validation images and COCO-Stuff 10K's test images; None: not printed.
      protocol: the views that the number was measured with, as far as its publication says.
      note: what a reader must know to compare with the number.
    """

    name: str
    venue: str
    method: str
    backbone: str
    backbone_stride: int
    stride: int
    ade20k: float | None
    coco_stuff10k: float | None
    protocol: str = UNKNOWN
    note: str = ""

    def describe_scores(self) -> str:
        """Return both scores in one table cell, "–" for one that is not printed."""
        scores = (
            "–" if self.ade20k is None else f"{self.ade20k:.2f}",
            "–" if self.coco_stuff10k is None else f"{self.coco_stuff10k:.1f}",
        )
        return " / ".join(scores)


_R, _H = "ResNet-101", "HRNet-W48"
_SEVERAL_DATA_SETS = "COCO-Stuff: trained on several data sets; 37.3 when fine-tuned on COCO-Stuff alone"
# The paper's own networks, HRNet's and OCR's are tested at several scales, mirrored (Sec. 4). For the others, the protocol is that
# of the method's release, where the number is the release's.
TABLE_1 = (
    Published("DSSPN", "CVPR 2018", "dsspn", _R, 8, 8, 43.68, 38.9, UNKNOWN, _SEVERAL_DATA_SETS),
    Published("EncNet", "CVPR 2018", "encnet", _R, 8, 8, 44.65, None, SEVERAL),
    Published("UperNet", "ECCV 2018", "upernet", _R, 32, 4, 42.66, None, SEVERAL, "one scale: 42.00"),
    Published("PSANet", "ECCV 2018", "psanet", _R, 8, 8, 43.77, None, SEVERAL, "one scale: 42.75"),
    Published("SGR", "NeurIPS 2018", "sgr", _R, 8, 8, 44.32, 39.1),
    Published("SVCNet", "CVPR 2019", "svcnet", _R, 32, 4, None, 39.6),
    Published("DANet", "CVPR 2019", "danet", _R, 8, 8, None, 39.7),
    Published("CFNet", "CVPR 2019", "cfnet", _R, 8, 8, 44.89, None),
    Published("APCNet", "CVPR 2019", "apcnet", _R, 8, 8, 45.38, None),
    Published("EMANet", "ICCV 2019", "emanet", _R, 8, 8, None, 39.9),
    Published("CCNet", "ICCV 2019", "ccnet", _R, 8, 8, 45.22, None),
    Published("ANL", "ICCV 2019", "ann", _R, 8, 8, 45.24, None),
    Published("ACNet", "ICCV 2019", "acnet", _R, 16, 2, 45.90, 40.1),
    Published("OCR", "", "ocr", _R, 8, 8, 45.28, 39.5),
    Published("CPNet", "CVPR 2020", "cpnet", _R, 8, 8, 46.27, None),
    Published("QGN", "WACV 2020", "qgn", _R, 32, 1, 43.91, None),
    Published("HRNet", "TPAMI 2019", "hrnet", _H, 4, 4, 44.20, 37.9, SEVERAL),
    Published("OCR", "", "ocr", _H, 4, 4, 45.50, 40.6, SEVERAL),
    Published("CCNet", "", "ccnet", _H, 4, 4, 45.65, 39.8, SEVERAL, "the paper's reproduction"),
    Published("ANL", "", "anl", _H, 4, 4, 45.23, 40.6, SEVERAL, "the paper's reproduction"),
    Published("Ours", "", "ours", _H, 4, 4, 47.37, 41.4, SEVERAL),
)
