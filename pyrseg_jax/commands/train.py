"""The `train` mode: prepare the data, train with evaluations in between, and draw figures; or resume the run of the workdir."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator

import jax
from etils import epath
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import escaped
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import num_parameters
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.report.build import NAME as REPORT
from pyrseg_jax.report.build import report_training
from pyrseg_jax.report.examples import Segment
from pyrseg_jax.reporting.evaluation_table import evaluation_table
from pyrseg_jax.reporting.logbook import Logbook, SilentLogbook
from pyrseg_jax.reporting.trackers.forwarding import Tracked
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.class_weights import find_class_weights, keep_class_weights
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.data_checks import check_training_data
from pyrseg_jax.run.evaluations import (
    draw_evaluation,
    draw_predictions,
    make_evaluator,
    with_context,
    write_result,
)
from pyrseg_jax.run.finished import remove_finished, write_finished
from pyrseg_jax.run.image_space import image_space_of, keep_image_space
from pyrseg_jax.run.model_predictor import make_predictor
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.start import Start, initialize, restore_or_start
from pyrseg_jax.run.tracking import describe_run, draw_samples
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import is_there
from pyrseg_jax.training.checkpoint import Checkpoints
from pyrseg_jax.training.preemption import Preemption
from pyrseg_jax.training.profile import Profiler, parse_steps
from pyrseg_jax.training.stalls import StallWatch
from pyrseg_jax.training.step import TrainState
from pyrseg_jax.training.stopping import EarlyStopping
from pyrseg_jax.training.trainer import Schedule, Trainer

log = logging.getLogger(__name__)


@naming("data", "augment")
def train(config: Config, workdir: Workdir, preemption: Preemption | None = None) -> dict:
    """Train to the last step, starting from the newest checkpoint if there is one.

    Args:
      config: the run's configuration.
      workdir: the run's folder. If it holds a run with this config, that run is resumed.
      preemption: the handler of SIGTERM; by default SIGTERM ends the process.

    Returns:
      The last evaluation.

    Raises:
      UserError: for what the user can fix; another training in this workdir is one example.
      Preempted: after SIGTERM, once the state is saved.
    """
    preemption = preemption or Preemption()
    mesh = _checked_mesh(config)
    workdir.check_config(config)
    processes.on_first(lambda: workdir.check_writable(for_training=True))
    dataset = experiment.open_data(config.data, image_space=image_space_of(config, workdir))
    config = config_lib.resolve_durations(config, len(dataset.open_split(TRAINING)))
    check_training_data(config, dataset)
    model = _checked_model(config, dataset.label_space)
    tracked = describe_run(config, workdir, dataset.label_space.names)
    optimizer = experiment.make_optimizer(config)
    class_weights = find_class_weights(config, dataset, workdir)
    # Before anything is written: if the weights do not fit, no workdir is left behind.
    start = None if workdir.has_checkpoint() else initialize(config, model, dataset.label_space)
    with contextlib.ExitStack() as held:
        checkpoints = held.enter_context(_opened(config, workdir, dataset.label_space, start))
        processes.on_first(lambda: _keep_measured(config, dataset, workdir, class_weights))
        state = restore_or_start(config, model, optimizer, checkpoints, mesh, start, dataset.label_space)
        first_step, schedule = int(state.step), experiment.make_schedule(config)
        _log_start(config, dataset, state, schedule)
        logbook = held.enter_context(contextlib.closing(_open_logbook(workdir, schedule, first_step, tracked)))
        evaluator = make_evaluator(config, model, dataset, mesh, class_weights)
        evaluation = _Evaluation(config, workdir, dataset, logbook, evaluator, mesh, schedule)
        trainer = Trainer(
            train_step=experiment.make_step(config, model, optimizer, mesh, state, class_weights),
            open_batches=functools.partial(experiment.open_batches, config, dataset),
            to_devices=functools.partial(mesh_lib.images_to_devices, mesh),
            evaluate=evaluation,
            checkpoints=checkpoints,
            recorder=logbook,
            learning_rate=experiment.make_learning_rate(config),
            schedule=schedule,
            preemption=preemption,
            stalls=StallWatch(config.training.stall_s, workdir.stalls(jax.process_index())),
            profiler=Profiler(parse_steps(config.training.profile), workdir.path / "profile", first_step),
            stopping=EarlyStopping(config.training.patience, config.training.min_delta),
        )
        state = trainer.fit(state)
        with preemption.evaluating():
            if trainer.stop_reason is not None:
                trainer.last_evaluation = evaluation.evaluate_last(state)
            evaluation.draw_figures(model, state)
        _record_end(config, workdir, int(state.step), trainer.stop_reason)
        evaluation.write_report(model, state, preemption)
    _print_places(workdir)
    return trainer.last_evaluation


def _checked_mesh(config: Config) -> Mesh:
    """Arrange the devices in a mesh, and check that it can split the training batch."""
    mesh = experiment.make_mesh(config.parallel)
    experiment.check_layout(config, mesh)
    return mesh


def _checked_model(config: Config, label_space: LabelSpace) -> Segmenter:
    """Build the network, and check that it has the parts that are to be frozen."""
    model = experiment.make_model(config, label_space)
    experiment.check_frozen(config, model)
    return model


@contextlib.contextmanager
def _opened(config: Config, workdir: Workdir, label_space: LabelSpace, start: Start | None) -> Iterator[Checkpoints]:
    """Keep other trainings out of the workdir, write its records, and open its checkpoints; `start`: of a new run."""
    with contextlib.ExitStack() as held:
        processes.on_first(lambda: held.enter_context(workdir.lock()))
        origin = start.origin if start else None
        processes.on_first(lambda: workdir.open_for_training(config, label_space, origin))
        about = {"config": config_lib.to_values(config), "classes": label_space.names}
        checkpoints = Checkpoints(
            workdir.checkpoints, config.training.keep_last, about=about, metric=config.training.best_metric
        )
        processes.on_first(lambda: remove_finished(workdir))
        with contextlib.closing(checkpoints):
            yield checkpoints


def _keep_measured(config: Config, dataset: Dataset, workdir: Workdir, class_weights: tuple[float, ...] | None) -> None:
    """Write the numbers that were measured on the training split, so that the run always uses the same ones."""
    keep_class_weights(config, dataset, workdir, class_weights)
    keep_image_space(workdir, dataset.image_space)


def _open_logbook(
    workdir: Workdir, schedule: Schedule, first_step: int, tracked: Tracked | None
) -> Logbook | SilentLogbook:
    """Open the record of the run and remove what later steps have left there; only the first process writes."""
    if not processes.is_first():
        return SilentLogbook()
    logbook = Logbook(workdir.path, schedule.last_step, schedule.batch_size, first_step, tracked)
    workdir.results.drop_after(first_step)
    return logbook


def _record_end(config: Config, workdir: Workdir, step: int, stop_reason: str | None) -> None:
    """Write the file `finished`, unless the training was only interrupted by `training.stop_after`."""
    steps = config.training.steps
    if stop_reason is not None or step >= steps:
        reason = stop_reason or f"all {steps} steps are done"
        processes.on_first(lambda: write_finished(workdir, step, reason))


def _print_places(workdir: Workdir) -> None:
    """Print where the run and its pictures are; only the first process prints."""
    if processes.is_first():
        print(f"run: {escaped(str(workdir.path))}")
        if workdir.figures.is_dir():
            print(f"pictures: {escaped(str(workdir.figures))}")
        if is_there(workdir.path / REPORT):
            print(f"report: {escaped(str(workdir.path / REPORT))}")


def _log_start(config: Config, dataset: Dataset, state: TrainState, schedule: Schedule) -> None:
    log.info(
        "%s, %.2f M parameters, %d classes, on %s; steps %d … %d",
        config.model.backbone,
        num_parameters(state.variables) / 1e6,
        dataset.label_space.num_classes,
        mesh_lib.describe_devices(),
        int(state.step),
        schedule.last_step,
    )
    if CONTEXTS[config.model.context].reads_hierarchy and dataset.label_space.hierarchy is None:
        log.info(
            "%s has no hierarchy of its classes: %s takes all of them as one group", dataset.place, config.model.context
        )


@dataclasses.dataclass
class _Evaluation:
    """Evaluates the state after a step, writes the result, and draws the figures of the last one.

    Attributes:
      written, result: the last result and the path of its file; only the first process writes.
    """

    config: Config
    workdir: Workdir
    dataset: Dataset
    logbook: Logbook | SilentLogbook
    evaluator: Evaluator
    mesh: Mesh
    schedule: Schedule
    written: epath.Path | None = None
    result: dict = dataclasses.field(default_factory=dict)

    def __call__(self, step: int, state: TrainState) -> dict:
        """Return the result; the table of the last step is printed before anything is written."""
        return self._evaluate(step, state, step >= self.schedule.last_step)

    def evaluate_last(self, state: TrainState) -> dict:
        """Evaluate the state of a training that has ended before its last step again, now with the analysis and its table."""
        return self._evaluate(int(state.step), state, is_last=True)

    def _evaluate(self, step: int, state: TrainState, is_last: bool) -> dict:
        self.logbook.say(f"evaluating step {step} on {self.config.evaluation.split}")
        variables = mesh_lib.whole_on(mesh_lib.local_mesh(self.mesh), state.predicting)
        # The analysis of the pyramid takes longer, so only the last evaluation includes it.
        result = self.evaluator(variables, self.config.evaluation.analysis and is_last)
        result = with_context(result, self.config, self.workdir, step, self.dataset.place)
        if processes.is_first():
            try:
                if is_last:
                    self.logbook.show(evaluation_table(result))
            finally:  # a closed pipe costs the table, not the result
                self.written, self.result = write_result(result, self.config, self.workdir), result
        if isinstance(self.logbook, Logbook):
            draw_samples(self.config, self.dataset, self.evaluator, variables, self.logbook, step)
        return result

    def draw_figures(self, model: Segmenter, state: TrainState) -> None:
        """Draw the figures of the last evaluation, and some predictions; raises UserError if the workdir has been removed."""
        self.logbook.sync()
        variables = mesh_lib.whole_on(mesh_lib.local_mesh(self.mesh), state.predicting)
        if self.written is not None:
            draw_evaluation(self.config, self.workdir, self.written, self.result)
            draw_predictions(self.config, model, variables, self.dataset, self.workdir)
        self.logbook.sync()  # looks for the workdir once more

    def write_report(self, model: Segmenter, state: TrainState, preemption: Preemption) -> None:
        """Write the report of the run, unless the config switches it off."""
        if not self.config.evaluation.report:
            return
        variables = mesh_lib.whole_on(
            mesh_lib.local_mesh(self.mesh), state.predicting
        )  # all processes call this together
        if self.written is None:
            return

        def make_segment(dataset: Dataset) -> Segment:
            space = dataset.image_space
            return make_predictor(self.config, model, variables, dataset.label_space, image_space=space).segment

        with preemption.evaluating():
            report_training(self.config, self.workdir, self.written.stem, self.dataset, make_segment)
