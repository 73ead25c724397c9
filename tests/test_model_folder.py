"""Model folders: they predict what the run predicts, refuse what was changed, and serve every command that reads a run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from huggingface_hub import ModelCard
from support.command_line import call, error_of
from support.data_sets import CLASSES, draw_pair, write_folder
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.commands.export import export
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.folder import write_folder_of_run
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.model_folder import place_model
from pyrseg_jax.run.packaged_models import packaged_models
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir

ROOT_OF = "--config.data.root"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, its model folders in full and half precision, and a data set."""
    place = tmp_path_factory.mktemp("models")
    config = tiny_config()
    write_run(place / "run", config, CLASSES, is_vivid=True)
    export(config, Workdir(str(place / "run")), str(place / "full"), [], form="folder")
    (place / "half").mkdir()
    write_folder_of_run(place / "half", config, Workdir(str(place / "run")), "a run", None, is_half=True)
    write_folder(place / "data", {"training": 2, "validation": 1})
    return place


@pytest.fixture
def copy(place, tmp_path):
    return shutil.copytree(place / "full", tmp_path / "model")


@pytest.fixture(scope="module")
def image():
    return draw_pair(np.random.default_rng(3), 60, 90)[0]


@pytest.fixture(scope="module")
def of_folder(place, image):
    """The prediction of the model folder."""
    return pyrseg_jax.load(place / "full")(image)


def test_the_folder_predicts_what_the_run_predicts(place, image, of_folder):
    run, folder = pyrseg_jax.load(place / "run")(image), of_folder
    assert len(np.unique(run.labels)) > 1
    np.testing.assert_array_equal(folder.probs, run.probs)
    np.testing.assert_array_equal(folder.labels, run.labels)
    assert folder.class_names == run.class_names == CLASSES


def test_half_precision_halves_the_kernels_and_nothing_else(place, image, of_folder):
    full, half = (safetensors.numpy.load_file(place / name / "model.safetensors") for name in ("full", "half"))
    assert full.keys() == half.keys()
    for name, array in full.items():
        assert array.dtype == np.float32
        assert half[name].dtype == (np.float16 if array.ndim > 1 else np.float32)
        np.testing.assert_array_equal(half[name], array.astype(half[name].dtype))
    assert (pyrseg_jax.load(place / "half")(image).labels == of_folder.labels).mean() > 0.99


def test_no_place_of_the_machine_is_in_the_folder(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    config = tiny_config(tmp_path / "first")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(tmp_path / "data")))
    (tmp_path / "run" / "config.json").write_text(config_lib.to_json(config))
    origin = {"file": str(tmp_path / "first"), "sha256": "0" * 64, "source": "a run's step 7"}
    (tmp_path / "run" / "initialisation.json").write_text(json.dumps(origin))
    (tmp_path / "model").mkdir()
    write_folder_of_run(tmp_path / "model", config, Workdir(str(tmp_path / "run")), "a run", None, is_half=False)
    for file in (tmp_path / "model").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    assert json.loads((tmp_path / "model" / "initialisation.json").read_text())["file"] == "first"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "classes.json", "initialisation.json"])
def test_a_changed_file_is_refused(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.* has another SHA-256|{name}"):
        pyrseg_jax.load(copy)
    if name == "model.safetensors":
        with pytest.raises(UserError, match=rf"{name} has another SHA-256 .* changed or damaged"):
            pyrseg_jax.load(copy)


def edit(copy, change):
    about = json.loads((copy / "model.json").read_text())
    change(about)
    (copy / "model.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors cannot be read \(No such file"),
        (lambda f: edit(f, lambda a: a["sha256"].pop("model.safetensors")), r"does not list model.safetensors"),
        (
            lambda f: edit(f, lambda a: a["sha256"].update({"../x": "0" * 64})),
            r"lists '../x': expected model.safetensors",
        ),
        (lambda f: edit(f, lambda a: a.update(format=2)), r"model.json: format=2: expected 1"),
        (lambda f: (f / "images.json").write_text("{}"), r"images.json does not belong to this model"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        pyrseg_jax.load(copy)


def write_weights(copy, change):
    """Change the arrays, and the digest with them, as someone could who wants to be believed."""
    import hashlib

    arrays = safetensors.numpy.load_file(copy / "model.safetensors")
    change(arrays)
    content = safetensors.numpy.save(arrays)
    (copy / "model.safetensors").write_bytes(content)
    edit(copy, lambda a: a["sha256"].update({"model.safetensors": hashlib.sha256(content).hexdigest()}))


def test_arrays_that_are_not_the_networks_are_named(copy):
    name = "params/semantic_head/classify_1/kernel"

    def check(change, message):
        write_weights(copy, change)
        with pytest.raises(UserError, match=message):
            pyrseg_jax.load(copy)

    check(lambda a: a.update({name: a[name][..., :2]}), rf"{name} has the shape .*expected .* 3\) for the network")
    check(lambda a: a.update({name: np.full_like(a[name], np.nan)}), r"kernel' has values that are not numbers")
    check(lambda a: a.pop(name), rf"lacks '{name}'")
    check(lambda a: a.update(extra=np.zeros(3, np.float32)), r"has 'extra'|lacks")


def test_commands_read_a_folder_like_a_run(place, tmp_path, monkeypatch):
    """Evaluate the run and its model: the model is placed in a workdir of its own, and the scores are equal."""
    monkeypatch.chdir(tmp_path)
    root = f"{ROOT_OF}={place / 'data'}"
    options = ("--config.evaluation.analysis=False", "--config.evaluation.loss=False")
    shutil.copytree(place / "run", tmp_path / "run")
    assert call("evaluate", "--workdir=run", root, *options).returncode == 0
    done = call("evaluate", f"--model={place / 'full'}", root, *options)
    assert done.returncode == 0, done.stderr
    run, model = (
        json.loads(next((tmp_path / folder / "evaluation").glob("*.json")).read_text())
        for folder in ("run", "runs/full")
    )
    assert model["confusion"] == run["confusion"]
    assert model["step"] == STEP
    assert f"mIoU  {100 * model['miou']:.2f}" in done.stdout or f"{100 * model['miou']:.2f}" in done.stdout
    placed = Workdir("runs/full")
    place_model(str(place / "full"), placed)  # it is there already, and stays with its results
    assert list((tmp_path / "runs" / "full" / "evaluation").glob("*.json"))
    other = call("evaluate", f"--model={place / 'half'}", "--workdir=runs/full", root)
    assert "runs/full holds another model than --model=" in error_of(other)
    occupied = call("evaluate", f"--model={place / 'half'}", "--workdir=run", root)
    assert "run exists and is not this model" in error_of(occupied)
    missing = call("evaluate", "--model=nowhere", root)
    assert "--model=nowhere: expected a folder that `pyrseg export --format=folder` wrote" in error_of(missing)
    both = call("evaluate", "--model=nowhere", "--config=scenes", root)
    assert "--config and --model exclude each other" in error_of(both)
    step = call("evaluate", f"--model={place / 'full'}", "--step=3", root)
    assert f"is a model folder with step {STEP}, not 3: leave out --step" in error_of(step)


def test_predict_writes_the_same_files_from_a_folder(place, tmp_path):
    images = place / "data" / "images" / "validation"
    for flag, name in (("--workdir", "run"), ("--model", "full")):
        done = call("predict", f"{flag}={place / name}", f"--input={images}", f"--output={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "run").iterdir() if path.suffix in (".png", ".jpg"))
    assert files
    for name in files:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "full" / name).read_bytes(), name


def test_a_training_starts_from_a_folder_and_never_in_it(place):
    config = tiny_config(place / "full")
    model = experiment.make_model(config, len(CLASSES))
    start = initialize(config, model, ade_layout(CLASSES))
    run = safetensors.numpy.load_file(place / "full" / "model.safetensors")
    found = {"/".join(at): x for at, x in flatten_dict(start.variables).items()}
    assert found.keys() == run.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, run[name])
    with pytest.raises(UserError, match="full is a model folder, which no training changes: use another --workdir"):
        Workdir(str(place / "full")).open_for_training(tiny_config(), ade_layout(CLASSES))


def test_an_export_replaces_only_its_own_folder_and_keeps_its_card(place, tmp_path):
    config, run = tiny_config(), Workdir(str(place / "run"))
    target = shutil.copytree(place / "full", tmp_path / "model")
    (target / "README.md").write_text("written by its author\n")
    export(config, run, str(target), [], form="folder", is_half=True)
    assert (target / "README.md").read_text() == "written by its author\n"
    pyrseg_jax.load(target)
    Workdir(str(tmp_path / "other")).open_for_training(tiny_config(key_width=4), ade_layout(CLASSES))
    with pytest.raises(
        UserError, match=r"is not an earlier export of this run: name another folder, or add --overwrite"
    ):
        export(tiny_config(key_width=4), Workdir(str(tmp_path / "other")), str(target), [], form="folder")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"mine holds other files than a model: name a new or empty folder"):
            export(config, run, str(tmp_path / "mine"), [], overwrite=overwrite, form="folder")
    with pytest.raises(UserError, match=r"--half needs --format=folder"):
        export(config, run, str(tmp_path / "m.zip"), [], is_half=True)
    with pytest.raises(UserError, match=r"--sizes and --format=folder exclude each other"):
        export(config, run, str(tmp_path / "m"), ["64x64"], form="folder")
    with pytest.raises(UserError, match=r"--format=onnxx: expected zip, onnx, litert or folder"):
        export(config, run, str(tmp_path / "m"), [], form="onnxx")


def test_the_card_is_one_of_the_hub(place):
    card = ModelCard.load(place / "full" / "README.md")
    assert card.data.to_dict()["library_name"] == "pyrseg_jax"
    assert card.data.to_dict()["pipeline_tag"] == "image-segmentation"
    assert ", ".join(CLASSES) in card.text
    assert "was not evaluated" in card.text


@pytest.mark.parametrize("name", sorted(packaged_models()))
def test_a_packaged_model_is_whole_and_small(name, image):
    folder = packaged_models()[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8e6
    predictor = pyrseg_jax.load(name)
    if name == "camvid-small":  # the other one has the same network
        assert predictor(image).labels.shape == image.shape[:2]
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data["license"]
    assert data["model-index"][0]["results"][0]["metrics"][0]["type"] == "mean_iou"
