"""The exported file runs with jax alone and gives the same numbers as the model."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import zipfile

import jax
import numpy as np
import pytest
from support import exports
from support.data_sets import CLASSES, draw_pair
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.commands import export as export_command
from pyrseg_jax.commands.export import export
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.export.format import PLATFORMS, Exported
from pyrseg_jax.export.predictor import ExportedPredictor
from pyrseg_jax.run import experiment
from pyrseg_jax.run.workdir import Workdir

OURS = ("pyrseg_jax", "flax", "optax", "orbax", "grain", "ml_collections", "jaxtyping", "cv2", "safetensors", "absl")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its variables, the file, and what the export measured."""
    place = tmp_path_factory.mktemp("export")
    config = tiny_config()
    variables = write_run(place / "run", config, CLASSES, is_vivid=True)
    path = place / "out" / "model.zip"
    measured = export(config, Workdir(str(place / "run")), str(path), ["64x96"])
    return place / "run", config, variables, path, measured


def test_the_file_is_measured(exported):
    *_, path, measured = exported
    assert measured["megabytes"] == pytest.approx(path.stat().st_size / 1e6)
    assert measured["same_labels"] > 0.999
    assert measured["largest_difference"] < 1e-5
    assert measured["load_seconds"] > 0


def test_jax_alone_runs_it_as_its_readme_says(exported, tmp_path, rng):
    """Run in another process and folder, without this package and its dependencies other than jax and NumPy."""
    _, config, variables, path, _ = exported
    images = np.stack([draw_pair(rng, 64, 96)[0] for _ in range(3)])
    np.save(tmp_path / "images.npy", images)
    with zipfile.ZipFile(path) as file:
        readme = file.read("README.txt").decode()
    lines = [line for line in readme.splitlines() if line.startswith("    ")]
    code = textwrap.dedent("\n".join(lines)).replace('"model.zip"', repr(str(path)))
    blocked = f"import sys\nfor name in {OURS}: sys.modules[name] = None\n"
    data = f"import numpy\nimages = numpy.load({str(tmp_path / 'images.npy')!r})\n"
    flat = "flat = {'labels': result['labels'], 'level': result['level'], 'probs': result['probs']}\n"
    save = f"np.savez({str(tmp_path / 'result.npz')!r}, **flat)\nprint(json.dumps(about))\n"
    # -I: do not search PYTHONPATH and the current folder for modules.
    command = [sys.executable, "-I", "-c", blocked + data + code + "\n" + flat + save]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["classes"] == list(CLASSES)
    assert about["step"] == STEP
    assert about["initialisation"] == "random"
    found = np.load(tmp_path / "result.npz")
    assert found["labels"].shape == (3, 64, 96)
    assert len(np.unique(found["labels"])) > 1
    model = experiment.make_model(config, 3)
    expected = jax.jit(lambda v, x: predict(model, v, x, 0.5))(variables, images)
    np.testing.assert_allclose(found["probs"], expected.fused, atol=1e-5)
    assert (found["level"] == expected.level).mean() > 0.99


def test_the_file_is_for_every_platform_and_any_number_of_images(exported):
    with zipfile.ZipFile(exported[3]) as file:
        program = jax.export.deserialize(bytearray(file.read("64x96.stablehlo")))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[-1].shape) == "(n, 64, 96, 3)"


def test_the_file_and_the_run_segment_alike(exported, rng):
    run, _, _, path, _ = exported
    from_run, from_file = pyrseg_jax.load(run), pyrseg_jax.load(path)
    assert from_file.class_names == CLASSES
    image, _ = draw_pair(rng, 60, 100)  # both resize it to 64 × 96
    a, b = from_run(image), from_file(image)
    assert (a.labels == b.labels).mean() > 0.999
    np.testing.assert_allclose(a.probs, b.probs, atol=1e-5)
    assert a.strides == b.strides
    assert b.show_pyramid().size == a.show_pyramid().size


@pytest.mark.parametrize(
    ("target", "sizes", "message"),
    [
        ("m.onnx", [], r"--output=m.onnx: an exported model is a file whose name ends in .zip"),
        (None, ["512"], r"--sizes=512: expected HEIGHTxWIDTH in pixels"),
        (None, ["64x50"], r"--sizes=64x50: expected multiples of 32, the coarsest stride"),
    ],
)
def test_an_error_names_what_cannot_be_exported(exported, target, sizes, message):
    run, config, *_ = exported
    with pytest.raises(UserError, match=message):
        export(config, Workdir(str(run)), target, sizes)


def test_the_same_command_may_replace_its_file(exported):
    run, config, _, path, _ = exported
    before = path.read_bytes()
    export(config, Workdir(str(run)), str(path), ["64x96"])
    assert path.read_bytes() == before


def test_no_other_file_is_replaced(exported, tmp_path):
    """What is in the way is refused before the checkpoint is read, which this run does not even have."""
    _, config, *_ = exported
    run = Workdir(str(tmp_path / "run"))
    run.open_for_training(config, ade_layout(CLASSES))
    foreign = tmp_path / "photos.zip"
    foreign.write_bytes(b"all my photographs")
    of_another_run = exports.write_toy(tmp_path / "theirs.zip")
    (tmp_path / "link.zip").symlink_to(foreign)
    (tmp_path / "dangling.zip").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.zip").mkdir()
    os.mkfifo(tmp_path / "pipe.zip")
    before = of_another_run.read_bytes()
    for name, message, may_overwrite in (
        ("photos.zip", "photos.zip exists, and is not an earlier export of this run: .* add --overwrite", True),
        ("theirs.zip", "theirs.zip exists, and is not an earlier export of this run", True),
        ("link.zip", "link.zip is a link: name the file itself", False),
        ("dangling.zip", "dangling.zip is a link", False),
        ("folder.zip", "folder.zip is a folder: name a file", False),
        ("pipe.zip", "pipe.zip is a named pipe: name a file", False),
        ("photos.zip/model.zip", "photos.zip/model.zip cannot be written", False),
        (f"{'x' * 250}.zip", "cannot be written .File name too long.", False),
    ):
        with pytest.raises(UserError, match=message):
            export(config, run, str(tmp_path / name), ["64x96"])
        with pytest.raises(UserError, match="checkpoints is missing" if may_overwrite else message):
            export(config, run, str(tmp_path / name), ["64x96"], overwrite=True)
    assert foreign.read_bytes() == b"all my photographs"
    assert of_another_run.read_bytes() == before


def test_a_full_disk_is_one_line(exported, tmp_path, monkeypatch):
    run, config, *_ = exported

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_command, "write_export", fail)
    with pytest.raises(UserError, match=r"m.zip cannot be written \(No space left on device\): name another file"):
        export(config, Workdir(str(run)), str(tmp_path / "m.zip"), ["64x96"])
    assert not (tmp_path / "m.zip").exists()


def test_a_damaged_file_is_named(exported, tmp_path):
    (tmp_path / "cut.zip").write_bytes(exported[3].read_bytes()[:1000])
    with pytest.raises(UserError, match="cut.zip is not an exported model, or it is damaged"):
        pyrseg_jax.load(tmp_path / "cut.zip")


def test_an_image_is_resized_to_the_nearest_aspect_ratio_then_area(rng):
    seen = []

    def program(size):
        def run(weights, images):
            seen.append(images.shape[1:3])
            h, w = size[0] // 4, size[1] // 4
            probs = np.stack([np.ones((1, h, w)), np.zeros((1, h, w))], -1).astype(np.float32)
            level = np.zeros((1, h, w), np.uint8)
            return {"probs": probs, "level": level, "semantic": (level,), "unity": ()}

        return run

    sizes = [(64, 64), (128, 128), (64, 128)]
    exported = Exported({"threshold": 0.5}, ade_layout(("a", "b")), {}, {size: program(size) for size in sizes})
    for image, size in (
        ((60, 60), (64, 64)),
        ((120, 130), (128, 128)),
        ((300, 500), (64, 128)),
        ((500, 470), (128, 128)),
    ):
        found = ExportedPredictor(exported)(rng.integers(0, 256, (*image, 3), np.uint8))
        assert seen[-1] == size
        assert found.labels.shape == image
        assert not found.labels.any()
