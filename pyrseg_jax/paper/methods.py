"""The methods of Table 1 and their relatives by name, with the release whose recipe each follows on a ResNet."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pyrseg_jax.paper.tables import SEVERAL, TABLE_1, Published

# Levels of a network whose finest map has the stride of a ResNet's dilated last stage.
# Chosen: the paper's strides as far as this backbone has them; finer ones need a decoder.
_DILATED = {"model.strides": (32, 16, 8)}
_STRIDE_32 = {"model.output_stride": 32}


@dataclasses.dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
      title: the name, and where it was published.
      context: key of `CONTEXTS`.
      release: key of `releases.RELEASES`, whose recipe it follows on ResNets; None: the recipe of the config.
      on_resnet: keys that it needs on a ResNet in every recipe.
      has_resize: whether its module enlarges maps by `config.model.resize`, which a ResNet otherwise does not take.
      of_release: the context module that the release's weights on ResNets fit; None: `context`.
      of_mmsegmentation: the context module that mmsegmentation's weights fit; None: `context`.
      weights: publishers whose weight files fit the whole network with one class per pixel, by backbone family.
      elsewhere: a published number for comparison where Table 1 has none.
    """

    title: str
    context: str
    release: str | None = "mmsegmentation"
    on_resnet: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _DILATED)
    has_resize: bool = False
    of_release: str | None = None
    of_mmsegmentation: str | None = None
    weights: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    elsewhere: str = ""

    def rows(self, word: str) -> list[Published]:
        """Return the rows of Table 1 with this method, whose word is given."""
        return [row for row in TABLE_1 if row.method == word]


_MM, _OFFICIAL = "mmsegmentation", "official"


def _weights(resnet: tuple[str, ...] = (), hrnet: tuple[str, ...] = ()) -> Mapping[str, tuple[str, ...]]:
    return {"ResNet": resnet, "HRNet": hrnet}


def _mmsegmentation(one_view: float, several: float) -> str:
    """Return the mIoU of mmsegmentation's ResNet-101 on ADE20K after 160,000 steps, in words."""
    return f"mmsegmentation, ADE20K: {one_view:.2f}, {several:.2f} with {SEVERAL}"


# The paper's own method and the baseline come first, then the others in about the order of their publication.
METHODS = {
    "ours": Method("the paper's method: coarse-to-fine module and pyramid", "coarse_to_fine", None),
    "hrnet": Method("the HRNet baseline", "none", None, {}, weights=_weights((), (_OFFICIAL,))),
    "fcn": Method("FCN (Long et al. 2015)", "fcn", weights=_weights((_MM,)), elsewhere=_mmsegmentation(39.91, 41.40)),
    "fcn_short": Method("FCN with one convolution", "fcn_short", "encoding", weights=_weights(("PyTorch-Encoding",))),
    "pspnet": Method(
        "PSPNet (Zhao et al. 2017)",
        "pspnet",
        "semseg",
        has_resize=True,
        weights=_weights((_MM, "semseg")),
        elsewhere="semseg, ADE20K: 43.10, 44.15 with several scales",
    ),
    "layer_cascade": Method("Layer-Cascade-style (after Li et al. 2017)", "layer_cascade"),
    "segformer": Method(
        "SegFormer's decoder (Xie et al. 2021)",
        "segformer",
        on_resnet={},
        has_resize=True,
        of_mmsegmentation="segformer_mmseg",
    ),
    "upernet": Method(
        "UperNet (Xiao et al. 2018)",
        "upernet",
        "csail",
        _STRIDE_32,
        has_resize=True,
        of_mmsegmentation="upernet_512",
        weights=_weights((_MM, "CSAIL")),
    ),
    "upernet_512": Method(
        "UperNet of twice the width",
        "upernet_512",
        on_resnet=_STRIDE_32,
        has_resize=True,
        weights=_weights((_MM,)),
        elsewhere=_mmsegmentation(43.82, 44.85),
    ),
    "deeplabv3plus": Method(
        "DeepLabV3+ (Chen et al. 2018)",
        "deeplabv3plus",
        on_resnet={},
        has_resize=True,
        weights=_weights((_MM,)),
        elsewhere=_mmsegmentation(45.47, 46.35),
    ),
    "nonlocal": Method(
        "Non-local (Wang et al. 2018)",
        "nonlocal",
        weights=_weights((_MM,)),
        elsewhere=_mmsegmentation(44.63, 45.79),
    ),
    "encnet": Method("EncNet (Zhang et al. 2018)", "encnet", "encoding", weights=_weights((_MM, "PyTorch-Encoding"))),
    "psanet": Method(
        "PSANet (Zhao et al. 2018)",
        "psanet",
        "semseg",
        has_resize=True,
        of_mmsegmentation="psanet_mmseg",
        weights=_weights((_MM, "semseg")),
    ),
    "dsspn": Method("DSSPN-style (after Liang et al. 2018)", "dsspn"),
    "sgr": Method("SGR-style (after Liang et al. 2018)", "sgr"),
    "danet": Method("DANet (Fu et al. 2019)", "danet", "danet", weights=_weights((_MM, "DANet"))),
    "cfnet": Method("CFNet (Zhang et al. 2019)", "cfnet", "encoding", weights=_weights(("PyTorch-Encoding",))),
    "apcnet": Method("APCNet (He et al. 2019)", "apcnet", weights=_weights((_MM,))),
    "svcnet": Method("SVCNet-style (after Ding et al. 2019)", "svcnet", on_resnet=_STRIDE_32),
    "emanet": Method(
        "EMANet (Li et al. 2019)",
        "emanet",
        "emanet",
        of_mmsegmentation="emanet_mmseg",
        weights=_weights((_MM, "EMANet")),
    ),
    "ccnet": Method("CCNet (Huang et al. 2019)", "ccnet", weights=_weights((_MM,))),
    "anl": Method("ANL (Zhu et al. 2019) on one map", "anl"),
    "ann": Method("ANL (Zhu et al. 2019) as on ResNets", "ann", weights=_weights((_MM,))),
    "acnet": Method(
        "ACNet-style (after Fu et al. 2019)", "acnet", on_resnet={"model.output_stride": 16}, has_resize=True
    ),
    # The published weights 0.7, 0.6 and 0.4, divided by that of the main loss.
    "acfnet": Method(
        "ACFNet (Zhang et al. 2019)", "acfnet", on_resnet=_DILATED | {"training.auxiliary_weight": 0.4 / 0.7}
    ),
    "ocr": Method(
        "OCR (Yuan et al. 2020)",
        "ocr",
        "openseg",
        has_resize=True,
        of_release="ocr_openseg",
        weights=_weights((_MM, "openseg"), (_OFFICIAL, "openseg", _MM)),
    ),
    "cpnet": Method("CPNet (Yu et al. 2020)", "cpnet"),
    "qgn": Method("QGN (Chitta et al. 2020)", "qgn", "qgn", _STRIDE_32, weights=_weights(("QGN",))),
    "qgn_sparse": Method("QGN that skips work below uniform cells", "qgn_sparse", "qgn", _STRIDE_32),
    "pointrend": Method(
        "PointRend (Kirillov et al. 2020)",
        "pointrend",
        on_resnet=_STRIDE_32 | {"training.warmup_steps": 200},
        weights=_weights((_MM,)),
        elsewhere=_mmsegmentation(40.02, 41.60),
    ),
}
