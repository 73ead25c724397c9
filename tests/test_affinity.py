"""The affinity loss of CPNet: against a slow twin and PyTorch, its laws, and the memory that it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import encoding_twins

from pyrseg_jax.models.contexts.affinity import affinity_loss, compare

SIDE, STRIDE = 4, 8
POSITIONS = SIDE**2
CERTAIN = 40.0  # a logit whose sigmoid is 1 but for rounding


def labels_of(classes):
    """Label maps (N, 32, 32) whose cells have one class each, from (N, 4, 4)."""
    return np.repeat(np.repeat(classes, STRIDE, 1), STRIDE, 2).astype(np.uint8)


@jax.jit
def loss_of(prior, labels):
    return affinity_loss({"prior": prior}, labels, "finest")


gradient_of = jax.jit(jax.value_and_grad(loss_of))


def draw(seed, kinds=(0, 1, 2, 255), n=2):
    rng = np.random.default_rng(seed)
    classes = rng.choice(kinds, (n, SIDE, SIDE))
    return 2 * rng.normal(size=(n, SIDE, SIDE, POSITIONS)).astype(np.float32), classes


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([(0, 1, 2, 255), (3,), (255,), (0, 0, 0, 0, 0, 0, 0, 0, 1), range(60)])
)
def test_the_loss_equals_the_twin(seed, kinds):
    prior, classes = draw(seed, kinds)
    probs = encoding_twins.sigmoid(prior.astype(np.float64)).reshape(2, POSITIONS, POSITIONS)
    expected = encoding_twins.affinity_loss(probs, classes.reshape(2, -1))
    np.testing.assert_allclose(loss_of(prior, labels_of(classes)), expected, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_the_ideal_affinity_has_recall_and_specificity_one(seed):
    _, classes = draw(seed)
    flat = jnp.asarray(classes.reshape(2, -1))
    prior = jnp.where(flat[:, :, None] == flat[:, None], CERTAIN, -CERTAIN)
    found = jax.jit(compare, static_argnums=3)(prior, flat, flat, True)
    np.testing.assert_allclose([found.recall_loss(), found.specificity_loss()], 0, atol=1e-6)
    np.testing.assert_allclose(found.within, found.num_partners, atol=1e-6)
    np.testing.assert_allclose(found.outside, found.num_others, atol=1e-6)
    np.testing.assert_allclose(found.cross_entropy, 0, atol=1e-6)
    counts = (classes.reshape(2, -1)[:, :, None] == classes.reshape(2, -1)[:, None]).sum(-1)
    np.testing.assert_array_equal(found.num_partners, counts - 1)
    np.testing.assert_array_equal(found.num_others, POSITIONS - counts)
    # The position itself is a part of ΣP, but not of A°.
    expected = np.log(counts / np.maximum(counts - 1, 1))[counts > 1]
    np.testing.assert_allclose(found.precision_loss(), expected.mean() if expected.size else 0, rtol=1e-5, atol=1e-6)


def test_rows_without_a_partner_do_not_count():
    """Positions with a class of their own have no partner; what the prior says of them matters to the cross entropy alone."""
    prior, classes = draw(0, (0, 1))
    classes[0, 0, :2] = 8, 9
    gradient = gradient_of(prior, labels_of(classes))[1]
    probs = encoding_twins.sigmoid(prior[0, 0, 0])
    is_same = np.arange(POSITIONS) == 0
    unary = (probs - is_same) / (2 * POSITIONS**2)
    specificity = probs * (1 - probs) / (1 - probs)[1:].sum() / (2 * POSITIONS)
    np.testing.assert_allclose(gradient[0, 0, 0], unary + np.where(is_same, 0, specificity), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("logit", [-200.0, -50.0, 0.0, 50.0, 200.0])
@pytest.mark.parametrize("kinds", [(0, 1), (7,), (255,), range(60)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loss_is_finite_with_its_gradient(logit, kinds, dtype):
    _, classes = draw(1, kinds)
    prior = jnp.full((2, SIDE, SIDE, POSITIONS), logit, dtype)
    loss, gradient = gradient_of(prior, labels_of(classes))
    assert loss.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(loss)
    assert np.isfinite(gradient.astype(jnp.float32)).all()


@pytest.mark.parametrize("size", [(2, 4), (4, 8), (8, 8)])
def test_a_prior_of_another_size_compares_with_the_training_map(size):
    """Rows are the positions of the map, columns those of the training map; no position is left out as the position itself."""
    classes = np.random.default_rng(0).integers(0, 3, (1, 8, 8))
    labels = labels_of(classes)
    height, width = size
    rows = labels[:, 32 // height :: 64 // height, 32 // width :: 64 // width].reshape(-1)
    columns = labels[:, 8::16, 8::16].reshape(-1)
    is_same = rows[:, None] == columns
    prior = jnp.where(is_same, CERTAIN, -CERTAIN).reshape(1, height, width, POSITIONS)
    np.testing.assert_allclose(loss_of(prior, labels), 0, atol=1e-6)


def test_the_ideal_affinity_is_never_in_memory():
    """At 512 × 512 pixels, the prior of an image has 64 MiB in float32. Beside it and its gradient, P and 1 - P are kept."""
    side = 32
    prior = jax.ShapeDtypeStruct((1, side, side, side**2), jnp.float32)
    program = jax.jit(jax.grad(loss_of)).lower(prior, jax.ShapeDtypeStruct((1, 256, 256), jnp.uint8)).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 2.5 * 4 * side**4


def reference(prior, classes):
    """The release's formula in PyTorch, on rows that all have a partner and another class."""
    import torch

    probs = torch.sigmoid(prior)
    same = (classes[:, :, None] == classes[:, None]).to(probs)
    partner = same * (1 - torch.eye(same.shape[-1], dtype=probs.dtype))
    cross_entropy = torch.nn.functional.binary_cross_entropy
    ratios = (
        (probs * partner).sum(2) / partner.sum(2),
        ((1 - probs) * (1 - same)).sum(2) / (1 - same).sum(2),
        (probs * partner).sum(2) / probs.sum(2),
    )
    return cross_entropy(probs, same) + sum(cross_entropy(x, torch.ones_like(x)) for x in ratios)


def test_loss_and_gradient_equal_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")
    prior, classes = draw(3, (0, 1, 2, 255))
    assert min(np.unique(image, return_counts=True)[1].min() for image in classes) > 1
    theirs = torch.tensor(prior.reshape(2, POSITIONS, -1)).double().requires_grad_()
    expected = reference(theirs, torch.tensor(classes.reshape(2, -1)))
    expected.backward()
    loss, gradient = gradient_of(prior, labels_of(classes))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    expected = theirs.grad.numpy().reshape(gradient.shape)
    assert np.abs(gradient - expected).max() < 1e-5 * np.abs(expected).max()
