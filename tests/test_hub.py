"""Weights from the Hugging Face hub: addresses, the choice of files, the cache, and one clear line for what goes wrong."""

import errno
import functools
import hashlib
import json
import logging
import sys

import huggingface_hub
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from huggingface_hub import constants, errors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from support.fake_hub import RESPONSE, FakeHub
from support.runs import tiny_config, write_run

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.weights.files import read_parts, sha256_of
from pyrseg_jax.models.weights.hrnet import to_state_dict
from pyrseg_jax.models.weights.places import STANDARD, holds_weights, locate
from pyrseg_jax.run import experiment
from pyrseg_jax.run.start import initialize, restore_or_start
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.hub import Address, is_address, parse_address
from pyrseg_jax.training.checkpoint import Checkpoints

CLASSES = ("sky", "ground", "post")
NAME = "timm/tiny.one"
COMMIT = "0123456789" * 4


@pytest.fixture
def fake(monkeypatch, tmp_path):
    return FakeHub(monkeypatch, tmp_path)


@functools.cache
def hrnet_file(seed=0):
    """The bytes of a file with the weights of the smallest HRNet."""
    variables = initial_variables(BACKBONES["hrnet_tiny"].make(), seed)
    return save({name: np.ascontiguousarray(a) for name, a in to_state_dict(variables).items()})


@functools.cache
def mobilenet_file():
    """The bytes of a file with the weights of the smallest MobileNetV3, as timm names them."""
    name = "mobilenetv3_micro"
    flat = flatten_dict(initial_variables(BACKBONES[name].make(), 0))
    turned = {path: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for path, array in flat.items()}
    name_of = BACKBONES[name].importers[0].name_of
    return save({name_of(path): np.ascontiguousarray(array) for path, array in turned.items()})


def start(init, **model):
    config = tiny_config(init, **model)
    return initialize(config, experiment.make_model(config, len(CLASSES)), ade_layout(CLASSES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://timm/resnet50.a1_in1k", Address("timm/resnet50.a1_in1k")),
        ("hf://timm/resnet50.a1_in1k/", Address("timm/resnet50.a1_in1k")),
        ("hf://a/b@v1.0", Address("a/b", "v1.0")),
        (f"hf://a/b@{COMMIT}/x.bin", Address("a/b", COMMIT, "x.bin")),
        ("hf://a/b/sub/x.safetensors", Address("a/b", "main", "sub/x.safetensors")),
        ("hf://a/b@refs/pr/3", Address("a/b", "refs/pr/3")),
        ("hf://a/b@refs/pr/3/x.bin", Address("a/b", "refs/pr/3", "x.bin")),
    ],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


_WORD = st.text("aZ09._-", min_size=1, max_size=8).filter(lambda word: word not in (".", ".."))


@given(_WORD, _WORD, st.one_of(st.just("main"), _WORD), st.one_of(st.none(), st.lists(_WORD, min_size=1, max_size=3)))
def test_addresses_are_written_as_they_are_read(org, name, revision, file):
    address = Address(f"{org}/{name}", revision, file and "/".join(file))
    assert is_address(str(address))
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["hf://", "hf://tiny", "hf://a/b@", "hf://a/b/../c.bin", "hf://a/b//c", "hf://a b/c"])
def test_other_texts_are_no_addresses(text):
    with pytest.raises(UserError, match=r"expected hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FILE"):
        parse_address(text)


def test_a_wrong_address_is_found_before_anything_is_read():
    with pytest.raises(UserError, match=r"config\.model\.init: hf://tiny is not an address of the hub"):
        tiny_config("hf://tiny")
    for empty in ("", " ", "a.pth,"):
        with pytest.raises(UserError, match=r"^config\.model\.init='.*': expected a run, a model, or files of weights"):
            tiny_config(empty)
    assert tiny_config(f"hf://{NAME}, hf://{NAME}/decoder.pth").model.init.startswith("hf://")


def test_training_starts_from_the_hub_and_asks_it_once(fake, caplog):
    commit = fake.push(NAME, {"model.safetensors": hrnet_file(), "config.json": b"{}", "pytorch_model.bin": b"?"})
    with caplog.at_level(logging.INFO):
        found = start(f"hf://{NAME}")
    expected = initial_variables(BACKBONES["hrnet_tiny"].make(), 0)["params"]
    jax.tree.map(np.testing.assert_array_equal, found.variables["params"]["backbone"], expected)
    assert found.origin == {
        "file": f"hf://{NAME}@{commit}/model.safetensors",
        "sha256": hashlib.sha256(hrnet_file()).hexdigest(),
        "source": "HRNet",
        "commit": commit,
    }
    assert fake.asked == [("list", NAME), ("model.safetensors", NAME)]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"hf://{NAME}: downloading model.safetensors"
    assert lines[1].startswith(f"hf://{NAME}: taking ") and f"model.safetensors, commit {commit}" in lines[1]
    assert lines[2].startswith(f"starting from hf://{NAME} (HRNet, SHA-256 ")
    place = locate(f"hf://{NAME}")
    assert len(fake.asked) == 2
    assert (place.name, place.commit) == (found.origin["file"], commit)
    # The recorded name is an address of the same file.
    assert locate(place.name) == place and len(fake.asked) == 2


def test_the_cache_is_that_of_the_real_library(fake):
    commit = fake.push(NAME, {"model.safetensors": b"weights"})
    (path,) = locate(f"hf://{NAME}").paths
    assert huggingface_hub.try_to_load_from_cache(NAME, "model.safetensors") == str(path)
    assert huggingface_hub.try_to_load_from_cache(NAME, "model.safetensors", revision=commit) == str(path)


def test_each_family_reads_its_own_repository(fake):
    fake.push("timm/hrnet", {"model.safetensors": hrnet_file()})
    fake.push("timm/mobilenetv3_large_100.ra_in1k", {"model.safetensors": mobilenet_file()})
    found = start("hf://timm/mobilenetv3_large_100.ra_in1k", backbone="mobilenetv3_micro", context="none")
    assert found.origin["source"] == "MobileNetV3 (timm)"
    with pytest.raises(UserError, match=r"config\.model\.init=hf://timm/hrnet: these are not the weights of this kind"):
        start("hf://timm/hrnet", backbone="mobilenetv3_micro", context="none")


@pytest.mark.parametrize("first", range(len(STANDARD)))
def test_the_preferred_file_is_taken(fake, tmp_path, first):
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": "one.bin", "b": "two.bin"}}).encode()
    files = {name: index if name.endswith(".json") else b"weights" for name in STANDARD[first:]}
    files |= {"one.bin": b"1", "two.bin": b"2", "config.json": b"{}", "training_args.bin": b"?"}
    fake.push(NAME, files)
    expected = {"one.bin", "two.bin"} if STANDARD[first].endswith(".json") else {STANDARD[first]}
    place = locate(f"hf://{NAME}")
    assert {path.name for path in place.paths} == expected
    assert place.name.endswith(f"/{STANDARD[first]}")
    again = locate(str(fake.folder_of(NAME)))
    assert (again.paths, again.commit) == (place.paths, place.commit)
    folder = tmp_path / "plain"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert {path.name for path in locate(str(folder)).paths} == expected
    assert locate(str(folder)).commit is None


def test_parts_are_read_as_one_network_of_one_commit(fake):
    one, two = save({"a": np.ones(3, np.float32)}), save({"b": np.zeros(2, np.float32)})
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": names[0], "b": names[1]}}).encode()
    files = {"model.safetensors.index.json": index, names[0]: one, names[1]: two}
    commit = fake.push(NAME, files)
    place = locate(f"hf://{NAME}")
    found = read_parts(place.paths)
    assert set(found.state_dict) == {"a", "b"}
    digests = "".join(hashlib.sha256(part).hexdigest() for part in (one, two))
    assert found.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    # A download that was interrupted is completed.
    place.paths[1].unlink()
    assert locate(f"hf://{NAME}") == place
    assert place.paths[1].read_bytes() == two
    # A branch that moves between two downloads does not mix two networks.
    place.paths[1].unlink()
    newer = fake.push(NAME, files | {"README.md": b"newer"})
    fake.after_download = lambda file: fake.push(NAME, files | {names[1]: file.encode()})
    found = locate(f"hf://{NAME}")
    assert found.commit == newer
    assert {path.parent.name for path in found.paths} == {newer}
    fake.after_download = lambda file: None
    assert locate(f"hf://{NAME}@{commit}").paths == place.paths


def test_files_and_revisions_can_be_named(fake):
    files = {"sub/one.safetensors": b"1", "two.safetensors": b"2", "three.pth": b"3"}
    first = fake.push(NAME, files)
    second = fake.push(NAME, files | {"two.safetensors": b"22"})
    assert locate(f"hf://{NAME}/sub/one.safetensors").paths[0].read_bytes() == b"1"
    assert locate(f"hf://{NAME}/two.safetensors").paths[0].read_bytes() == b"22"
    named = locate(f"hf://{NAME}@{first}/two.safetensors")
    assert (named.paths[0].read_bytes(), named.commit) == (b"2", first)
    assert named.name == f"hf://{NAME}@{first}/two.safetensors"
    both = locate(f"hf://{NAME}/two.safetensors,hf://{NAME}/three.pth")
    assert [path.name for path in both.paths] == ["two.safetensors", "three.pth"]
    assert (both.commit, both.name.count(second)) == (second, 2)
    assert ("list", NAME) not in fake.asked


def test_several_files_without_a_standard_name_must_be_named(fake):
    fake.push(NAME, {"one.safetensors": b"1", "two.pth": b"2", "optimizer.pt": b"3"})
    with pytest.raises(UserError, match=rf"hf://{NAME} holds 2 files of weights \(one\.safetensors, two\.pth\): add"):
        locate(f"hf://{NAME}")
    locate(f"hf://{NAME}/two.pth")
    # One of them is in the cache, but the hub may have others.
    fake.asked.clear()
    (fake.folder_of(NAME) / "refs" / "main").write_text("f" * 40)
    with pytest.raises(UserError, match="holds 2 files of weights"):
        locate(f"hf://{NAME}")
    assert fake.asked == [("list", NAME)]


def test_other_formats_are_refused_by_name(fake, tmp_path):
    files = {"flax_model.msgpack": b"1", "tf_model.h5": b"2", "config.json": b"{}"}
    fake.push(NAME, files)
    with pytest.raises(
        UserError, match=r"no weights that this package reads, but config\.json, flax_model\.msgpack, tf_mo"
    ):
        locate(f"hf://{NAME}")
    fake.push(NAME, {"model.onnx": b"1"})
    with pytest.raises(UserError, match=r"model\.onnx is not a weight file: expected a name ending in \.safetensors"):
        start(f"hf://{NAME}/model.onnx")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        UserError, match=r"init=.*: this folder holds no run .* and no weights, but .*'tf_model\.h5'.*: give"
    ):
        start(tmp_path)
    assert not holds_weights(tmp_path)


def test_folders_of_the_cache_are_read_without_the_hub(fake, monkeypatch, tmp_path):
    commit = fake.push(NAME, {"model.safetensors": hrnet_file(), "config.json": b'{"architecture": "hrnet"}'})
    snapshot = locate(f"hf://{NAME}").paths[0].parent
    locate(f"hf://{NAME}/config.json")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    found = start(snapshot)
    assert found.origin["file"] == str(snapshot / "model.safetensors")
    assert found.origin["commit"] == commit
    assert found.origin["sha256"] == sha256_of(snapshot / "model.safetensors")
    repository = fake.folder_of(NAME)
    assert locate(str(repository)).paths == (snapshot / "model.safetensors",)
    # Without a main branch, a single commit is taken, and of several none.
    (repository / "refs" / "main").unlink()
    assert locate(str(repository)).commit == commit
    (repository / "snapshots" / COMMIT).mkdir()
    with pytest.raises(
        UserError, match=rf"holds 2 commits \({COMMIT}, {commit}\)|holds 2 commits \({commit}, {COMMIT}\)"
    ):
        locate(str(repository))


def test_a_run_stays_a_run_and_continues_without_the_hub(fake, tmp_path):
    fake.push(NAME, {"model.safetensors": hrnet_file()})
    config, run = tiny_config(f"hf://{NAME}"), tmp_path / "run"
    expected = write_run(run, config, CLASSES)
    (run / "model.safetensors").write_bytes(b"left here by someone")
    found = start(run)
    assert found.origin["source"].startswith("a run's step 7") and "commit" not in found.origin
    fake.error, fake.asked = OSError("no network"), []
    fake.folder_of(NAME).rename(tmp_path / "gone")
    model, optimizer = experiment.make_model(config, len(CLASSES)), experiment.make_optimizer(config)
    checkpoints = Checkpoints(Workdir(str(run)).checkpoints)
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    state = restore_or_start(config, model, optimizer, checkpoints, mesh, None, ade_layout(CLASSES))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), expected["params"])
    assert not fake.asked


def test_the_commit_is_part_of_the_record(fake, tmp_path):
    commit = fake.push(NAME, {"model.safetensors": hrnet_file()})
    config, run = tiny_config(f"hf://{NAME}"), Workdir(str(tmp_path / "run"))
    origin = start(f"hf://{NAME}").origin
    run.open_for_training(config, ade_layout(CLASSES), origin)
    assert run.read_initialization() == origin
    assert run.read_initialization()["commit"] == commit
    del origin["commit"]
    (tmp_path / "run" / "initialisation.json").write_text(json.dumps(origin))
    assert run.read_initialization() == origin


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError("403", response=RESPONSE), r"the repository is gated: accept .* `hf auth login`"),
        (
            errors.RepositoryNotFoundError("401", response=RESPONSE),
            r"no public repository timm/tiny\.one: check the name",
        ),
        (errors.RevisionNotFoundError("404", response=RESPONSE), r"the repository has no revision v2: give a branch"),
        (errors.OfflineModeIsEnabled("offline"), r"not in the cache \(.*hub\), and HF_HUB_OFFLINE forbids the network"),
        (caused(errors.LocalEntryNotFoundError("?"), errors.OfflineModeIsEnabled("offline")), "HF_HUB_OFFLINE forbids"),
        (
            caused(errors.LocalEntryNotFoundError("An error happened"), ConnectionError("Name or service not known")),
            r"asking the hub failed \(ConnectionError: Name or service not known\): check the network, or run `hf download",
        ),
        (
            errors.HFValidationError("Repo id must be short"),
            r"the hub has no such names \(.*must be short\): expected hf://",
        ),
        (
            errors.HfHubHTTPError("?", response=type(RESPONSE)(headers={}, request=None, status_code=503)),
            "status 503: try",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"no space left for the cache .*: make room, or set HF_HOME",
        ),
        (caused(RuntimeError("writing failed"), OSError(errno.EDQUOT, "quota")), "no space left for the cache"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            r"cannot be written \(Permission denied\): restore access",
        ),
        (RuntimeError("something\nelse"), r"asking the hub failed \(RuntimeError: something\): check the network"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_goes_wrong_is_one_clear_line(fake, error, message):
    fake.error = error
    for address in (f"hf://{NAME}@v2", f"hf://{NAME}@v2/model.safetensors"):
        with pytest.raises(UserError, match=message) as found:
            locate(address)
        assert str(found.value).startswith(f"{address}: ")
        assert "\n" not in str(found.value)


def test_a_missing_file_is_named(fake):
    fake.push(NAME, {"model.safetensors": b"1"})
    with pytest.raises(
        UserError, match=rf"hf://{NAME}/other\.bin: the repository has no file other\.bin: check its name"
    ):
        locate(f"hf://{NAME}/other.bin")
    with pytest.raises(UserError, match="has no revision v2"):
        locate(f"hf://{NAME}@v2")


def test_offline_mode_of_the_real_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for address in (f"hf://{NAME}", f"hf://{NAME}/model.safetensors"):
        with pytest.raises(
            UserError, match="HF_HUB_OFFLINE forbids the network: unset that variable, or run `hf download"
        ):
            locate(address)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r"hf://a/b needs the package huggingface_hub, which is not installed: run `pip"
    ):
        locate("hf://a/b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "this is not JSON"),
        (b'{"weight_map": {"a": "../secret.bin"}}', r"names '\.\./secret\.bin' as a part"),
        (b'{"weight_map": {"a": "/etc/weights.bin"}}', "as a part"),
        (b'{"weight_map": {"a": "script.py"}}', "as a part"),
        (b'{"weight_map": {}}', "lists 0 files"),
        (b'{"weight_map": [1]}', r"weight_map=\[1\]: expected an object"),
        (b"{}", "the key weight_map is missing"),
    ],
)
def test_damaged_indices_are_named(tmp_path, content, message):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as found:
        locate(str(tmp_path))
    assert "model.safetensors.index.json" in str(found.value)


def test_a_part_that_is_not_there_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(b'{"weight_map": {"a": "part.safetensors"}}')
    with pytest.raises(UserError, match=r"part\.safetensors: there is no such file of weights"):
        read_parts(locate(str(tmp_path)).paths)
