"""The predictor of a run, with its trained variables and its calibration."""

import jax

from pyrseg_jax.run import model_predictor
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.networks import make_model
from pyrseg_jax.run.restore import Trained, restore
from pyrseg_jax.run.workdir import Workdir


def load_predictor(
    config: Config, workdir: Workdir, step: int | None = None
) -> tuple[model_predictor.ModelPredictor, Trained]:
    """Restore a run onto the first device of this process; return its predictor, and the variables with their identity.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      step: step of the checkpoint; by default the newest.

    Raises:
      UserError: if there is no such checkpoint, or a file of the run is damaged.
    """
    label_space, image_space = workdir.read_label_space(), known_image_space(config, workdir)
    network = make_model(config, label_space)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    trained = restore(config, None, workdir, sharding, step)
    temperatures = read_temperatures(config, workdir, trained, network.num_predicted_levels)
    batch_size = config.evaluation.batch_size
    predictor = model_predictor.make_predictor(
        config, network, trained.variables, label_space, batch_size, image_space, temperatures
    )
    return predictor, trained
