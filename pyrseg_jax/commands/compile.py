"""`--mode=compile`: compile the training and the evaluation step ahead of time, and report what they need.

TPUs and NVIDIA GPUs are compiled for by name; none has to be there.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from pyrseg_jax.ahead_of_time.lowering import count_flops_per_image, lower_evaluation, trace_training
from pyrseg_jax.ahead_of_time.programs import compile_program
from pyrseg_jax.ahead_of_time.report import estimate_slices, format_report
from pyrseg_jax.ahead_of_time.topologies import Target, find_target
from pyrseg_jax.data.catalog import find_spec, read_label_space
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.checks import holdout_of
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import declared_image_space
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import try_to_write, write_atomically
from pyrseg_jax.storage.paths import is_remote

log = logging.getLogger(__name__)

# Used where the configured batch cannot be split over the topology. Chosen: the number of images per GPU in published recipes.
IMAGES_PER_DEVICE = 4


@naming("data")
def compile_ahead(config: Config, workdir: Workdir, topology: str | None = None) -> dict:
    """Compile both steps, print the report, write it to `WORKDIR/compile/TOPOLOGY.json`, and return it.

    Args:
      config: the experiment.
      workdir: the folder of the run.
      topology: the devices to compile for, such as `v5e:4x4` or `h100:8`; None uses the devices of this machine.

    Raises:
      UserError: if the topology is unknown, its compiler is missing, the report cannot be written, or the training step needs
        more memory than a device has.
    """
    config = config_lib.resolve_durations(config, _num_training_images(config))
    target = find_target(topology)
    mesh = experiment.make_mesh(config.parallel, target.devices)
    experiment.check_rows(config, mesh)
    batch_size = splittable_batch(config.training.batch_size, mesh.shape["data"], config.training.accumulate)
    classes = read_label_space(config.data.name, config.data.root)
    path = _make_place(workdir, target)
    log.info("compiling for %s: %d devices, %d classes", target.name, mesh.size, classes.num_classes)
    report = {
        "topology": target.name,
        "devices": mesh.size,
        "batch_size": batch_size,
        "crop_px": config.data.crop_px,
        "jax": jax.__version__,
        "evaluation": _compile_evaluation(config, mesh, classes, target),  # first, because it compiles faster
        **_compile_training(config, mesh, classes, target, batch_size),
    }
    print(format_report(report, target.accelerator))
    with _writing(path):
        write_atomically(path, json.dumps(report, indent=1) + "\n")
    print(f"report: {path}")
    check_memory(report["training"]["memory"]["total"], target, config)
    return report


def _make_place(workdir: Workdir, target: Target) -> epath.Path:
    """Return the path of the report, in a folder that can be written: found out before minutes of compiling."""
    path = workdir.path / "compile" / f"{re.sub('[^0-9a-zA-Z]+', '-', target.name)}.json"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UserError(f"{path} is a folder, and the report is saved under this name: remove it")
        if not is_remote(path):
            try_to_write(path.parent)
    return path


@contextlib.contextmanager
def _writing(path: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): choose another folder with --workdir"
        ) from error


def _num_training_images(config: Config) -> int | None:
    """Return the published number of training images without those held out; None if only the files could tell."""
    published = find_spec(config.data.name).num_training_images
    return None if published is None else len(holdout_of(config.data).draw(published)[0])


def splittable_batch(batch_size: int, num_groups: int, accumulate: int) -> int:
    """Return the configured batch size if it can be split over the mesh; otherwise one with some images per group of devices."""
    if batch_size % (num_groups * accumulate) == 0:
        return batch_size
    chosen = IMAGES_PER_DEVICE * num_groups * accumulate
    log.warning(
        "config.training.batch_size=%d cannot be split over %d groups of devices: compiling for %d images, %d in each group",
        batch_size,
        num_groups,
        chosen,
        chosen // num_groups,
    )
    return chosen


def check_memory(needed_bytes: int, target: Target, config: Config) -> None:
    """Raise UserError if the training step needs more memory than a device of `target` has, saying which keys lower it."""
    if target.accelerator is None or needed_bytes <= target.accelerator.memory_bytes:
        return
    raise UserError(
        f"the training step needs {needed_bytes / 2**30:.1f} GiB on each device, but a device of {target.name} has "
        f"{target.accelerator.memory_bytes / 2**30:.0f}: lower config.training.batch_size={config.training.batch_size}, or set "
        f"config.training.accumulate={2 * config.training.accumulate}, config.model.remat=light (or full), or "
        f"config.parallel.spatial={2 * config.parallel.spatial} (docs/guide/scaling.md)"
    )


def _compile_training(config: Config, mesh: Mesh, classes: LabelSpace, target: Target, batch_size: int) -> dict:
    """Return the `training` and `estimate` parts of the report."""
    traced = trace_training(
        *_training_parts(config, classes),
        mesh,
        batch_size=batch_size,
        crop_px=config.data.crop_px,
        accumulate=config.training.accumulate,
        options=experiment.make_step_options(config),
        is_state_sharded=config.parallel.shard_state,
        image_dtype=declared_image_space(config.data).dtype,
        label_dtype=classes.dtype,
    )
    program = compile_program(traced.lower(), "training step", target)
    flops = training_flops(config, classes, "off")
    recomputed = 0.0 if config.model.remat == "off" else training_flops(config, classes, config.model.remat) - flops
    return {
        "training": program.describe() | {"flops_per_image": flops, "flops_computed_again": recomputed},
        "estimate": estimate_slices(program.cost, batch_size / mesh.size, flops, target, mesh.size),
    }


def training_flops(config: Config, classes: LabelSpace | int, remat: str) -> float:
    """Count the FLOPs of a training step per image, with `remat` instead of the configured rematerialization."""
    config = config_lib.changed(config, {"model.remat": remat, "training.accumulate": 1})
    options = experiment.make_step_options(config)
    model, _, objective = _training_parts(config, classes)
    return count_flops_per_image(model, objective, config.data.crop_px, options)


def _training_parts(
    config: Config, classes: LabelSpace | int
) -> tuple[Segmenter, optax.GradientTransformation, Callable]:
    model = experiment.make_model(config, classes)
    experiment.check_frozen(config, model)
    # The program is the same for any weights, and those of the training split are not known without its images.
    num_classes = classes if isinstance(classes, int) else classes.num_classes
    class_weights = (1.0,) * num_classes if config.loss.class_weights else None
    return model, experiment.make_optimizer(config), experiment.make_objective(config, class_weights)


def _compile_evaluation(config: Config, mesh: Mesh, classes: LabelSpace, target: Target) -> dict:
    """Compile the network of an evaluation for the devices that one process uses, for images of the size of a crop."""
    mesh = mesh_lib.local_mesh(mesh)
    batch_size = -(-config.evaluation.batch_size // mesh.size) * mesh.size  # rounded up to whole images per device
    lowered = lower_evaluation(
        experiment.make_model(config, classes),
        experiment.make_evaluation_protocol(config),
        config.evaluation.threshold,
        mesh,
        batch_size=batch_size,
        crop_px=config.data.crop_px,
        image_dtype=declared_image_space(config.data).dtype,
    )
    program = compile_program(lowered, "evaluation", target)
    return program.describe() | {"batch_size": batch_size, "devices": mesh.size}
