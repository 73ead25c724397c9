"""Context modules: from backbone features to one feature map per level of the pyramid, one file per published module.

To add a module, write a file for it and add one line to `CONTEXTS`. `contract.py` says how a module is called, and what its spec
tells the rest of the package.
"""

import functools

from pyrseg_jax.models.contexts.acnet import ACNet
from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.ccnet import CCNet
from pyrseg_jax.models.contexts.coarse_to_fine import CoarseToFine
from pyrseg_jax.models.contexts.contract import (
    ContextLoss,
    ContextMap,
    ContextOutput,
    ContextSettings,
    ContextSpec,
    Pooled,
    Refined,
    make_none,
    make_pooled,
)
from pyrseg_jax.models.contexts.deeplabv3plus import DeepLabV3Plus
from pyrseg_jax.models.contexts.dsspn import DSSPN, neuron_loss
from pyrseg_jax.models.contexts.fcn import FCN
from pyrseg_jax.models.contexts.layer_cascade import LOSSES as STAGE_LOSSES
from pyrseg_jax.models.contexts.layer_cascade import CascadeGate, CascadeMerge, LayerCascade
from pyrseg_jax.models.contexts.ocr import OCR
from pyrseg_jax.models.contexts.pointrend import LOSSES as POINT_LOSSES
from pyrseg_jax.models.contexts.pointrend import READS, STRIDE, PointRefiner, PointRend
from pyrseg_jax.models.contexts.psanet import PSANet, mmseg_window_of, window_of
from pyrseg_jax.models.contexts.pspnet import PSPNet
from pyrseg_jax.models.contexts.qgn import QGN
from pyrseg_jax.models.contexts.quadtree import quadtree_loss
from pyrseg_jax.models.contexts.sgr import SGR
from pyrseg_jax.models.contexts.svcnet import SVCNet
from pyrseg_jax.models.contexts.tree import make_tree
from pyrseg_jax.models.contexts.upernet import UperNet

__all__ = [
    "CONTEXTS",
    "ContextLoss",
    "ContextMap",
    "ContextOutput",
    "ContextSettings",
    "ContextSpec",
    "Pooled",
    "Refined",
]

# The published modules of Table 1 come with the auxiliary classifier of their release, and predict per pixel without a projection.
CONTEXTS: dict[str, ContextSpec] = {
    "none": ContextSpec(make_none, meaning="no context module: the backbone's features as they are"),
    "anl": ContextSpec(
        make_pooled(lambda s: ANL(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention (Zhu et al. 2019)",
    ),
    "ccnet": ContextSpec(
        make_pooled(lambda s: CCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="criss-cross attention (Huang et al. 2019)",
    ),
    "deeplabv3plus": ContextSpec(
        make_pooled(lambda s: DeepLabV3Plus(s.width, s.resize, s.dtype)),
        reads=(0,),
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="dilated separable convolutions and a decoder (Chen et al. 2018, as in mmsegmentation)",
    ),
    "dsspn": ContextSpec(
        make_pooled(lambda s: DSSPN(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        classifies=True,
        losses={"neurons": ContextLoss(1.0, neuron_loss)},
        reads_hierarchy=True,
        meaning="DSSPN-style classification down a tree of classes (Liang et al. 2018)",
    ),
    "fcn": ContextSpec(
        make_pooled(lambda s: FCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="convolutions alone (Long et al. 2015, as in mmsegmentation)",
    ),
    "ocr": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="object-contextual representations (Yuan et al. 2020)",
    ),
    "psanet": ContextSpec(
        make_pooled(lambda s: PSANet(s.width, window_of(s.map_px), s.resize, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="point-wise spatial attention (Zhao et al. 2018)",
    ),
    "psanet_mmseg": ContextSpec(
        make_pooled(lambda s: PSANet(s.width, mmseg_window_of(s.map_px), None, border=1, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="point-wise spatial attention as in mmsegmentation, for its weights",
    ),
    "pspnet": ContextSpec(
        make_pooled(lambda s: PSPNet(s.width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling (Zhao et al. 2017)",
    ),
    "sgr": ContextSpec(
        make_pooled(lambda s: SGR(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        reads_hierarchy=True,
        meaning="SGR-style reasoning over a tree of classes (Liang et al. 2018)",
    ),
    "upernet": ContextSpec(
        make_pooled(lambda s: UperNet(s.width // 2, s.width, s.resize, is_enlarged_first=True, dtype=s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling and a decoder of half the width (Xiao et al. 2018)",
    ),
    "upernet_512": ContextSpec(
        make_pooled(lambda s: UperNet(s.width, s.width, s.resize, dropout=0.1, dtype=s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="pyramid pooling and a decoder of the full width (Xiao et al. 2018, as in mmsegmentation)",
    ),
    "layer_cascade": ContextSpec(
        make_pooled(lambda s: LayerCascade(s.width, s.dtype)),
        is_projected=False,
        make_refiner=lambda s: CascadeMerge(),
        make_gate=lambda s: CascadeGate(s.num_classes, s.key_width, dtype=s.dtype),
        losses=STAGE_LOSSES,
        meaning="LC-style cascade, which answers easy positions early (after Li et al. 2017)",
    ),
    "pointrend": ContextSpec(
        make_pooled(lambda s: PointRend(s.width // 2, s.width // 4, s.dtype)),
        reads=READS,
        stride=STRIDE,
        is_projected=False,
        make_refiner=lambda s: PointRefiner(s.num_classes, s.width // 2, dtype=s.dtype),
        refined_stride=1,
        losses=POINT_LOSSES,
        meaning="a feature pyramid, refined to single pixels at uncertain points (Kirillov et al. 2020)",
    ),
    "qgn": ContextSpec(
        make_pooled(lambda s: QGN(s.num_classes, s.width, False, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        reads_stem=True,
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=1,
        losses={"quadtree": ContextLoss(1.0, quadtree_loss)},
        meaning="quadtree generating networks, dense (Chitta et al. 2020)",
    ),
    "qgn_sparse": ContextSpec(
        make_pooled(lambda s: QGN(s.num_classes, s.width, True, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        reads_stem=True,
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=1,
        losses={"quadtree": ContextLoss(1.0, functools.partial(quadtree_loss, is_sparse=True))},
        meaning="the same, which goes on only where a cell is composite",
    ),
    "svcnet": ContextSpec(
        make_pooled(lambda s: SVCNet(s.num_classes, s.width, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        classifies=True,
        logits_stride=2,
        meaning="SVCNet-style shape-variant context (after Ding et al. 2019)",
    ),
    "acnet": ContextSpec(
        make_pooled(lambda s: ACNet(s.num_classes, s.width, s.resize, s.classifies, s.dtype)),
        reads=(0, 1, 2, 3),
        reads_stem=True,
        stride=4,
        has_auxiliary=True,
        is_projected=False,
        classifies=True,
        logits_stride=2,
        has_resize=True,
        meaning="ACNet-style adaptive context blocks (after Fu et al. 2019)",
    ),
    "coarse_to_fine": ContextSpec(
        lambda s: CoarseToFine(s.num_levels, s.width, s.key_width, s.dtype),
        meaning="the paper's coarse-to-fine module (Sec. 3.3)",
    ),
}
