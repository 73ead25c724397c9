"""How the values of image files become arrays: the number of channels, the scaling of values, and pixels without data.

Inside the package, images are (H, W, C) arrays of values from 0 to 255. Photographs are RGB in bytes. Every other kind of image
needs to be described: satellites, microscopes and depth cameras have other channels, and values of 16 bits or floats.
"""

import dataclasses
import math
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float32, Real, UInt8
from pydantic import Field

from pyrseg_jax.conventions import image_mean
from pyrseg_jax.errors import UserError

MAX_CHANNELS = 16
MISSING = 1e30  # Chosen: no sensor measures such a value. Programs write numbers of about 1e37 for missing pixels
PERCENTILES = (1.0, 99.0)  # Chosen: outliers are clipped, and most of the values keep their differences
_FORM = "expected fixed:LOW:HIGH, percentile, or percentile:LOW:HIGH"

Limits = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class ImageSpace:
    """The meaning of the values in image files. The defaults are photographs: RGB of 8 bits, whatever the file's format.

    Attributes:
      channels: C, the number of values per pixel.
      limits: (low, high) of each channel: the values that become 0 and 255. Values beyond are clipped, and images are float32.
        None: files hold values of 8 bits, which stay as they are.
      nodata: values that stand for missing data, besides those that a file itself names.
      percentiles: the shares, in percent, of the training split's values below `limits`, which are measured; None: they are given.
    """

    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 3
    limits: Limits | None = None
    nodata: tuple[float, ...] = ()
    percentiles: tuple[float, float] | None = None

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012 (pydantic reads it for images.json)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"channels={self.channels}: expected 1 to {MAX_CHANNELS}")
        if self.limits is not None and len(self.limits) != self.channels:
            raise ValueError(
                f"expected one pair in limits for each of {self.channels} channels, found {len(self.limits)}"
            )
        if not all(low < high for low, high in self.limits or ()):
            raise ValueError("expected pairs (low, high) in limits, each low below its high")

    @property
    def is_photograph(self) -> bool:
        """Whether images are RGB of 8 bits without missing data, and any file that shows a picture will do."""
        return self == PHOTOGRAPH

    @property
    def is_measured(self) -> bool:
        """Whether everything is known; otherwise the percentiles must be measured first, see `image_statistics`."""
        return self.percentiles is None or self.limits is not None

    @property
    def is_scaled(self) -> bool:
        """Whether values are scaled, and images are float32; otherwise they are bytes."""
        return self.limits is not None or self.percentiles is not None

    @property
    def dtype(self) -> np.dtype:
        """Type of the arrays that hold images."""
        return np.dtype(np.float32 if self.is_scaled else np.uint8)

    def describe(self) -> str:
        """Describe the images in words, for messages."""
        kind = (
            "numbers of any type" if self.is_scaled else "RGB of 8 bits" if self.channels == 3 else "values of 8 bits"
        )
        return (
            f"{self.channels} channel{'s' * (self.channels > 1)} of {kind}"
            if self.channels != 3 or self.is_scaled
            else kind
        )

    def find_missing(self, values: Real[np.ndarray, "h w c"]) -> Bool[np.ndarray, "h w c"] | None:
        """Return which values are missing: NaN, infinite, beyond ±1e30, or one of `nodata`; None if there are none."""
        is_missing = ~(np.abs(values) < MISSING) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        for value in self.nodata:
            is_missing |= equals(values, value)
        return is_missing if is_missing.any() else None

    def to_image(
        self, values: Real[np.ndarray, "h w c"], is_missing: Bool[np.ndarray, "h w c"] | None
    ) -> tuple[Real[np.ndarray, "h w c"], Bool[np.ndarray, "h w"] | None]:
        """Scale values to 0 … 255, fill in missing ones, and return the image and which of its pixels have no data at all.

        A pixel has no data if all of its channels are missing. In scaled images, a single missing value is filled in, too; in those
        of 8 bits it is kept, because 0, which usually stands for missing data there, is also the value of a dark color.

        Args:
          values: of the type that `check_type` accepts.
          is_missing: which of them are missing; None: none is.

        Chosen: the fill is the value that normalization takes to 0, as around an image.
        """
        is_void = None if is_missing is None else np.all(is_missing, axis=-1)
        mean = image_mean(self.channels)
        if self.limits is None:
            if is_void is None or not is_void.any():
                return values, None
            return np.where(is_void[..., None], np.round(mean).astype(values.dtype), values), is_void
        image = np.empty(values.shape, np.float32)
        for channel, (low, high) in enumerate(self.limits):
            # In 64 bits: differences of large whole numbers would lose digits in float32.
            with np.errstate(invalid="ignore", over="ignore"):
                scaled = (values[..., channel].astype(np.float64) - low) * (255 / (high - low))
            image[..., channel] = np.clip(scaled, 0, 255)
            if is_missing is not None:
                image[is_missing[..., channel], channel] = mean[channel]
        return image, is_void if is_void is not None and is_void.any() else None

    def check_type(self, values: np.ndarray, name: str) -> None:
        """Raise UserError, naming the file, if images cannot have these values: by their number of channels and their type."""
        found = values.shape[-1]
        if found != self.channels:
            raise UserError(
                f"{name} has {found} channel{'s' * (found > 1)}, and the images are expected to have {self.channels}: replace the "
                f"file, or, for a new training, set channels={found}"
            )
        if values.dtype.kind not in "uif":
            raise UserError(f"{name} holds values of type {values.dtype}: expected whole or floating-point numbers")
        if not self.is_scaled and values.dtype != np.uint8:
            raise UserError(
                f"{name} holds values of type {values.dtype}, and images of 8 bits are expected: say which values become black and "
                "white with scaling=fixed:LOW:HIGH or scaling=percentile"
            )


PHOTOGRAPH = ImageSpace()


def make_image_space(channels: int = 3, scaling: str = "", nodata: str = "") -> ImageSpace:
    """Read the arguments of a user.

    Args:
      channels: C.
      scaling: `fixed:LOW:HIGH`, with one number or one per channel between commas; `percentile` or `percentile:LOW:HIGH`; or "".
      nodata: numbers between commas.

    Raises:
      UserError: naming the argument.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise UserError(f"channels={channels}: expected 1 to {MAX_CHANNELS}")
    missing = tuple(
        _read_number(text, f"nodata={nodata!r}") for text in filter(None, map(str.strip, nodata.split(",")))
    )
    missing = tuple(value for value in missing if math.isfinite(value))  # others are always missing
    kind, *bounds = scaling.split(":")
    if not scaling:
        return ImageSpace(channels, nodata=missing)
    if kind == "percentile" and len(bounds) in (0, 2):
        low, high = (_read_number(text, f"scaling={scaling!r}") for text in bounds) if bounds else PERCENTILES
        if not 0 <= low < high <= 100:
            raise UserError(f"scaling={scaling!r}: expected two percentages, 0 to 100, the smaller one first")
        return ImageSpace(channels, None, missing, (low, high))
    if kind != "fixed" or len(bounds) != 2:
        raise UserError(f"scaling={scaling!r}: {_FORM}")
    lows, highs = (_read_list(text, channels, scaling) for text in bounds)
    for low, high in zip(lows, highs, strict=True):
        if not low < high:
            raise UserError(
                f"scaling={scaling!r}: {low:g} is not below {high:g}; write the value that becomes black first"
            )
    return ImageSpace(channels, tuple(zip(lows, highs, strict=True)), missing)


def to_values(space: ImageSpace) -> dict:
    """Return the fields for a JSON file."""
    return dataclasses.asdict(space)


def _read_list(text: str, channels: int, scaling: str) -> tuple[float, ...]:
    numbers = tuple(_read_number(part, f"scaling={scaling!r}") for part in text.split(","))
    if len(numbers) not in (1, channels):
        raise UserError(
            f"scaling={scaling!r} has {len(numbers)} numbers: expected one, or one for each of the {channels} channels"
        )
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"scaling={scaling!r}: expected finite numbers")
    return numbers * channels if len(numbers) == 1 else numbers


def _read_number(text: str, argument: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        form = "expected numbers with commas between them" if argument.startswith("nodata") else _FORM
        raise UserError(f"{argument}: {text!r} is not a number; {form}") from error


def equals(values: Real[np.ndarray, "*n"], number: float) -> Bool[np.ndarray, "*n"]:
    """Return which values are a number, rounded to the type of the values as a program that wrote it there has done."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values == np.asarray(number).astype(values.dtype)
    info = np.iinfo(values.dtype)
    if not math.isfinite(number) or number != int(number) or not info.min <= number <= info.max:
        return np.zeros(values.shape, bool)
    return values == values.dtype.type(int(number))


def picture_of(image: Real[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as a picture for people: its first three channels, or its first one in gray. RGB stays as it is."""
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return image
    shown = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    return np.ascontiguousarray(_to_bytes(shown))


def _to_bytes(image: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
