"""`--mode=compile`: compile the training and evaluation step ahead of time, and say what they will need.

For TPUs and NVIDIA's GPUs none are needed: their compilers take them by name.
"""

import dataclasses
import json
import logging
import re
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pyrseg_jax.ahead_of_time.estimate import estimate_step, other_slices
from pyrseg_jax.ahead_of_time.hardware import Chip
from pyrseg_jax.ahead_of_time.programs import Cost, Traffic, cost_of, memory_of
from pyrseg_jax.ahead_of_time.topologies import Target, find_target
from pyrseg_jax.data.catalog import count_classes
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.inference import Presenter
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.step import initial_state, make_train_step

log = logging.getLogger(__name__)

# Where the configured batch cannot be split over the topology: what the published recipes give each GPU.
IMAGES_PER_DEVICE = 4


def compile_ahead(config: Config, workdir: Workdir, topology: str | None = None) -> dict:
    """Compile both steps, print the report, write it to `WORKDIR/compile/TOPOLOGY.json` and return it.

    Raises:
      UserError: if the topology is not known, its compiler is missing, or the training step does not fit the devices' memory.
    """
    target = find_target(topology)
    mesh = experiment.make_mesh(config.parallel, target.devices)
    config = _with_a_batch_that_splits(config, mesh)
    experiment.check_rows(config, mesh)
    num_classes = count_classes(config.data.name, config.data.root)
    log.info("compiling for %s: %d devices, %d classes", target.name, mesh.size, num_classes)
    evaluation = _compile_evaluation(config, mesh, num_classes, target)  # first, for it takes less time
    report = {
        "topology": target.name,
        "devices": mesh.size,
        "batch_size": config.training.batch_size,
        "crop_px": config.data.crop_px,
        "jax": jax.__version__,
        "evaluation": evaluation,
        "training": _compile_training(config, mesh, num_classes, target),
    }
    report["estimate"] = _estimate(report, target)
    path = workdir.path / "compile" / f"{re.sub('[^0-9a-zA-Z]+', '-', target.name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(describe(report, target.chip))
    print(f"report: {path}")
    _check_fit(report, target, config)
    return report


def _with_a_batch_that_splits(config: Config, mesh: Mesh) -> Config:
    """Keep the configured batch where it can be split over the mesh; else take some images for each of its groups."""
    training, groups = config.training, mesh.shape["data"]
    if training.batch_size % (groups * training.accumulate) == 0:
        return config
    batch_size = IMAGES_PER_DEVICE * groups * training.accumulate
    log.warning(
        "config.training.batch_size=%d cannot be split over %d groups of devices: compiling for %d, %d in each",
        training.batch_size,
        groups,
        batch_size,
        batch_size // groups,
    )
    return dataclasses.replace(config, training=dataclasses.replace(training, batch_size=batch_size))


def lower_training(config: Config, mesh: Mesh, num_classes: int, batch_size: int) -> jax.stages.Lowered:
    """Lower the training step from shapes alone."""
    model, optimizer = experiment.make_model(config.model, num_classes), experiment.make_optimizer(config)
    state = jax.eval_shape(
        lambda v: initial_state(v, optimizer), abstract_variables(model, 2 * config.model.strides[0])
    )
    sharding = mesh_lib.state_sharding(mesh, state, config.parallel.shard_state)
    step = make_train_step(
        model,
        optimizer,
        experiment.make_objective(config),
        mesh,
        accumulate=config.training.accumulate,
        state_sharding=sharding,
    )
    images = (batch_size, config.data.crop_px, config.data.crop_px)
    rows = mesh_lib.image_sharding(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((*images, 3), jnp.uint8, sharding=rows),
        "label": jax.ShapeDtypeStruct(images, jnp.uint8, sharding=rows),
    }
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)
    return step.lower(state, batch)


def _compile_training(config: Config, mesh: Mesh, num_classes: int, target: Target) -> dict:
    lowered = lower_training(config, mesh, num_classes, config.training.batch_size)
    found = _compile(lowered, "training step", target)
    flops = _flops_per_image(config, num_classes, "off")
    remat = config.model.remat
    again = 0.0 if remat == "off" else _flops_per_image(config, num_classes, remat) - flops
    return found | {"flops_per_image": flops, "flops_computed_again": again}


def _flops_per_image(config: Config, num_classes: int, remat: str) -> float:
    """Count those of the program without loops, which a compiler counts as one round, for one image on one device."""
    plain = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, scan="off", remat=remat),
        training=dataclasses.replace(config.training, accumulate=1),
    )
    mesh = mesh_lib.make_mesh(1, devices=jax.devices("cpu")[:1])
    return lower_training(plain, mesh, num_classes, 1).cost_analysis()["flops"]


def _compile_evaluation(config: Config, mesh: Mesh, num_classes: int, target: Target) -> dict:
    """Compile the network of the evaluation for the devices that one process uses, at the size of a training crop."""
    mesh = mesh_lib.local_mesh(mesh)
    model = experiment.make_model(config.model, num_classes)
    whole, rows = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
    protocol = experiment.make_evaluation_protocol(config)
    present = Presenter(model, protocol, config.evaluation.threshold, whole, rows)
    num_images, side = -(-config.evaluation.batch_size // mesh.size) * mesh.size, config.data.crop_px
    variables = abstract_variables(model, 2 * config.model.strides[0])
    variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), variables)
    shapes = ((num_images, side, side, 3), jnp.uint8), ((num_images, side, side), jnp.uint8), ((num_images,), jnp.bool_)
    batch = [jax.ShapeDtypeStruct(shape, kind, sharding=rows) for shape, kind in shapes]
    found = _compile(present.lower(variables, *batch), "evaluation", target)
    return found | {"batch_size": num_images, "devices": mesh.size}


def _compile(lowered: jax.stages.Lowered, name: str, target: Target) -> dict:
    log.info("compiling the %s", name)
    start = time.perf_counter()
    compiled = target.compile(lowered)
    seconds = time.perf_counter() - start
    log.info("the %s was compiled in %.0f s", name, seconds)
    cost = cost_of(compiled.as_text())
    traffic = {kind: found._asdict() for kind, found in cost.collectives.items()}
    return {"compile_s": seconds, "memory": memory_of(compiled), "cycles": cost.cycles, "collectives": traffic}


def _estimate(report: dict, target: Target) -> list[dict] | None:
    """Estimate a step on the slice, and on others with as many images per device, whose program is nearly the same."""
    if not target.sides:
        return None
    found = report["training"]
    cost = Cost({kind: Traffic(**traffic) for kind, traffic in found["collectives"].items()}, found["cycles"])
    images = report["batch_size"] / report["devices"]
    estimates = []
    slices = other_slices(target.sides, report["devices"])
    for sides, devices in sorted({(target.sides, report["devices"]), *slices}, key=lambda slice: slice[1]):
        estimate = estimate_step(cost, images, found["flops_per_image"], target.chip, devices, sides)
        name = f"{target.name.partition(':')[0]}:{'x'.join(map(str, sides))}"
        estimates.append({"topology": name, **estimate._asdict(), "step_s": estimate.step_s})
    return estimates


def describe(report: dict, chip: Chip | None) -> str:
    """Lay a report out for a terminal, as Markdown."""
    room = f" of {chip.memory_bytes / 2**30:.0f} GiB" if chip else ""
    flops, again = report["training"]["flops_per_image"], report["training"]["flops_computed_again"]
    lines = [
        f"{report['topology']}: {report['devices']} devices, batch {report['batch_size']} of {report['crop_px']} px, "
        f"{flops / 1e9:.1f} GFLOPs per image and training step"
        + (f", and {again / 1e9:.1f} to compute activations again" if again else ""),
        "",
        "| GiB per device | arguments | outputs | shared by both | temporary | code | total |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("training", "evaluation"):
        sizes = " | ".join(f"{size / 2**30:.2f}" for size in report[name]["memory"].values())
        lines.append(f"| {name}, compiled in {report[name]['compile_s']:.0f} s | {sizes}{room} |")
    collectives = report["training"]["collectives"]
    if collectives:
        lines += ["", "| sent in a training step | times | MB |", "|---|---|---|"]
    for kind, found in collectives.items():
        lines.append(f"| {kind} | {found['count']} | {found['bytes'] / 1e6:.1f} |")
    if report["estimate"]:
        lines += [
            "",
            "| estimate, with as many images per device | devices | ms a step | of it sending | images/s per device | images/s |",
            "|---|---|---|---|---|---|",
        ]
    for found in report["estimate"] or []:
        rate = found["images_per_second_per_device"]
        lines.append(
            f"| {found['topology']} | {found['devices']} | {1e3 * found['step_s']:.1f} | "
            f"{100 * found['send_s'] / found['step_s']:.1f} % | {rate:.1f} | {rate * found['devices']:.0f} |"
        )
    return "\n".join(lines)


def _check_fit(report: dict, target: Target, config: Config) -> None:
    needed = report["training"]["memory"]["total"]
    if target.chip is None or needed <= target.chip.memory_bytes:
        return
    raise UserError(
        f"the training step needs {needed / 2**30:.1f} GiB on each device, and a device of {target.name} has "
        f"{target.chip.memory_bytes / 2**30:.0f}: lower config.training.batch_size={config.training.batch_size}, or take "
        f"config.training.accumulate={2 * config.training.accumulate}, config.model.remat=light (or full) or "
        f"config.parallel.spatial={2 * config.parallel.spatial} (docs/scaling.md)"
    )
