"""FCN, PSPNet, UperNet, DeepLabV3+ and PSANet: equal to mmsegmentation's heads, from weights through our importer."""

import pytest

pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

from support.mmseg_heads import CHANNELS, build_pair, sizes_at  # noqa: E402
from support.reference_networks import mmseg_models  # noqa: E402
from support.slow_psamask import SlowPSAMask  # noqa: E402

from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING  # noqa: E402

# Name → mmsegmentation's head, and the sizes of C2 … C5: of images of 96 × 128 … 192 × 256 pixels.
HEADS = {
    "fcn": ({"type": "FCNHead", "num_convs": 2}, sizes_at(128, 192)),
    "pspnet": ({"type": "PSPHead"}, sizes_at(192, 256)),
    "upernet_512": ({"type": "UPerHead", "in_channels": CHANNELS, "in_index": (0, 1, 2, 3)}, sizes_at(96, 128, 32)),
    "deeplabv3plus": (
        {
            "type": "DepthwiseSeparableASPPHead",
            "dilations": (1, 12, 24, 36),
            "c1_in_channels": CHANNELS[0],
            "c1_channels": 48,
        },
        sizes_at(96, 128),
    ),
}


def assert_equal(context, head, sizes, **options):
    """Compare outputs, and gradients and running means in training.

    A ReLU whose input is so near zero that float32 and float64 round it to different sides changes a gradient by about 1 / √(number
    of positions). So the gradients must agree for one of four drawings of weights and maps.
    """
    found = []
    for seed in range(4):
        pair = build_pair(context, MMSEG_POOLING, head, sizes=sizes, seed=seed, **options)
        assert pair.compare_outputs() < 1e-5
        found.append(pair.compare_training())
        assert found[-1][1] < 1e-5
        if found[-1][0] < 1e-3:
            break
    assert min(gradients for gradients, _ in found) < 1e-3, found


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("context", HEADS)
def test_equal_to_mmsegmentation(context, align_corners):
    if context == "fcn" and align_corners:
        pytest.skip("FCN enlarges nothing")
    head, sizes = HEADS[context]
    # Four images: the mean over a whole map is normalized over as many numbers as there are images.
    assert_equal(context, head, sizes, num_images=4, align_corners=align_corners)


def test_deeplabv3plus_at_stride_16():
    head, _ = HEADS["deeplabv3plus"]
    head = head | {"dilations": (1, 6, 12, 18)}
    assert_equal("deeplabv3plus", head, sizes_at(96, 128, 16), num_images=4)


@pytest.mark.parametrize(
    ("size", "crop_px", "window"), [((12, 16), 96, 14), ((12, 11), 96, 14), ((13, 15), 104, 13), ((16, 12), 128, 18)]
)
def test_psanet(monkeypatch, size, crop_px, window):
    """The window covers all offsets, or not those along the longer side; odd and even sides are resized differently."""
    mmseg_models()
    monkeypatch.setattr("mmseg.models.decode_heads.psa_head.PSAMask", SlowPSAMask)
    sizes = (*sizes_at(128, 96)[:2], size, size)
    head = {"type": "PSAHead", "mask_size": (window, window)}
    assert_equal("psanet_mmseg", head, sizes, crop_px=crop_px)
