"""Context modules: from backbone features to one feature map per level of the pyramid, one file per published module.

To add a module, write a file for it and add one line to `CONTEXTS`. `contract.py` says how a module is called, and what its spec
tells the rest of the package.
"""

import functools

from pyrseg_jax.models.contexts.acfnet import COARSE_WEIGHT, ACFNet, coarse_loss
from pyrseg_jax.models.contexts.acnet import ACNet
from pyrseg_jax.models.contexts.affinity import affinity_loss
from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.ann import ANN, ANN_STAGES
from pyrseg_jax.models.contexts.apcnet import APCNet
from pyrseg_jax.models.contexts.ccnet import CCNet
from pyrseg_jax.models.contexts.cfnet import CFNet
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
from pyrseg_jax.models.contexts.cpnet import CPNet
from pyrseg_jax.models.contexts.danet import DANET_LOSSES, DANet
from pyrseg_jax.models.contexts.deeplabv3plus import DeepLabV3Plus
from pyrseg_jax.models.contexts.dsspn import DSSPN, neuron_loss
from pyrseg_jax.models.contexts.emanet import EMANET_FROZEN, EMANet
from pyrseg_jax.models.contexts.encnet import PRESENCE_WEIGHT, EncNet
from pyrseg_jax.models.contexts.encoding import presence_loss
from pyrseg_jax.models.contexts.fcn import FCN
from pyrseg_jax.models.contexts.fcn_short import ShortFCN
from pyrseg_jax.models.contexts.layer_cascade import CASCADE_LOSSES, CascadeGate, CascadeMerge, LayerCascade
from pyrseg_jax.models.contexts.non_local import NonLocal
from pyrseg_jax.models.contexts.ocr import OCR, openseg_auxiliary
from pyrseg_jax.models.contexts.pointrend import POINT_LOSSES, READS, STRIDE, PointRefiner, PointRend
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
    "acfnet": ContextSpec(
        make_pooled(lambda s: ACFNet(s.width, s.num_classes, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"coarse": ContextLoss(COARSE_WEIGHT, coarse_loss)},
        meaning="attentional class features (Zhang et al. 2019)",
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
    "anl": ContextSpec(
        make_pooled(lambda s: ANL(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention (Zhu et al. 2019)",
    ),
    "ann": ContextSpec(
        make_pooled(lambda s: ANN(s.width, s.key_width, s.dtype)),
        reads=ANN_STAGES,
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention with the fusion of an earlier stage (Zhu et al. 2019)",
    ),
    "apcnet": ContextSpec(
        make_pooled(lambda s: APCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="adaptive pyramid context (He et al. 2019)",
    ),
    "ccnet": ContextSpec(
        make_pooled(lambda s: CCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="criss-cross attention (Huang et al. 2019)",
    ),
    "cfnet": ContextSpec(
        make_pooled(lambda s: CFNet(s.width, s.num_classes, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="co-occurrent features (Zhang et al. 2019)",
    ),
    "cpnet": ContextSpec(
        make_pooled(lambda s: CPNet(s.width, s.map_px, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"affinity": ContextLoss(1.0, affinity_loss)},
        meaning="context prior with affinity loss (Yu et al. 2020)",
    ),
    "danet": ContextSpec(
        make_pooled(lambda s: DANet(s.num_classes, s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses=DANET_LOSSES,
        meaning="attention between positions and between channels (Fu et al. 2019)",
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
    "emanet": ContextSpec(
        make_pooled(lambda s: EMANet(s.width, is_release=True, dtype=s.dtype)),
        is_projected=False,
        has_state=True,
        frozen=EMANET_FROZEN,
        meaning="expectation-maximization attention (Li et al. 2019), as in its release",
    ),
    "emanet_mmseg": ContextSpec(
        make_pooled(lambda s: EMANet(s.width, is_release=False, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_state=True,
        frozen=EMANET_FROZEN,
        meaning="expectation-maximization attention (Li et al. 2019), as in mmsegmentation",
    ),
    "encnet": ContextSpec(
        make_pooled(lambda s: EncNet(s.width, s.num_classes, dtype=s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses={"presence": ContextLoss(PRESENCE_WEIGHT, presence_loss)},
        meaning="context encoding (Zhang et al. 2018)",
    ),
    "fcn": ContextSpec(
        make_pooled(lambda s: FCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="convolutions alone (Long et al. 2015, as in mmsegmentation)",
    ),
    "fcn_short": ContextSpec(
        make_pooled(lambda s: ShortFCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="one convolution (Long et al. 2015, as in PyTorch-Encoding)",
    ),
    "layer_cascade": ContextSpec(
        make_pooled(lambda s: LayerCascade(s.width, s.dtype)),
        is_projected=False,
        make_refiner=lambda s: CascadeMerge(),
        make_gate=lambda s: CascadeGate(s.num_classes, s.width, dtype=s.dtype),
        losses=CASCADE_LOSSES,
        meaning="LC-style cascade, which answers easy positions early (after Li et al. 2017)",
    ),
    "nonlocal": ContextSpec(
        make_pooled(lambda s: NonLocal(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="non-local attention (Wang et al. 2018)",
    ),
    "ocr": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="object-contextual representations (Yuan et al. 2020)",
    ),
    "ocr_openseg": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        auxiliary=openseg_auxiliary,
        is_projected=False,
        has_resize=True,
        meaning="the same with the auxiliary classifier of openseg's release, a 3×3 convolution",
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
    "sgr": ContextSpec(
        make_pooled(lambda s: SGR(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        reads_hierarchy=True,
        meaning="SGR-style reasoning over a tree of classes (Liang et al. 2018)",
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
    "coarse_to_fine": ContextSpec(
        lambda s: CoarseToFine(s.num_levels, s.width, s.key_width, s.dtype),
        meaning="the paper's coarse-to-fine module (Sec. 3.3)",
    ),
}
