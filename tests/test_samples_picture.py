"""The keys `augment.*`, and `pyrseg validate --draw`."""

import numpy as np
import pytest
from PIL import Image
from support.command_line import call, error_of

from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.augmentation import make_augmentation


def config_of(folder=None, **augment):
    config = config_lib.defaults()
    if folder is not None:
        config.data.name, config.data.root, config.data.workers = "folder", str(folder), 0
    for name, value in augment.items():
        config.augment[name] = value
    return config_lib.resolve(config)


def test_by_default_nothing_is_added():
    config = config_of()
    data = config.data
    plain = Augmentation(data.crop_px, data.scale_min, data.scale_max, data.is_flipped, data.color_jitter)
    assert make_augmentation(config, 12) == plain


EVERYTHING = {
    "rotation_deg": 20.0,
    "shear_deg": 5.0,
    "affine_probability": 0.5,
    "aspect": 1.3,
    "photometric_probability": 0.8,
    "brightness": 20.0,
    "contrast": 0.4,
    "saturation": 0.3,
    "hue_deg": 10,
    "blur_probability": 0.1,
    "blur_sigma_px": 1.5,
    "noise_probability": 0.2,
    "noise_std": 7.0,
    "jpeg_probability": 0.3,
    "jpeg_quality_min": 30,
    "jpeg_quality_max": 60,
    "erase_probability": 0.4,
    "erase_share": 0.1,
    "erase_labels": "kept",
    "mix": "cutmix",
    "mix_probability": 0.7,
    "function": "support.user_functions:pipeline",
}


def test_each_key_arrives_where_it_acts():
    made = make_augmentation(config_of(**EVERYTHING), 3)
    found = [vars(part) for part in (made.affine, *made.effects, made.mix, made.function)]
    assert [list(part.values()) for part in found] == [
        [20.0, 5.0, 1.3, 0.5],
        [0.8, 20.0, 0.4, 0.3, 10],
        [0.1, 1.5],
        [0.2, 7.0],
        [0.3, 30, 60],
        [0.4, 0.1, "kept"],
        ["cutmix", 0.7],
        ["support.user_functions:pipeline", 3],
    ]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (
            {"jpeg_quality_min": 96},
            r"config\.augment\.jpeg_quality_min=96 is larger than config\.augment\.jpeg_quality_max=95",
        ),
        ({"function": "mine"}, r"config\.augment\.function='mine': expected package\.module:NAME"),
        ({"mix": "mixup"}, r"config\.augment\.mix.*expected one of none, cutmix, classmix"),
        ({"aspect": 0.5}, r"config\.augment\.aspect"),
    ],
)
def test_a_value_that_does_not_fit_is_named(augment, message):
    with pytest.raises(UserError, match=message):
        config_of(**augment)


def test_a_function_that_is_missing_is_found_before_the_first_batch(folder):
    config = config_of(folder, function="no_such_module_here:f")
    with pytest.raises(UserError, match=r"^config\.augment\.function='no_such_module_here:f'"):
        experiment.open_batches(config, experiment.open_data(config.data), 0)


def draw(folder, workdir, *flags):
    return call(
        "validate", "--config=scenes", "--config.data.name=folder", f"--config.data.root={folder}", f"--workdir={workdir}",
        "--config.data.crop_px=64", "--draw", *flags,
    )  # fmt: skip


def test_validate_draws_twelve_augmented_images(folder, tmp_path):
    keys = {"rotation_deg": 30, "mix": "classmix", "mix_probability": 1, "photometric_probability": 1}
    flags = [f"--config.augment.{name}={value}" for name, value in keys.items()]
    done = draw(folder, tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "run" / "augmentation.png"
    assert f"picture of augmented training images: {path}\n" in done.stdout
    first = np.asarray(Image.open(path))
    assert first.shape[1] >= 1700 and 1000 < first.shape[0] < 1700
    draw(folder, tmp_path / "again", *flags, "--config.seed=1")
    assert (np.asarray(Image.open(tmp_path / "again" / "augmentation.png")) != first).any()
    # A training may start in this workdir: the picture is not in its way.
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["augmentation.png"]


def test_the_picture_costs_no_report_and_the_report_no_picture(folder, tmp_path):
    (folder / "images" / "training" / "training_1.jpg").write_bytes(b"")
    done = draw(folder, tmp_path / "run")
    assert "training_1.jpg" in error_of(done)
    assert (tmp_path / "run" / "augmentation.png").is_file()
    done = draw(folder, tmp_path / "other", "--config.augment.function=support.user_functions:failing")
    assert "2 problem(s)" in error_of(done)
    assert "config.augment.function='support.user_functions:failing' failed with" in done.stdout
    assert "ground" in done.stdout
