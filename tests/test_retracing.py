"""A run compiles its programs once: nothing is traced or compiled again in later steps, checkpoints and evaluations."""

import collections
import functools

import jax
import pytest
from support.data_sets import write_folder
from support.runs import tiny_config

from pyrseg_jax.commands.train import train
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.loop import _Loop

# Programs that are read from the cache on disk are among the second.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


class Programs:
    """What is traced and compiled, by what the loop is doing.

    Attributes:
      seen: (method of the loop, step) → names like "compiled jit(step)", in order; each method call has its entry.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.seen: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
        self._now = ("start", 0)
        for name in ("_take", "_save", "_score"):
            monkeypatch.setattr(_Loop, name, self._noting(name, getattr(_Loop, name)))

    def _noting(self, name, method):
        @functools.wraps(method)
        def noted(loop, step):
            self._now = (name, step)
            self.seen[self._now] = []
            method(loop, step)

        return noted

    def __enter__(self) -> "Programs":
        jax.monitoring.register_event_duration_secs_listener(self._note)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._note)

    def _note(self, event: str, _: float, **about) -> None:
        if event in EVENTS:
            self.seen[self._now].append(f"{EVENTS[event]} {about.get('fun_name', '?')}")


def test_after_the_first_of_each_kind_nothing_is_traced_or_compiled(tmp_path, monkeypatch):
    """Steps, checkpoints and evaluations, whose last batch is not full, as the command line runs them."""
    root = write_folder(tmp_path / "data", {"training": 5, "validation": 3}, size=(60, 64))
    values = keys.to_config_dict(tiny_config(context="none", strides=(8, 4)))
    values.data.root, values.data.workers = str(root), 0
    values.parallel.data = 1
    values.training.update({"batch_size": 4, "steps": 8, "log_every": 1, "save_every": 2, "evaluate_every": 3})
    # The analysis is of the last evaluation alone, and has a program of its own.
    values.evaluation.update({"batch_size": 2, "num_pictures": 0, "analysis": False})
    with Programs(monkeypatch) as programs:
        train(config_lib.resolve(values), Workdir(str(tmp_path / "run")))
    assert [seen for seen in programs.seen if seen[0] == "_save"] == [("_save", step) for step in (2, 3, 4, 6, 8)]
    assert [seen for seen in programs.seen if seen[0] == "_score"] == [("_score", step) for step in (3, 6, 8)]
    assert programs.seen["_take", 1].count("compiled jit(step)") == 1
    assert programs.seen["_score", 3]
    # The second step is where the metrics of the first one are read.
    first = {("start", 0), ("_take", 1), ("_take", 2), ("_save", 2), ("_score", 3)}
    assert {when: what for when, what in programs.seen.items() if what and when not in first} == {}
