"""Context modules: from backbone features to one feature map per level of the pyramid, one file per published module.

To add a module, write a file for it and add one line to `CONTEXTS`. `contract.py` says how a module is called, and what its spec
tells the rest of the package.
"""

from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.ann import ANN, ANN_STAGES
from pyrseg_jax.models.contexts.apcnet import APCNet
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
from pyrseg_jax.models.contexts.danet import DANET_LOSSES, DANet
from pyrseg_jax.models.contexts.emanet import EMANET_FROZEN, EMANet
from pyrseg_jax.models.contexts.fcn import FCN
from pyrseg_jax.models.contexts.non_local import NonLocal
from pyrseg_jax.models.contexts.ocr import OCR, openseg_auxiliary

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
    "danet": ContextSpec(
        make_pooled(lambda s: DANet(s.num_classes, s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        losses=DANET_LOSSES,
        meaning="attention between positions and between channels (Fu et al. 2019)",
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
    "fcn": ContextSpec(
        make_pooled(lambda s: FCN(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="convolutions alone (Long et al. 2015, as in mmsegmentation)",
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
    "coarse_to_fine": ContextSpec(
        lambda s: CoarseToFine(s.num_levels, s.width, s.key_width, s.dtype),
        meaning="the paper's coarse-to-fine module (Sec. 3.3)",
    ),
}
