"""Draw the weather and the time of day, and light surfaces accordingly."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """The light of a scene: RGB colors of about 0..1, and `to_sun`, a unit vector in camera coordinates."""

    name: str
    to_sun: np.ndarray
    sun: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    cloud: np.ndarray
    cloudiness: float
    haze_m: float

    def shade(self, normal) -> np.ndarray:
        """Return the color factor (3,) of a surface with this unit normal."""
        facing = max(float(np.dot(normal, self.to_sun)), 0.0)
        upward = 0.82 + 0.18 * float(normal[1])
        return (self.ambient * upward + self.sun * facing).astype(np.float32)

    @property
    def shadow(self) -> np.ndarray:
        """Return the factor (3,) by which ground in shadow is darker than ground in the sun."""
        up = np.array([0.0, 1.0, 0.0])
        return np.clip(self.ambient / self.shade(up), 0.3, 1.0).astype(np.float32)

    @property
    def shadow_step(self) -> np.ndarray:
        """Return how far (X, Z) the shadow of a point moves per meter of height, at most 3 m."""
        step = -self.to_sun[[0, 2]] / max(self.to_sun[1], 0.05)
        return step * min(1.0, 3.0 / max(np.hypot(*step), 1e-6))


@dataclass(frozen=True)
class _Weather:
    """The colors of a kind of weather, its share of all scenes, and the ranges of what varies."""

    share: float
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    cloud: tuple[float, float, float]
    elevation_deg: tuple[float, float]
    cloudiness: tuple[float, float]
    haze_m: tuple[float, float]


_WEATHERS = {
    "clear": _Weather(
        share=0.36, sun=(0.62, 0.58, 0.50), ambient=(0.50, 0.54, 0.60), zenith=(0.25, 0.45, 0.78),
        horizon=(0.70, 0.82, 0.93), cloud=(0.98, 0.98, 0.98),
        elevation_deg=(30.0, 62.0), cloudiness=(-0.2, 0.7), haze_m=(250.0, 600.0),
    ),
    "overcast": _Weather(
        share=0.24, sun=(0.07, 0.07, 0.07), ambient=(0.76, 0.78, 0.80), zenith=(0.62, 0.65, 0.70),
        horizon=(0.80, 0.82, 0.84), cloud=(0.90, 0.90, 0.91),
        elevation_deg=(40.0, 65.0), cloudiness=(0.6, 1.4), haze_m=(110.0, 260.0),
    ),
    "sunset": _Weather(
        share=0.16, sun=(0.66, 0.42, 0.22), ambient=(0.44, 0.41, 0.47), zenith=(0.33, 0.38, 0.62),
        horizon=(0.97, 0.70, 0.47), cloud=(0.98, 0.66, 0.52),
        elevation_deg=(9.0, 20.0), cloudiness=(-0.2, 0.8), haze_m=(180.0, 420.0),
    ),
    "morning": _Weather(
        share=0.16, sun=(0.46, 0.42, 0.34), ambient=(0.56, 0.58, 0.60), zenith=(0.56, 0.70, 0.84),
        horizon=(0.92, 0.90, 0.84), cloud=(0.97, 0.95, 0.92),
        elevation_deg=(16.0, 35.0), cloudiness=(-0.3, 0.5), haze_m=(80.0, 180.0),
    ),
    "dusk": _Weather(
        share=0.08, sun=(0.08, 0.07, 0.09), ambient=(0.42, 0.46, 0.56), zenith=(0.16, 0.21, 0.42),
        horizon=(0.62, 0.56, 0.62), cloud=(0.46, 0.44, 0.54),
        elevation_deg=(25.0, 45.0), cloudiness=(-0.2, 0.8), haze_m=(150.0, 350.0),
    ),
}  # fmt: skip


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the weather, the position of the sun, and small variations of all colors."""
    names = list(_WEATHERS)
    name = names[int(rng.choice(len(names), p=[weather.share for weather in _WEATHERS.values()]))]
    weather = _WEATHERS[name]
    height = np.radians(rng.uniform(*weather.elevation_deg))
    azimuth = rng.uniform(0, 2 * np.pi)
    to_sun = np.array([np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)])

    def jitter(color, amount=0.05):
        # Only warmer or cooler, and brighter or darker, because green daylight looks wrong.
        warmth, brightness = rng.uniform(-amount, amount, 2)
        return np.clip(np.asarray(color) * (1 + brightness) * np.array([1 + warmth, 1.0, 1 - warmth]), 0.0, 1.0)

    return Light(
        name=name,
        to_sun=to_sun,
        sun=jitter(weather.sun),
        ambient=jitter(weather.ambient),
        zenith=jitter(weather.zenith, 0.12),
        horizon=jitter(weather.horizon),
        cloud=jitter(weather.cloud, 0.03),
        cloudiness=float(rng.uniform(*weather.cloudiness)),
        haze_m=float(rng.uniform(*weather.haze_m)),
    )
