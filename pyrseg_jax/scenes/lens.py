"""Turn the finished canvas into a photograph and a label map, both half as large."""

import cv2
import numpy as np

from pyrseg_jax.scenes.canvas import Canvas
from pyrseg_jax.scenes.classes import CAR, PERSON, POLE, SIGN, SKY, VOID
from pyrseg_jax.scenes.ground import Ground
from pyrseg_jax.scenes.light import Light
from pyrseg_jax.scenes.textures import noise_patch

_IS_THING = np.isin(np.arange(13), (CAR, PERSON, POLE, SIGN))
_IS_THIN = np.isin(np.arange(13), (POLE, SIGN))


def expose(image: np.ndarray, canvas: Canvas, ground: Ground, light: Light, rng) -> np.ndarray:
    """Turn the image of the scene into a photograph: add haze, blur, vignette, exposure, highlight roll-off and grain.

    Args:
      image: the canvas averaged to half its size, (h, w, 3).
      canvas: the canvas at full size, for labels and distances.
      ground: the ground, for the distance of its rows.
      light: the light of the scene, for the haze.
      rng: a NumPy random generator.

    Returns:
      The photograph, (h, w, 3) uint8.
    """
    size = len(image)
    # The sky already has its final colors. A pixel at its edge gets the distance of the part that is not sky.
    is_land = (canvas.labels != SKY).astype(np.float32)
    land = cv2.resize(is_land, (size, size), interpolation=cv2.INTER_AREA)
    nearness = cv2.resize(canvas.nearness, (size, size), interpolation=cv2.INTER_AREA) / np.maximum(land, 0.25)
    rows = slice(ground.first_row, None)
    nearness[rows] = np.maximum(nearness[rows], 1 / ground.z)
    clear = cv2.exp(-1 / (np.maximum(nearness, 1e-3) * light.haze_m))
    clear = np.where(land > 0, clear, 1)[..., None]
    haze = (0.75 * light.horizon + 0.25 * light.cloud).astype(np.float32)
    image = haze + clear * (image - haze)
    blur = rng.uniform(0.0, 0.7)
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    vignette = 1 - np.float32(rng.uniform(0.0, 0.5)) * (axis[:, None] ** 2 + axis[None] ** 2)
    warmth = rng.uniform(-0.04, 0.04)
    balance = rng.uniform(0.95, 1.22) * np.array([1 + warmth, 1.0, 1 - warmth])
    image *= vignette[..., None] * balance.astype(np.float32)
    image = cv2.pow(np.maximum(image, 0.0), rng.uniform(0.9, 1.1))
    # Compress highlights smoothly instead of clipping them.
    above = np.maximum(image - 0.8, 0.0)
    image += above * (1 / (1 + 3.0 * above) - 1)
    grain = noise_patch(rng, size, size, 1.0, (8, 8)) * 0.6 + noise_patch(rng, size, size, 1.0, (8, 8))
    image += np.float32(rng.uniform(0.002, 0.010)) * grain
    return np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)


def halve_labels(labels: np.ndarray, rng) -> np.ndarray:
    """Halve the size of a label map from (2h, 2w) to (h, w).

    Each block of 2 × 2 pixels takes the class of its majority. If a block contains a thing and another class, its pixel becomes
    void, because the averaged color shows neither clearly. Poles and signs are the exception: they are so thin that they keep
    a pixel of which they cover most. Along some parts of an outline, the void border is one pixel wider on the outside, as in
    labels that people draw.
    """
    halved = labels[0::2, 0::2].copy()
    corners = (halved, labels[0::2, 1::2], labels[1::2, 0::2], labels[1::2, 1::2])
    mixed = np.nonzero((corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3]))
    blocks = np.stack([corner[mixed] for corner in corners])
    counts = (blocks[:, None] == blocks[None]).sum(axis=1)
    votes = counts.max(axis=0)
    majority = blocks[counts.argmax(axis=0), np.arange(blocks.shape[1])]
    is_vague = _IS_THING[blocks].any(axis=0) & ~_IS_THIN[majority]
    # Two against two is not a majority, whatever the classes.
    halved[mixed] = np.where((votes <= 2) | is_vague, VOID, majority)
    things = _IS_THING[halved].view(np.uint8)
    around = cv2.dilate(things, np.ones((3, 3), np.uint8)) != things
    careless = noise_patch(rng, halved.shape[0], halved.shape[1], 14.0, (4, 6))[..., 0] > 0.1
    halved[around & careless] = VOID
    return halved
