"""`--mode=evaluate`: score a checkpoint on a whole split."""

import logging

import jax
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.checks import check_once
from pyrseg_jax.data.holdout import take
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.analysis_figures import draw_analysis
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import written_on_disk

log = logging.getLogger(__name__)


def evaluate(config: Config, workdir: Workdir, step: int | None = None) -> dict:
    """Evaluate a checkpoint, by default the newest, on `config.evaluation.split`; write and return the result."""
    label_space = workdir.read_label_space()
    dataset = experiment.open_data(config.data)
    if dataset.label_space.names != label_space.names:
        raise UserError(
            f"the run in {workdir.path} knows {label_space.num_classes} classes ({', '.join(label_space.names[:4])}, …), the data "
            f"set in {dataset.place} has {dataset.label_space.num_classes} ({', '.join(dataset.label_space.names[:4])}, …): "
            "evaluate on the data set that it was trained on"
        )
    source = dataset.open_split(config.evaluation.split)
    check_once(source, dataset.label_space, f"{dataset.place} ({config.evaluation.split})")
    mesh = experiment.make_mesh(config.parallel)
    model = experiment.make_model(config.model, label_space.num_classes)
    state = restore(config, model, workdir, mesh_lib.replicated(mesh), step)
    variables = mesh_lib.whole_on(mesh_lib.local_mesh(mesh), state.variables)
    step = state.step
    log.info("evaluating step %d on %d images of %s", step, len(source), config.evaluation.split)
    evaluator = make_evaluator(config, model, dataset, mesh)
    result = with_context(evaluator(variables, config.evaluation.analysis), config, workdir, step)
    if processes.is_first():
        log.info("written to %s", workdir.write_evaluation(config.evaluation.split, step, result))
        draw(config, workdir, step, result)
    return result


def draw(config: Config, workdir: Workdir, step: int, result: dict) -> None:
    """Draw the figures of an evaluation, where there is an analysis to draw."""
    if config.evaluation.analysis and sum(map(sum, result["confusion"])):
        folder = workdir.figures_of(config.evaluation.split, step)
        with written_on_disk(folder) as place:
            draw_analysis(place, result)
        log.info("figures of the analysis are in %s", folder)


def make_evaluator(config: Config, model: Segmenter, dataset: Dataset, mesh: Mesh) -> Evaluator:
    """Build the evaluator of `config.evaluation.split`, of which this process takes its share."""
    source = dataset.open_split(config.evaluation.split)
    share = range(len(source))[jax.process_index() :: jax.process_count()]
    return Evaluator(
        model,
        take(source, share) if len(share) < len(source) else source,
        dataset.label_space,
        mesh_lib.local_mesh(mesh),
        experiment.make_evaluation_protocol(config),
        config.evaluation.batch_size,
        config.evaluation.threshold,
    )


def with_context(result: dict, config: Config, workdir: Workdir, step: int) -> dict:
    """Add what makes a result comparable."""
    protocol = experiment.describe_protocol(config) | {"initialisation": workdir.read_initialisation()}
    return result | {"step": step, "protocol": protocol}


def table(result: dict) -> str:
    """Lay out a result for a terminal: IoU of each class, then the means."""
    width = max(map(len, result["iou"]))
    lines = [
        f"{name:<{width}}  {'absent' if iou is None else f'{100 * iou:6.2f}'}" for name, iou in result["iou"].items()
    ]
    shares = ", ".join(f"{100 * share:.1f} %" for share in result["level_share"])
    lines += [
        "",
        f"mIoU {_percent(result['miou'])} over the {result['classes_averaged']} classes present "
        f"({_percent(result['miou_all_classes'])} over all {len(result['iou'])}); "
        f"the best constant prediction has {_percent(result['best_constant_miou'])}",
        f"pixel accuracy {_percent(result['pixel_accuracy'])}, mean accuracy {_percent(result['mean_accuracy'])}; "
        f"within {result['boundary_px']} px of a boundary mIoU {_percent(result['boundary_miou'])}",
        f"share of positions that each level decides, coarse to fine: {shares}; "
        f"{result['cells_per_image']:.0f} cells for {result['pixels_per_image']:.0f} pixels an image",
    ]
    if result["level_miou"] is not None and len(result["level_miou"]) > 1:
        lines += ["", *_analysis_lines(result)]
    return "\n".join(lines)


def _analysis_lines(result: dict) -> list[str]:
    """Lay out Table 2c, the unity pyramid and the oracles."""
    levels = range(1, len(result["level_miou"]) + 1)
    lines = ["mIoU of each level alone (rows), on the pixels that each level decides (columns), coarse to fine"]
    lines += ["       " + "".join(f"{level:>8}" for level in levels)]
    for level, row in zip(levels, result["level_miou"], strict=True):
        lines.append(f"level {level}" + "".join(f"{_percent(value):>8}" for value in row))
    for name, values in result["unity"].items():
        lines.append(f"unit-cells found, {name} by level: {', '.join(map(_percent, values))}")
    oracle = result["oracle"]
    lines.append(
        f"mIoU with the true unity pyramid {_percent(oracle['true_unity_miou'])}, with the true semantic pyramid "
        f"{_percent(oracle['true_semantic_miou'])}"
    )
    return lines


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
