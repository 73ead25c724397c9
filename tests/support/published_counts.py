"""Parameters and multiply-adds of published networks on ResNet-101, counted layer by layer from their descriptions.

Parameters are trainable numbers. Multiply-adds are in billions, of the head alone, for one image of 512 × 512 pixels and 150
classes.
"""

from typing import NamedTuple

BACKBONES = {"v1": 42_500_160, "v1c": 42_519_392, "deep": 42_623_936}  # ResNet-101 by stem
AUXILIARY = {150: 2_398_358, 171: 2_403_755}  # the auxiliary classifier on C4, by the number of classes


class Counts(NamedTuple):
    """The counts of one published network.

    Attributes:
      head: parameters of everything but backbone and auxiliary classifier, with 150 classes.
      head_171: the same with 171 classes; None: not counted.
      total: parameters of the whole network with 150 classes, its auxiliary classifier included; None: not counted.
      multiply_adds: of the head; None: not counted.
      includes: what of our count is in that number: "convolutions", or "products", which are convolutions and all other matrix
        products.
      difference: how much more ours has by that measure, in billions, where more than rounding; `REASONS` says why.
      output_stride: of the backbone.
      crop_px: side of the training images.
    """

    head: int
    head_171: int | None = None
    total: int | None = None
    multiply_adds: float | None = None
    includes: str = "products"
    difference: float = 0.0
    output_stride: int = 8
    crop_px: int = 512


# The border of one position that mmsegmentation pads PSANet's map of 32 × 32 positions with, before a convolution of 1024 → 2048;
# and the products of the values with the attention of both branches.
_PSANET_BORDER = (34**2 - 32**2) * 1024 * 2048 / 1e9
_PSANET_ATTENTION = 2 * 1024**2 * 512 / 1e9
# Averaging over 1, 2, 3 and 6 bins as products, rows first.
_APCNET_POOLING = (12 * 64 + 50) * 64 * 2048 / 1e9
# CPNet's product of the complement of its prior with the values: here a difference of two sums.
_CPNET_COMPLEMENT = 4096**2 * 512 / 1e9
# OCR's second convolution of the keys, 256 → 256, at all 4096 positions and not at the 150 regions.
_OCR_KEYS = (4096 - 150) * 256**2 / 1e9
REASONS = {
    (
        "psanet_mmseg",
        "v1c",
    ): "the other count has the products of attention, and not mmsegmentation's border around the small map",
    ("apcnet", "v1c"): "ours averages over bins by matrix products",
    ("cpnet", "v1c"): "ours takes the complement of the prior from two sums, without a product",
    (
        "ocr",
        "v1c",
    ): "as much as the second convolution of the keys costs over all positions instead of over the regions",
}

# (context, stem) → counts. With the stem "v1c", the network is mmsegmentation's, and else that of the method's own release.
COUNTS = {
    ("fcn", "v1c"): Counts(23_672_982, 23_683_755, 68_590_732, 97.0),
    ("pspnet", "v1c"): Counts(23_150_742, 23_161_515, 68_068_492, 77.7, "convolutions"),
    ("upernet_512", "v1c"): Counts(40_590_486, 40_601_259, 85_508_236, 215.3, "convolutions", output_stride=32),
    ("deeplabv3plus", "v1c"): Counts(17_765_126, 17_775_899, 62_682_876, 76.3, "convolutions"),
    ("nonlocal", "v1c"): Counts(24_199_062, 24_209_835, 69_116_812, 107.7),
    ("ccnet", "v1c"): Counts(24_001_303, 24_012_076, 68_919_053, 100.2),
    ("danet", "v1c"): Counts(24_156_228, 24_188_547, 69_073_978, 110.7),
    ("encnet", "v1c"): Counts(10_134_412, 10_155_958, 55_052_162, 40.2),
    ("psanet_mmseg", "v1c"): Counts(
        28_139_670, 28_150_443, 73_057_420, 94.5, "convolutions", _PSANET_BORDER - _PSANET_ATTENTION
    ),
    ("emanet_mmseg", "v1c"): Counts(16_491_670, 16_497_067, 61_409_420, 68.5),
    ("apcnet", "v1c"): Counts(30_532_808, 30_543_581, 75_450_558, 103.7, difference=_APCNET_POOLING),
    ("ann", "v1c"): Counts(20_403_862, 20_414_635, 65_321_612),
    ("ocr", "v1c"): Counts(10_699_414, 10_710_187, 55_617_164, 43.4, difference=-_OCR_KEYS),
    ("cpnet", "v1c"): Counts(26_329_238, 26_340_011, 71_246_988, 125.0, difference=-_CPNET_COMPLEMENT),
    ("pointrend", "v1c"): Counts(
        3_344_384 + 1_643_158 + 373_626, 3_344_384 + 1_645_867 + 401_892, 47_880_560, output_stride=32
    ),
    ("pspnet", "deep"): Counts(23_150_742, total=68_173_036),
    ("psanet", "deep"): Counts(27_243_670, total=72_265_964, crop_px=480),
    ("upernet", "deep"): Counts(18_265_750, total=60_889_686, output_stride=32),
    ("encnet", "deep"): Counts(10_134_412, total=55_156_706),
    ("emanet", "deep"): Counts(11_182_742, total=53_806_678),
    ("cfnet", "deep"): Counts(12_776_694, total=BACKBONES["deep"] + 12_776_694 + AUXILIARY[150]),
    ("qgn", "deep"): Counts(35_362_058, total=77_985_994, output_stride=32),
    ("qgn_sparse", "deep"): Counts(34_481_418, output_stride=32),
}
