"""Runs of tiny networks that have a checkpoint but were never trained."""

import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.checkpoint import Checkpoints
from pyrseg_jax.training.step import initial_state

STEP = 7


def tiny_config(init=None, **model):
    config = config_lib.defaults()
    config.data.name, config.data.crop_px = "folder", 64
    widths = {"backbone": "hrnet_tiny", "semantic_width": 16, "key_width": 8, "unity_width": 8, "dtype": "float32"}
    config.model.update(widths | model)
    if init is not None:
        config.model.init = str(init)
    return config_lib.resolve(config)


def write_run(path, config, classes, is_vivid=False):
    """Write a run with one checkpoint and return its variables.

    Args:
      path: of the workdir.
      config: of the run.
      classes: their names.
      is_vivid: scale the heads, so that the logits differ clearly from position to position.
    """
    run = Workdir(str(path))
    run.open_for_training(config, ade_layout(classes))
    variables = initialize(config, experiment.make_model(config, len(classes)), ade_layout(classes)).variables
    if is_vivid:
        for part in ("semantic_head", "unity_head"):
            head = variables["params"][part]
            head |= {n: jax.tree.map(lambda a: np.float32(60) * a, v) for n, v in head.items() if "kernel" in v}
    checkpoints = Checkpoints(run.checkpoints)
    state = initial_state(variables, experiment.make_optimizer(config)).replace(step=jnp.int32(STEP))
    checkpoints.save(STEP, jax.device_put(state))
    checkpoints.wait()
    checkpoints.close()
    return variables
