"""The `tune` mode: search for good values of configuration keys, by many trainings one after another."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrseg_jax.data.holdout import HOLDOUT
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file, keys
from pyrseg_jax.run.checks import holdout_of
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage import lock
from pyrseg_jax.storage.atomic import remove_leftovers
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.tuning.process import TrainingProcess
from pyrseg_jax.tuning.results import FIGURE, TABLE, Results, command_of, write_figure
from pyrseg_jax.tuning.search import Search
from pyrseg_jax.tuning.space import Space, check_space, parameters_of, parse_space
from pyrseg_jax.tuning.store import TRIALS, Store, Trial
from pyrseg_jax.tuning.suggest import JOURNAL, Suggester
from pyrseg_jax.tuning.training import Start

log = logging.getLogger(__name__)


def tune(
    config: Config,
    workdir: Workdir,
    name: str | None,
    changes: Mapping[str, Any],
    output: str,
    vary: Sequence[str],
    num_trials: int = 20,
    is_pruning: bool = True,
    keeps_checkpoints: bool = False,
    start: Start = TrainingProcess,
    draw: Callable[[Store, Space], None] = write_figure,
) -> Trial:
    """Search for the values of some keys with the best score, and print the command line of the best trial.

    Args:
      config: the configuration that the trials start from.
      workdir: the folder that a training of this config would have; it is not used.
      name: the value of --config, for the trials; None for the packaged default.
      changes: the values of the keys that were set on the command line, by key.
      output: the folder of the search. If it holds this search, that goes on.
      vary: the keys to vary, each with its values; see `tuning.space.parse_space`.
      num_trials, is_pruning, keeps_checkpoints: see `tuning.search.Search`.
      start, draw: start a training, and draw the figure.

    Returns:
      The best trial.

    Raises:
      UserError: if the space and the config do not fit together, the folder holds another search, or no trial is complete.
    """
    name = name or config_file.DEFAULT
    resolve = _resolver(name, changes)
    _check_place(config, workdir, name, output, resolve)
    space = parse_space(vary)
    check_space(space, config, resolve)
    suggester = Suggester(space, config.training.best_metric, config.seed)
    _check_split(config)
    kept = [f"--config.{key}={keys.to_text(value)}" for key, value in changes.items() if key not in space]
    arguments = ("train", f"--config={name}", *kept)
    with _opened(Path(output).expanduser(), config, space) as store:
        results = Results(store, space, arguments, config.evaluation.split, suggester, draw)
        search = Search(
            store,
            suggester,
            first=parameters_of(config, space),
            resolve=resolve,
            arguments=(*arguments, "--distributed=off"),
            start=start,
            num_trials=num_trials,
            is_pruning=is_pruning,
            keeps_checkpoints=keeps_checkpoints,
            after_trial=results.write,
        )
        best = search.run()
        results.write()
        _print_best(best, store, arguments)
    return best


def _resolver(name: str, changes: Mapping[str, Any]) -> Any:
    """Return the function from further changes to the configuration of --config with all changes."""
    loaded = config_file.load(config_file.find(name))
    return lambda more: config_lib.resolve(loaded, {**changes, **more})


def _check_place(config: Config, workdir: Workdir, name: str, output: str, resolve: Any) -> None:
    """Check that the trials can be written to the output, and that nothing else was asked for."""
    usual = Workdir(f"runs/{config_file.default_run_name(config_file.find(name))}")
    if workdir.path != usual.path or resolve({}) != config:
        raise UserError(
            f"--workdir={workdir.path} is not used by tune: each trial is a run below --output, and --config names the config; "
            "leave --workdir out"
        )
    if is_remote(output):
        raise UserError(f"--output={output}: expected a folder on a disk, because the record of a search is locked")


def _check_split(config: Config) -> None:
    """Raise UserError if the config has no split to score on, and warn if that split was not held out from training."""
    split = config.evaluation.split
    if split == HOLDOUT and holdout_of(config.data).is_empty:
        raise UserError(f"config.evaluation.split={split!r} is empty: set config.data.holdout=N or config.data.folds=K")
    if split != HOLDOUT:
        log.warning(
            "hint: the trials are compared by their scores on the split %r, so that the score of the best one there is too "
            "good an estimate; to leave that split unseen, hold out training images: --config.data.holdout=N "
            "--config.evaluation.split=holdout",
            split,
        )


@contextlib.contextmanager
def _opened(folder: Path, config: Config, space: Space) -> Iterator[Store]:
    """Create the folder if necessary, keep other searches out of it, and read its record."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_free(folder)
            held.enter_context(lock.locked(folder / "lock", "used", "--output"))
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}): make room or restore access, or choose another --output"
            ) from error
        remove_leftovers(folder)
        store = Store(folder, config, space)
        store.write()
        yield store


def _check_free(folder: Path) -> None:
    """Raise UserError if there are files that a search would replace, but no record of a search."""
    if (folder / TRIALS).exists():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name in (TABLE, FIGURE, JOURNAL) or name.startswith("trial-")]
    if found:
        raise UserError(
            f"{folder} holds {', '.join(found[:4])}, but no {TRIALS}: a search would replace files there; use another --output, "
            f"or restore {TRIALS} if this was a search"
        )


def _print_best(best: Trial, store: Store, arguments: Sequence[str]) -> None:
    """Print where the results are, and how to train with the best values."""
    assert best.score is not None  # it is complete
    place = escaped(str(store.folder / best.name))
    print(f"best: trial {best.number}, {store.metric} {best.score:.4f} at step {best.step}, in {place}")
    print(f"all trials: {escaped(str(store.folder / TABLE))}, {TRIALS}, {FIGURE}")
    print("to train with these values:")
    print(f"  {escaped(command_of(best, arguments, 'runs/tuned'))}")
