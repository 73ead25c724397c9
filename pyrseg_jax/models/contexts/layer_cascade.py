"""LC-style cascade (after Li et al. 2017): easy positions are answered early, and later layers compute only the others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import Cut, Features
from pyrseg_jax.models.contexts.contract import (
    ContextLoss,
    ContextMap,
    ContextOutput,
    ContextSpec,
    Logits,
    Outputs,
    Refined,
    enlarge,
    make_pooled,
)
from pyrseg_jax.models.layers import ConvNormAct, Mask, biased_conv
from pyrseg_jax.models.supervision import fit_to_labels
from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.losses import masked_cross_entropy

# ρ: a position whose largest probability is greater keeps its answer.
TRAINING_THRESHOLD = 0.95
THRESHOLD = 0.985


class CascadeGate(nn.Module):
    """Classify the map after a part of the backbone, and leave out the positions whose answer is sure.

    Attributes:
      num_classes: C.
      width: channels between the two convolutions of each classifier.
      training_threshold, threshold: ρ in training and otherwise.

    Source: Li et al. 2017: two convolutions and a softmax after each stage.
    Chosen: ρ is 0.95 in training and 0.985 otherwise. The classifiers are a 3×3 convolution with batch normalization and a 1×1
      convolution. In training, no gradient reaches a classifier through its decision.
    Differs: the source freezes batch normalization; here its statistics are those of the open positions.
    """

    num_classes: int
    width: int = 256
    training_threshold: float = TRAINING_THRESHOLD
    threshold: float = THRESHOLD
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, index: int, x: Float[Array, "n h w c"], is_open: Mask, train: bool) -> Cut:
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name=f"project_{index}")(x, train, is_open)
        logits = biased_conv(self.num_classes, dtype=self.dtype, name=f"classify_{index}")(x).astype(jnp.float32)
        is_sure = nn.softmax(logits).max(-1) > (self.training_threshold if train else self.threshold)
        return Cut(logits, ~is_sure if is_open is None else is_open & ~is_sure, x)


class LayerCascade(nn.Module):
    """The map that the last stage's classifier reads; at positions that an earlier stage has answered, the map that it read.

    Attributes:
      width: channels of the result (N, h, w, width), and of the maps of the gate.

    Source: Li et al. 2017, whose network is an Inception-ResNet-v2 in three stages at stride 8.
    Chosen: ResNets are cut after stages 2, half of 3, and 4, all at stride 8; HRNets after stages 2, 3 and 4, at stride 4. Where
      the finest level is finer than that, the maps and logits of the cuts are enlarged bilinearly, and their decisions by index.
    Chosen: the levels of a pyramid read this map, so that a cell that an early stage has answered is not empty for them.
    """

    width: int = 512
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        x = features.final
        cuts = [_fit(cut, x) for cut in features.cuts]
        is_open = cuts[-1].is_open
        x = jnp.where(is_open[..., None], x, 0)  # enlarged maps reach over the edge
        x = ConvNormAct(self.width, 3, dtype=self.dtype, name="project")(x, train, is_open)
        for cut in reversed(cuts):
            x = jnp.where(cut.is_open[..., None], x, cut.features)
        return ContextMap(x)


class CascadeMerge(nn.Module):
    """Give each position the logits of the stage that answered it.

    The output `cuts` holds the stages' logits and decisions, for `stage_loss`, and the output `decided` (N, stages) the share of
    each image's positions that each stage answers.

    Chosen: in training, the earlier stages' logits pass no gradient here, since each stage has a loss of its own. So the main loss
      teaches the last stage, from the positions that reach it.
    """

    @nn.compact
    def __call__(self, features: Features, found: ContextOutput, logits: Logits, train: bool) -> Refined:
        cuts = [_fit(cut, logits) for cut in features.cuts]
        for cut in reversed(cuts):
            earlier = jax.lax.stop_gradient(cut.logits) if train else cut.logits
            logits = jnp.where(cut.is_open[..., None], logits, earlier)
        reach = [jnp.ones(logits.shape[0]), *(cut.is_open.mean((1, 2), dtype=jnp.float32) for cut in cuts)]
        answered = [before - after for before, after in zip(reach, [*reach[1:], 0.0], strict=True)]
        return Refined(logits, {"cuts": features.cuts, "decided": jnp.stack(answered, axis=-1)})


def _fit(cut: Cut, like: Float[Array, "n H W _"]) -> Cut:
    """Bring a cut to the size of a map that is as large or larger by a whole factor."""
    factor = like.shape[1] // cut.is_open.shape[1]
    is_open = jnp.asarray(levels.to_children(cut.is_open, factor))
    return Cut(enlarge(cut.logits, like, "half_pixel"), is_open, enlarge(cut.features, like, "half_pixel"))


def stage_loss(
    outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str, *, index: int
) -> Float[levels.Array, ""]:
    """Return the mean cross entropy of a stage that ends in a cut, over the positions that reach it.

    Args:
      outputs: those of `CascadeMerge`.
      labels: train ids, 255 = void.
      supervision: one of `models.supervision.SUPERVISIONS`.
      index: of the cut.
    """
    cuts = outputs["cuts"]
    logits, classes = fit_to_labels(cuts[index].logits, labels, supervision)
    if index:
        is_open = cuts[index - 1].is_open
        is_open = levels.to_children(is_open, classes.shape[1] // is_open.shape[1])
        classes = jnp.where(is_open, classes, levels.dont_care_of(classes))
    return masked_cross_entropy(logits, classes)


SPECS = {
    "layer_cascade": ContextSpec(
        make_pooled(lambda s: LayerCascade(s.width, s.dtype)),
        is_projected=False,
        make_refiner=lambda s: CascadeMerge(),
        make_gate=lambda s: CascadeGate(s.num_classes, s.width, dtype=s.dtype),
        losses={f"stage_{i + 1}": ContextLoss(1.0, functools.partial(stage_loss, index=i)) for i in range(2)},
        meaning="LC-style cascade, which answers easy positions early (after Li et al. 2017)",
    ),
}
