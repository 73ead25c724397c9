"""Context modules: from backbone features to one feature map per level of the pyramid, one file per published module.

To add a module, write a file for it that ends with its `SPECS`, and add one line to `CONTEXTS`. `contract.py` says how a module is
called, and what its spec tells the rest of the package.
"""

from pyrseg_jax.models.contexts import (
    acfnet,
    acnet,
    anl,
    ann,
    apcnet,
    ccnet,
    cfnet,
    coarse_to_fine,
    cpnet,
    danet,
    deeplabv3plus,
    dsspn,
    emanet,
    encnet,
    fcn,
    fcn_short,
    layer_cascade,
    non_local,
    ocr,
    pointrend,
    psanet,
    pspnet,
    qgn,
    segformer,
    sgr,
    svcnet,
    upernet,
)
from pyrseg_jax.models.contexts.contract import (
    ContextLoss,
    ContextMap,
    ContextOutput,
    ContextSettings,
    ContextSpec,
    Pooled,
    Refined,
    make_none,
)

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
    **acfnet.SPECS,
    **acnet.SPECS,
    **anl.SPECS,
    **ann.SPECS,
    **apcnet.SPECS,
    **ccnet.SPECS,
    **cfnet.SPECS,
    **cpnet.SPECS,
    **danet.SPECS,
    **deeplabv3plus.SPECS,
    **dsspn.SPECS,
    **emanet.SPECS,
    **encnet.SPECS,
    **fcn.SPECS,
    **fcn_short.SPECS,
    **layer_cascade.SPECS,
    **non_local.SPECS,
    **ocr.SPECS,
    **pointrend.SPECS,
    **psanet.SPECS,
    **pspnet.SPECS,
    **qgn.SPECS,
    **segformer.SPECS,
    **sgr.SPECS,
    **svcnet.SPECS,
    **upernet.SPECS,
    **coarse_to_fine.SPECS,
}
