"""Evaluation protocols: which views of an image the network sees: scales, mirrored or not, whole or in windows."""

import dataclasses

from pyrseg_jax.pyramid.levels import nearest_multiple

# The image's own size comes first, because pictures and the `Result` show the pyramid of the first view.
_HALF_TO_SEVEN_QUARTERS = (1.0, 0.5, 0.75, 1.25, 1.5, 1.75)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The views of one image. Their fused probabilities are averaged at the size of the label map.

    Attributes:
      name: a key of `PROTOCOLS`.
      short_side_px: length to which the short side is resized; None keeps the image's own size.
      long_side_px: upper limit of the long side, which wins over `short_side_px`.
      scales: factors of that size; one view for each.
      is_mirrored: whether to add a mirrored view at each scale.
      window_px: side of the overlapping windows that larger images are cut into; None keeps them whole.
      stride: stride of the coarsest level; each side is rounded to the nearest multiple of it (Sec. 3.1).
    """

    name: str = "single"
    short_side_px: int | None = None
    long_side_px: int = 2048
    scales: tuple[float, ...] = (1.0,)
    is_mirrored: bool = False
    window_px: int | None = None
    stride: int = 32

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) at which the network sees an image of this size, for each scale."""
        short, long = sorted((height, width))
        fit = 1.0 if self.short_side_px is None else self.short_side_px / short
        fit = min(fit, self.long_side_px / long)

        def rounded(side: int, scale: float) -> int:
            return nearest_multiple(round(side * fit * scale), self.stride)

        return tuple((rounded(height, scale), rounded(width, scale)) for scale in self.scales)

    def values(self) -> dict:
        """Return the attributes as JSON can hold them."""
        return dataclasses.asdict(self) | {"scales": list(self.scales)}  # as JSON gives it back

    def describe(self) -> dict:
        """Describe the protocol for a reader who compares results."""
        size = "own size" if self.short_side_px is None else f"short side to {self.short_side_px} px"
        cut = "" if self.window_px is None else f"in windows of {self.window_px} px that overlap by a third; "
        return {
            "name": self.name,
            "scales": sorted(self.scales),
            "flip": self.is_mirrored,
            "resize": f"{size}, no side above {self.long_side_px} px, times the scale, each side to the nearest multiple of "
            f"{self.stride}; {cut}mean of fused probabilities, each bilinearly at the size of the label map (half-pixel)",
        }


PROTOCOLS = {
    # These two use the sizes of the config.
    "single": {},
    "multi_scale_flip": {"scales": _HALF_TO_SEVEN_QUARTERS, "is_mirrored": True},
    # Differs: HRNet's code uses windows of 520 px, which is not a multiple of 32. It sums exp(logits) instead of probabilities,
    # and shows images whole at scales up to 1.
    "hrnet": {"short_side_px": 520, "long_side_px": 65536, "window_px": 512},
    "hrnet_multi_scale_flip": {
        "short_side_px": 520,
        "long_side_px": 65536,
        "window_px": 512,
        "scales": (*_HALF_TO_SEVEN_QUARTERS, 2.0),
        "is_mirrored": True,
    },
    "mmsegmentation": {"short_side_px": 512, "long_side_px": 2048},
    "mmsegmentation_multi_scale_flip": {
        "short_side_px": 512,
        "long_side_px": 2048,
        "scales": _HALF_TO_SEVEN_QUARTERS,
        "is_mirrored": True,
    },
}


def make_protocol(name: str, short_side_px: int | None, long_side_px: int, stride: int) -> Protocol:
    """Make one of the `PROTOCOLS`.

    Args:
      name: a key of `PROTOCOLS`.
      short_side_px, long_side_px: sizes for the protocols that do not set their own.
      stride: stride of the coarsest level.
    """
    sizes = {"short_side_px": short_side_px, "long_side_px": long_side_px}
    return Protocol(name=name, stride=stride, **sizes | PROTOCOLS[name])


def window_starts(side: int, window: int, multiple: int) -> list[int]:
    """Return where windows begin along one side of an image, so that they overlap by a third and cover the whole side.

    Args:
      side: length of the side in pixels.
      window: length of a window in pixels.
      multiple: divisor of every start: the stride of the finest level. The last window ends where the side ends.
    """
    if side <= window:
        return [0]
    num = -(-(side - window) // (window * 2 // 3 // multiple * multiple)) + 1
    return [round(i * (side - window) / (num - 1) / multiple) * multiple for i in range(num)]
