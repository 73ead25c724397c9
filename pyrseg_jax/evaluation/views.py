"""How images are presented to the network: at which sizes, mirrored or not, whole or in windows."""

import dataclasses

from pyrseg_jax.pyramid.levels import nearest_multiple

# The image's own size first: what is said of one pyramid is said of that one.
_HALF_TO_SEVEN_QUARTERS = (1.0, 0.5, 0.75, 1.25, 1.5, 1.75)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is shown of one image; the fused probabilities of all showings are averaged at the label map's size.

    Attributes:
      name: a key of `PROTOCOLS`.
      short_side_px: the short side is brought to this; None: the image's own size.
      long_side_px: but no side becomes longer than this.
      scales: each multiplies that size.
      is_mirrored: each scale is shown mirrored, too.
      window_px: larger images are cut into overlapping windows of this side; None: they are shown whole.
      stride: each side becomes the nearest multiple of it: the coarsest of the pyramid (Sec. 3.1).
    """

    name: str = "single"
    short_side_px: int | None = None
    long_side_px: int = 2048
    scales: tuple[float, ...] = (1.0,)
    is_mirrored: bool = False
    window_px: int | None = None
    stride: int = 32

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) that an image of this size is shown at, for each scale."""
        short, long = sorted((height, width))
        fit = 1.0 if self.short_side_px is None else self.short_side_px / short
        fit = min(fit, self.long_side_px / long)
        return tuple(
            tuple(nearest_multiple(round(side * fit * scale), self.stride) for side in (height, width))
            for scale in self.scales
        )

    def describe(self) -> dict:
        """Say what was done, for whoever compares the numbers."""
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
    # These two take the sizes of the configuration.
    "single": {},
    "multi_scale_flip": {"scales": _HALF_TO_SEVEN_QUARTERS, "is_mirrored": True},
    # Differs: HRNet's code has windows of 520, which 32 does not divide, sums exp(logits) in place of probabilities, and shows
    # images whole at scales up to 1.
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
    """Make a protocol by its name in `PROTOCOLS`; the sizes given are for those that have none of their own."""
    sizes = {"short_side_px": short_side_px, "long_side_px": long_side_px}
    return Protocol(name=name, stride=stride, **sizes | PROTOCOLS[name])


def window_starts(side: int, window: int, multiple: int) -> list[int]:
    """Return where windows of length `window` begin to cover `side`, at multiples of `multiple`, the last at the end."""
    if side <= window:
        return [0]
    num = -(-(side - window) // (window * 2 // 3 // multiple * multiple)) + 1
    return [round(i * (side - window) / (num - 1) / multiple) * multiple for i in range(num)]
