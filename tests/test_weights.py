"""Weights from files: names of every release, what does not fit, what must not be read, and what training takes of them."""

import functools
import hashlib
import json
import logging
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.runs import tiny_config, write_run
from support.trees import assert_trees_equal

from pyrseg_jax.commands.train import train
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import abstract_variables, initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights import hrnet as torch_weights
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.evaluations import with_context
from pyrseg_jax.run.start import initialize
from pyrseg_jax.run.workdir import Workdir

IMPORTERS = BACKBONES["hrnet_tiny"].importers


@functools.cache
def tiny_backbone(seed=0):
    """Variables of a tiny backbone and its state dict, with every array different from the others."""
    rng = np.random.default_rng(seed)
    variables = initial_variables(BACKBONES["hrnet_tiny"].make(), seed)
    variables = jax.tree.map(lambda a: rng.uniform(0.1, 1, a.shape).astype(np.float32), variables)
    return variables, torch_weights.to_state_dict(variables)


def tiny_segmenter(context="none", classes=3, representation="per_pixel"):
    widths = {"semantic_width": 16, "key_width": 8, "unity_width": 8}
    return build_segmenter(classes, backbone="hrnet_tiny", context=context, representation=representation, **widths)


def published_names(stage_modules=(1, 4, 3), num_blocks=4):
    """Names of the arrays of the published HRNets but for counters, from the list in the releases' own terms."""
    convolutions, norms = [f"conv{i}" for i in (1, 2)], [f"bn{i}" for i in (1, 2)]
    for k in range(4):
        convolutions += [f"layer1.{k}.conv{i}" for i in (1, 2, 3)]
        norms += [f"layer1.{k}.bn{i}" for i in (1, 2, 3)]
    pairs = ["layer1.0.downsample", "transition1.0", "transition1.1.0", "transition2.2.0", "transition3.3.0"]
    for stage, modules in zip((2, 3, 4), stage_modules, strict=True):
        for m in range(modules):
            for b in range(stage):
                for k in range(num_blocks):
                    convolutions += [f"stage{stage}.{m}.branches.{b}.{k}.conv{i}" for i in (1, 2)]
                    norms += [f"stage{stage}.{m}.branches.{b}.{k}.bn{i}" for i in (1, 2)]
                for other in range(stage):
                    at = f"stage{stage}.{m}.fuse_layers.{b}.{other}"
                    pairs += [at] if other > b else [f"{at}.{k}" for k in range(b - other)]
    convolutions += [f"{pair}.0" for pair in pairs]
    norms += [f"{pair}.1" for pair in pairs]
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{c}.weight" for c in convolutions} | {f"{n}.{kind}" for n in norms for kind in kinds}


@pytest.mark.parametrize("name", ["hrnet_w48"])
def test_published_networks_have_the_published_names_and_shapes(name):
    variables = jax.tree.map(
        lambda a: np.broadcast_to(np.float32(0), a.shape), abstract_variables(BACKBONES[name].make())
    )
    state = torch_weights.to_state_dict(variables)
    assert {n for n in state if not n.endswith("num_batches_tracked")} == published_names()
    width = BACKBONES[name].make().width
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["stage4.2.fuse_layers.3.0.2.0.weight"].shape == (8 * width, width, 3, 3)
    assert state["stage4.0.fuse_layers.0.3.0.weight"].shape == (width, 8 * width, 1, 1)
    again = torch_weights.convert_hrnet(state)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, variables)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "backbone.", "module.backbone.", "module.model."])
def test_every_release_gives_the_same_variables(prefix):
    variables, state = tiny_backbone()
    classifier = {"incre_modules.0.0.conv1.weight": np.ones((2, 2, 1, 1)), "classifier.bias": np.ones(4)}
    found = torch_weights.convert_hrnet({prefix + name: array for name, array in (state | classifier).items()})
    assert_trees_equal(found, variables)


def test_kernels_are_turned_and_branches_kept_apart():
    variables, state = tiny_backbone()
    kernel = variables["params"]["stage3"]["module_0"]["fuse_2_0_1"]["conv"]["kernel"]
    published = state["stage3.0.fuse_layers.2.0.1.0.weight"]
    assert published[5, 3, 0, 2] == kernel[0, 2, 3, 5]
    stats = variables["batch_stats"]["stage4"]["module_0"]["branch_2_block_0"]["bn2"]
    np.testing.assert_array_equal(state["stage4.0.branches.2.0.bn2.running_var"], stats["var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bn1.weight"), r"1 names are missing: bn1\.weight"),
        (lambda s: s.update({"conv9.weight": np.ones(1)}), r"1 are unknown: conv9\.weight"),
        (lambda s: s.update({"conv2.weight": np.ones((64, 3, 3, 3))}), r"conv2\.weight \(3, 3, 3, 64\) instead of"),
        (
            lambda s: s.pop("transition1.0.0.weight"),
            r"not the weights of this kind of backbone \(HRNet\): there is no transition1\.0\.0\.weight",
        ),
        (lambda s: s["bn1.running_var"].fill(-1), r"stem1/bn/var are not finite or a variance is negative"),
        (lambda s: s["conv1.weight"].fill(np.nan), r"stem1/conv/kernel are not finite"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    state = {name: array.copy() for name, array in tiny_backbone()[1].items()}
    change(state)
    with pytest.raises(UserError, match=message):
        torch_weights.convert_hrnet(state)


def test_another_width_is_named():
    _, state = tiny_backbone()
    abstract = abstract_variables(
        build_segmenter(3, backbone="hrnet_small", representation="per_pixel", context="none")
    )
    with pytest.raises(
        UserError, match="the weights are of HRNet-W8, and the network's backbone is HRNet-W16: choose the backbone"
    ):
        import_weights(state, abstract, IMPORTERS)


def rename(state, old, new):
    return {new + name.removeprefix(old) if name.startswith(old) else name: array for name, array in state.items()}


def mmsegmentation_ocr(state):
    """Names of an official HRNet + OCR state dict as mmsegmentation writes them."""
    block, there = "ocr_distri_head.object_context_block.", "decode_head.1.object_context_block."
    pairs = {
        "conv3x3_ocr": "decode_head.1.bottleneck",
        f"{block}f_down": f"{there}value_project",
        f"{block}f_up": f"{there}out_project",
        "ocr_distri_head.conv_bn_dropout": f"{there}bottleneck",
    }
    renamed = {}
    for name, array in state.items():
        if name in ("conv3x3_ocr.0.bias", "aux_head.0.bias"):
            continue
        for old, new in pairs.items():
            name = name.replace(f"{old}.1.0.", f"{new}.bn.").replace(f"{old}.0.", f"{new}.conv.")
        for old, new in (("f_pixel", "query_project"), ("f_object", "key_project")):
            for i in (0, 1):
                name = name.replace(f"{block}{old}.{2 * i}.", f"{there}{new}.{i}.conv.")
                name = name.replace(f"{block}{old}.{2 * i + 1}.0.", f"{there}{new}.{i}.bn.")
        name = name.replace("cls_head.", "decode_head.1.conv_seg.").replace("aux_head.2.", "decode_head.0.conv_seg.")
        name = name.replace("aux_head.0.", "decode_head.0.convs.0.conv.").replace(
            "aux_head.1.0.", "decode_head.0.convs.0.bn."
        )
        renamed[name if name.startswith("decode_head") else f"backbone.{name}"] = array
    return renamed


def mmsegmentation_hrnet(state):
    state = {name: array for name, array in state.items() if name != "last_layer.0.bias"}
    for old, new in (("0", "convs.0.conv"), ("1", "convs.0.bn"), ("3", "conv_seg")):
        state = rename(state, f"last_layer.{old}.", f"decode_head.{new}.")
    return {name if name.startswith("decode_head") else f"backbone.{name}": array for name, array in state.items()}


@pytest.mark.parametrize(
    ("context", "release", "source"),
    [
        ("none", lambda s: rename(s, "", "model."), "official segmentation release"),
        ("none", mmsegmentation_hrnet, "HRNet, mmsegmentation"),
        ("ocr", lambda s: s, r"OCR, official release"),
        ("ocr", mmsegmentation_ocr, r"OCR, mmsegmentation"),
    ],
)
def test_trained_heads_of_every_release(rng, context, release, source):
    model = tiny_segmenter(context)
    variables = jax.tree.map(lambda a: rng.uniform(0.1, 1, a.shape).astype(np.float32), initial_variables(model, 0))
    state = release(torch_weights.to_state_dict(variables))
    jax.tree.map(np.testing.assert_array_equal, torch_weights.convert_segmenter(state, variables), variables)
    assert source in import_weights(state, variables, IMPORTERS).source


def test_another_number_of_classes_is_named():
    state = torch_weights.to_state_dict(initial_variables(tiny_segmenter(classes=5), 0))
    abstract = abstract_variables(tiny_segmenter(classes=3))
    with pytest.raises(UserError, match="last_layer.3.weight for 5 classes"):
        torch_weights.convert_segmenter(state, abstract)
    found = import_weights(state, abstract, IMPORTERS)
    assert found.left == ("last_layer.3.bias for 5 classes", "last_layer.3.weight for 5 classes")
    assert ("params", "semantic_head", "project_4", "conv", "kernel") in found.variables


def test_a_head_of_another_kind_is_left_whole():
    state = torch_weights.to_state_dict(initial_variables(tiny_segmenter("ocr"), 0))
    found = import_weights(state, abstract_variables(tiny_segmenter("none")), IMPORTERS)
    assert {path[1] for path in found.variables} == {"backbone"}
    assert found.left[0].startswith("the head (HRNet + OCR, official release)")


@pytest.fixture
def weight_file(tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_file({name: np.ascontiguousarray(a) for name, a in tiny_backbone()[1].items()}, path)
    return path


def test_safetensors_are_read_and_known_by_their_hash(weight_file):
    found = read_weights(weight_file)
    assert found.sha256 == hashlib.sha256(weight_file.read_bytes()).hexdigest()
    jax.tree.map(np.testing.assert_array_equal, torch_weights.convert_hrnet(found.state_dict), tiny_backbone()[0])


def test_damaged_and_foreign_files_are_named(weight_file, tmp_path):
    whole = weight_file.read_bytes()
    for name, content, message in (
        ("cut.safetensors", whole[: len(whole) // 2], "cut.safetensors cannot be read as safetensors"),
        ("text.safetensors", b"<html>404</html>", "text.safetensors cannot be read as safetensors"),
        ("empty.safetensors", b"", "empty.safetensors cannot be read as safetensors"),
        (
            "weights.onnx",
            whole,
            r"weights.onnx is not a weight file: expected a name ending in \.safetensors, \.pth",
        ),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="missing.pth: there is no such file of weights"):
        read_weights(tmp_path / "missing.pth")


class Touch:
    """What a malicious file does: unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    torch = pytest.importorskip("torch")
    trace = tmp_path / "was_run"
    bad = {"state_dict": {"conv1.weight": torch.zeros(1)}, "meta": Touch(trace)}
    torch.save(bad, tmp_path / "bad.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(bad["meta"]))
    for name in ("bad.pth", "old.pth"):
        with pytest.raises(
            UserError, match=f"{name} was not read: it is damaged, or it holds objects other than weights"
        ):
            read_weights(tmp_path / name)
        assert not trace.exists()
    with pytest.raises(UserError, match="could run code .it asks for [a-z]+"):
        read_weights(tmp_path / "bad.pth")
    pickle.loads((tmp_path / "old.pth").read_bytes())
    assert trace.exists()  # so the file would have done it


def test_pytorch_files_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    variables, state = tiny_backbone()
    tensors = {f"module.{name}": torch.tensor(array) for name, array in state.items()}
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "checkpoint.pth.tar")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("checkpoint.pth.tar", "old.pth"):
        found = torch_weights.convert_hrnet(read_weights(tmp_path / name).state_dict)
        jax.tree.map(np.testing.assert_array_equal, found, variables)
    torch.save(
        {"state_dict": {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}}, tmp_path / "half.pth"
    )
    half = torch_weights.convert_hrnet(read_weights(tmp_path / "half.pth").state_dict)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), half, variables)
    whole = (tmp_path / "checkpoint.pth.tar").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.pth"):
        read_weights(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="list.pth holds a list: expected the state dict"):
        read_weights(tmp_path / "list.pth")


def start_of(config, classes, caplog):
    """What `initialize` gives, flat, and its log line."""
    with caplog.at_level(logging.INFO):
        start = initialize(config, experiment.make_model(config, len(classes)), ade_layout(classes))
    return start, caplog.records[-1].getMessage() if caplog.records else ""


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.net.",
        "module._orig_mod.",
        "net.",
        "encoder.",
        "net.encoder.model.",
        "segmentor.backbone.",
        "ema.module.",
    ],
)
def test_a_backbone_inside_of_any_module_is_found(prefix):
    variables, state = tiny_backbone()
    inside = {f"{prefix}{name}": array for name, array in state.items()}
    around = {"decoder.conv1.weight": np.ones((2, 2, 3, 3)), "loss.weight": np.ones(2)}
    for given in (inside,) if prefix == "module._orig_mod." else (inside, inside | around):
        jax.tree.map(np.testing.assert_array_equal, torch_weights.convert_hrnet(given), variables)


def test_other_copies_and_classifiers_are_left_and_said():
    variables, state = tiny_backbone()
    abstract = {kind: {"backbone": tree} for kind, tree in variables.items()}
    others = {f"ema_model.module.{name}": array for name, array in state.items()}
    found = import_weights(state | others | {"last_linear.weight": np.ones((2, 2))}, abstract, IMPORTERS)
    assert len(found.variables) == len(jax.tree.leaves(variables))
    assert "ema_model.module.conv1" in found.left and "last_linear" in found.left
    two = {f"{whose}.{name}": array for whose in ("student", "teacher") for name, array in state.items()}
    with pytest.raises(
        UserError, match=r"holds 2 networks of this kind \(student\., teacher\.\): save the state dict of one"
    ):
        import_weights(two, abstract, IMPORTERS)


def test_training_starts_from_a_file(weight_file, caplog):
    variables, _ = tiny_backbone()
    start, line = start_of(tiny_config(weight_file), ("sky", "ground"), caplog)
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, start.variables[collection]["backbone"], variables[collection])
    random, _ = start_of(tiny_config(), ("sky", "ground"), caplog)
    assert random.origin == "random"
    for part in ("context", "semantic_head", "unity_head"):
        jax.tree.map(np.testing.assert_array_equal, start.variables["params"][part], random.variables["params"][part])
    assert start.origin == {"file": str(weight_file), "sha256": read_weights(weight_file).sha256, "source": "HRNet"}
    assert line.endswith("random: context, semantic_head, unity_head; not used: nothing")


def test_training_starts_from_a_run_with_other_classes(tmp_path, caplog):
    theirs = write_run(tmp_path / "first", tiny_config(strides=(8, 4)), ("sky", "ground", "post"))
    config = tiny_config(tmp_path / "first", strides=(8, 4), context="none")
    start, line = start_of(config, ("cat", "dog", "fish"), caplog)
    for part in ("backbone", "unity_head"):
        jax.tree.map(np.testing.assert_array_equal, start.variables["params"][part], theirs["params"][part])
    ours, head = start.variables["params"]["semantic_head"], theirs["params"]["semantic_head"]
    assert (ours["classify_1"]["kernel"].shape[-1], head["classify_1"]["kernel"].shape[-1]) == (3, 3)
    assert line.endswith("random: semantic_head; not used: context, semantic_head")
    same, line = start_of(tiny_config(tmp_path / "first", strides=(8, 4)), ("sky", "ground", "post"), caplog)
    jax.tree.map(np.testing.assert_array_equal, same.variables, theirs)
    assert "random: nothing; not used: nothing" in line
    assert len(same.origin["sha256"]) == 64
    with pytest.raises(UserError, match=r"that run has the backbone hrnet_tiny, this one has hrnet_small: set"):
        start_of(tiny_config(tmp_path / "first", backbone="hrnet_small"), ("sky", "ground"), caplog)


def test_results_say_what_the_run_started_from(tmp_path):
    run, counted = Workdir(str(tmp_path)), {"images": 1, "fingerprint": "a" * 64}
    assert with_context(counted, tiny_config(), run, 3, "data")["protocol"]["initialisation"] == "random"
    origin = {"file": "w.pth", "sha256": "0" * 64, "source": "HRNet"}
    run.open_for_training(tiny_config(), ade_layout(("sky", "ground")), origin)
    assert with_context(counted, tiny_config(), run, 3, "data")["protocol"]["initialisation"] == origin


def test_weights_that_do_not_fit_leave_no_run_behind(folder, tmp_path, weight_file):
    """So that the same command with other weights is not a run of another config."""
    config = tiny_config(weight_file, backbone="hrnet_small")
    config = config_lib.from_json(
        config_lib.to_json(config).replace('"root": null', f'"root": {json.dumps(str(folder))}')
    )
    with pytest.raises(UserError, match=r"config\.model\.init=.*tiny\.safetensors: the weights are of HRNet-W8"):
        train(config, Workdir(str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        (tmp_path / "empty", "this folder holds no run"),
        (tmp_path / "w.pth", "there is no such file of weights"),
    ):
        config = tiny_config(wrong)
        with pytest.raises(UserError, match=message):
            initialize(config, experiment.make_model(config, 3), ade_layout(("a", "b", "c")))
