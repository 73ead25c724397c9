"""A run compiles its programs once: later steps, checkpoints and evaluations trace and compile nothing again."""

import collections
import contextlib
import re

import jax
import pytest
from support.data_sets import write_folder
from support.runs import tiny_config

from pyrseg_jax.commands.train import train
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.stalls import StallWatch

# jax reports programs that it reads from the cache on disk as compiled, too.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


class Programs:
    """Records what is traced and compiled, by what the trainer is doing.

    The trainer tells its stall watch what it is doing. Evaluations are not watched, so "after saving step N" is the evaluation
    of step N, if there is one.

    Attributes:
      seen: activity of the trainer → names like "compiled jit(step)", in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.seen: dict[str, list[str]] = collections.defaultdict(list)
        self._now = "starting"
        watching = StallWatch.watching

        @contextlib.contextmanager
        def noted(watch, activity, **kwargs):
            with watching(watch, activity, **kwargs):
                self._enter(activity)
                yield
            self._enter(f"after {activity}")

        monkeypatch.setattr(StallWatch, "watching", noted)

    def _enter(self, activity: str) -> None:
        self._now = activity.removesuffix(", or the one before")
        self.seen[self._now] += []

    def __enter__(self) -> "Programs":
        jax.monitoring.register_event_duration_secs_listener(self._note)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._note)

    def _note(self, event: str, _: float, **about) -> None:
        if event in EVENTS:
            self.seen[self._now].append(f"{EVENTS[event]} {about.get('fun_name', '?')}")


def test_after_the_first_of_each_kind_nothing_is_traced_or_compiled(tmp_path, monkeypatch):
    """Runs steps, checkpoints and evaluations, with a last batch that is not full, as the command line does."""
    root = write_folder(tmp_path / "data", {"training": 5, "validation": 3}, size=(60, 64))
    values = keys.to_config_dict(tiny_config(context="none", strides=(8, 4)))
    values.data.root, values.data.workers = str(root), 0
    values.parallel.data = 1
    values.training.update({"batch_size": 4, "steps": 8, "log_every": 1, "save_every": 2, "evaluate_every": 3})
    # Only the last evaluation includes the analysis, and the analysis has a program of its own.
    values.evaluation.update({"batch_size": 2, "num_pictures": 0, "analysis": False})
    run = Workdir(str(tmp_path / "run"))
    with Programs(monkeypatch) as programs:
        train(config_lib.resolve(values), run)
    saved = [int(found[1]) for found in (re.fullmatch(r"saving step (\d+)", name) for name in programs.seen) if found]
    assert saved == [2, 3, 4, 6, 8]
    evaluated = sorted(file.name for file in (run.path / "evaluation").iterdir())
    assert evaluated == [f"validation-{step}.json" for step in (3, 6, 8)]
    assert programs.seen["computing step 1"].count("compiled jit(step)") == 1
    assert programs.seen["after saving step 3"]
    # The trainer reads the metrics of the first step during the second one.
    first = {"starting", "waiting for the data of step 1", "after waiting for the data of step 1"}
    first |= {
        "computing step 1",
        "after computing step 1",
        "computing step 2",
        "after computing step 2",
        "saving step 2",
    }
    first |= {"after saving step 3"}
    assert {when: what for when, what in programs.seen.items() if what and when not in first} == {}
