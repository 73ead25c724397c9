"""What a training starts from: random weights, a file of published ones, or another run (`config.model.init`)."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import RANDOM, Workdir

log = logging.getLogger(__name__)
Arrays = Mapping[tuple[str, ...], np.ndarray]


class Start(NamedTuple):
    """The first variables of a training.

    variables: of the network, on the host.
    origin: `"random"`, or a dict of `file`, `sha256` and `source`; kept with every result.
    """

    variables: dict
    origin: str | dict


def initialise(config: Config, model: nn.Module, label_space: LabelSpace) -> Start:
    """Draw random variables and put in their place what `config.model.init` gives; one log line says what it did not.

    Raises:
      UserError: if the file or run cannot be read, or its backbone is not the network's.
    """
    drawn = initial_variables(model, config.seed, config.model.strides[0] * 2)
    if config.model.init is None:
        return Start(drawn, RANDOM)
    path = epath.Path(config.model.init).expanduser()
    try:
        given, origin, left = (
            _of_run(path, config, label_space, drawn)
            if path.is_dir()
            else _of_file(Path(path), config.model.backbone, drawn)
        )
    except UserError as error:
        raise UserError(f"config.model.init={config.model.init}: {error}") from error
    flat = flatten_dict(drawn)
    fresh = _name([at for at in flat if at not in given], flat)
    log.info(
        "starting from %s (%s, SHA-256 %s…): %d of %d arrays; at random: %s; not taken: %s",
        path,
        origin["source"],
        origin["sha256"][:12],
        len(given),
        len(flat),
        ", ".join(fresh) or "nothing",
        ", ".join(left) or "nothing",
    )
    return Start(unflatten_dict(flat | dict(given)), origin)


def _of_file(path: Path, backbone: str, drawn: dict) -> tuple[Arrays, dict, tuple[str, ...]]:
    file = read_weights(path)
    found = import_weights(file.state_dict, drawn, BACKBONES[backbone].importers)
    return found.variables, {"file": str(path), "sha256": file.sha256, "source": found.source}, found.left


def _of_run(
    path: epath.Path, config: Config, label_space: LabelSpace, drawn: dict
) -> tuple[Arrays, dict, tuple[str, ...]]:
    """Take from another run's newest checkpoint what has its place here; classifiers only for the same classes."""
    run = Workdir(str(path))
    if not run.has_run():
        raise UserError(
            "this folder holds no run (there is no config.json): name the folder of one, or a file of weights"
        )
    its_config, classes = run.read_config(), run.read_label_space()
    if its_config.model.backbone != config.model.backbone:
        raise UserError(
            f"the run has the backbone {its_config.model.backbone}, this one {config.model.backbone}: choose that one with "
            "config.model.backbone"
        )
    model = experiment.make_model(its_config.model, classes.num_classes)
    state = restore(its_config, model, run, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), None)
    theirs = flatten_dict(jax.device_get(state.variables))
    ours = flatten_dict(drawn)
    is_same_task = classes.names == label_space.names
    given = {
        at: array
        for at, array in theirs.items()
        if at in ours and array.shape == ours[at].shape and (is_same_task or not at[-2].startswith("classify"))
    }
    digest = hashlib.sha256()
    for at in sorted(given):
        digest.update("/".join(at).encode() + np.ascontiguousarray(given[at]).tobytes())
    source = f"a run's step {int(state.step)}, its {len(given)} arrays taken"
    left = _name([at for at in theirs if at not in given], theirs)
    return given, {"file": str(path), "sha256": digest.hexdigest(), "source": source}, left


def _name(some: Sequence[tuple[str, ...]], every: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Name the layers that arrays belong to; a part of the network that is among them as a whole, once."""
    sizes = Counter(at[1] for at in every)
    whole = {part for part, count in Counter(at[1] for at in some).items() if count == sizes[part]}
    layers = (at[1] if at[1] in whole else "/".join(at[1:-1]).removesuffix("/conv").removesuffix("/bn") for at in some)
    return tuple(dict.fromkeys(layers))
