"""Swin Transformers equal those of timm, torchvision, mmsegmentation and transformers, from the files that these write."""

import functools

import pytest

pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402
from support import published_swins  # noqa: E402
from support.published_swins import BUILD, import_file, import_state, ours, save  # noqa: E402
from support.reference_networks import mmseg_models, randomize, timm_models, torchvision_models  # noqa: E402

from pyrseg_jax.models.backbones import BACKBONES  # noqa: E402
from pyrseg_jax.models.initial import abstract_variables, initial_variables, num_parameters  # noqa: E402
from pyrseg_jax.models.necks import MergeStages  # noqa: E402
from pyrseg_jax.models.segmenter import build_segmenter  # noqa: E402
from pyrseg_jax.models.weights.files import read_weights  # noqa: E402
from pyrseg_jax.models.weights.importer import import_weights  # noqa: E402
from pyrseg_jax.models.weights.relative_positions import TABLE, bicubic_weights, fit_tables  # noqa: E402
from pyrseg_jax.models.weights.swin_layout import SWIN_IMPORTERS  # noqa: E402

# Two sizes of images for each, the first of them native where there is such a thing. timm's class differs where a map is not a
# multiple of the window, and transformers' classifier where a map is not larger than it.
IMAGE_SIZES = {
    "timm": ((96, 96), (192, 96)),
    "torchvision": ((96, 128), (64, 32)),
    "mmseg": ((128, 96), (32, 64)),
    "transformers backbone": ((128, 96), (32, 64)),
    "transformers classifier": ((128, 128), (160, 128)),
}


def images_of(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height + width).normal(size=(count, height, width, 3)).astype(np.float32)


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@functools.cache
def program(model):
    """Return our network as one program: models are equal where all of their settings are."""
    return jax.jit(lambda variables, images: model.apply(variables, images))


def far(found, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    return float(np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max())


@functools.cache
def built(name: str) -> published_swins.Published:
    return BUILD[name]()


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in BUILD for size in IMAGE_SIZES[name]])
def test_stages_from_a_file_equal_those_of_the_publisher(name, size, tmp_path):
    published = built(name)
    model, variables = ours(published)
    variables, found = import_file(save(published.network, tmp_path), variables)
    assert not found.left
    assert not found.converted
    theirs = published.network
    if name == "timm" and size != IMAGE_SIZES[name][0]:
        theirs = published_swins.build_timm(size).network
        theirs.load_state_dict(published.network.state_dict())
    images = images_of(*size)
    with torch.no_grad():
        expected = published.stages(theirs.double(), to_torch(images).double())
    theirs.float()
    distances = [far(*pair) for pair in zip(program(model)(variables, images), expected, strict=True)]
    print(name, size, distances)
    assert max(distances) < 1e-5


def named_as_in_a_file(tensors: dict) -> dict[str, np.ndarray]:
    """Return arrays by the names that they have in files; transformers' class for segmentation drops a prefix."""
    return {name.removeprefix("swin."): x.numpy() for name, x in tensors.items()}


@pytest.mark.parametrize("name", ["torchvision", "mmseg", "transformers backbone"])
def test_gradients_equal_those_of_the_publisher_in_double(name):
    """Gradients of the image and of every parameter; those of the publisher pass through our importer as weights do."""
    published = built(name)
    network = published.network.double()
    model, variables = ours(published)
    variables, _ = import_state(named_as_in_a_file(network.state_dict()), variables)
    images = images_of(96, 128)
    image = to_torch(images).double().requires_grad_()
    stages = published.stages(network, image)
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=tuple(stage.shape)) for stage in stages]
    network.zero_grad()
    sum((torch.from_numpy(w) * stage).mean() for w, stage in zip(weights, stages, strict=True)).backward()

    @jax.jit
    def gradients(params, images, weights):
        def loss(params, images):
            stages = model.apply({"params": params}, images)
            return sum((w * stage).mean() for w, stage in zip(weights, stages, strict=True))

        return jax.grad(loss, (0, 1))(params, images)

    of_params, of_images = gradients(variables["params"], images, [w.astype(np.float32) for w in weights])
    assert image.grad is not None
    of_image = far(of_images, image.grad.permute(0, 2, 3, 1))
    of_network = named_as_in_a_file({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    expected = import_weights(of_network, variables, SWIN_IMPORTERS).variables
    network.float()
    whole = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in expected.values()))
    found = flatten_dict({"params": of_params})
    distances = {
        path: np.linalg.norm(np.asarray(found[path]) - g) / max(np.linalg.norm(g), 1e-3 * whole)
        for path, g in expected.items()
    }
    print(name, of_image, max(distances.values()))
    assert set(expected) == (
        set(found) if published.is_normalized else {path for path in found if path[1] == "backbone"}
    )
    assert of_image < 1e-3
    assert max(distances.values()) < 1e-3


def exchange_q_and_k(array: np.ndarray) -> np.ndarray:
    q, k, v = np.split(array, 3, axis=-1)
    return np.concatenate((k, q, v), axis=-1)


def transpose_table(table: np.ndarray) -> np.ndarray:
    side = round(len(table) ** 0.5)
    return table.reshape(side, side, -1).swapaxes(0, 1).reshape(table.shape)


def order_by_rows(array: np.ndarray) -> np.ndarray:
    """Exchange the lower left and the upper right of four neighbors."""
    return array.reshape(4, -1, *array.shape[1:])[[0, 2, 1, 3]].reshape(array.shape)


# Mistakes in reading a file: ending of the paths that they concern → what would arrive.
MISTAKES = {
    "queries and keys exchanged": ("qkv/kernel", exchange_q_and_k),
    "bias of queries, keys and values dropped": ("qkv/bias", np.zeros_like),
    "bias of the MLP dropped": ("fc1/bias", np.zeros_like),
    "positions reversed": ("attn/table", lambda table: table[::-1]),
    "positions transposed": ("attn/table", transpose_table),
    "neighbors row by row": ("merge_2/reduction/kernel", order_by_rows),
    "norm of neighbors row by row": ("merge_3/norm/scale", order_by_rows),
    "scale dropped": ("norm2/scale", np.ones_like),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_reading_a_file_would_be_noticed(mistake):
    ending, mistaken = MISTAKES[mistake]
    published = built("torchvision")
    model, variables = ours(published)
    variables, _ = import_state({key: x.numpy() for key, x in published.network.state_dict().items()}, variables)
    images = images_of(64, 32)
    right = program(model)(variables, images)
    flat = {path: mistaken(x) if "/".join(path).endswith(ending) else x for path, x in flatten_dict(variables).items()}
    wrong = program(model)(unflatten_dict(flat), images)
    assert np.abs(wrong[-1] - right[-1]).max() > 1e-3 * np.abs(right[-1]).max()


def as_authors(state: dict) -> dict:
    """Return timm's state dict as the authors' program writes it."""
    named = {}
    for name, array in state.items():
        if ".downsample." in name:
            number = int(name.split(".")[1])
            name = name.replace(f"layers.{number}.", f"layers.{number - 1}.")
        named[name.replace("head.fc.", "head.")] = array
    return named | {
        "layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), np.int64),
        "layers.0.blocks.1.attn_mask": np.zeros((64, 9, 9)),
    }


def test_files_of_the_authors_give_what_those_of_timm_give():
    published = built("timm")
    _, variables = ours(published)
    state = {name: x.numpy() for name, x in published.network.state_dict().items()}
    expected, _ = import_state(state, variables)
    of_segmentation = {
        f"backbone.{name}": x for name, x in as_authors(state).items() if not name.startswith(("norm.", "head."))
    }
    for given in (as_authors(state), of_segmentation):
        assert set(given) != set(state)
        found, _ = import_state(given, variables)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (3, 7), (4, 3)])
def test_tables_are_resampled_as_pytorch_does(old, new):
    table = np.random.default_rng(0).normal(size=((2 * old - 1) ** 2, 4)).astype(np.float32)
    name = f"layers.0.blocks.0.attn.{TABLE}"
    fitted, changes = fit_tables({name: table}, {name: ((2 * new - 1) ** 2, 4)})
    assert changes == (f"the tables of relative positions, from windows of {old} to windows of {new}",)
    square = torch.from_numpy(table.T.reshape(1, 4, 2 * old - 1, 2 * old - 1).astype(np.float64))
    side = 2 * new - 1
    expected = torch.nn.functional.interpolate(square, (side, side), mode="bicubic").reshape(4, -1).T.numpy()
    np.testing.assert_allclose(fitted[name], expected, atol=1e-6)
    np.testing.assert_allclose(bicubic_weights(2 * old - 1, side).sum(1), 1)


TIMM = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_l": "swin_large_patch4_window7_224",
    "swin_b_384": "swin_base_patch4_window12_384",
    "swin_l_384": "swin_large_patch4_window12_384",
}


@pytest.mark.parametrize("name", TIMM)
def test_all_names_and_shapes_fit_the_publishers_network(name):
    """Also the number of parameters, of timm's network and, where there is one, of torchvision's, without their last layers."""
    timm, torchvision = timm_models(), torchvision_models()
    networks = []
    with torch.device("meta"):
        networks.append(timm.create_model(TIMM[name]))
        if name in ("swin_t", "swin_s", "swin_b"):
            networks.append(getattr(torchvision, name)())
    abstract = abstract_variables(BACKBONES[name].make())
    for network in networks:
        state = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in network.state_dict().items()}
        found = import_weights(state, {kind: {"backbone": tree} for kind, tree in abstract.items()}, SWIN_IMPORTERS)
        assert not found.left
        assert not found.converted
        last = [*network.norm.parameters(), *network.head.parameters()]
        count = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in last)
        assert num_parameters(abstract) == count


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (224, 448)])
@pytest.mark.parametrize("publisher", ["timm", "torchvision"])
def test_swin_t_equals_the_publishers_network(publisher, size, tmp_path):
    """At full size: at the native image size, where the last stage is a single window, and at another."""
    timm, torchvision = timm_models(), torchvision_models()
    if publisher == "timm":
        network = randomize(timm.create_model(TIMM["swin_t"], img_size=size, window_size=7))
        theirs = functools.partial(network.forward_intermediates, intermediates_only=True)
    else:
        network = randomize(torchvision.swin_t())
        theirs = functools.partial(published_swins.torchvision_stages, network)
    model = BACKBONES["swin_t"].make()
    variables = {kind: {"backbone": tree} for kind, tree in initial_variables(model, 0).items()}
    variables, _ = import_file(save(network, tmp_path), variables)
    images = images_of(*size, count=1)
    with torch.no_grad():
        network.double()
        expected = theirs(to_torch(images).double())
    expected = published_swins.channels_last(expected) if publisher == "timm" else expected
    backbone = {kind: tree["backbone"] for kind, tree in variables.items()}
    found = jax.jit(model.apply)(backbone, images).stages
    distances = [far(*pair) for pair in zip(found, expected, strict=True)]
    print(publisher, size, distances)
    assert max(distances) < 1e-5


def test_a_whole_network_of_mmsegmentation_predicts_the_same(tmp_path):
    """Backbone, normalizations of the stages, UperNet and both classifiers, from one checkpoint."""
    sizes = {"depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4), "embed_dims": 8, "window_size": 3}
    batch_norm, widths = {"type": "BN"}, [8, 16, 32, 64]
    head = {"channels": 16, "num_classes": 5, "norm_cfg": batch_norm, "dropout_ratio": 0.1}
    config = {
        "type": "EncoderDecoder",
        "backbone": {"type": "SwinTransformer", **sizes},
        "decode_head": {
            "type": "UPerHead",
            "in_channels": widths,
            "in_index": [0, 1, 2, 3],
            "pool_scales": (1, 2, 3, 6),
        }
        | head,
        "auxiliary_head": {"type": "FCNHead", "in_channels": 32, "in_index": 2, "num_convs": 1, "concat_input": False}
        | head
        | {"channels": 256},
    }
    network = randomize(mmseg_models().build(config), seed=3)
    options = {"backbone": "swin_micro", "context": "upernet_512", "representation": "per_pixel"}
    model = build_segmenter(5, **options, semantic_width=16)
    assert isinstance(model.neck, MergeStages)
    variables = initial_variables(model, 0)
    found = import_weights(torch_file(network, tmp_path), variables, SWIN_IMPORTERS)
    assert not found.left
    assert found.source == "UperNet, mmsegmentation"
    assert set(found.variables) == set(flatten_dict(variables))
    images = images_of(160, 128)  # mmsegmentation also shifts single windows, so that every map is larger than a window
    with torch.no_grad():
        maps = network.double().extract_feat(to_torch(images).double())
        expected = network.decode_head(maps), network.auxiliary_head(maps)
    predicted = jax.jit(model.apply)(unflatten_dict(found.variables), images)
    for ours_, theirs in zip((predicted.semantic[-1], predicted.auxiliary), expected, strict=True):
        assert far(ours_, theirs.permute(0, 2, 3, 1)) < 1e-5


def torch_file(network, folder) -> dict[str, np.ndarray]:
    torch.save({"meta": {"iter": 160_000}, "state_dict": network.state_dict()}, folder / "iter_160000.pth")
    return read_weights(folder / "iter_160000.pth").state_dict
