"""Augmentations of a user's own, right and wrong, which tests name as `support.user_functions:NAME`."""

import numpy as np


def turned_colors(image, label, generator):
    """Exchange the color channels at random, and make a random row void."""
    label[generator.integers(len(label))] = 255
    return np.ascontiguousarray(image[..., generator.permutation(3)]), label


def in_place(image, label, generator):
    """Change the arguments themselves."""
    image[:], label[:] = 0, 0
    return image, label


def failing(image, label, generator):
    raise KeyError("no such thing")


def nothing(image, label, generator):
    return None


def too_small(image, label, generator):
    return image[1:], label


def of_floats(image, label, generator):
    return image / 255, label


def as_integers(image, label, generator):
    return image, label.astype(np.int64)


def unknown_class(image, label, generator):
    return image, np.full_like(label, 77)


class Pipeline:
    """What Albumentations' `Compose` looks like: it holds its own random state."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def set_random_seed(self, seed):
        self.generator = np.random.default_rng(seed)

    def __call__(self, image, mask):
        return {"image": image + self.generator.integers(0, 2, image.shape, np.uint8), "mask": mask}


pipeline = Pipeline()
not_a_function = 3
