"""Stand-ins for trainings of a search: they write the files of a run, as a training does, without training."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pyrseg_jax.commands.tune import tune
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file
from pyrseg_jax.run.keys import keys_of, parse_text, value_of
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.preemption import STATUS
from pyrseg_jax.training.scores import Scores

NAME = "scenes"
SPACE = ("training.learning_rate=log:0.001:1", "training.weight_decay=0:0.01", "training.warmup_steps=0:9")
STEPS, EVERY = 40, 10
NUM_TRIALS = 9
HOLDOUT = {"data.holdout": 3, "evaluation.split": "holdout"}


class Killed(BaseException):
    """Ends a search as SIGKILL does: nothing more is written."""


def score_of(config, step: int) -> float:
    """Return the score of an imaginary network: best at a learning rate of 0.1, and better from step to step."""
    training = config.training
    distance = abs(training.learning_rate - 0.1) / (training.learning_rate + 0.1) + 10 * training.weight_decay
    return max(0.9 - 0.5 * distance - 0.001 * training.warmup_steps - 0.2 / (1 + step), 0.0)


class FakeTraining:
    """A training that is evaluated once per `wait`. It continues from the last evaluation that its folder holds.

    Attributes:
      stopped: whether it was told to save its state and end.
    """

    def __init__(self, arguments: Sequence[str], log: Path, score: Callable = score_of):
        assert arguments[:2] == ["train", f"--config={NAME}"] and "--distributed=off" in arguments
        flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[1:])
        texts = {name.removeprefix("config."): text for name, text in flags.items() if name.startswith("config.")}
        about = keys_of(config_lib.Config)
        self.config, _ = resolved({name: parse_text(about[name], text) for name, text in texts.items()})
        self.folder, self.log, self._score = Path(flags["workdir"]), log, score
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(config_lib.to_json(self.config))
        workdir = Workdir(str(self.folder))
        self.scores = Scores(workdir.checkpoints / "scores.json", self.config.training.best_metric)
        self.step = max((step for step, _ in self.scores.by_step()), default=0)
        self.stopped = False
        with log.open("a") as file:
            file.write(f"12:00:00 training from step {self.step}\n")

    def wait(self, seconds: float) -> int | None:
        if self.step >= self.config.training.steps:
            return 0
        self.step += self.config.training.evaluate_every
        (self.folder / "checkpoints" / str(self.step)).mkdir(exist_ok=True)
        score = self._score(self.config, self.step)
        if score is not None:
            self.scores.add(self.step, score, is_written=True)
        return None

    def stop(self) -> int:
        self.stopped = True
        return STATUS


class Fails(FakeTraining):
    """A training that ends with an error after its first evaluation."""

    def wait(self, seconds: float) -> int | None:
        if self.step:
            self.log.open("a").write("12:00:01 step 20\nerror: step 21: the loss is nan; training stops here\n")
            return 1
        return super().wait(seconds)


class Interrupted:
    """Starts trainings, and ends the whole search at some moment.

    Args:
      trial, waits: the number of the trial, and how often it has been waited for.
      error: the exception that ends it.
    """

    def __init__(self, trial: int, waits: int, error: type[BaseException], make: Callable = FakeTraining):
        self._trial, self._waits, self._error, self._make = trial, waits, error, make

    def __call__(self, arguments, log):
        training = self._make(arguments, log)
        if log.stem == f"trial-{self._trial:03d}":
            wait, count = training.wait, [0]

            def wait_or_end(seconds):
                if count[0] == self._waits:
                    raise self._error
                count[0] += 1
                return wait(seconds)

            training.wait = wait_or_end
            if self._error is Killed:
                training.stop = self._end
        return training

    def _end(self):
        raise self._error


@functools.cache
def _loaded(name):
    return config_file.load(config_file.find(name))


def resolved(changes, name=NAME):
    """Return the configuration of a search, and the keys that its command line sets."""
    given = {"training.steps": STEPS, "training.evaluate_every": EVERY} | HOLDOUT | (changes or {})
    return config_lib.resolve(_loaded(name), given), given


def search(
    folder: Path, vary=SPACE, trials: int = NUM_TRIALS, start=FakeTraining, changes=None, name=NAME, **arguments
):
    """Run `pyrseg tune` in this process, with stand-ins for the trainings, and without the figure, which takes a second."""
    config, given = resolved(changes, name)
    workdir = Workdir(f"runs/{name}")
    return tune(
        config, workdir, name, given, str(folder), list(vary), trials, start=start, draw=lambda *_: None, **arguments
    )


def record(folder: Path) -> dict:
    """Read `trials.json`."""
    return json.loads((folder / "trials.json").read_text())


def without_times(folder: Path) -> list[dict]:
    """Return the trials of a record without the seconds that they took."""
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in record(folder)["trials"]]


def value_in(folder: Path, trial: int, key: str):
    """Return the value of a key with which a trial was trained."""
    return value_of(Workdir(str(folder / f"trial-{trial:03d}")).read_config(), key)
