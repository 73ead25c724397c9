"""PointRend against mmsegmentation's feature pyramid, coarse head and point head, on the same weights, maps and points."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference_networks import mmseg_models, randomize, require

pytest.importorskip("torch")
from support.double import float64  # noqa: E402
from support.mmseg_heads import CHANNELS, Maps, compare_trees, draw_maps, far, import_state, state_of  # noqa: E402
from support.parity import keep_all  # noqa: E402

from pyrseg_jax.models.segmenter import build_segmenter  # noqa: E402
from pyrseg_jax.models.weights.mmseg_points import MMSEG_POINTS  # noqa: E402

CLASSES = 7
NUM_POINTS = 64


def build(height, width, num_points=8196, dtype="float32"):
    """Both networks with the same weights, and the maps of an image of this size at output stride 32."""
    models = mmseg_models()
    common = {"num_classes": CLASSES, "dropout_ratio": -1, "align_corners": False}
    fpn = {"type": "FPN", "in_channels": list(CHANNELS), "out_channels": 16, "num_outs": 4}
    coarse = {
        "type": "FPNHead",
        "in_channels": [16] * 4,
        "in_index": [0, 1, 2, 3],
        "feature_strides": [4, 8, 16, 32],
        "channels": 8,
        "norm_cfg": {"type": "BN"},
    }
    points = {"type": "PointHead", "in_channels": [16], "in_index": [0], "channels": 16}
    theirs = {
        "neck": randomize(models.build(fpn), 0),
        "decode_head.0": randomize(models.build(coarse | common), 1),
        "decode_head.1": randomize(models.build(points | common), 2),
    }
    maps = draw_maps([(height // stride, width // stride) for stride in (4, 8, 16, 32)])
    ours = build_segmenter(
        CLASSES,
        backbone="resnet_tiny",
        context="pointrend",
        representation="per_pixel",
        semantic_width=32,
        key_width=16,
        dtype=dtype,
    )
    refiner = ours.refiner.clone(num_training_points=NUM_POINTS, num_points=num_points)
    ours = ours.clone(backbone=Maps(tuple(x.astype(dtype) for x in maps)), refiner=refiner)
    return ours, import_state(state_of(theirs), ours, MMSEG_POINTS), theirs, maps


def to_torch(maps, double=False):
    import torch

    maps = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in maps]
    return [x.double() for x in maps] if double else maps


@pytest.mark.parametrize(("height", "width"), [(96, 128), (192, 256)])
def test_inference_equals_mmsegmentation(height, width):
    """On the smaller image, the first doubling refines every position; 300 points are few everywhere."""
    require("mmseg")
    import torch
    from mmengine.config import ConfigDict

    for num_points in (8196, 300):
        ours, variables, theirs, maps = build(height, width, num_points)
        test = ConfigDict(subdivision_steps=2, scale_factor=2, subdivision_num_points=num_points)
        with torch.no_grad():
            pyramid = theirs["neck"](to_torch(maps))
            coarse = theirs["decode_head.0"](pyramid)
            metas = [{"img_shape": (height, width)}] * len(maps[0])
            expected = theirs["decode_head.1"].predict(pyramid, coarse, metas, test).numpy()
        found = jax.jit(ours.apply)(variables, jnp.zeros((len(maps[0]), 64, 64, 3))).semantic[-1]
        difference = far(np.asarray(found).transpose(0, 3, 1, 2), expected)
        print(f"{height}×{width}, {num_points} points: {difference:.1e}")
        assert difference < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float64", 1e-6)])
def test_training_equals_mmsegmentation(monkeypatch, dtype, tolerance):
    """The same candidates: the same chosen points, losses, and gradients of all parameters."""
    mmseg_models()
    with float64() if dtype == "float64" else contextlib.nullcontext():
        assert compare_training(monkeypatch, dtype) < tolerance


def compare_training(monkeypatch, dtype):
    """Compare the loss, and return the largest difference of a gradient."""
    import torch
    from mmengine.config import ConfigDict
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    height, width = 96, 128
    ours, variables, theirs, maps = build(height, width, dtype=dtype)
    variables = jax.tree.map(lambda x: np.asarray(x, dtype), variables)
    n = len(maps[0])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (n, height, width)).astype(np.uint8)
    candidates, others = rng.random((n, 3 * NUM_POINTS, 2)), rng.random((n, NUM_POINTS // 4, 2))  # (row, column)
    drawn = {x.shape: x for x in (candidates, others)}

    heads = {name: head.double().train() for name, head in theirs.items()}
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.from_numpy(drawn[shape][..., ::-1].copy()))
    pyramid = heads["neck"](to_torch(maps, double=True))
    coarse = heads["decode_head.0"](pyramid)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(x[None].astype(np.int64)))) for x in labels]
    # `point_sample` of the integer labels is computed in float32 there.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    train = ConfigDict(num_points=NUM_POINTS, oversample_ratio=3, importance_sample_ratio=0.75)
    point_loss = heads["decode_head.1"].loss(pyramid, coarse, samples, train)["pointloss_ce"]
    weights = rng.normal(size=tuple(coarse.shape))
    (point_loss + (torch.from_numpy(weights) * coarse).mean()).backward()

    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.asarray(drawn[shape], jnp.float32))
    from pyrseg_jax.models.contexts.pointrend import point_loss as our_loss

    def loss(params):
        with nn.intercept_methods(keep_all):
            found, _ = ours.apply(
                {**variables, "params": params},
                jnp.zeros((n, 64, 64, 3)),
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
        points = our_loss(found.outputs, jnp.asarray(labels), "finest")
        return points + (weights.transpose(0, 2, 3, 1) * found.semantic[-1]).mean(), points

    (_, points), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    assert float(points) == pytest.approx(point_loss.item(), rel=1e-5)
    state = {
        f"{prefix}.{name}": parameter.grad.numpy()
        for prefix, head in heads.items()
        for name, parameter in head.named_parameters()
    }
    return compare_trees(gradients, import_state(state, ours, MMSEG_POINTS)["params"])
