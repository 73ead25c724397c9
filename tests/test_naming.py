"""Errors name plain arguments below the configuration, and whole keys for the user."""

import pytest
from support.data_sets import write_folder

from pyrseg_jax.commands.train import train
from pyrseg_jax.commands.validate import validate
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.naming import complete_names, naming
from pyrseg_jax.run.workdir import Workdir


@pytest.mark.parametrize(
    ("message", "completed"),
    [
        ("root=/a: there is no such folder", "config.data.root=/a: there is no such folder"),
        ("root is not set: name it", "config.data.root is not set: name it"),
        ("void_value=1 … (first_value=1)", "config.data.void_value=1 … (config.data.first_value=1)"),
        ("a.png: write remap=VALUE:CLASS", "a.png: write config.data.remap=VALUE:CLASS"),
        ("set workers=N and crop_px=1", "set config.data.workers=N and config.data.crop_px=1"),
        *[
            (kept, kept)
            for kept in (
                "config.data.root=/a",
                "--config.data.root=/a",
                "/data/root=1/a.png is missing",
                "the root folder",
                "spatial=2",
            )
        ],
    ],
)
def test_arguments_become_keys(message, completed):
    assert complete_names(message, "data") == completed
    assert complete_names(completed, "data") == completed


def test_several_groups_may_be_named():
    completed = "config.data.crop_px=64 and config.parallel.spatial=2"
    assert complete_names("crop_px=64 and spatial=2", "data", "parallel") == completed


def test_an_error_without_an_argument_is_raised_as_it_is():
    error = UserError("a.png is missing")
    with pytest.raises(UserError) as raised, naming("data"):
        raise error
    assert raised.value is error


def test_opening_data_names_the_keys(tmp_path):
    config = config_lib.defaults()
    config.data.name, config.data.root = "folder", str(tmp_path / "missing")
    with pytest.raises(UserError, match=r"^config\.data\.root=.*missing: there is no such folder"):
        experiment.open_data(config_lib.resolve(config).data)


def test_commands_name_the_keys_when_an_error_comes_after_opening(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", {"training": 2, "validation": 1})
    config = config_lib.defaults()
    config.data.name, config.data.root, config.evaluation.split = "folder", str(folder), "holdout"
    config = config_lib.resolve(config)
    message = r"the split 'holdout' is empty: set config\.data\.holdout=N"
    with pytest.raises(UserError, match=message):
        train(config, Workdir(str(tmp_path / "run")))
    with pytest.raises(UserError, match=rf"1 problem\(s\) in .*{message}"):
        validate(config)
    assert "problem: the split 'holdout' is empty: set config.data.holdout=N" in capsys.readouterr().out
