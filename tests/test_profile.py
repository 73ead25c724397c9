"""Traces of some steps: which, and what a mistake in naming them says."""

import logging

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from pyrseg_jax.errors import UserError
from pyrseg_jax.training.profile import Profiled, parse_steps
from pyrseg_jax.training.step import TrainState


@pytest.mark.parametrize("text", ["10", "15:10", "0:3", "a:b", "1:2:3", ""])
def test_what_names_no_steps_is_refused(text):
    with pytest.raises(UserError, match=rf"config.training.profile='{text}': expected .*, like '10:15'"):
        parse_steps(text)


def test_steps_are_read():
    assert parse_steps(None) is None
    assert parse_steps("10:15") == (10, 15)
    assert parse_steps("3:3") == (3, 3)


def traced_steps(folder):
    """Return the numbers of the steps in the traces below a folder."""
    found = []
    for file in sorted(folder.rglob("*.xplane.pb")):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                found += [dict(event.stats)["step_num"] for event in line.events if event.name == "train"]
    return found


@pytest.mark.parametrize(("first_step", "last_step", "expected"), [(0, 6, [2, 3, 4]), (2, 6, [3, 4]), (0, 3, [2, 3])])
def test_a_trace_has_the_steps_asked_for(tmp_path, first_step, last_step, expected):
    """From the start, after a restart within them, and where the run ends before the last of them."""
    step = jax.jit(lambda state, batch: (state.replace(step=state.step + 1), {"loss": batch["image"].sum()}))
    state = TrainState(jnp.int32(first_step), {}, {}, ())
    with Profiled(step, (2, 4), first_step, epath.Path(tmp_path)) as profiled:
        for _ in range(last_step - first_step):
            state, metrics = profiled(state, {"image": jnp.ones(4)})
    assert int(state.step) == last_step
    assert float(metrics["loss"]) == 4
    assert traced_steps(tmp_path) == expected


def test_steps_that_were_taken_before_are_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Profiled(lambda *_: _, (2, 4), 4, epath.Path(tmp_path)):
        pass
    assert "no trace: step 4 is behind config.training.profile=2:4" in caplog.text
