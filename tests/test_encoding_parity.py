"""EncNet's loss of the classes that an image contains, against mmsegmentation's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

import jax  # noqa: E402
from support.mmseg_heads import CLASSES  # noqa: E402
from support.reference_networks import mmseg_models  # noqa: E402

from pyrseg_jax.models.contexts.encoding import presence_loss  # noqa: E402


def test_the_loss_of_presence():
    """Value and gradient, for label maps with void and an image without labels."""
    models = mmseg_models()
    head = models.build(
        {
            "type": "EncHead",
            "in_channels": (4, 4),
            "in_index": (0, 1),
            "channels": 4,
            "num_classes": CLASSES,
            "norm_cfg": {"type": "BN"},
        }
    )
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 6, 255], (3, 8, 12)).astype(np.uint8)
    labels[2] = 255
    logits = rng.normal(size=(3, CLASSES)).astype(np.float32)
    theirs = torch.tensor(logits).double().requires_grad_()
    occurs = torch.tensor([[float((of_image == c).any()) for c in range(CLASSES)] for of_image in labels])
    expected = head.loss_se_decode(theirs, occurs)
    expected.backward()
    weight = head.loss_se_decode.loss_weight
    found, gradient = jax.value_and_grad(lambda x: weight * presence_loss({"presence": x}, labels, "finest"))(logits)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-5, atol=1e-9)
