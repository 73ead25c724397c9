"""Profiles of some steps: which steps they cover, and the errors for a wrong range."""

import logging

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from pyrseg_jax.errors import UserError
from pyrseg_jax.training.profile import Profiler, parse_steps


@pytest.mark.parametrize("text", ["10", "15:10", "0:3", "a:b", "1:2:3", ""])
def test_a_text_that_names_no_steps_is_refused(text):
    with pytest.raises(UserError, match=rf"^key='{text}': expected .*, like '10:15'"):
        parse_steps(text, "key")


def test_steps_are_parsed():
    assert parse_steps(None) is None
    assert parse_steps("10:15") == (10, 15)
    assert parse_steps("3:3") == (3, 3)


def traced_steps(folder):
    """Return the numbers of the steps in the profiles below a folder."""
    found = []
    for file in sorted(folder.rglob("*.xplane.pb")):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                found += [dict(event.stats)["step_num"] for event in line.events if event.name == "train"]
    return found


@pytest.mark.parametrize(("first_step", "last_step", "expected"), [(0, 6, [2, 3, 4]), (2, 6, [3, 4]), (0, 3, [2, 3])])
def test_a_profile_has_the_requested_steps(tmp_path, first_step, last_step, expected):
    """For a run from the start, a run that resumes within the range, and a run that ends within the range."""
    train_step = jax.jit(lambda state: state + 1)
    state = jnp.int32(first_step)
    with Profiler((2, 4), epath.Path(tmp_path), first_step) as profiler:
        for step in range(first_step + 1, last_step + 1):
            profiler.before(step, state)
            state = train_step(state)
            profiler.after(step, state)
    assert int(state) == last_step
    assert traced_steps(tmp_path) == expected


def test_without_steps_nothing_is_recorded(tmp_path):
    with Profiler() as profiler:
        profiler.before(1, jnp.int32(0))
        profiler.after(1, jnp.int32(1))
    assert not list(tmp_path.iterdir())


def test_a_range_before_the_resumed_step_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Profiler((2, 4), epath.Path(tmp_path), 4):
        pass
    assert "no profile is written: the steps 2 … 4 are already done" in caplog.text
