"""Shared by the benchmarks that compile ahead of time: the training step of a packaged config on ADE20K."""

from typing import NamedTuple

import jax

from pyrseg_jax.ahead_of_time.lowering import count_flops_per_image, trace_training
from pyrseg_jax.ahead_of_time.topologies import Target
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file, experiment
from pyrseg_jax.run.config import Config

NUM_CLASSES, NUM_IMAGES = 150, 20_210  # of ADE20K


class TracedStep(NamedTuple):
    """A traced training step and what it was made from."""

    config: Config
    model: Segmenter
    traced: jax.stages.Traced

    def count_flops_per_image(self) -> float:
        """Count the FLOPs of the step for one image, without the optimizer's."""
        objective, options = experiment.make_objective(self.config), experiment.make_step_options(self.config)
        return count_flops_per_image(self.model, objective, self.config.data.crop_px, options)


def trace_step(name: str, target: Target, images_per_device: int, crop_px: int) -> TracedStep:
    """Trace the training step of a config for the devices of a target.

    Args:
      name: a packaged config with its words, such as `ade20k:convnext_b`.
      target: the devices; the batch is split over all of them.
      images_per_device: the number of images that each device gets.
      crop_px: height and width of the images.
    """
    mesh = mesh_lib.make_mesh(devices=target.devices)
    values = config_lib.resolve(
        config_file.load(config_file.find(name)),
        {"training.batch_size": images_per_device * mesh.size, "data.crop_px": crop_px},
    )
    config = config_lib.resolve_durations(values, NUM_IMAGES)
    model = experiment.make_model(config, NUM_CLASSES)
    traced = trace_training(
        model,
        experiment.make_optimizer(config),
        experiment.make_objective(config),
        mesh,
        batch_size=config.training.batch_size,
        crop_px=crop_px,
        options=experiment.make_step_options(config),
    )
    return TracedStep(config, model, traced)
