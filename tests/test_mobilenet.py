"""MobileNetV3: equal to the implementations of torchvision and timm, from files in their layouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support.double import float64, to_float64
from support.methods import check_step
from support.reference_networks import randomize, timm_models, torchvision_models
from support.runs import tiny_config
from support.training import make_batch

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.mobilenet import InvertedResidual, MobileNetV3, SqueezeExcite
from pyrseg_jax.models.backbones.mobilenet_plans import LARGE, MICRO, SMALL, BlockPlan, squeezed
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.head import published_shape, to_ours
from pyrseg_jax.models.weights.importer import import_weights
from pyrseg_jax.models.weights.mobilenet_layout import EPSILON, TIMM_EPSILON, to_our_epsilon
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

# Numbers of parameters of the published networks without the layers after the last feature map, and channels of C2 … C5.
PUBLISHED = {"mobilenetv3_l": (2_971_952, (24, 40, 112, 960)), "mobilenetv3_s": (927_008, (16, 24, 48, 576))}
PLANS = {"mobilenetv3_l": LARGE, "mobilenetv3_s": SMALL, "mobilenetv3_micro": MICRO}
SIZES = [(64, 96), (224, 224)]


@functools.cache
def micro_variables():
    """Variables of the smallest network, with every array different from the others."""
    variables = initial_variables(BACKBONES["mobilenetv3_micro"].make(), 0)
    rng = np.random.default_rng(0)
    draw = {
        "scale": lambda a: rng.uniform(0.5, 1.5, a.shape),
        "var": lambda a: rng.uniform(0.5, 2, a.shape),
        "bias": lambda a: rng.normal(0, 0.3, a.shape),
        "mean": lambda a: rng.normal(0, 0.3, a.shape),
    }
    flat = flatten_dict(variables)
    drawn = {path: draw[path[-1]](a).astype(np.float32) if path[-1] in draw else a for path, a in flat.items()}
    return unflatten_dict(drawn)


@functools.cache
def abstract(name):
    return abstract_variables(BACKBONES[name].make())


def draw_images(n, height, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, height, width, 3)), jnp.float32)


def import_state(name, state):
    """The variables of a backbone, from the arrays of a file, and what the importer says."""
    nested = {kind: {"backbone": tree} for kind, tree in abstract(name).items()}
    found = import_weights(state, nested, BACKBONES[name].importers)
    assert not found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()}), found


def to_published(variables, importer):
    """The arrays of a network by their published names."""
    flat = flatten_dict(variables)
    turned = {path: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for path, array in flat.items()}
    return {importer.name_of(path): np.array(array) for path, array in turned.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    model, (count, channels) = BACKBONES[name].make(), PUBLISHED[name]
    variables = abstract(name)
    assert num_parameters(variables) == count
    features = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32))
    strides = (4, 8, 16, 32)
    expected = [(2, 64 // stride, 96 // stride, width) for stride, width in zip(strides, channels, strict=True)]
    assert [x.shape for x in features.stages] == expected
    assert features.final.shape == expected[-1]
    assert features.stem.shape == (2, 32, 48, 16)


@pytest.mark.parametrize("expanded", {block.expanded for plan in (LARGE, SMALL) for block in plan.blocks})
def test_squeezed_channels_are_near_a_quarter(expanded):
    found = squeezed(expanded)
    assert found % 8 == 0 and 0.9 * expanded // 4 <= found <= expanded // 4 + 8


@pytest.mark.parametrize("name", PLANS)
def test_depth_grows_from_the_stem_to_the_last_layer(name):
    spec = BACKBONES[name]
    depths = {path: spec.depth_of(path) for path in flatten_dict(abstract(name)["params"])}
    assert sorted(set(depths.values())) == list(range(len(PLANS[name].blocks) + 2))
    order = ["stem", *(f"block_{i}" for i in range(len(PLANS[name].blocks))), "last"]
    assert all(depth == order.index(path[0]) for path, depth in depths.items())


# Published name → path of ours; each kind of name once.
NAMES = {
    0: {
        "conv_stem.weight": "params/stem/conv/kernel",
        "bn1.running_mean": "batch_stats/stem/bn/mean",
        "blocks.0.0.conv_dw.weight": "params/block_0/depthwise/conv/kernel",
        "blocks.0.0.conv_pw.weight": "params/block_0/project/conv/kernel",
        "blocks.0.0.bn2.bias": "params/block_0/project/bn/bias",
        "blocks.2.1.conv_pw.weight": "params/block_4/expand/conv/kernel",
        "blocks.2.1.bn1.running_var": "batch_stats/block_4/expand/bn/var",
        "blocks.2.1.bn2.weight": "params/block_4/depthwise/bn/scale",
        "blocks.2.1.se.conv_reduce.bias": "params/block_4/squeeze/reduce/bias",
        "blocks.2.1.se.conv_expand.weight": "params/block_4/squeeze/restore/kernel",
        "blocks.2.1.conv_pwl.weight": "params/block_4/project/conv/kernel",
        "blocks.6.0.bn1.weight": "params/last/bn/scale",
    },
    1: {
        "features.0.0.weight": "params/stem/conv/kernel",
        "features.0.1.running_mean": "batch_stats/stem/bn/mean",
        "features.1.block.0.0.weight": "params/block_0/depthwise/conv/kernel",
        "features.1.block.1.1.bias": "params/block_0/project/bn/bias",
        "features.5.block.0.1.running_var": "batch_stats/block_4/expand/bn/var",
        "features.5.block.1.1.weight": "params/block_4/depthwise/bn/scale",
        "features.5.block.2.fc1.bias": "params/block_4/squeeze/reduce/bias",
        "features.5.block.2.fc2.weight": "params/block_4/squeeze/restore/kernel",
        "features.5.block.3.0.weight": "params/block_4/project/conv/kernel",
        "features.3.block.2.0.weight": "params/block_2/project/conv/kernel",
        "features.16.1.weight": "params/last/bn/scale",
    },
}


@pytest.mark.parametrize("layout", NAMES)
def test_names_are_the_published_ones(layout):
    importer = BACKBONES["mobilenetv3_l"].importers[layout]
    assert {importer.name_of(tuple(path.split("/"))): path for path in NAMES[layout].values()} == NAMES[layout]


@pytest.mark.parametrize("layout", [0, 1])
def test_every_array_of_a_file_arrives(layout):
    name, variables = "mobilenetv3_micro", micro_variables()
    state = to_published(variables, BACKBONES[name].importers[layout])
    classifier = {f"classifier.{kind}": np.ones(4, np.float32) for kind in ("weight", "bias")}
    found, about = import_state(name, state | classifier)
    if layout == 0:
        assert about.converted == ("the scales of normalizations, from an epsilon of 1e-05 to 0.001",)
        for path, array in flatten_dict(variables["params"]).items():
            if path[-1] == "scale":
                ours = flatten_dict(found["params"])[path]
                assert (ours > array).all() and (ours < 1.002 * array).all()
        strip = lambda tree: {p: a for p, a in flatten_dict(tree).items() if p[-1] != "scale"}  # noqa: E731
        variables, found = strip(variables), strip(found)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    for missing in list(state)[:: len(state) // 5]:
        with pytest.raises(UserError, match="there is no |1 names are missing|the weights are of"):
            import_state(name, {key: array for key, array in state.items() if key != missing})


@pytest.mark.parametrize("layout", [0, 1])
def test_the_file_of_another_member_is_named(layout):
    importer = BACKBONES["mobilenetv3_l"].importers[layout]
    state = {
        importer.name_of(path): np.broadcast_to(np.float32(1), published_shape(path, leaf.shape))
        for path, leaf in flatten_dict(abstract("mobilenetv3_l")).items()
    }
    with pytest.raises(
        UserError, match="the weights are of MobileNetV3-Large, and the network's backbone is MobileNetV3-Small: choose"
    ):
        import_state("mobilenetv3_s", state)
    with pytest.raises(UserError, match="MobileNetV3-Large, and the network's backbone is a MobileNetV3 with 9 blocks"):
        import_state("mobilenetv3_micro", state)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 3), st.floats(1, 5)), min_size=1, max_size=5))
def test_scales_for_another_epsilon_normalize_to_the_same(channels):
    var, scale, x = np.asarray(channels, np.float32).T
    state = {"bn1.weight": scale, "bn1.running_var": var, "running_var": var, "other.weight": scale}
    found = to_our_epsilon(state)
    expected = x * scale / np.sqrt(var.astype(np.float64) + TIMM_EPSILON)
    np.testing.assert_allclose(found["bn1.weight"] * x / np.sqrt(var.astype(np.float64) + EPSILON), expected, rtol=1e-6)
    assert found.keys() == state.keys() and found["other.weight"] is scale


def test_squeeze_and_excitation_ends_at_0_and_1(rng):
    x = jnp.asarray(rng.normal(size=(2, 4, 6, 16)), jnp.float32)
    variables = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), SqueezeExcite().init(jax.random.key(0), x))
    for bias, factor in ((3, 1), (-3, 0), (0, 0.5), (9, 1), (-9, 0)):
        variables["params"]["restore"]["bias"] = np.full(16, bias, np.float32)
        np.testing.assert_allclose(SqueezeExcite().apply(variables, x), factor * x, rtol=1e-6)


def test_drop_path_scales_the_branch_of_each_image(rng):
    block = InvertedResidual(BlockPlan(3, 16, 8, True, "hard_swish"))
    x = jnp.asarray(rng.normal(size=(3, 4, 6, 8)), jnp.float32)
    variables = block.init(jax.random.key(0), x, False)
    whole = block.apply(variables, x, False)
    found = block.apply(variables, x, False, jnp.asarray([[0, 1, 2]], jnp.float32))
    np.testing.assert_array_equal(found[0], x[0])
    np.testing.assert_array_equal(found[1], whole[1])
    np.testing.assert_allclose(found[2], x[2] + 2 * (whole[2] - x[2]), atol=1e-5)


# A stem and three blocks, two of them equal.
SHORT = MICRO._replace(groups=MICRO.groups[2:3])


@functools.cache
def short_variables():
    return initial_variables(MobileNetV3(SHORT), 0)


def test_drop_path_works_in_training_alone():
    images, variables = draw_images(4, 32, 32), short_variables()
    plain, dropping = MobileNetV3(SHORT), MobileNetV3(SHORT, drop_path=0.9)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def final(model, train, key):
        return model.apply(variables, images, train, mutable=["batch_stats"], rngs={"dropout": key})[0].final

    first, second = jax.random.key(0), jax.random.key(1)
    np.testing.assert_array_equal(final(dropping, False, first), final(plain, False, first))
    np.testing.assert_array_equal(final(dropping, True, first), final(dropping, True, first))
    assert np.abs(final(dropping, True, first) - final(dropping, True, second)).max() > 1e-3
    np.testing.assert_array_equal(final(plain, True, first), final(plain, True, second))


def test_recomputing_changes_no_gradient():
    images, variables = draw_images(2, 32, 64), short_variables()

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model):
        def loss_of(params):
            variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
            features, updates = model.apply(variables_now, images, True, mutable=["batch_stats"])
            return sum(jnp.sin(x).sum() for x in features.stages), updates

        return jax.grad(loss_of, has_aux=True)(variables["params"])

    kept = jax.tree.leaves(gradient(MobileNetV3(SHORT)))
    largest = max(np.abs(leaf).max() for leaf in kept)
    recomputed = jax.tree.leaves(gradient(MobileNetV3(SHORT, remat="full")))
    for ours, expected in zip(recomputed, kept, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6 * largest)


def test_half_precision_is_near():
    images, variables = draw_images(2, 64, 32), micro_variables()
    full, half = (
        jax.jit(MobileNetV3(MICRO, dtype=dtype).apply)(variables, images) for dtype in (jnp.float32, jnp.bfloat16)
    )
    for a, b in zip(full.stages, half.stages, strict=True):
        assert (a.dtype, b.dtype) == (jnp.float32, jnp.bfloat16)
        assert 0 < np.abs(a - b.astype(jnp.float32)).mean() < 0.05 * np.abs(a).mean()


def test_the_smallest_network_trains():
    config = tiny_config(backbone="mobilenetv3_micro", context="none")
    model, optimizer = experiment.make_model(config, 3), experiment.make_optimizer(config)
    state = initial_state(initial_variables(model, 0), optimizer)
    before = flatten_dict(jax.device_get(state.params))
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh)
    after, metrics = step(state, jax.tree.map(jnp.asarray, make_batch()))
    assert np.isfinite(metrics["loss"])
    assert not [
        path for path, a in flatten_dict(after.params).items() if path[-1] == "kernel" and (a == before[path]).all()
    ]


@pytest.mark.parametrize(("representation", "context"), [("per_pixel", "none"), ("pyramid", "upernet")])
def test_the_smallest_network_fits_other_parts(representation, context):
    config = tiny_config(backbone="mobilenetv3_micro", representation=representation, context=context)
    model = experiment.make_model(config, 3)
    check_step(config, model, abstract_variables(model))


def torchvision_network(name):
    """A network of torchvision, with ImageNet's classifier, and the numbers of its layers that end a stage."""
    module, plan = torchvision_models().mobilenetv3, PLANS[name]
    settings = [
        module.InvertedResidualConfig(
            width, b.kernel, b.expanded, b.features, b.has_squeeze, {"relu": "RE"}.get(b.act, "HS"), b.stride, 1, 1.0
        )
        for b, width in zip(plan.blocks, plan.widths, strict=True)
    ]
    network = module.MobileNetV3(settings, 16, num_classes=7)
    halvings = [i for i, block in enumerate(plan.blocks) if block.stride == 2]
    # Layer 0 is the stem, so layer i is the block before block i.
    return network, [*halvings[-3:], len(plan.blocks) + 1]


def torchvision_stages(network, x, ends):
    stages = []
    for i, layer in enumerate(network.features):
        x = layer(x)
        if i in ends:
            stages.append(x)
    return stages


def timm_network(name):
    """The feature extractor of timm."""
    timm = timm_models()
    if name != "mobilenetv3_micro":
        published = {"mobilenetv3_l": "mobilenetv3_large_100", "mobilenetv3_s": "mobilenetv3_small_100"}
        return timm.create_model(published[name], features_only=True, out_indices=(1, 2, 3, 4))
    import torch
    from timm.layers import get_act_layer
    from timm.models import mobilenetv3
    from timm.models._efficientnet_blocks import SqueezeExcite as Squeeze
    from timm.models._efficientnet_builder import decode_arch_def, round_channels

    widths, groups = iter(MICRO.widths), []
    for blocks in MICRO.groups:
        group = []
        for b in blocks:
            kind = "ir" if b.expanded != (width := next(widths)) else "ds"
            squeeze, act = "_se0.25" if b.has_squeeze else "", "_nre" if b.act == "relu" else ""
            group.append(f"{kind}_r1_k{b.kernel}_s{b.stride}_e{b.expanded / width}_c{b.features}{squeeze}{act}")
        groups.append(group)
    groups.append([f"cn_r1_k1_s1_c{MICRO.last}"])
    return mobilenetv3.MobileNetV3Features(
        decode_arch_def(groups),
        out_indices=(1, 2, 3, 4),
        stem_size=MICRO.stem,
        norm_layer=torch.nn.BatchNorm2d,
        act_layer=get_act_layer("hard_swish"),
        se_layer=functools.partial(
            Squeeze, gate_layer="hard_sigmoid", force_act_layer=torch.nn.ReLU, rd_round_fn=round_channels
        ),
    )


def to_torch(images):
    import torch

    return torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())


def through_a_file(name, network, path):
    """The variables of our network, from a file with the arrays of the published one."""
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    save_file(state, path)
    return import_state(name, read_weights(path).state_dict)[0]


def small_variances(network):
    """Draw a network whose running variances are between 0.005 and 2, where the epsilon of the normalizations counts."""
    import torch

    randomize(network)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("running_var"):
                factor = torch.logspace(-2.3, 0.3, tensor.numel(), dtype=torch.float64)
                tensor.copy_(factor)
                network.state_dict()[key.replace("running_var", "weight")].mul_(factor.sqrt())
    return network


def published(publisher, name):
    """A random network of a publisher, and the function from it and its input to its stages."""
    if publisher == "timm":
        return small_variances(timm_network(name)), lambda network, x: network(x)
    network, ends = torchvision_network(name)
    return small_variances(network), functools.partial(torchvision_stages, ends=ends)


PUBLISHERS = ["timm", "torchvision"]


@pytest.mark.parametrize("publisher", PUBLISHERS)
@pytest.mark.parametrize(
    "name",
    ["mobilenetv3_micro", "mobilenetv3_s", pytest.param("mobilenetv3_l", marks=pytest.mark.slow)],
)
def test_features_equal_the_published_ones(publisher, name, tmp_path):
    network, stages_of = published(publisher, name)
    import torch

    variables = through_a_file(name, network, tmp_path / "weights.safetensors")
    apply = jax.jit(BACKBONES[name].make().apply)
    for seed, (height, width) in enumerate(SIZES):
        images = draw_images(1, height, width, seed)
        with torch.no_grad():
            theirs = stages_of(network, to_torch(images))
        for ours, expected in zip(apply(variables, images).stages, theirs, strict=True):
            expected = expected.numpy().transpose(0, 2, 3, 1)
            assert ours.shape == expected.shape
            error = np.abs(ours - expected).max() / np.abs(expected).max()
            print(f"{publisher} {name} {height}×{width}: {error:.1e}")
            assert error < 1e-5


@pytest.mark.parametrize(("publisher", "train"), [("timm", False), ("torchvision", False), ("torchvision", True)])
def test_gradients_equal_the_published_ones(publisher, train, tmp_path):
    name = "mobilenetv3_micro"
    network, stages_of = published(publisher, name)
    variables = to_float64(through_a_file(name, network, tmp_path / "weights.safetensors"))
    images = np.asarray(draw_images(2, 64, 96), np.float64)
    x = to_torch(images).requires_grad_()
    network.double().train(train)
    sum(stage.sin().sum() for stage in stages_of(network, x)).backward()

    with float64():
        model = MobileNetV3(MICRO, dtype=np.float64)

        def loss_of(params, images):
            variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
            features, _ = model.apply(variables_now, images, train, mutable=["batch_stats"])
            return sum(jnp.sin(stage).sum() for stage in features.stages)

        gradient = jax.jit(jax.grad(loss_of, (0, 1)))
        ours, of_images = jax.device_get(gradient(variables["params"], jnp.asarray(images)))
    expected = {"image": x.grad.numpy().transpose(0, 2, 3, 1)}
    found = {"image": of_images}
    importer = BACKBONES[name].importers[PUBLISHERS.index(publisher)]
    theirs = {key: p.grad.numpy() for key, p in network.named_parameters() if p.grad is not None}
    for path, gradient in flatten_dict(ours, keep_empty_nodes=False).items():
        key = importer.name_of(("params", *path))
        if publisher == "timm" and path[-1] == "scale":
            continue  # another scale stands for another epsilon
        found[key], expected[key] = gradient, to_ours(("params", *path), theirs.pop(key))
    assert publisher == "timm" or not theirs
    # A normalization by the batch's own statistics removes the biases before it: their gradients are 0 but for rounding.
    least = 1e-6 * max(np.abs(a).max() for a in expected.values())
    errors = {key: np.abs(found[key] - a).max() / max(np.abs(a).max(), least) for key, a in expected.items()}
    worst = max(errors, key=errors.get)
    print(f"{publisher} train={train}: {errors[worst]:.1e} at {worst}, image {errors['image']:.1e}")
    assert errors[worst] < 1e-3


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_equal_those_of_timm_and_torchvision(name):
    timm = timm_models()
    import torch

    published = {"mobilenetv3_l": "large", "mobilenetv3_s": "small"}[name]
    with torch.device("meta"):
        extractor = timm.create_model(f"mobilenetv3_{published}_100", features_only=True)
        network = getattr(torchvision_models(), f"mobilenet_v3_{published}")()
    ours = num_parameters(abstract(name))
    for theirs in (extractor, network.features):
        assert sum(p.numel() for p in theirs.parameters()) == ours
    assert tuple(extractor.feature_info.channels()[1:]) == PUBLISHED[name][1]
