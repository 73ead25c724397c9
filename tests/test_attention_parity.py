"""Methods of attention: equal to mmsegmentation's heads, from weights through our importer."""

import pytest

pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from support.mmseg_heads import (  # noqa: E402
    CHANNELS,
    WIDTH,
    Maps,
    build_pair,
    import_state,
    logits_of,
    logits_of_heads,
    sizes_at,
    state_of,
)
from support.reference_networks import mmseg_models  # noqa: E402
from support.slow_criss_cross import SlowCrissCross  # noqa: E402

from pyrseg_jax.models.weights.mmseg_attention import MMSEG_ATTENTION  # noqa: E402

KEY_WIDTH = WIDTH // 2
# Context → mmsegmentation's head, and the sizes of C2 … C5: of images of 128 × 96, 128 × 192 and 192 × 256 pixels.
HEADS = {
    "nonlocal": ({"type": "NLHead"}, sizes_at(128, 192)),
    "danet": ({"type": "DAHead", "pam_channels": WIDTH // 8}, sizes_at(128, 96)),
    "emanet_mmseg": (
        {"type": "EMAHead", "channels": WIDTH // 2, "ema_channels": WIDTH, "num_bases": 64, "num_stages": 3},
        sizes_at(192, 256),
    ),
    "apcnet": ({"type": "APCHead"}, sizes_at(128, 96)),
    "ccnet": ({"type": "CCHead"}, sizes_at(128, 96)),
    "ann": (
        {"type": "ANNHead", "project_channels": KEY_WIDTH, "in_channels": CHANNELS[2:], "in_index": (2, 3)},
        sizes_at(192, 256),
    ),
    "ocr": ({"type": "OCRCascade"}, sizes_at(192, 256)),
}


class OCRCascade(torch.nn.Module):
    """mmsegmentation's two heads of OCR, one after the other, by the names of its cascade."""

    def __init__(self, in_channels: int, in_index: int, channels: int, **options):
        super().__init__()
        coarse = {"type": "FCNHead", "in_channels": CHANNELS[2], "in_index": 2, "channels": 256, "num_convs": 1}
        fine = {"type": "OCRHead", "in_channels": in_channels, "in_index": in_index, "ocr_channels": KEY_WIDTH}
        models = mmseg_models()
        self.add_module("0", models.build(coarse | {"concat_input": False} | options))
        self.add_module("1", models.build(fine | {"channels": channels} | options))

    def forward(self, maps):
        coarse, fine = self.children()
        logits = coarse(maps)
        return fine(maps, logits), logits


def read_danet(found):
    return logits_of(found) | dict(found.outputs)


def read_danet_heads(outputs):
    total, position, channel = outputs["decode_head"]
    return logits_of_heads(outputs) | {"decode_head": total, "position": position, "channel": channel}


def read_cascade(outputs):
    fine, coarse = outputs["decode_head"]
    return {"decode_head": fine, "auxiliary_head": coarse}


READERS = {
    "danet": {"read_ours": read_danet, "read_theirs": read_danet_heads},
    "ocr": {"read_theirs": read_cascade, "has_auxiliary": False},
}


# Factors on random weights, so that attention differs from place to place as after training. Where it does not, a normalization
# divides by nearly nothing, and float32 keeps few digits.
FACTORS = {
    "nonlocal": {"nl_block.theta.conv": 4, "nl_block.phi.conv": 4},
    "emanet_mmseg": {"ema_mid_conv.conv": 8},
    "apcnet": {f"acm_modules.{i}.gla": 3 for i in range(4)},
    "ann": {f"{block}.stages.0.key_project.conv": 4 for block in ("fusion", "context")},
    "ocr": {"0.conv_seg": 8},
}


def vary(pair):
    """Let images, and regions of an image, differ in the mean of each channel, as those of a photograph do."""
    rng = np.random.default_rng(2)
    maps = []
    for x in pair.maps:
        n, h, w, c = x.shape
        field = rng.uniform(0, 2, (n, 7, 7, c))
        maps.append(np.float32(x * field[:, np.arange(h) * 7 // h][:, :, np.arange(w) * 7 // w]))
    pair.maps, pair.ours = tuple(maps), pair.ours.clone(backbone=Maps(tuple(maps)))


def sharpen(pair, factors):
    """Multiply the weights of some layers of mmsegmentation's head, and give them to ours."""
    head = pair.theirs["decode_head"]
    with torch.no_grad():
        for name, factor in factors.items():
            head.get_submodule(name).weight.mul_(factor)
    pair.variables = import_state(state_of(pair.theirs), pair.ours, pair.heads)


@pytest.mark.parametrize("context", HEADS)
def test_equal_to_mmsegmentation(context, monkeypatch):
    models = mmseg_models()
    from mmseg.models.decode_heads import cc_head

    monkeypatch.setattr(cc_head, "CrissCrossAttention", SlowCrissCross)
    models.register_module(module=OCRCascade, force=True)
    decode_head, sizes = HEADS[context]
    # APCNet normalizes one value per image and channel, so it needs more images. The seed is one with which no value lies so close
    # to 0 that rounding decides whether a ReLU passes its gradient; a single one changes a gradient by 1 %.
    num_images, seed = (8, 3) if context == "apcnet" else (2, 0)
    pair = build_pair(
        context, MMSEG_ATTENTION, decode_head, sizes=sizes, num_images=num_images, seed=seed, **READERS.get(context, {})
    )
    vary(pair)
    sharpen(pair, FACTORS.get(context, {}))
    if context == "ann":
        # Query and key are one projection, which mmsegmentation runs twice, so its running statistics move twice in each step.
        pair.theirs["decode_head"].context.stages[0].key_project.bn.momentum = 1 - 0.9**0.5
    outputs = pair.compare_outputs()
    gradients, statistics = pair.compare_training()
    print(f"{context}: outputs {outputs:.1e}, gradients {gradients:.1e}, statistics {statistics:.1e}")
    assert outputs < 1e-5
    assert gradients < 1e-3
    assert statistics < 1e-5
