"""`--mode=train`: prepare, train, evaluate at intervals, draw; or continue where the run was left."""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.pipeline import TrainingBatches, training_batches
from pyrseg_jax.data.report import check_once
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.reporting.logbook import Logbook, Silence
from pyrseg_jax.reporting.pictures import save_pictures
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.evaluations import draw_evaluation, make_evaluator, with_context
from pyrseg_jax.run.predictor import make_predictor
from pyrseg_jax.run.start import Start, initialise
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import written_on_disk
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.loop import Schedule, run_loop
from pyrseg_jax.training.preemption import Preemption
from pyrseg_jax.training.profile import Profiled, parse_steps
from pyrseg_jax.training.stalls import StallWatch
from pyrseg_jax.training.step import StepFunction, TrainState, initial_state, make_train_step

log = logging.getLogger(__name__)
SPLIT = TRAINING


def train(config: Config, workdir: Workdir, preemption: Preemption | None = None) -> dict:
    """Train to the last step, from the newest checkpoint if there is one, and return the last evaluation.

    Raises:
      UserError: for what the user can put right; another training in this folder is such a thing.
      Preempted: after SIGTERM, when all is saved; `preemption` notices it.
    """
    mesh = experiment.make_mesh(config.parallel)
    training = config.training
    mesh_lib.check_batch(mesh, training.batch_size, "config.training.batch_size", training.accumulate)
    mesh_lib.check_rows(mesh, config.data.crop_px, config.model.strides[0])
    workdir.check_config(config)
    dataset = experiment.open_data(config.data)
    config = config_lib.resolve_durations(config, len(dataset.open_split(SPLIT)))
    for split in (SPLIT, config.evaluation.split):  # before anything slow: a bad file should not cost an hour
        check_once(dataset.open_split(split), dataset.label_space, f"{dataset.place} ({split})")
    model = experiment.make_model(config.model, dataset.label_space.num_classes)
    # Before the folder is written to: weights that do not fit should leave nothing behind.
    start = None if workdir.has_checkpoint() else initialise(config, model, dataset.label_space)
    with contextlib.ExitStack() as held:
        _on_first(lambda: held.enter_context(workdir.lock()))
        _on_first(lambda: workdir.open_for_training(config, dataset.label_space))
        if start is not None:
            _on_first(lambda: workdir.write_initialisation(start.origin))
        return _run(config, workdir, dataset, model, mesh, start, preemption or Preemption())


def _on_first(act: Callable[[], Any]) -> None:
    """Do something in the first process; if it fails there, all processes raise."""
    problem = None
    if processes.is_first():
        try:
            act()
        except UserError as error:
            problem = str(error)
    problem = processes.gather(problem)[0]
    if problem is not None:
        raise UserError(problem)


def _run(
    config: Config, workdir: Workdir, dataset: Dataset, model, mesh: Mesh, start: Start | None, preemption: Preemption
) -> dict:
    """Restore or start, train, and draw."""
    optimizer = experiment.make_sgd(config)
    about = {"config": config_lib.to_values(config)}
    is_first = processes.is_first()
    with contextlib.ExitStack() as held:
        checkpoints = Checkpoints(workdir.checkpoints, config.training.keep_last, about=about)
        held.callback(checkpoints.close)
        state = _restore_or_start(config, model, optimizer, checkpoints, mesh, start, dataset)
        first_step = int(state.step)
        last_step = min(config.training.steps, config.training.stop_after or config.training.steps)
        _say_what_is_trained(config, dataset, state, last_step)
        batch_size = config.training.batch_size
        logbook = Logbook(workdir.path, last_step, batch_size, first_step) if is_first else Silence()
        held.callback(logbook.close)
        if is_first:
            workdir.drop_evaluations_after(first_step)
        evaluate = _Evaluation(config, workdir, logbook, make_evaluator(config, model, dataset, mesh), mesh, last_step)
        if first_step < last_step:
            step = _make_step(config, model, optimizer, mesh, state)
            traced = parse_steps(config.training.profile)
            if traced is not None:
                step = held.enter_context(Profiled(step, traced, first_step, workdir.path / "profile"))
            batches = held.enter_context(contextlib.closing(_open_batches(config, dataset, first_step)))
            stalls = held.enter_context(StallWatch(config.training.stall_s, workdir.stalls(jax.process_index())))
            state = run_loop(
                state,
                step,
                batches,
                to_devices=functools.partial(mesh_lib.images_to_devices, mesh),
                evaluate=evaluate,
                checkpoints=checkpoints,
                recorder=_CountingSkipped(logbook, batches),
                learning_rate=experiment.make_schedule(config),
                schedule=_make_schedule(config, last_step),
                preemption=preemption,
                stalls=stalls,
            )
        with preemption.evaluating():
            if first_step >= last_step:
                log.info("step %d was reached before: nothing to train", first_step)
                checkpoints.score(first_step, evaluate(first_step, state))
            variables = mesh_lib.whole_on(mesh_lib.local_mesh(mesh), state.variables)
            if is_first:
                draw_evaluation(config, workdir, int(state.step), evaluate.last_result)
                _draw_predictions(config, model, variables, dataset, workdir)
    return evaluate.last_result


def _say_what_is_trained(config: Config, dataset: Dataset, state: TrainState, last_step: int) -> None:
    log.info(
        "%s, %.2f M parameters, %d classes, on %s; steps %d … %d",
        config.model.backbone,
        num_parameters(state.variables) / 1e6,
        dataset.label_space.num_classes,
        mesh_lib.describe_devices(),
        int(state.step),
        last_step,
    )


def _make_step(config: Config, model, optimizer, mesh: Mesh, state: TrainState) -> StepFunction:
    return make_train_step(
        model,
        optimizer,
        experiment.make_objective(config),
        mesh,
        config.seed,
        accumulate=config.training.accumulate,
        state_sharding=mesh_lib.state_sharding(mesh, state, config.parallel.shard_state),
    )


class _CountingSkipped:
    """A logbook whose lines also say how many records were skipped, since the start of this process."""

    def __init__(self, logbook: Logbook, batches: TrainingBatches):
        self._logbook, self._batches = logbook, batches

    def advance(self, step: int, loss: float) -> None:
        self._logbook.advance(step, loss)

    def write_step(self, step: int, values: dict[str, float]) -> None:
        self._logbook.write_step(step, values | {"skipped_records": self._batches.num_skipped})

    def sync(self) -> None:
        self._logbook.sync()


class _Evaluation:
    """Evaluates a state, writes the result down and keeps it."""

    def __init__(self, config: Config, workdir: Workdir, logbook, evaluator: Evaluator, mesh: Mesh, last_step: int):
        self._config, self._workdir, self._logbook, self._evaluator = config, workdir, logbook, evaluator
        self._mesh = mesh_lib.local_mesh(mesh)
        self._last_step = last_step  # only then is the pyramid analysed: it takes longer
        self.last_result: dict = {}

    def __call__(self, step: int, state: TrainState) -> float | None:
        split = self._config.evaluation.split
        self._logbook.say(f"evaluating step {step} on {split}")
        variables = mesh_lib.whole_on(self._mesh, state.variables)
        is_analysed = self._config.evaluation.analysis and step >= self._last_step
        self.last_result = with_context(self._evaluator(variables, is_analysed), self._config, self._workdir, step)
        if processes.is_first():
            self._workdir.write_evaluation(split, step, self.last_result)
        self._logbook.write_evaluation(step, self.last_result)
        return self.last_result["miou"]


def _make_schedule(config: Config, last_step: int) -> Schedule:
    training = config.training
    return Schedule(last_step, training.batch_size, training.log_every, training.evaluate_every, training.save_every)


def _restore_or_start(
    config: Config, model, optimizer, checkpoints: Checkpoints, mesh, start: Start | None, dataset: Dataset
) -> TrainState:
    """Return the newest state that is whole; without any checkpoint the first one."""
    like = abstract_variables(model, config.model.strides[0] * 2) if start is None else start.variables
    abstract = jax.eval_shape(lambda v: initial_state(v, optimizer), like)
    sharding = mesh_lib.state_sharding(mesh, abstract, config.parallel.shard_state)
    # Asked for even if the folder was empty: another training may have begun and ended meanwhile.
    state = checkpoints.restore(abstract_on(abstract, sharding))
    if state is None:
        start = start or initialise(config, model, dataset.label_space)
        return jax.device_put(initial_state(start.variables, optimizer), sharding)
    log.info("continuing from the checkpoint of step %d", int(state.step))
    checkpoints.set_aside_after(int(state.step))
    return state


def _open_batches(config: Config, dataset: Dataset, first_step: int):
    data = config.data
    return training_batches(
        dataset.open_split(SPLIT),
        dataset.label_space,
        Augmentation(data.crop_px, data.scale_min, data.scale_max, data.is_flipped, data.color_jitter),
        batch_size=config.training.batch_size,
        seed=config.seed,
        first_step=first_step,
        workers=data.workers,
        process_index=jax.process_index(),
        num_processes=jax.process_count(),
        on_error=data.on_error,
    )


def _draw_predictions(config: Config, model, variables: dict, dataset: Dataset, workdir: Workdir) -> None:
    """Draw predictions for some images spread over the split, with their ground truth."""
    source = dataset.open_split(config.evaluation.split)
    num_pictures = min(config.evaluation.num_pictures, len(source))
    if not num_pictures:
        return
    predictor = make_predictor(config, model, variables, dataset.label_space)
    with written_on_disk(workdir.figures) as place:
        for i in range(num_pictures):
            record = source[i * len(source) // num_pictures]
            pair = decode_pair(record, dataset.label_space)
            save_pictures(place, record["name"], predictor.segment(pair.image), pair.label)
    log.info("pictures of %d predictions are in %s", num_pictures, workdir.figures)
