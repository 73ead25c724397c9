"""Models in the hub: pushed from a run, loaded elsewhere with the same numbers, and one clear line for what goes wrong."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from huggingface_hub import ModelCard, constants, hf_api
from support.command_line import ROOT, call, error_of
from support.data_sets import CLASSES, draw_pair
from support.hub_server import TOKEN, HubServer
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import experiment
from pyrseg_jax.run.model_folder import place_model
from pyrseg_jax.run.packaged_models import find_model, run_name_of
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir

NAME = "somebody/streets"
ADDRESS = f"hf://{NAME}"
FILES = {"model.safetensors", "config.json", "classes.json", "initialisation.json", "README.md", "model.json"}


@pytest.fixture(scope="module")
def hub():
    """A hub on this machine, which `huggingface_hub` takes for the real one."""
    server = HubServer()
    with server.serving() as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(hf_api.api, "endpoint", address)
        patch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, trained from a checkout with changes, as its record says."""
    path = tmp_path_factory.mktemp("push") / "run"
    write_run(path, tiny_config(), CLASSES, is_vivid=True)
    (path / "environment.json").write_text(json.dumps({"git_commit": "0123456789abcdef-dirty"}))
    return path


@pytest.fixture(scope="module")
def pushed(hub, run):
    """The push of the run."""
    done = call("push", run, f"--to={ADDRESS}")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(autouse=True)
def cache(hub, tmp_path, monkeypatch):
    """An empty cache, and a hub that does nothing unusual."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.refuses, hub.spoils = None, set()
    hub.asked.clear()
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def image():
    return draw_pair(np.random.default_rng(3), 60, 90)[0]


def test_a_pushed_run_predicts_the_same_in_a_fresh_process(hub, pushed, run, image, tmp_path):
    """Load it where nothing of it is, by its name alone; the numbers are equal bit by bit."""
    np.save(tmp_path / "image.npy", image)
    code = f"""
import time, numpy, pyrseg_jax
image = numpy.load({str(tmp_path / "image.npy")!r})
start = time.process_time()
predictor = pyrseg_jax.load({ADDRESS!r})
print(time.process_time() - start)
result = predictor(image)
numpy.savez({str(tmp_path / "found.npz")!r}, result.probs, result.labels, *result.unity)
"""
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5
    expected = pyrseg_jax.load(run)(image)
    assert len(np.unique(expected.labels)) > 1
    with np.load(tmp_path / "found.npz") as found:
        for array, other in zip(found.values(), (expected.probs, expected.labels, *expected.unity), strict=True):
            np.testing.assert_array_equal(array, other)


def test_the_push_says_what_a_reader_should_know(hub, pushed):
    assert set(hub.files(NAME)) == FILES | {".gitattributes"}
    commit = hub.branches[NAME]["main"]
    assert pushed.stdout.splitlines() == [f"hf://{NAME}@{commit}"]
    for line in (
        "the run was trained with changes of pyrseg_jax that no commit holds (0123456789ab…-dirty)",
        "the model was not evaluated: its card has no score",
        "the card names no license",
        "every file there is equal to the one here",
    ):
        assert line in pushed.stderr
    assert TOKEN not in pushed.stderr + pushed.stdout
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert card.data.to_dict()["library_name"] == "pyrseg_jax"
    assert f'pyrseg_jax.load("{ADDRESS}")' in card.text


def test_what_the_cache_holds_needs_no_hub(hub, pushed, cache):
    folder = find_model(ADDRESS)
    assert (folder / "model.json").is_file()
    assert len(hub.asked) > len(FILES)
    hub.asked.clear()
    assert find_model(ADDRESS) == folder
    assert find_model(f"{ADDRESS}@{folder.name}") == folder
    assert hub.asked == []
    # A download that was interrupted has no model.json, and is completed.
    (folder / "model.json").unlink()
    assert find_model(ADDRESS) == folder
    assert hub.asked


def test_revisions(hub, run):
    done = call("push", run, "--to=hf://somebody/other@half", "--half")
    assert done.returncode == 0, done.stderr
    half = hub.branches["somebody/other"]["half"]
    assert find_model(f"hf://somebody/other@{half}") == find_model("hf://somebody/other@half")
    with pytest.raises(UserError, match=r"hf://somebody/other holds no model of pyrseg, but '.gitattributes'"):
        pyrseg_jax.load("hf://somebody/other")
    with pytest.raises(UserError, match=r"the repository has no revision v9"):
        pyrseg_jax.load("hf://somebody/other@v9")


def test_a_changed_file_in_the_hub_is_refused(hub, pushed):
    files = dict(hub.files(NAME))
    content = bytearray(files["model.safetensors"])
    content[-3] ^= 1
    hub.add("somebody/tampered", files | {"model.safetensors": bytes(content)})
    with pytest.raises(UserError, match=r"model.safetensors has another SHA-256 .* changed or damaged"):
        pyrseg_jax.load("hf://somebody/tampered")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://nobody/nothing", r"the hub has no public repository nobody/nothing: check the name"),
        (
            "hf://somebody/weights",
            r"holds no model of pyrseg, but 'a.bin', 'config.json': expected a .* `pyrseg push` wrote",
        ),
        ("hf://somebody", r"hf://somebody is not an address of the hub: expected hf://ORG/NAME"),
        (f"{ADDRESS}/model.safetensors", r"names a file, and a model is a whole repository: expected hf://ORG/NAME"),
    ],
)
def test_what_is_no_model_is_one_line(hub, address, message):
    hub.add("somebody/weights", {"a.bin": b"1", "config.json": b"{}"})
    with pytest.raises(UserError, match=message):
        pyrseg_jax.load(address)


def test_without_a_network_or_the_package(hub, monkeypatch):
    hub.refuses = ".", 451
    with pytest.raises(UserError, match=r"the hub answered with status 451: try again later, or run `hf download"):
        pyrseg_jax.load("hf://somebody/elsewhere")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub, .* \(`pip install 'pyrseg-jax\[hub\]'`\)"):
        pyrseg_jax.load(ADDRESS)


def test_trainings_and_commands_take_the_address(hub, pushed, tmp_path):
    config = tiny_config(ADDRESS)
    start = initialize(config, experiment.make_model(config, len(CLASSES)), ade_layout(CLASSES))
    commit = hub.branches[NAME]["main"]
    assert start.origin["file"] == f"hf://{NAME}@{commit}"
    assert start.origin["commit"] == commit
    assert start.origin["source"].startswith(f"a run's step {STEP}, its ")
    found = {"/".join(at): array for at, array in flatten_dict(start.variables).items()}
    expected = safetensors.numpy.load(hub.files(NAME)["model.safetensors"])
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    place_model(ADDRESS, Workdir(str(tmp_path / "placed")))
    assert {path.name for path in (tmp_path / "placed").iterdir()} == FILES


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ADDRESS, "streets"),
        (f"{ADDRESS}@main", "streets"),
        (f"{ADDRESS}@v1.0", "streets-v1.0"),
        (f"{ADDRESS}@refs/pr/3", "streets-refs-pr-3"),
        ("models/streets/", "streets"),
    ],
)
def test_results_about_a_model_have_a_folder(model, name):
    assert run_name_of(model) == name


def test_a_dry_run_lists_everything_and_asks_nothing(hub, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    done = call("push", run, f"--to={ADDRESS}", "--dry-run")
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert f"  {name} " in done.stdout
    assert " bytes" in done.stdout and "# streets" in done.stdout
    assert hub.asked == []


def test_a_model_folder_is_pushed_as_it_is(hub, pushed, tmp_path):
    """Its author's card and pictures go with it; other files stay; a card in the repository is not replaced."""
    folder = shutil.copytree(find_model(ADDRESS), tmp_path / "model")
    card = "---\nlicense: mit\nmodel-index:\n- name: streets\n  results: []\n---\nMine.\n"
    (folder / "README.md").write_text(card)
    (folder / "sample.jpg").write_bytes(b"a picture")
    (folder / "evaluation").mkdir()
    hub.add("somebody/mine", {"calibration.json": b"{}", "README.md": b"of its author"})
    done = call("push", folder, "--to=hf://somebody/mine")
    assert done.returncode == 0, done.stderr
    assert "these files stay here: evaluation" in done.stderr
    assert "the model card in the repository stays as it is; --overwrite replaces it" in done.stderr
    found = hub.files("somebody/mine")
    assert set(found) == FILES | {"sample.jpg"}, "the calibration of an earlier model must go"
    assert found["README.md"] == b"of its author"
    done = call("push", folder, "--to=hf://somebody/mine", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert hub.files("somebody/mine")["README.md"].decode() == card
    refused = call("push", folder, "--to=hf://somebody/mine", "--half")
    assert "is a model folder, which is uploaded as it is: leave out --half and --step" in error_of(refused)
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert "README.md is not a model card of the hub" in error_of(call("push", folder, "--to=hf://somebody/mine"))
    (folder / "classes.json").write_text("{}")
    assert "classes.json" in error_of(call("push", folder, "--to=hf://somebody/mine"))


def test_a_refused_push_is_one_line_without_the_token(hub, pushed, monkeypatch, tmp_path):
    folder = shutil.copytree(find_model(ADDRESS), tmp_path / "model")

    def refused(*arguments):
        done = call("push", folder, *arguments)
        assert TOKEN not in done.stderr + done.stdout
        return error_of(done)

    assert "--private was given: nothing was uploaded" in refused(f"--to={ADDRESS}", "--private")
    hub.spoils = {"classes.json"}
    assert "has another classes.json after the upload" in refused("--to=hf://somebody/spoiled")
    hub.refuses = "/commit/", 451
    assert "the hub answered the upload with status 451" in refused("--to=hf://somebody/later")
    hub.refuses = None
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert "status 401): the token needs write access to somebody" in refused("--to=hf://somebody/new")
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the hub: create one with write access" in refused("--to=hf://somebody/new")
    assert "--to=somebody/new: expected hf://ORG/NAME" in refused("--to=somebody/new")
    assert "--to=hf://a/b/c names a file" in refused("--to=hf://a/b/c")
    assert "name two branches" in refused("--to=hf://a/b@one", "--revision=two")


def test_a_private_repository_is_private(hub, pushed, tmp_path):
    folder = shutil.copytree(find_model(ADDRESS), tmp_path / "model")
    done = call("push", folder, "--to=hf://somebody/secret", "--private", "--revision=draft")
    assert done.returncode == 0, done.stderr
    assert hub.private["somebody/secret"]
    assert set(hub.branches["somebody/secret"]) == {"main", "draft"}
