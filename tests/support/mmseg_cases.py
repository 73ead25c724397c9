"""The heads of mmsegmentation that ours are compared with, for `mmseg_heads.py`: their options, and the sizes of their maps."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.mmseg_attention import MMSEG_ATTENTION
from pyrseg_jax.models.weights.mmseg_encoding import MMSEG_ENCODING
from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING
from pyrseg_jax.models.weights.segformer_heads import MMSEGMENTATION as SEGFORMER
from support.mmseg_heads import (
    CHANNELS,
    WIDTH,
    Maps,
    Pair,
    build_pair,
    import_state,
    logits_of,
    logits_of_heads,
    sizes_at,
    state_of,
)
from support.reference_networks import mmseg_models
from support.slow_criss_cross import SlowCrissCross
from support.slow_psamask import SlowPSAMask

KEY_WIDTH = WIDTH // 2
CONVENTIONS = {"half_pixel": False, "align_corners": True}  # of resizing → mmsegmentation's `align_corners`
Sizes = tuple[tuple[int, int], ...]


class Case(NamedTuple):
    """A head to compare.

    Attributes:
      context: a key of `CONTEXTS`.
      heads: the importer heads through which its weights come.
      decode_head: mmsegmentation's type and options.
      sizes: of C2 … C5.
      num_images: N.
      conventions: of resizing; one where the head resizes nothing.
      has_auxiliary: whether the auxiliary classifier stands beside it and is not a part of it.
      factors: layer of mmsegmentation's decode head → factor on its random weights.
      is_varied: whether regions and images differ in their means, see `vary`.
      extra: names of outputs beside the logits of both classifiers.
      read_ours, read_theirs: how to get them, see `build_pair`.
      options: more arguments of `build_segmenter`.
    """

    context: str
    heads: tuple[Head, ...]
    decode_head: Mapping[str, Any]
    sizes: Sizes
    num_images: int = 2
    conventions: tuple[str, ...] = ("half_pixel",)
    has_auxiliary: bool = True
    factors: Mapping[str, float] = {}
    is_varied: bool = False
    extra: tuple[str, ...] = ()
    read_ours: Callable[[Any], dict[str, Any]] | None = None
    read_theirs: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    options: Mapping[str, Any] = {}

    def build(self, seed: int = 0, convention: str = "half_pixel") -> Pair:
        """Build both networks with the same random weights; inside of `slow_operators`."""
        pair = build_pair(
            self.context,
            self.heads,
            self.decode_head,
            sizes=self.sizes,
            num_images=self.num_images,
            has_auxiliary=self.has_auxiliary,
            align_corners=CONVENTIONS[convention],
            read_ours=self.read_ours,
            read_theirs=self.read_theirs,
            seed=seed,
            **self.options,
        )
        if self.is_varied:
            vary(pair, seed)
        if self.factors:
            sharpen(pair, self.factors)
        if self.context == "ann":
            # Query and key are one projection, which mmsegmentation runs twice, so its running statistics move twice in each step.
            pair.theirs["decode_head"].context.stages[0].key_project.bn.momentum = 1 - 0.9**0.5
        return pair


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


@contextlib.contextmanager
def slow_operators() -> Iterator[None]:
    """Give mmsegmentation the operators that are compiled in mmcv, written in plain PyTorch, and the cascade of OCR as one head."""
    models = mmseg_models()
    models.register_module(module=OCRCascade, force=True)
    heads = "mmseg.models.decode_heads"
    with (
        mock.patch(f"{heads}.cc_head.CrissCrossAttention", SlowCrissCross),
        mock.patch(f"{heads}.psa_head.PSAMask", SlowPSAMask),
    ):
        yield


def vary(pair: Pair, seed: int = 0) -> None:
    """Let images, and regions of an image, differ in the mean of each channel, as those of a photograph do."""
    rng = np.random.default_rng(2 + seed)
    maps = []
    for x in pair.maps:
        n, h, w, c = x.shape
        field = rng.uniform(0, 2, (n, 7, 7, c))
        maps.append(np.float32(x * field[:, np.arange(h) * 7 // h][:, :, np.arange(w) * 7 // w]))
    pair.maps, pair.ours = tuple(maps), pair.ours.clone(backbone=Maps(tuple(maps)))


def sharpen(pair: Pair, factors: Mapping[str, float]) -> None:
    """Multiply the weights of some layers of mmsegmentation's head, and give them to ours.

    Then attention differs from place to place as after training. Where it does not, a normalization divides by nearly nothing, and
    float32 keeps few digits.
    """
    head = pair.theirs["decode_head"]
    with torch.no_grad():
        for name, factor in factors.items():
            head.get_submodule(name).weight.mul_(factor)
    pair.variables = import_state(state_of(pair.theirs), pair.ours, pair.heads)


def _read_danet(found):
    return logits_of(found) | dict(found.outputs)


def _read_danet_heads(outputs):
    total, position, channel = outputs["decode_head"]
    return logits_of_heads(outputs) | {"decode_head": total, "position": position, "channel": channel}


def _read_cascade(outputs):
    fine, coarse = outputs["decode_head"]
    return {"decode_head": fine, "auxiliary_head": coarse}


def _read_encnet(found):
    return logits_of(found) | {"presence": found.outputs["presence"]}


def _read_encnet_head(outputs):
    return logits_of_heads(outputs) | {"presence": outputs["decode_head"][1]}


def _pooling(context: str, decode_head: Mapping[str, Any], sizes: Sizes, **options: Any) -> Case:
    # Four images: the mean over a whole map is normalized over as many numbers as there are images.
    return Case(context, MMSEG_POOLING, decode_head, sizes, num_images=4, **options)


def _attention(context: str, decode_head: Mapping[str, Any], sizes: Sizes, **options: Any) -> Case:
    return Case(context, MMSEG_ATTENTION, decode_head, sizes, is_varied=True, **options)


def _psanet(size: tuple[int, int], crop_px: int, window: int) -> Case:
    head = {"type": "PSAHead", "mask_size": (window, window)}
    sizes = (*sizes_at(128, 96)[:2], size, size)
    return Case("psanet_mmseg", MMSEG_POOLING, head, sizes, options={"crop_px": crop_px})


_BOTH = tuple(CONVENTIONS)
_SEPARABLE = {"type": "DepthwiseSeparableASPPHead", "c1_in_channels": CHANNELS[0], "c1_channels": 48}
# The sizes belong to images of 96 × 128 … 192 × 256 pixels.
CASES = {
    "fcn": _pooling("fcn", {"type": "FCNHead", "num_convs": 2}, sizes_at(128, 192)),
    "pspnet": _pooling("pspnet", {"type": "PSPHead"}, sizes_at(192, 256), conventions=_BOTH),
    "upernet_512": _pooling(
        "upernet_512",
        {"type": "UPerHead", "in_channels": CHANNELS, "in_index": (0, 1, 2, 3)},
        sizes_at(96, 128, 32),
        conventions=_BOTH,
    ),
    "segformer_mmseg": Case(
        "segformer_mmseg",
        (SEGFORMER,),
        {"type": "SegformerHead", "in_channels": CHANNELS, "in_index": (0, 1, 2, 3)},
        sizes_at(96, 128, 32),
        conventions=_BOTH,
        has_auxiliary=False,
    ),
    "deeplabv3plus": _pooling(
        "deeplabv3plus", _SEPARABLE | {"dilations": (1, 12, 24, 36)}, sizes_at(96, 128), conventions=_BOTH
    ),
    "deeplabv3plus, stride 16": _pooling(
        "deeplabv3plus", _SEPARABLE | {"dilations": (1, 6, 12, 18)}, sizes_at(96, 128, 16)
    ),
    # The window covers all offsets, or not those along the longer side; odd and even sides are resized differently.
    "psanet_mmseg": _psanet((12, 16), 96, 14),
    "psanet_mmseg, one odd side": _psanet((12, 11), 96, 14),
    "psanet_mmseg, odd sides": _psanet((13, 15), 104, 13),
    "psanet_mmseg, large window": _psanet((16, 12), 128, 18),
    "nonlocal": _attention(
        "nonlocal",
        {"type": "NLHead"},
        sizes_at(128, 192),
        factors={"nl_block.theta.conv": 4, "nl_block.phi.conv": 4},
    ),
    "danet": _attention(
        "danet",
        {"type": "DAHead", "pam_channels": WIDTH // 8},
        sizes_at(128, 96),
        extra=("position", "channel"),
        read_ours=_read_danet,
        read_theirs=_read_danet_heads,
    ),
    "emanet_mmseg": _attention(
        "emanet_mmseg",
        {"type": "EMAHead", "channels": WIDTH // 2, "ema_channels": WIDTH, "num_bases": 64, "num_stages": 3},
        sizes_at(192, 256),
        factors={"ema_mid_conv.conv": 8},
    ),
    # It normalizes one value per image and channel, so it needs more images.
    "apcnet": _attention(
        "apcnet",
        {"type": "APCHead"},
        sizes_at(128, 96),
        num_images=8,
        factors={f"acm_modules.{i}.gla": 3 for i in range(4)},
    ),
    "ccnet": _attention("ccnet", {"type": "CCHead"}, sizes_at(128, 96)),
    "ann": _attention(
        "ann",
        {"type": "ANNHead", "project_channels": KEY_WIDTH, "in_channels": CHANNELS[2:], "in_index": (2, 3)},
        sizes_at(192, 256),
        factors={f"{block}.stages.0.key_project.conv": 4 for block in ("fusion", "context")},
    ),
    "ocr": _attention(
        "ocr",
        {"type": "OCRCascade"},
        sizes_at(192, 256),
        has_auxiliary=False,
        factors={"0.conv_seg": 8},
        read_theirs=_read_cascade,
    ),
    "encnet": Case(
        "encnet",
        MMSEG_ENCODING,
        {"type": "EncHead", "in_channels": (16, 24, 64), "in_index": (1, 2, 3)},
        sizes_at(128, 192),
        extra=("presence",),
        read_ours=_read_encnet,
        read_theirs=_read_encnet_head,
    ),
}
