"""MiT and SegFormer's decoder: equal to the networks of transformers and mmsegmentation, from files of every publisher's layout."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from support import published_mits
from support.double import float64, to_float64
from support.methods import check_step
from support.parity import draw
from support.published_mits import CLASSES, EPSILONS_OF, HEAD_WIDTH, MICRO, state_of, write_file
from support.reference_networks import mmseg_models, randomize, require
from support.runs import tiny_config
from support.training import make_batch, sgd

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES, Features
from pyrseg_jax.models.backbones.mit import EPSILONS, Block, MiT, depth_of
from pyrseg_jax.models.contexts.segformer import AllMlp
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.head import published_shape
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.mit_layout import MIT_IMPORTERS
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

COUNTS = {
    "mit_b0": 3_319_392,
    "mit_b1": 13_151_424,
    "mit_b2": 24_196_288,
    "mit_b3": 44_072_128,
    "mit_b4": 60_842_688,
    "mit_b5": 81_443_008,
}
SIZES = ((96, 64), (64, 128))  # of images, in pixels


def draw_images(height: int, width: int, num_images: int = 1, seed: int = 0) -> np.ndarray:
    """Return images as a network gets them, which a test may also give to a network of another library."""
    return np.random.default_rng(seed).normal(size=(num_images, height, width, 3)).astype(np.float32)


def import_backbone(state: dict, model: MiT) -> dict:
    """Return the variables of a backbone, from the arrays of a file; check that all were used."""
    nested = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    found = import_weights(state, nested, MIT_IMPORTERS)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


def import_whole(path: Path, model) -> dict:
    """Return the variables of a segmenter from a file; check that all arrays were used, and that none is missing."""
    abstract = abstract_variables(model)
    found = import_weights(read_weights(path).state_dict, abstract, MIT_IMPORTERS)
    assert not found.left
    assert set(found.variables) == set(flatten_dict(abstract))
    return unflatten_dict(found.variables)


def far(found, expected) -> float:
    """Return the largest difference, relative to the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def channels_last(tensor) -> np.ndarray:
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def micro():
    """The network for tests, with random scales and biases."""
    model = MiT(**MICRO)
    return model, {"params": draw(model)["params"]}


# --- Parity -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", EPSILONS_OF)
def test_features_from_a_file_equal_the_publishers(layout, tmp_path):
    network, rename = published_mits.draw_network(layout)
    path = write_file(rename(state_of(network)), tmp_path / f"file.{'pth' if layout == 'NVIDIA' else 'safetensors'}")
    model = MiT(**MICRO, epsilons=EPSILONS_OF[layout])
    variables = import_backbone(read_weights(path).state_dict, model)
    for size in SIZES:
        images = draw_images(*size)
        theirs, _ = published_mits.stages_of(network, images)
        ours = jax.jit(model.apply)(variables, images).stages
        distances = [far(a, channels_last(b)) for a, b in zip(ours, theirs, strict=True)]
        print(layout, size, [f"{distance:.1e}" for distance in distances])
        assert max(distances) < 1e-5


@pytest.mark.parametrize("layout", ["transformers 5", "mmsegmentation"])
def test_gradients_equal_the_publishers_in_float64(layout):
    network, rename = published_mits.draw_network(layout, seed=1)
    model = MiT(**MICRO, epsilons=EPSILONS_OF[layout])
    variables, images = import_backbone(rename(state_of(network)), model), draw_images(64, 96, 2)
    theirs, given = published_mits.stages_of(network, images, double=True)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=tuple(stage.shape)) for stage in theirs]
    import torch

    sum((torch.from_numpy(w) * stage).sum() for w, stage in zip(weights, theirs, strict=True)).backward()

    def loss(params, images):
        stages = model.apply({"params": params}, images).stages
        return sum((jnp.float32(w.transpose(0, 2, 3, 1)) * x).sum() for w, x in zip(weights, stages, strict=True))

    ours, of_images = jax.jit(jax.grad(loss, (0, 1)))(variables["params"], images)
    state = {name: parameter.grad.float().numpy() for name, parameter in network.named_parameters()}
    expected = flatten_dict(import_backbone(rename(state), model)["params"])
    # The softmax removes a constant from all scores, so the gradient of a key's bias is 0 but for rounding.
    least = 1e-3 * max(np.abs(x).max() for x in expected.values())
    distances = {
        path: np.abs(x - expected[path]).max() / max(np.abs(expected[path]).max(), least)
        for path, x in flatten_dict(ours).items()
    }
    print(layout, f"{max(distances.values()):.1e}", max(distances, key=distances.__getitem__))
    assert max(distances.values()) < 1e-3
    assert far(of_images, channels_last(given.grad)) < 1e-3


@functools.cache
def abstract_member(name: str) -> dict:
    return abstract_variables(BACKBONES[name].make(), 32)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if count > 40e6 else name for name, count in COUNTS.items()]
)
def test_parameter_counts(name):
    assert num_parameters(abstract_member(name)) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    require("torch", "transformers")
    import torch

    shape = BACKBONES[name].make()
    with torch.device("meta"):
        network = published_mits.build_transformers("SegformerModel", shape.num_blocks, shape.head_width)
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[name]


def build_whole(context="segformer", dtype="float32", publisher="transformers"):
    model = build_segmenter(
        CLASSES,
        backbone="mit_micro",
        context=context,
        representation="per_pixel",
        semantic_width=HEAD_WIDTH,
        dtype=dtype,
    )
    return model.clone(backbone=model.backbone.clone(epsilons=publisher))


def test_the_whole_network_of_transformers(tmp_path):
    """As transformers saves it, under the names of its earlier versions and of version 5, and as NVIDIA's release."""
    network = randomize(published_mits.build_transformers("SegformerForSemanticSegmentation"), 2)
    network.save_pretrained(tmp_path)
    model, state = build_whole(), state_of(network)
    variables = import_whole(tmp_path / "model.safetensors", model)
    images = draw_images(96, 64)
    import torch

    theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    logits = jax.jit(model.apply)(variables, images).semantic[-1]
    assert far(logits, channels_last(theirs.logits)) < 1e-5
    unused = {"decode_head.conv_seg.weight": np.ones((3, 3, 1, 1)), "decode_head.conv_seg.bias": np.ones(3)}
    for number, other in enumerate((state, published_mits.as_nvidia(state) | unused)):
        found = import_whole(write_file(other, tmp_path / f"{number}.pth"), model)
        jax.tree.map(np.testing.assert_array_equal, found, variables)
    # NVIDIA's epsilons, which the backbones have by default, change the result by little.
    default = build_whole(publisher="nvidia")
    distance = far(jax.jit(default.apply)(variables, images).semantic[-1], channels_last(theirs.logits))
    assert 0 < distance < 1e-4


def test_gradients_of_the_whole_network():
    """In float64: in float32, a ReLU whose input is nearly 0 may be open in one network and closed in the other."""
    network = randomize(published_mits.build_transformers("SegformerForSemanticSegmentation"), 3).double()
    images = draw_images(64, 96).astype(np.float64)
    import torch

    theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits
    weights = np.random.default_rng(0).normal(size=tuple(theirs.shape))
    (torch.from_numpy(weights) * theirs).sum().backward()
    model = build_whole()
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}

    def imported(state):
        found = import_weights(state, abstract_variables(model), MIT_IMPORTERS)
        assert not found.left
        return unflatten_dict(found.variables)

    variables = imported(state)
    expected = imported(state | {name: p.grad.numpy() for name, p in network.named_parameters()})["params"]
    with float64():
        double, statistics = build_whole(dtype="float64"), to_float64({"batch_stats": variables["batch_stats"]})

        def loss(params):
            found = double.apply({**statistics, "params": params}, jnp.asarray(images))
            return (weights.transpose(0, 2, 3, 1) * found.semantic[-1]).sum()

        ours = jax.jit(jax.grad(loss))(to_float64(variables["params"]))
    flat, least = flatten_dict(ours), 1e-3 * max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for path, x in flatten_dict(expected).items():
        assert np.abs(flat[path] - x).max() <= 1e-5 * max(np.abs(x).max(), least), path


def test_image_classifiers_of_transformers_are_left_out(tmp_path):
    network = randomize(published_mits.build_transformers("SegformerForImageClassification"), 4)
    network.save_pretrained(tmp_path)
    found = import_backbone(read_weights(tmp_path / "model.safetensors").state_dict, MiT(**MICRO))
    alone = import_backbone(published_mits.as_nvidia(state_of(network.segformer)), MiT(**MICRO))
    jax.tree.map(np.testing.assert_array_equal, found, alone)


@pytest.mark.slow
@pytest.mark.parametrize("publisher", ["transformers", "mmsegmentation"])
def test_segformer_b0_at_full_size(publisher, tmp_path):
    """With 150 classes, at the widths of the published networks, at two sizes: features and logits."""
    model = build_segmenter(
        150,
        backbone="mit_b0",
        context="segformer" if publisher == "transformers" else "segformer_mmseg",
        representation="per_pixel",
        semantic_width=256,
    )
    model = model.clone(backbone=model.backbone.clone(epsilons=publisher))
    if publisher == "transformers":
        options = {"num_blocks": (2, 2, 2, 2), "head_width": 32, "num_labels": 150, "decoder_hidden_size": 256}
        network = randomize(published_mits.build_transformers("SegformerForSemanticSegmentation", **options), 5)
        read = lambda x: network(x).logits  # noqa: E731
    else:
        models = mmseg_models()
        import mmseg
        from mmengine.config import Config

        name = ".mim/configs/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"
        config = Config.fromfile(Path(mmseg.__file__).parent / name).model
        config.pretrained = config.backbone.init_cfg = None
        config.decode_head.norm_cfg = {"type": "BN"}
        network = randomize(models.build(config), 5)
        read = lambda x: network.decode_head(network.extract_feat(x))  # noqa: E731
    variables = import_whole(write_file(state_of(network), tmp_path / "file.pth"), model)
    import torch

    for size in ((128, 96), (224, 224)):
        images = draw_images(*size)
        with torch.no_grad():
            theirs = read(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        distance = far(jax.jit(model.apply)(variables, images).semantic[-1], channels_last(theirs))
        print(publisher, size, f"{distance:.1e}")
        assert distance < 1e-5


# --- Weight files without the publishers' code --------------------------------------------------------------------------------


def published_state(variables: dict, layout: str = "transformers 5") -> dict[str, np.ndarray]:
    """Return arrays of zeros that fit a backbone, under the names and with the shapes of a layout's files."""
    importer = next(importer for importer in MIT_IMPORTERS if importer.family == f"MiT ({layout})")
    return {
        importer.name_of(path): np.zeros(published_shape(path, leaf.shape), np.float32)
        for path, leaf in flatten_dict(variables).items()
    }


@pytest.mark.parametrize(
    ("name", "theirs", "message"),
    [
        ("mit_b2", "mit_b1", "an MiT-B1, and the network's backbone is an MiT-B2: choose the backbone"),
        ("mit_b0", "mit_micro", "an MiT of 1, 1, 1, 2 blocks with 4 channels in the first stage, and the network's"),
    ],
)
def test_a_file_of_another_member_is_named(name, theirs, message):
    """MiT-B1 and B2 have the same widths, and differ in the number of blocks."""
    nested = {"params": {"backbone": abstract_member(name)["params"]}}
    with pytest.raises(UserError, match=message):
        import_weights(published_state(abstract_member(theirs)), nested, MIT_IMPORTERS)


def test_every_array_must_be_there_and_known():
    state = published_mits.as_nvidia(published_state(abstract_micro()))
    with pytest.raises(UserError, match=r"are missing: block2\.0\.attn\.k\.weight, block2\.0\.attn\.v\.weight;"):
        import_backbone({n: a for n, a in state.items() if n != "block2.0.attn.kv.weight"}, MiT(**MICRO))
    with pytest.raises(UserError, match=r"2 are unknown: block9\.0\.attn\.kv\.weight, extra"):
        extra = {"block9.0.attn.kv.weight": np.zeros((3, 3)), "extra": np.zeros(2)}
        import_backbone(state | extra, MiT(**MICRO))


# --- Laws -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=4)
@given(st.integers(8, 20), st.integers(8, 20))
def test_sizes(rows, columns):
    """Images of all sizes give maps of the strides 4, 8, 16 and 32, rounded up."""
    height, width = 4 * rows, 4 * columns
    found = jax.eval_shape(MiT(**MICRO).apply, abstract_micro(), jnp.zeros((1, height, width, 3)))
    shapes = [(1, -(-height // s), -(-width // s), c) for s, c in ((4, 4), (8, 8), (16, 20), (32, 32))]
    assert [stage.shape for stage in found.stages] == shapes


@functools.cache
def abstract_micro() -> dict:
    return abstract_member("mit_micro")


def test_too_small_images():
    with pytest.raises(
        ValueError, match=r"images of 32 × 28 pixels are too small .*: both sides must have at least 32"
    ):
        jax.eval_shape(MiT(**MICRO).apply, abstract_micro(), jnp.zeros((1, 32, 28, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": "timm"}, r"epsilons='timm': expected one of 'nvidia', 'mmsegmentation', 'transformers'"),
        ({"drop_path": 1.0}, r"drop_path=1.0: expected a rate of at least 0 and below 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        MiT(**options)


def test_the_far_corner_reaches_the_whole_image(micro):
    """Attention is global: one pixel changes every position of the last stage, and of the first."""
    model, variables = micro
    images = draw_images(64, 64)
    apply = jax.jit(model.apply)
    before, after = (
        apply(variables, x).stages for x in (images, images + 5 * (np.indices((64, 64)).sum(0) == 0)[..., None])
    )
    assert all((np.abs(a - b).max(-1) > 0).all() for a, b in zip(before, after, strict=True))


def test_images_of_a_batch_do_not_mix(micro):
    model, variables = micro
    images = draw_images(64, 32, 2)
    apply = jax.jit(model.apply)
    together, alone = apply(variables, images).final, [apply(variables, images[i : i + 1]).final for i in range(2)]
    np.testing.assert_allclose(together, jnp.concatenate(alone), atol=1e-5)


def test_a_block_without_its_branches_is_the_identity(rng):
    """Drop path multiplies both branches by factors: 0 leaves them out, 1 changes nothing, and each image has its own."""
    block = Block(2, 2, EPSILONS["nvidia"])
    x = jnp.asarray(rng.normal(size=(2, 4, 6, 8)), jnp.float32)
    abstract = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), abstract)
    apply = jax.jit(lambda *factors: block.apply(variables, x, True, *factors))
    plain = apply()
    np.testing.assert_array_equal(apply(jnp.zeros((2, 2))), x)
    np.testing.assert_allclose(apply(jnp.ones((2, 2))), plain, rtol=1e-5)
    mixed = apply(jnp.array([[0.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(mixed[0], x[0])
    np.testing.assert_allclose(mixed[1], plain[1], rtol=1e-5)
    # Without attention, the result is linear in the factor of the mix-FFN.
    once, twice = (apply(jnp.array([[0.0, 0.0], [factor, factor]])) - x for factor in (1.0, 2.0))
    np.testing.assert_allclose(2 * once, twice, atol=1e-4 * np.abs(twice).max())


def test_keys_are_made_of_whole_cells(rng):
    """Where a side is no multiple of the reduction, positions beyond the last whole cell give no key and no value."""
    block = Block(1, 4, EPSILONS["nvidia"])
    x = jnp.asarray(rng.normal(size=(1, 6, 9, 4)), jnp.float32)
    variables = jax.jit(lambda: block.init(jax.random.key(0), x, False))()
    keys = block.apply(variables, x, False, capture_intermediates=True)[1]["intermediates"]["attn"]["key"]["__call__"][
        0
    ]
    assert keys.shape == (1, 1, 2, 4)


def test_drop_path_acts_in_training_alone_and_by_the_seed():
    model = MiT(**MICRO, drop_path=0.9)
    variables, images = {"params": draw(model)["params"]}, jnp.asarray(draw_images(32, 32, 4))

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(seed, train, rate=0.9):
        return model.clone(drop_path=rate).apply(variables, images, train, rngs={"dropout": jax.random.key(seed)}).final

    np.testing.assert_array_equal(run(0, False), run(1, False))
    np.testing.assert_array_equal(run(0, True), run(0, True))
    np.testing.assert_allclose(run(0, True, 0.0), run(0, False), atol=1e-5)
    assert (run(0, True) != run(1, True)).any()
    # The first block is never left out, and the last one almost always.
    assert (run(0, True) != run(0, False)).any()


@pytest.mark.parametrize("remat", ["light", "full"])
def test_rematerialization_reaches_every_block(remat):
    images = jnp.zeros((1, 32, 32, 3))
    program = jax.make_jaxpr(lambda v: MiT(**MICRO, remat=remat).apply(v, images).final)(abstract_micro())
    assert str(program).count("remat2[") == len(MICRO["num_blocks"])  # the equal blocks of a stage are traced once


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["light", "full"])
def test_rematerialization_changes_no_gradient(micro, remat):
    model, variables = micro
    images = jnp.asarray(draw_images(32, 32))

    def gradient(remat):
        return jax.jit(jax.grad(lambda v: model.clone(remat=remat).apply(v, images).final.sum()))(variables)

    found, plain = gradient(remat), gradient("off")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6), found, plain)


def test_bfloat16_is_near_float32(micro):
    model, variables = micro
    images = draw_images(64, 64)
    for ours, plain in zip(
        jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, images).stages,
        jax.jit(model.apply)(variables, images).stages,
        strict=True,
    ):
        assert ours.dtype == jnp.bfloat16
        assert far(np.float32(ours), plain) < 0.05


@pytest.mark.parametrize("name", ["mit_micro", "mit_b0", "mit_b3"])
def test_layer_numbers_for_learning_rates(name):
    """From 0 at the images to the number of blocks, without a gap; what stands before a block has no larger number than it."""
    spec = BACKBONES[name]
    blocks = spec.make().num_blocks
    depths = {path: spec.depth_of(path) for path in flatten_dict(abstract_variables(spec.make(), 32)["params"])}
    assert set(depths.values()) == set(range(sum(blocks) + 1))
    numbers = [
        depth_of((f"stage{i}_block_{k}", "norm1", "scale"), blocks) for i, n in enumerate(blocks, 1) for k in range(n)
    ]
    assert numbers == list(range(1, sum(blocks) + 1))
    for stage in range(1, 5):
        first, last = sum(blocks[: stage - 1]) + 1, sum(blocks[:stage])
        assert depths["norm" + str(stage), "scale"] == last
        assert (
            depths[f"embed{stage}_proj", "kernel"]
            == depths[f"embed{stage}_norm", "bias"]
            == (first if stage > 1 else 0)
        )


def test_the_initial_scale_of_each_kernel():
    """Dense layers start as in every transformer here, and convolutions as all others, also the one that is applied in parts."""
    model = build_segmenter(3, backbone="mit_micro", context="segformer", semantic_width=24, unity_width=8)
    params = flatten_dict(initial_variables(model, 0)["params"])
    for path, array in params.items():
        if path[-1] == "kernel" and array.size > 200 and path[0] in ("backbone", "context"):
            fan_in = np.prod(array.shape[:3])
            std = 0.88 * 0.02 if array.ndim == 2 else np.sqrt(2 / fan_in)
            assert np.std(array) == pytest.approx(std, rel=0.2), path
    assert params["context", "context", "merge", "conv", "kernel"].shape == (1, 1, 96, 24)


# --- The decoder, and training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["mit_micro", "hrnet_tiny", "resnet_tiny"])
@pytest.mark.parametrize("context", ["segformer", "segformer_mmseg"])
def test_the_decoder_on_every_kind_of_backbone(backbone, context):
    model = build_segmenter(3, backbone=backbone, context=context, semantic_width=8, unity_width=8)
    assert model.strides == (32, 16, 8, 4)
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 64, 96, 3)))[0])
    assert [x.shape for x in shapes.semantic] == [(1, 2, 3, 3), (1, 4, 6, 3), (1, 8, 12, 3), (1, 16, 24, 3)]
    assert [x.shape for x in shapes.unity] == [(1, 2, 3), (1, 4, 6), (1, 8, 12)]


def test_the_decoder_equals_the_plain_formula(rng):
    """Concatenate the enlarged maps, and only then convolve."""
    stages = tuple(jnp.asarray(rng.normal(size=(1, 16 >> i, 24 >> i, 3 + i)), jnp.float32) for i in range(4))
    module = AllMlp(5)
    variables = draw_of(module, rng, Features(stages, stages[-1]))
    found = module.apply(variables, Features(stages, stages[-1]), None, False)
    params, statistics = variables["params"], variables["batch_stats"]["merge"]["bn"]
    linear = [x @ params[f"linear_{i}"]["kernel"] + params[f"linear_{i}"]["bias"] for i, x in enumerate(stages, 1)]
    enlarged = [jax.image.resize(x, (1, 16, 24, 5), "linear", antialias=False) for x in reversed(linear)]
    joined = jnp.concatenate(enlarged, -1) @ params["merge"]["conv"]["kernel"][0, 0]
    scale, bias = params["merge"]["bn"]["scale"], params["merge"]["bn"]["bias"]
    expected = (joined - statistics["mean"]) / jnp.sqrt(statistics["var"] + 1e-5) * scale + bias
    np.testing.assert_allclose(found, jnp.maximum(expected, 0), atol=1e-5 * float(np.abs(expected).max()))


def draw_of(module, rng, features):
    """Return random variables of a context module."""
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), features, None, False))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), jnp.float32), abstract)


@pytest.mark.parametrize(
    ("context", "representation"),
    [
        ("segformer", "pyramid"),
        pytest.param("segformer", "per_pixel", marks=pytest.mark.slow),
        pytest.param("coarse_to_fine", "pyramid", marks=pytest.mark.slow),
    ],
)
def test_a_training_step(context, representation):
    """One step changes every parameter of the backbone but the biases of keys, whose gradient is 0."""
    config = tiny_config(backbone="mit_micro", context=context, representation=representation)
    model, optimizer = experiment.make_model(config, 3), sgd()
    variables = initial_variables(model, 0)
    step = make_train_step(
        model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    )
    after, metrics = step(initial_state(variables, optimizer), jax.tree.map(jnp.asarray, make_batch(n=1)))
    assert np.isfinite(metrics["loss"])
    before = flatten_dict(variables["params"]["backbone"])
    still = {
        path for path, leaf in flatten_dict(after.params["backbone"]).items() if np.array_equal(leaf, before[path])
    }
    assert all(path[-2:] == ("key", "bias") for path in still), still


@pytest.mark.parametrize(("context", "representation"), [("segformer", "per_pixel"), ("upernet", "pyramid")])
def test_a_training_step_with_other_decoders_has_the_right_shapes(context, representation):
    config = tiny_config(backbone="mit_micro", context=context, representation=representation)
    model = experiment.make_model(config, 3)
    check_step(config, model, abstract_variables(model))
