"""The state that a training starts from: the newest checkpoint, or initial weights.

Initial weights (`config.model.init`) are random, or they come from published weights, which may be in the Hugging Face hub, or from
another run.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.models.weights.files import read_parts
from pyrseg_jax.models.weights.image_input import fit_channels
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.places import NUM_NAMED, STANDARD, Place, holds_weights, locate
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.packaged_models import find_model
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import RANDOM, Workdir
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.hub import is_address, parse_address
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.step import TrainState, initial_state

log = logging.getLogger(__name__)
MAX_LEFT = 20  # layers of a file that the log names as not used
Arrays = Mapping[tuple[str, ...], np.ndarray]


class Start(NamedTuple):
    """The initial variables of a training.

    variables: the network's variables, on the host.
    origin: `"random"`, or a dict of `file`, `sha256`, `source` and, for a file of the hub, `commit`; stored with every result.
    """

    variables: dict
    origin: str | dict


def initialize(config: Config, model: Segmenter, label_space: LabelSpace) -> Start:
    """Draw random variables, and replace those that `config.model.init` provides; a log line lists the others.

    Args:
      config: the run's configuration.
      model: the network.
      label_space: the classes; classifiers are taken only from a run with the same classes.

    Raises:
      UserError: if the file or run cannot be read, or has another backbone.
    """
    drawn = initial_variables(model, config.seed, config.model.strides[0] * 2)
    if config.model.init is None:
        return Start(drawn, RANDOM)
    try:
        run = _run_of(config.model.init)
        place = None if run is not None else locate(config.model.init)
        if place is not None and place.is_model:
            given, origin, left, converted = _of_hub_model(place, config, label_space, drawn)
        elif run is not None:
            given, origin, left, converted = _of_run(run, config, label_space, drawn)
        else:
            assert place is not None, "what is no run has files"
            given, origin, left, converted = _of_files(place, config, model, drawn)
    except UserError as error:
        raise UserError(f"config.model.init={config.model.init}: {error}") from error
    flat = _flatten(drawn)
    fresh = _name([at for at in flat if at not in given], flat)
    log.info(
        "starting from %s (%s, SHA-256 %s…): %d of %d arrays; random: %s; not used: %s%s",
        config.model.init,
        origin["source"],
        origin["sha256"][:12],
        len(given),
        len(flat),
        ", ".join(fresh) or "nothing",
        ", ".join([*left[:MAX_LEFT], f"and {len(left) - MAX_LEFT} more"] if len(left) > MAX_LEFT else left)
        or "nothing",
        f"; converted: {'; '.join(converted)}" if converted else "",
    )
    return Start(unflatten_dict(flat | dict(given)), origin)


def _run_of(init: str) -> Workdir | None:
    """Return the run or the model that `config.model.init` names; None if it names files, or a folder of weights.

    Raises:
      UserError: if it is a folder with neither.
    """
    folder = None if is_address(init) else find_model(init)
    if folder is None or not folder.is_dir():
        return None
    run = Workdir(str(folder))
    # Repositories of the hub have a config.json, too, but nothing else that a run has.
    if run.has_run() and (run.has_checkpoint() or run.has_classes() or is_remote(folder)):
        return run
    if not is_remote(folder) and holds_weights(Path(folder)):
        return None
    found = ", ".join(sorted(documents.shorten(path.name) for path in folder.iterdir())[:NUM_NAMED])
    raise UserError(
        f"this folder holds no run (config.json and checkpoints) and no weights, but {found or 'nothing'}: give the folder of a "
        f"run, a file of weights, or a folder with {STANDARD[0]}, with parts and their index, or with {STANDARD[2]}"
    )


def _of_hub_model(
    place: Place, config: Config, label_space: LabelSpace, drawn: dict
) -> tuple[Arrays, dict, tuple[str, ...], tuple[str, ...]]:
    """Take the arrays of a model in the hub as those of a run; the record names its address and commit."""
    address = str(parse_address(place.name)._replace(file=None))
    given, origin, left, fitted = _of_run(Workdir(str(find_model(address))), config, label_space, drawn)
    return given, origin | {"file": address, "commit": place.commit}, left, fitted


def _of_files(
    place: Place, config: Config, model: Segmenter, drawn: dict
) -> tuple[Arrays, dict, tuple[str, ...], tuple[str, ...]]:
    file = read_parts(place.paths)
    # Published networks read photographs.
    expected = (
        drawn if model.channels == 3 else abstract_variables(model.clone(channels=3), config.model.strides[0] * 2)
    )
    found = import_weights(file.state_dict, expected, BACKBONES[config.model.backbone].importers)
    variables, fitted = fit_channels(found.variables, _flatten(drawn))
    for option, value in found.trained.items():
        # An option that the backbone does not have may be the context module's.
        ours = getattr(model.backbone, option, getattr(config.model, option))
        if ours != value:
            log.warning(
                "config.model.%s: the weights (%s) were trained with %r, and the network has %r, with which they predict worse",
                option,
                found.source,
                value,
                ours,
            )
    for difference in found.differs:
        log.warning("the weights are of %s: %s", found.source, difference)
    return (
        variables,
        {"file": place.name, "sha256": file.sha256, "source": found.source}
        | ({"commit": place.commit} if place.commit else {}),
        found.left,
        found.converted + fitted,
    )


def _of_run(
    run: Workdir, config: Config, label_space: LabelSpace, drawn: dict
) -> tuple[Arrays, dict, tuple[str, ...], tuple[str, ...]]:
    """Take the arrays of another run's newest checkpoint that fit here; classifiers only if the classes are the same."""
    its_config, classes = run.read_config(), run.read_label_space()
    if its_config.model.backbone != config.model.backbone:
        raise UserError(
            f"that run has the backbone {its_config.model.backbone}, this one has {config.model.backbone}: set "
            f"config.model.backbone={its_config.model.backbone}, or config.model.init=None to start from random weights"
        )
    model = experiment.make_model(its_config, classes)
    state = restore(its_config, model, run, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), None)
    ours = _flatten(drawn)
    theirs, fitted = fit_channels(_flatten(jax.device_get(state.variables)), ours)
    is_same_task = classes.names == label_space.names
    if CONTEXTS[config.model.context].reads_hierarchy:
        is_same_task &= classes.hierarchy == label_space.hierarchy
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
    return given, {"file": str(run.path), "sha256": digest.hexdigest(), "source": source}, left, fitted


def _flatten(variables: dict) -> dict[tuple[str, ...], np.ndarray]:
    return flatten_dict(variables)  # pyright: ignore[reportReturnType]  # flax cannot know that all leaves are arrays


def _name(some: Sequence[tuple[str, ...]], every: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """List the layers that arrays belong to. A part of the network gets a single entry if all of its arrays are among them.

    Args:
      some: paths of the arrays, like (collection, part, …, layer, name).
      every: paths of all arrays of the network.
    """
    sizes = Counter(at[1] for at in every)
    whole = {part for part, count in Counter(at[1] for at in some).items() if count == sizes[part]}
    layers = (at[1] if at[1] in whole else "/".join(at[1:-1]).removesuffix("/conv").removesuffix("/bn") for at in some)
    return tuple(dict.fromkeys(layers))


def restore_or_start(
    config: Config,
    model: Segmenter,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: Mesh,
    start: Start | None,
    label_space: LabelSpace,
) -> TrainState:
    """Restore the newest intact checkpoint; if there is none, return the initial state.

    Args:
      config: the run's configuration.
      model, optimizer: the network and its optimizer, which determine the parts of the state.
      checkpoints: the run's checkpoints.
      mesh: the mesh that the state is placed on.
      start: the initial variables; None: make them if they are needed.
      label_space: the classes, for the initial variables.
    """
    like = abstract_variables(model, config.model.strides[0] * 2) if start is None else start.variables
    options = experiment.make_step_options(config)
    abstract = jax.eval_shape(lambda v: initial_state(v, optimizer, options), like)
    sharding = mesh_lib.state_sharding(mesh, abstract, config.parallel.shard_state)
    # Look again even if there was no checkpoint before: another training may have run in the meantime.
    state = checkpoints.restore(abstract_on(abstract, sharding))
    if state is None:
        checkpoints.set_aside_after(0)  # scores without their checkpoints must not decide anything
        start = start or initialize(config, model, label_space)
        return jax.device_put(initial_state(start.variables, optimizer, options), sharding)
    log.info("continuing from the checkpoint of step %d", int(state.step))
    checkpoints.set_aside_after(int(state.step))
    return state
