"""ONNX files give the results of jax: programs of every rule, networks, and files of runs."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.data_sets import CLASSES, draw_pair, write_folder
from support.onnx_programs import build, compare_network, run_program
from support.patches import Patches
from support.runs import STEP, tiny_config, write_run

import pyrseg_jax
from pyrseg_jax.commands.export import export
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError
from pyrseg_jax.export import litert
from pyrseg_jax.export.onnx import requirements, session, write
from pyrseg_jax.export.onnx.metadata import read_litert_metadata, read_metadata
from pyrseg_jax.export.onnx.program import labels_at, resize_images, resize_weights
from pyrseg_jax.export.onnx.values import reshape_groups
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.resample import class_of_pixels, resize
from pyrseg_jax.models.xla_cpu import add_relu, gelu
from pyrseg_jax.run.workdir import Workdir

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (72, 100)  # not a multiple of 32: the file resamples to 64 × 96
FAST_CONTEXTS = ("ocr", "deeplabv3plus", "pointrend")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(2, 6, 8, 4)).astype(np.float32)


# Steps of a program (N, H, W, C) → (N, H', W', C'), which leave the axes of the tensor in many orders.
STEPS = {
    "transpose": lambda x: x.transpose(0, 2, 1, 3),
    "swap channels": lambda x: x.transpose(0, 3, 1, 2),
    "flatten and multiply": lambda x: (x.reshape(x.shape[0], -1, x.shape[3]) @ _matrix(x.shape[3], 4)).reshape(
        *x.shape[:3], 4
    ),
    "multiply on the left": lambda x: jnp.einsum("ih,nhwc->niwc", _matrix(4, x.shape[1]), x),
    "convolve": lambda x: _convolve(x, _matrix(9 * x.shape[3], 4).reshape(3, 3, x.shape[3], 4)),
    "subtract the mean": lambda x: x - x.mean((1, 2), keepdims=True),
    "softmax over channels": lambda x: nn.softmax(x),
    "softmax over rows": lambda x: nn.softmax(x, axis=1),
    "attend": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x) @ x,
    "halve": lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).mean((2, 4)),
    "double": lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2),
    "join": lambda x: jnp.concatenate([x, 2 * x], axis=-1),
    "cut": lambda x: x[:, ::2, 1:, :],
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))),
    "reverse": lambda x: x[:, ::-1],
    "normalize": lambda x: nn.relu(3 * x - jnp.arange(x.shape[3], dtype=jnp.float32)),
    "choose": lambda x: jnp.where(x > x.max(-1, keepdims=True) - 0.5, x, -x),
}


def _matrix(rows, columns):
    return np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32) / rows**0.5


def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def is_possible(name, shape):
    _, height, width, channels = shape
    if max(shape[1:]) > 40:
        return name not in ("double", "join", "pad")
    return not (name == "halve" and (height % 2 or width % 2)) and not (name == "cut" and width < 2)


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])  # shrinking would compile for minutes
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6))
def test_any_chain_of_operations_gives_what_jax_gives(images, names):
    """Orders of axes are tracked through all steps, so each step is tested behind every other."""

    def program(weights, x):
        for name in names:
            if is_possible(name, x.shape):
                x = STEPS[name](x)
        return x

    found, expected = run_program(program, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


SINGLE = {
    "max pool": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "mean pool": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "transposed convolution": lambda x: jax.lax.conv_transpose(
        x, _matrix(36, 3).reshape(3, 3, 4, 3), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "grouped convolution": lambda x: jax.lax.conv_general_dilated(
        x, _matrix(9, 4).reshape(3, 3, 1, 4), (1, 1), "SAME", feature_group_count=4,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "activations": lambda x: nn.silu(x) + gelu(x) + add_relu(x, 2 * x) + nn.gelu(x) + nn.hard_swish(x) + jnp.tanh(x),
    "numbers": lambda x: jnp.sqrt(jnp.abs(x)) + jnp.exp(-x) / (1 + x**2) + jnp.floor(x) + jnp.round(x) + jnp.sign(x) ** 3,
    "argmax": lambda x: jnp.argmax(x, -1) + 10 * jnp.argmin(x, 1)[:, None, :, 0],
    "largest": lambda x: jax.lax.top_k(x.reshape(x.shape[0], -1), 3)[0],
    "take along": lambda x: jnp.take_along_axis(x, jnp.argsort(jnp.arange(4))[None, None, None] * 0 + 2, axis=3),
    "take at known rows": lambda x: x[:, np.array([3, 0, 3])],
    "write": lambda x: x.reshape(x.shape[0], 48, 4).at[:, np.array([3, 7])].set(1.0),
    "loop": lambda x: jax.lax.scan(lambda c, i: (c + x[:, 0] * i, c), x[:, 1], jnp.arange(5.0))[0],
    "map": lambda x: jax.lax.map(lambda row: row * 2 + row.sum(), x.transpose(1, 0, 2, 3)),
    "resize up": lambda x: resize(x, (13, 19), "half_pixel"),
    "resize down": lambda x: resize(x, (3, 5), "half_pixel"),
    "resize by corners": lambda x: resize(x, (11, 15), "align_corners"),
    "resize by index": lambda x: resize(x, (12, 16), "nearest"),
    "split": lambda x: jnp.stack(jnp.split(x, 2, axis=-1), axis=1),
    "conditions": lambda x: jnp.where((x > 0) & ~(x > 1) | (x < -1), 1, 0).sum((1, 2)) + (x == 0).any().astype(jnp.int32),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_an_operation_gives_what_jax_gives(images, name):
    found, expected = run_program(lambda _, x: SINGLE[name](x), images)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_operation_without_a_rule_is_named(images):
    with pytest.raises(
        UserError, match=r"--format=onnx: the program uses what has no counterpart .*the operation sort"
    ):
        run_program(lambda _, x: jnp.sort(x, -1), images)
    with pytest.raises(UserError, match=r"no counterpart .*while"):
        run_program(lambda _, x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x), images)


def test_normalizations_move_into_convolutions_and_softmax_is_one_node(images):
    def program(weights, x):
        kernel = weights["kernel"]
        y = (_convolve(x, kernel) - weights["mean"]) * jax.lax.rsqrt(weights["var"]) * 2 + weights["mean"]
        return nn.softmax(nn.relu(y))

    weights = {
        "kernel": _matrix(36, 5).reshape(3, 3, 4, 5),
        "mean": _matrix(5, 1)[:, 0],
        "var": np.full(5, 3, np.float32),
    }
    found, expected = run_program(program, images, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    from pyrseg_jax.export.onnx.model import make_model
    from pyrseg_jax.export.onnx.program import Program

    made = make_model(
        Program(lambda w, x, t: {"y": program(w, x)}, (6, 8), (6, 8), 4, images.dtype), weights, 0.5, {}, "it"
    )
    kinds = [node.op_type for node in made.graph.node]
    assert kinds == ["Transpose", "Conv", "Relu", "Softmax", "Transpose", "Identity"]


@given(st.integers(1, 9), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.randoms())
def test_the_groups_of_a_reshape_cover_both_shapes_in_order(count, sides, random):
    total, new = int(np.prod(sides)), []
    while total > 1 and len(new) < 4:
        divisor = random.choice([i for i in range(1, total + 1) if total % i == 0])
        new.append(divisor)
        total //= divisor
    new.append(total)
    groups = reshape_groups(tuple(sides), tuple(new), count)
    assert [i for before, _ in groups for i in before] == list(range(len(sides)))
    assert [j for _, after in groups for j in after] == list(range(len(new)))
    for before, after in groups:
        assert np.prod([sides[i] for i in before]) == np.prod([new[j] for j in after])


@pytest.mark.parametrize("new_size", [(32, 64), (32, 96), (64, 96), (64, 88), (45, 128)])
def test_images_are_resampled_as_on_the_host(new_size):
    """Smaller images by area, larger ones bilinearly, and where one side grows, as OpenCV does it."""
    image = np.random.default_rng(0).integers(0, 256, (45, 88, 3), np.uint8)
    found = np.asarray(resize_images(jnp.asarray(image[None]), *resize_weights((45, 88), new_size)))[0]
    difference = np.abs(found - resize_image(image, new_size).astype(np.float32))
    if new_size == (32, 64):  # both sides shrink: OpenCV averages in float32, too
        assert not difference.any()
    assert difference.max() <= 1  # elsewhere it interpolates bytes with 11 binary digits
    assert (difference > 0).mean() < 0.2


def test_labels_are_those_of_the_network(images):
    probs = nn.softmax(jnp.tile(images, (1, 1, 1, 10))[..., :37] * 3)
    for size in ((6, 8), (24, 32)):
        np.testing.assert_array_equal(labels_at(probs, size), class_of_pixels(probs, size))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its file, what the export measured, and what it restored and computed for the check."""
    place = tmp_path_factory.mktemp("onnx")
    config = tiny_config()
    write_run(place / "run", config, CLASSES, is_vivid=True)
    path = place / "out" / "model.onnx"
    prepared = []
    prepare = write.prepare

    def remember(*arguments):
        prepared.append(prepare(*arguments))
        return prepared[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "prepare", remember)
        measured = export(config, Workdir(str(place / "run")), str(path), ["72x100"], form="onnx")
    return place / "run", config, path, measured, prepared[0]


@pytest.fixture
def export_again(exported, monkeypatch):
    """A function that exports the run once more, without the seconds in which jax compiles it."""
    run, config, _, _, prepared = exported
    for module in (write, litert):
        monkeypatch.setattr(module, "prepare", lambda *_: prepared)
    return lambda path, form="onnx", **given: export(
        config, Workdir(str(run)), str(path), ["72x100"], form=form, **given
    )


def test_the_file_is_measured(exported):
    _, _, path, measured, _ = exported
    assert measured["megabytes"] == pytest.approx(path.stat().st_size / 1e6)
    assert measured["same_labels"] > 0.999
    assert measured["largest_difference"] < 1e-3  # the heads of this run multiply every rounding by sixty
    onnx.checker.check_model(str(path), full_check=True)


def test_onnxruntime_alone_runs_it(exported, tmp_path, rng):
    """Run three photographs at once in another process, which has onnxruntime and NumPy only."""
    _, _, path, *_ = exported
    pictures = np.stack([draw_pair(rng, *SIZE)[0] for _ in range(3)])
    np.save(tmp_path / "images.npy", pictures)
    code = (
        "import sys\n"
        "for name in ('jax', 'flax', 'onnx', 'cv2', 'pyrseg_jax', 'PIL', 'scipy'): sys.modules[name] = None\n"
        "import numpy as np, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        "names = [output.name for output in session.get_outputs()]\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        f"np.savez({str(tmp_path / 'found.npz')!r}, **dict(zip(names, session.run(names, {{'image': images}}))))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    pyramid = {f"semantic_{i}" for i in range(1, 5)} | {f"unity_{i}" for i in range(1, 4)}
    assert {*found} == {"labels", "probabilities", "level"} | pyramid
    assert (found["labels"].dtype, found["labels"].shape) == (np.uint8, (3, *SIZE))
    for i, picture in enumerate(pictures):  # a batch gives what its images give
        alone = session.run_session(session.open_session(path), picture[None])
        np.testing.assert_array_equal(found["labels"][i], alone["labels"][0])
        np.testing.assert_allclose(found["probabilities"][i], alone["probabilities"][0], atol=1e-5)


@pytest.mark.slow
def test_the_labels_are_those_of_predict(exported, rng):
    run, _, path, *_ = exported
    predictor, opened = pyrseg_jax.load(run), session.open_session(path)
    for _ in range(5):
        picture = draw_pair(rng, *SIZE)[0]
        found, expected = session.run_session(opened, picture[None]), predictor(picture)
        assert (found["labels"][0] == expected.labels).mean() > 0.999
        assert (found["level"][0] == expected.level).mean() > 0.999
        # A pixel that lies between two bytes after resampling is rounded up here and down there.
        assert (np.abs(found["probabilities"][0] - expected.probs) < 1e-3).mean() > 0.99


def test_the_threshold_is_an_input_that_may_be_left_out(exported, rng):
    _, _, path, *_ = exported
    opened = session.open_session(path)
    image = {"image": draw_pair(rng, *SIZE)[0][None]}
    plain, same, finest = (
        opened.run(["level"], image | given)[0]
        for given in ({}, {"threshold": np.array(0.5, np.float32)}, {"threshold": np.array(1.1, np.float32)})
    )
    np.testing.assert_array_equal(plain, same)
    assert (finest == 3).all()
    assert (plain != 3).any()


def test_the_metadata_describe_the_file(exported):
    about = read_metadata(exported[2])
    assert json.loads(about["classes"]) == list(CLASSES)
    assert len(json.loads(about["colors"])) == len(CLASSES)
    assert json.loads(about["strides"]) == [32, 16, 8, 4]
    assert (json.loads(about["size"]), json.loads(about["network_size"])) == ([72, 100], [64, 96])
    assert (about["step"], about["threshold"], about["precision"]) == (str(STEP), "0.5", "float32")
    assert about["pyrseg_jax"] == pyrseg_jax.__version__
    assert len(about["weights_sha256"]) == 64


def test_only_an_export_of_the_same_run_is_replaced(exported, export_again, tmp_path):
    path = exported[2]
    before = path.read_bytes()
    export_again(path)
    assert path.read_bytes() == before
    foreign = tmp_path / "photos.onnx"
    foreign.write_bytes(b"all my photographs")
    with pytest.raises(UserError, match=r"photos.onnx exists, and is not an earlier export of this run"):
        export_again(foreign)
    assert foreign.read_bytes() == b"all my photographs"


@pytest.mark.parametrize(
    ("target", "sizes", "options", "message"),
    [
        ("m.zip", [], {}, r"--output=m.zip: an exported model is a file whose name ends in .onnx"),
        ("m.onnx", [], {"form": "zip"}, r"ends in .zip; add --format=onnx"),
        (None, ["64x64", "64x96"], {}, r"--sizes: a file of --format=onnx takes images of one size"),
        (None, [], {"weights": "int8", "form": "zip"}, r"--weights and --activations need --format=onnx"),
        (
            None,
            [],
            {"activations": "int8"},
            r"--activations=int8 measures the ranges of maps on images: config.data.root",
        ),
    ],
)
def test_an_error_names_what_cannot_be_exported(exported, tmp_path, target, sizes, options, message):
    run, config, *_ = exported
    target = target and str(tmp_path / target)
    with pytest.raises(UserError, match=message.replace("--output=", "--output=.*")):
        export(config, Workdir(str(run)), target, sizes, **{"form": "onnx"} | options)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs the package onnxruntime, .*`pip install 'pyrseg-jax\[onnx\]'`"):
        requirements.need("onnxruntime")


def test_a_file_with_other_results_is_not_kept(export_again, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "MAX_DIFFERENCE", 0.0)
    with pytest.raises(UserError, match=r"was not kept, because it does not give the network's results in onnxruntime"):
        export_again(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_8_bit_weights_change_little_and_take_less_space(exported, export_again, tmp_path, caplog):
    small, measured = export_again(tmp_path / "m.onnx", weights="int8"), exported[3]
    assert "the mIoU of the file is not measured" in caplog.text
    assert small["miou"] is None
    assert small["megabytes"] < 0.7 * measured["megabytes"]  # most of such a small file is the graph
    assert 0 < small["largest_difference"] < 0.5
    assert read_metadata(tmp_path / "m.onnx")["precision"] == "int8 weights"


@pytest.mark.slow
def test_8_bit_maps_are_measured_and_scored_on_the_evaluation_split(exported, export_again, tmp_path, caplog):
    caplog.set_level("INFO")
    run, config, *_ = exported
    root = write_folder(tmp_path / "data", {"training": 2, "validation": 4}, size=(90, 130))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(root)))
    given = {"form": "onnx", "activations": "int8", "num_images": 3}
    measured = export(config, Workdir(str(run)), str(tmp_path / "m.onnx"), ["72x100"], **given)
    assert "measuring the ranges of maps on 3 images of validation" in caplog.text
    assert 0 <= measured["float_miou"] <= 1
    assert abs(measured["miou"] - measured["float_miou"]) < 0.1
    assert measured["megabytes"] < measured["float_megabytes"]
    assert "Please consider" not in caplog.text
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert read_metadata(tmp_path / "m.onnx")["precision"] == "int8 weights and activations"


def test_litert_gives_the_labels_of_the_network(export_again, tmp_path):
    pytest.importorskip(litert.CONVERTER)
    pytest.importorskip(litert.INTERPRETER)
    path = tmp_path / "m.tflite"
    measured = export_again(path, form="litert")
    assert measured["same_labels"] > 0.999
    assert measured["largest_difference"] < 1e-3
    assert json.loads(read_litert_metadata(path)["classes"]) == list(CLASSES)
    export_again(path, form="litert")  # it knows its own file


def test_what_litert_needs_is_named(exported, export_again, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_converter.converter_api_ext", None)
    with pytest.raises(
        UserError, match=r"--format=litert needs the package litert_converter.*--no-deps litert-converter"
    ):
        export_again(tmp_path / "m.tflite", form="litert")


def check_network(model, num_images=2):
    comparison, found = compare_network(model, num_images)
    assert comparison.largest_difference < 1e-4
    assert comparison.same_labels >= 0.9999
    assert found["labels"].shape[0] == num_images


@pytest.mark.parametrize("context", FAST_CONTEXTS)
def test_a_context_gives_what_jax_gives(context):
    check_network(build("resnet_tiny", context).copy(backbone=Patches()))


def test_a_transformer_gives_what_jax_gives():
    check_network(build("mit_micro", "none", "per_pixel"))


SMALLEST = [
    name
    for name in BACKBONES
    if name.endswith(("_tiny", "_micro")) or name in ("hrnet_small", "hrnet_w18", "dinov2_s_reg")
]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SMALLEST)
def test_every_family_of_backbones_gives_what_jax_gives(backbone):
    check_network(build(backbone, "coarse_to_fine"))


@pytest.mark.slow
@pytest.mark.parametrize("representation", ["pyramid", "per_pixel"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_context_gives_what_jax_gives(context, representation):
    check_network(build("resnet_tiny", context, representation))
