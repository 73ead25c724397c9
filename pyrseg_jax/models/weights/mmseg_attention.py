"""Names of mmsegmentation's heads of attention on ResNets: Non-local, DANet, EMANet, APCNet, CCNet, ANN and OCR."""

from collections.abc import Collection, Mapping

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT, mmsegmentation_ocr
from pyrseg_jax.models.weights.mmseg_pooling import AUXILIARY_NAMES, CONTRACTED

HEAD = "decode_head"


def _head(
    method: str,
    marker: str,
    layers: Mapping[str, str],
    plain: Mapping[str, str] | None = None,
    arrays: Mapping[str, str] | None = None,
    repeated: Collection[str] = (),
) -> Head:
    """Build the head of one method, with mmsegmentation's names without "decode_head.".

    Args:
      method: its name, in words.
      marker: a layer that only this head has; its weight is the marker.
      layers: our layer of the context module → a convolution and its normalization.
      plain: our layer → a convolution without normalization.
      arrays: our array → the array.
      repeated: layers that repeat others.
    """
    named: dict[str, tuple[str, str | None]] = {
        f"{CONTEXT}/{ours}": (f"{HEAD}.{name}.conv", f"{HEAD}.{name}.bn") for ours, name in layers.items()
    }
    named |= {f"{CONTEXT}/{ours}": (f"{HEAD}.{name}", None) for ours, name in (plain or {}).items()}
    return Head(
        f"{method}, mmsegmentation",
        f"{HEAD}.{marker}.weight",
        named | {CLASSIFIER: (f"{HEAD}.conv_seg", None)} | AUXILIARY_NAMES,
        arrays={f"{CONTEXT}/{ours}": f"{HEAD}.{name}" for ours, name in (arrays or {}).items()},
        trained=CONTRACTED,
        repeated=tuple(f"{HEAD}.{name}." for name in repeated),
    )


_AROUND = {"reduce": "convs.0", "smooth": "convs.1", "merge": "conv_cat"}
_SCALES = {
    f"scale_{scale}/{ours}": f"acm_modules.{i}.{name}"
    for i, scale in enumerate((1, 2, 3, 6))
    for ours, name in {
        "reduce": "input_redu_conv",
        "regions": "pooled_redu_conv",
        "global": "global_info",
        "residual": "residual_conv",
        "fusion": "fusion_conv",
    }.items()
}

MMSEG_ATTENTION = (
    _head(
        "Non-local",
        "nl_block.g.conv",
        _AROUND | {"out": "nl_block.conv_out"},
        {"query": "nl_block.theta.conv", "key": "nl_block.phi.conv", "value": "nl_block.g.conv"},
    ),
    _head(
        "DANet",
        "pam_in_conv.conv",
        {
            "position_reduce": "pam_in_conv",
            "position_smooth": "pam_out_conv",
            "channel_reduce": "cam_in_conv",
            "channel_smooth": "cam_out_conv",
        },
        {f"position/{name}": f"pam.{name}_project" for name in ("query", "key", "value")}
        | {"position_classify": "pam_conv_seg", "channel_classify": "cam_conv_seg"},
        {"position/gamma": "pam.gamma.scale", "channel/gamma": "cam.gamma.scale"},
    ),
    _head(
        "EMANet",
        "ema_in_conv.conv",
        {"reduce": "ema_in_conv", "unit/out": "ema_out_conv", "smooth": "bottleneck", "merge": "conv_cat"},
        {"unit/project": "ema_mid_conv.conv"},
        {"unit/bases": "ema_module.bases"},
    ),
    _head(
        "APCNet",
        "acm_modules.0.gla",
        _SCALES | {"merge": "bottleneck"},
        {f"scale_{scale}/affinity": f"acm_modules.{i}.gla" for i, scale in enumerate((1, 2, 3, 6))},
    ),
    _head(
        "CCNet",
        "cca.query_conv",
        _AROUND,
        {f"criss_cross/{name}": f"cca.{name}_conv" for name in ("query", "key", "value")},
        {"criss_cross/gamma": "cca.gamma.scale"},
    ),
    _head(
        "ANN",
        "fusion.bottleneck.conv",
        {
            "fusion/query": "fusion.stages.0.query_project",
            "fusion/key": "fusion.stages.0.key_project",
            "fusion/merge": "fusion.bottleneck",
            "self_attention/reduce": "bottleneck",
            "self_attention/key": "context.stages.0.key_project",
            "self_attention/merge": "context.bottleneck",
        },
        {
            "fusion/value": "fusion.stages.0.value_project",
            "fusion/out": "fusion.stages.0.out_project",
            "self_attention/value": "context.stages.0.value_project",
            "self_attention/out": "context.stages.0.out_project",
        },
        repeated=("context.stages.0.query_project",),  # query and key are one projection, under both names
    ),
    # The auxiliary classifier is the first head of a cascade of two.
    Head("OCR, mmsegmentation", f"{HEAD}.1.bottleneck.conv.weight", mmsegmentation_ocr(), trained=CONTRACTED),
)
