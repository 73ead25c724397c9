"""Our networks against PyTorch twins with the same weights: the twins are in float64, so that only our rounding is measured."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

from support import parity  # noqa: E402
from support.double import float64, to_float64  # noqa: E402
from support.trees import assert_trees_equal  # noqa: E402

from pyrseg_jax.models.initial import abstract_variables  # noqa: E402
from pyrseg_jax.models.weights import hrnet as torch_weights  # noqa: E402


def prepare(context="none", resize="half_pixel", size=(64, 96), **kwargs):
    model, twin = parity.build(context=context, resize=resize, **kwargs)
    variables = parity.draw(model)
    parity.load(twin, variables, context)
    return model, twin.double(), variables, parity.images_of(*size)


@pytest.mark.parametrize(
    ("context", "resize"),
    [
        ("none", "nearest"),
        ("ocr", "half_pixel"),
        ("anl", "half_pixel"),
        ("ccnet", "half_pixel"),
    ],
)
def test_logits_equal_the_twins(context, resize):
    backbone = "hrnet_tiny" if context == "none" else None
    model, twin, variables, images = prepare(context, resize, backbone=backbone)
    expected = parity.run_twin(twin, images, train=False)
    found = parity.make_run(model, train=False)(variables, images)
    for a, b in zip(found[:2], expected, strict=True):
        assert b is None or parity.far(a, b) < 1e-4


@pytest.mark.parametrize(
    ("context", "backbone"), [("none", "hrnet_tiny"), ("ocr", None), ("anl", None), ("ccnet", None)]
)
def test_training_equals_the_twins(rng, context, backbone):
    """Logits with the statistics of the batch, the running statistics after it, and the gradients; all of them in float64."""
    model, twin, variables, images = prepare(context, size=(64, 96), backbone=backbone)
    shapes = jax.eval_shape(parity.make_run(model, True), variables, images)[:2]
    weights = [None if y is None else rng.normal(size=y.shape).astype(np.float32) for y in shapes]
    with float64():
        double, _ = parity.build(context=context, backbone=backbone, dtype="float64")
        run = parity.make_training(double, weights)
        gradients, *found, statistics = jax.device_get(run(to_float64(variables), images.astype(np.float64)))
    expected = parity.train_twin(twin, images, weights)
    for a, b in zip(found, expected, strict=True):
        assert b is None or parity.far(a, b) < 1e-6
    assert parity.far_gradients(gradients, twin, variables, context) < 1e-6
    if context == "none":
        theirs = torch_weights.convert_segmenter(
            {name: tensor.numpy() for name, tensor in twin.state_dict().items()}, abstract_variables(model)
        )["batch_stats"]
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(statistics), jax.tree.leaves(theirs), strict=True):
            # PyTorch keeps the unbiased variance: at the 8 positions of the coarsest branch 8/7 of the biased one.
            tolerance = 1e-4 if path[-1].key == "mean" else 0.1
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-4, err_msg=str(path))


def test_a_deep_network_equals_the_twin():
    """With several modules and blocks; the published widths, which take long to compile, are in benchmarks/parity.py."""
    model, twin, variables, images = prepare(resize="align_corners", backbone="hrnet_deep", size=(64, 64))
    expected = parity.run_twin(twin, images[:1], train=False)[0]
    assert parity.far(parity.make_run(model, train=False)(variables, images[:1])[0], expected) < 1e-4


@pytest.mark.parametrize("train", [False, True])
def test_both_pyramids_equal_the_twins(train):
    """The whole network of the paper, with running statistics and with those of the batch."""
    model, twin = parity.build_pyramid()
    variables = parity.draw(model)
    parity.load_pyramid(twin, variables)
    images = parity.images_of(64, 96)
    semantic, unity = twin.double().train(train)(torch.tensor(images.transpose(0, 3, 1, 2)).double())
    run = jax.jit(lambda variables, images: model.apply(variables, images, train, mutable=["batch_stats"])[0])
    found = run(variables, images)
    assert len(found.semantic) == len(semantic) == 4
    assert len(found.unity) == len(unity) == 3
    for ours, theirs in zip(found.semantic, semantic, strict=True):
        # Random weights make scores of hundreds in the attention, whose rounding the softmax makes larger.
        assert parity.far(ours, theirs.permute(0, 2, 3, 1)) < 1e-3
    for ours, theirs in zip(found.unity, unity, strict=True):
        assert parity.far(ours, theirs) < 1e-4


def test_half_precision_finds_the_same_classes():
    model, twin, variables, images = prepare(dtype="bfloat16", size=(64, 96))
    expected = parity.run_twin(twin, images, train=False)[0]
    found = parity.make_run(model, train=False)(variables, images)[0]
    # Random weights leave small margins between classes; docs/guide/results.md has the shares at full size.
    assert (np.argmax(found, -1) == expected.detach().argmax(-1).numpy()).mean() >= 0.97


@pytest.mark.parametrize("context", ["none", "ocr"])
def test_weights_go_to_pytorch_and_back(context):
    """Strictly: no name is missing there, none is left over."""
    model, twin, variables, _ = prepare(context)
    state = {name: torch.tensor(np.array(a)) for name, a in torch_weights.to_state_dict(variables).items()}
    twin.float().load_state_dict(state, strict=True)
    back = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    again = torch_weights.convert_segmenter(back, abstract_variables(model))
    assert_trees_equal(again, variables)


def test_a_bias_before_a_normalization_is_kept_in_its_mean():
    model, twin, _, images = prepare()
    with torch.no_grad():
        twin.last_layer[0].bias.uniform_(-2, 2)
    state = {name: tensor.float().numpy() for name, tensor in twin.state_dict().items()}
    variables = torch_weights.convert_segmenter(state, abstract_variables(model))
    expected = parity.run_twin(twin, images, train=False)[0]
    assert parity.far(parity.make_run(model, train=False)(variables, images)[0], expected) < 1e-4
