"""Render street, park and waterside scenes with their label maps.

This is the only door of the room: the data sets `scenes` and `endless_scenes` import from here, and nothing else imports the files
inside.
"""

from pyrseg_jax.scenes.classes import CLASS_COLORS, CLASS_NAMES, IS_STUFF
from pyrseg_jax.scenes.compose import PAINTING_VERSION, paint_scene
from pyrseg_jax.scenes.encode import encode_scene, encode_scenes

__all__ = [
    "CLASS_COLORS",
    "CLASS_NAMES",
    "IS_STUFF",
    "PAINTING_VERSION",
    "encode_scene",
    "encode_scenes",
    "paint_scene",
]
