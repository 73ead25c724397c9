"""PointRend (Kirillov et al. 2020): a coarse map from a feature pyramid network, refined at its most uncertain points."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import Features
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
from pyrseg_jax.models.layers import ConvNormAct, biased_conv, hidden_init, linear_init
from pyrseg_jax.models.resample import interpolate_at_points, resize
from pyrseg_jax.pyramid import levels
from pyrseg_jax.pyramid.losses import masked_cross_entropy

# Rows and columns of points as shares of the image's height and width, in 0 … 1.
Points = Float[Array, "n p 2"]

NUM_DOUBLINGS = 2  # from stride 4 to stride 1
NUM_TRAINING_POINTS = 2048  # of an image
OVERSAMPLING = 3  # candidates that training draws for each of its points
UNCERTAIN_SHARE = 0.75  # of the training points; the others are drawn at random
NUM_REFINED_POINTS = 8196  # of an image, after each doubling
NUM_HIDDEN_LAYERS = 3


class PointRend(nn.Module):
    """The coarse part: a feature pyramid network, and the sum of its levels at stride 4.

    Each stage becomes a map of `width` channels, to which the map of the next coarser stage is added, enlarged by index. Each of
    these takes 1, 1, 2 and 3 3×3 convolutions, fine → coarse, and is enlarged to stride 4 on the way; their sum is the result. The
    finest map before these convolutions goes to the refiner as the output `fine`.

    Attributes:
      width: channels of the feature pyramid.
      sum_width: channels of the result (N, H/4, W/4, sum_width).

    Source: Lin et al. 2017 (the feature pyramid); Kirillov et al. 2019, Fig. 3 (the sum); mmsegmentation's settings.
    Chosen: a stage of a dilated backbone, which is finer than stride 32, is enlarged after its last convolutions only, as often as
      it needs. The published networks have output stride 32.
    Chosen: the feature pyramid starts from a normal distribution. The sources draw uniformly, with the same variance.
    """

    width: int = 256
    sum_width: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        maps: list[Array] = []
        for i, stage in reversed(list(enumerate(features.stages, 1))):
            x = biased_conv(self.width, kernel_init=linear_init, dtype=self.dtype, name=f"lateral_{i}")(stage)
            maps.insert(0, x + enlarge(maps[0], x, "nearest") if maps else x)
        smoothed = [self._smooth(i, x) for i, x in enumerate(maps, 1)]
        total = self._to_finest(0, smoothed[0], smoothed[0], train)
        for i, x in enumerate(smoothed[1:], 1):
            total += self._to_finest(i, x, total, train)
        return ContextMap(total, outputs={"fine": smoothed[0]})

    def _smooth(self, number: int, x: Array) -> Array:
        layer = nn.Conv(
            self.width,
            (3, 3),
            padding=((1, 1), (1, 1)),
            kernel_init=linear_init,
            dtype=self.dtype,
            name=f"smooth_{number}",
        )
        return layer(x)

    def _to_finest(self, index: int, x: Array, like: Array, train: bool) -> Array:
        """Convolve a level, and double it until it has the size of the finest one."""
        # 2, 4 and 8 times smaller maps are doubled 1, 2 and 3 times. Sides that do not divide round up.
        doublings = max((-(-fine // side) - 1).bit_length() for fine, side in zip(like.shape[1:3], x.shape[1:3]))
        num_convolutions = max(1, index)
        for k in range(num_convolutions):
            x = ConvNormAct(self.sum_width, 3, dtype=self.dtype, name=f"scale_{index + 1}_{k + 1}")(x, train)
            if num_convolutions - k <= doublings:
                x = resize(x, (2 * x.shape[1], 2 * x.shape[2]), "half_pixel")
        return enlarge(x, like, "half_pixel")


class PointHead(nn.Module):
    """Classify points from the fine features and the coarse logits there; each layer reads the coarse logits again.

    Attributes:
      num_classes: C.
      width: channels of the hidden layers.

    Source: Kirillov et al. 2020, Sec. 3.3; mmsegmentation's settings, in which every layer reads the coarse logits.
    """

    num_classes: int
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, fine: Float[Array, "n h w d"], coarse: Logits, points: Points) -> Float[Array, "n p c"]:
        # The points as a map with one column, so that the layers are those of maps.
        x, logits = (interpolate_at_points(source, points)[:, :, None].astype(self.dtype) for source in (fine, coarse))
        x = jnp.concatenate([x, logits], axis=-1)
        for i in range(1, NUM_HIDDEN_LAYERS + 1):
            x = biased_conv(self.width, kernel_init=hidden_init, dtype=self.dtype, name=f"hidden_{i}")(x)
            x = jnp.concatenate([nn.relu(x), logits], axis=-1)
        return biased_conv(self.num_classes, dtype=self.dtype, name="classify")(x)[:, :, 0].astype(jnp.float32)


class PointRefiner(nn.Module):
    """Replace the logits of the most uncertain points.

    In training, the finest level keeps its logits; the output `points` holds points of each image and their logits, for
    `point_loss`. Otherwise the logits are doubled twice, to stride 1, and after each doubling the most uncertain positions take the
    point head's logits. It always reads the features of stride 4 and the logits before any doubling.

    Attributes:
      num_classes: C.
      width: channels of the point head.
      num_training_points: points of an image, in training.
      num_points: positions that change after each doubling; on small maps all of them.

    Source: Kirillov et al. 2020, Sec. 3; mmsegmentation's numbers of points.
    Chosen: with a pyramid, the points are chosen in the whole image, too, as if the finest level decided everywhere; the fuser then
      takes refined logits only where it does.
    """

    num_classes: int
    width: int = 256
    num_training_points: int = NUM_TRAINING_POINTS
    num_points: int = NUM_REFINED_POINTS
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, found: ContextOutput, logits: Logits, train: bool) -> Refined:
        head = PointHead(self.num_classes, self.width, self.dtype, name="head")
        classify = functools.partial(head, found.outputs["fine"], logits)
        if train:
            points = choose_points(self.make_rng("dropout"), logits, self.num_training_points)
            return Refined(logits, {"points": (points, classify(points))})
        refined = logits
        for _ in range(NUM_DOUBLINGS):
            refined = resize(refined, (2 * refined.shape[1], 2 * refined.shape[2]), "half_pixel")
            _, height, width, _ = refined.shape
            doubt = uncertainty(refined).reshape(-1, height * width)
            _, chosen = jax.lax.top_k(doubt, min(self.num_points, height * width))
            points = (jnp.stack([chosen // width, chosen % width], -1) + 0.5) / jnp.array([height, width])
            refined = jax.vmap(_replace)(refined, chosen, classify(points))
        return Refined(refined)


def _replace(logits: Float[Array, "h w c"], chosen: levels.Array, values: Float[Array, "p c"]) -> Float[Array, "h w c"]:
    """Replace the logits of an image at row-major positions."""
    return logits.reshape(-1, logits.shape[-1]).at[chosen].set(values).reshape(logits.shape)


def uncertainty(logits: Float[Array, "*at c"]) -> Float[Array, "*at"]:
    """Return the second largest logit minus the largest one: at most 0, and 0 where the prediction is most uncertain."""
    highest = logits.argmax(-1, keepdims=True)
    others = jnp.where(jnp.arange(logits.shape[-1]) == highest, -jnp.inf, logits)
    return others.max(-1) - logits.max(-1)


def choose_points(key: Array, logits: Logits, num_points: int) -> Points:
    """Choose points of each image to learn from: three quarters of them the most uncertain of many, the others at random.

    No gradient flows through the choice.

    Args:
      key: key of the random numbers.
      logits: the coarse logits; they are interpolated at each candidate before its uncertainty is computed.
      num_points: N. There are 3 N candidates.
    """
    of_candidates, of_others = jax.random.split(key)
    n, num_uncertain = len(logits), int(UNCERTAIN_SHARE * num_points)
    candidates = jax.random.uniform(of_candidates, (n, OVERSAMPLING * num_points, 2))
    doubt = uncertainty(interpolate_at_points(jax.lax.stop_gradient(logits), candidates))
    _, chosen = jax.lax.top_k(doubt, num_uncertain)
    uncertain = jnp.take_along_axis(candidates, chosen[..., None], axis=1)
    others = jax.random.uniform(of_others, (n, num_points - num_uncertain, 2))
    return jnp.concatenate([uncertain, others], axis=1)


def point_loss(outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str) -> Float[levels.Array, ""]:
    """Return the mean cross entropy of the points in `outputs["points"]`, whose labels are those of the pixels they lie in."""
    points, logits = outputs["points"]
    n, height, width = labels.shape
    pixel = jnp.floor(points * jnp.array([height, width])).astype(jnp.int32)
    row, column = jnp.minimum(pixel[..., 0], height - 1), jnp.minimum(pixel[..., 1], width - 1)
    classes = jnp.take_along_axis(jnp.asarray(labels).reshape(n, -1), row * width + column, axis=1)
    return masked_cross_entropy(logits[:, :, None], levels.as_classes(classes[..., None]))


SPECS = {
    "pointrend": ContextSpec(
        make_pooled(lambda s: PointRend(s.width // 2, s.width // 4, s.dtype)),
        reads=(0, 1, 2, 3),
        stride=4,
        is_projected=False,
        make_refiner=lambda s: PointRefiner(s.num_classes, s.width // 2, dtype=s.dtype),
        refined_stride=1,
        losses={"points": ContextLoss(1.0, point_loss)},
        meaning="a feature pyramid, refined to single pixels at uncertain points (Kirillov et al. 2020)",
    ),
}
