"""The networks that read a hierarchy of classes, SGR-style and DSSPN-style, against their formulas and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrseg_jax.data.catalog import read_label_space
from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import CONTEXTS, ContextSettings
from pyrseg_jax.models.contexts.dsspn import DSSPN, descent_logits, neuron_loss
from pyrseg_jax.models.contexts.sgr import SGR, SymbolicReasoning, additive_weights
from pyrseg_jax.models.contexts.tree import make_tree
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.segmenter import Pyramids, build_segmenter
from pyrseg_jax.training.objective import PerPixelObjective, WithContextLosses

# Six classes: two groups below the root, one of them with a group inside, and a class without a group.
GROUPS = (("a", "b"), ("c",), ("a",), (), ("a", "b"), ("c",))
TREE, FLAT = make_tree(6, GROUPS), make_tree(6, None)
SIDES, DEPTH, WIDTH, GROWTH = (5, 7), 6, 8, 3


def hierarchies(num_classes=5):
    path = st.lists(st.sampled_from("ab"), max_size=3).map(tuple)
    return st.lists(path, min_size=num_classes, max_size=num_classes).map(tuple)


def draw_features(rng, n=1, dtype=jnp.float32):
    return Features((), jnp.asarray(rng.normal(size=(n, *SIDES, DEPTH)), dtype))


def draw_variables(module, rng, *inputs):
    """Variables without the zeros and ones of an untrained network."""
    abstract = flatten_dict(jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)))
    drawn = {
        path: rng.uniform(0.3, 1.0, leaf.shape) * (1 if path[-1] == "var" else rng.choice([-1, 1], leaf.shape))
        for path, leaf in abstract.items()
    }
    return jax.tree.map(jnp.float32, unflatten_dict(drawn))


def relu(x):
    return np.maximum(x, 0)


def softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def convolve(x, kernel, dilation=1):
    """A convolution of one map (h, w, c) with zeros around it, tap by tap."""
    size = len(kernel)
    pad = dilation * (size // 2)
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    taps = np.ndindex(size, size)
    views = ((kernel[i, j], padded[i * dilation :, j * dilation :][: x.shape[0], : x.shape[1]]) for i, j in taps)
    return sum(view @ weights for weights, view in views)


def normalize(x, params, stats):
    return relu((x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"])


def atrous_sum(x, params, stats):
    branches = (convolve(x, params[f"rate_{rate}"]["kernel"], rate) for rate in (6, 12, 18, 24))
    return normalize(sum(branches), params["bn"], stats["bn"])


def paths_of(tree):
    """The nodes from the root's child down to each class, with the parent of each."""
    leaves = range(tree.num_inner, tree.num_nodes)
    return [[*tree.ancestors(leaf)[1:], leaf] for leaf in leaves]


@given(hierarchies())
def test_a_tree_is_that_of_its_hierarchy(hierarchy):
    tree = make_tree(5, hierarchy)
    groups = {path[:end] for path in hierarchy for end in range(1, len(path) + 1)}
    assert (tree.num_inner, tree.num_nodes) == (len(groups) + 1, len(groups) + 6)
    assert list(tree.depths) == sorted(tree.depths) and all(
        tree.parents[node] < node for node in range(1, tree.num_nodes)
    )
    below = tree.below()
    for c, path in enumerate(hierarchy):
        leaf = tree.num_inner + c
        assert len(tree.ancestors(leaf)) == len(path) + 1 and below[:, c].sum() == len(path) + 2
        for d, other in enumerate(hierarchy):  # two classes share as many nodes above them as groups, and the root
            shared = set(tree.ancestors(leaf)) & set(tree.ancestors(tree.num_inner + d))
            assert len(shared) == 1 + sum(path[:i] == other[:i] for i in range(1, min(len(path), len(other)) + 1))
    children = [set(row[row >= 0]) for row in tree.padded_children()]
    assert set.union(*children) == set(range(1, tree.num_nodes)) and sum(map(len, children)) == tree.num_nodes - 1


def test_a_tree_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="hierarchy: expected the groups of 4 classes, found those of 6"):
        make_tree(4, GROUPS)


def test_the_normalized_adjacency_is_that_of_the_tree():
    linked = np.eye(TREE.num_nodes)
    for child in range(1, TREE.num_nodes):
        for parent in TREE.ancestors(child)[-1:]:
            linked[[child, parent], [parent, child]] = 1
    found = TREE.normalized_adjacency()
    degrees = linked.sum(1)
    np.testing.assert_allclose(found, linked / np.sqrt(np.outer(degrees, degrees)), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.eigvalsh(found)[-1], 1, rtol=1e-5)  # of D^½ 1: nothing grows without bound


def reason(x, params, mapping, tree):
    """The formula of the docstring for one map."""
    positions = x.reshape(-1, x.shape[-1])
    kernel = {name: layer["kernel"][0, 0] for name, layer in params.items() if name != "node_vectors"}
    votes = softmax(positions @ kernel["vote"] + params["vote"]["bias"])
    nodes = np.zeros((tree.num_nodes, x.shape[-1]))
    for node in range(tree.num_nodes):
        for i, position in enumerate(positions):
            nodes[node] += votes[i, node] * (position @ kernel["gather"])
    known = np.concatenate([relu(nodes), params["node_vectors"]], 1)
    reasoned = relu(tree.normalized_adjacency() @ known @ kernel["reason"])
    if mapping == "interaction":
        scores = (positions @ kernel["query"]) @ (reasoned @ kernel["key"]).T / np.sqrt(x.shape[-1])
        weights = softmax(scores)
    else:
        scores = (reasoned @ kernel["score_node"])[:, 0] + positions @ kernel["score_position"]
        weights = softmax(scores) if mapping == "additive_nodes" else softmax(scores, 0)
        weights /= weights.sum(1, keepdims=True)
    return x + relu(weights @ (reasoned @ kernel["value"])).reshape(x.shape)


@pytest.mark.parametrize("mapping", ["interaction", "additive_nodes", "additive_positions"])
def test_sgr_equals_its_formula(rng, mapping):
    module, features = SGR(TREE, WIDTH, mapping), draw_features(rng)
    variables = draw_variables(module, rng, features, None, False)
    params = variables["params"]
    params["reasoning"] = jax.tree.map(lambda leaf: 0.4 * leaf, params["reasoning"])  # so that no softmax is saturated
    found = module.apply(variables, features, None, False)[0]
    params, stats = jax.tree.map(np.float64, params), variables["batch_stats"]
    x = atrous_sum(np.float64(features.final[0]), params["reduce"], stats["reduce"])
    expected = reason(x, params["reasoning"], mapping, TREE)
    assert np.abs(expected - x).max() > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def reasoning(rng, mapping="interaction"):
    module = SymbolicReasoning(TREE, mapping)
    x = jnp.asarray(rng.normal(size=(2, *SIDES, WIDTH)), jnp.float32)
    return module, draw_variables(module, rng, x), x


def test_sgr_without_a_mapping_is_the_identity(rng):
    module, variables, x = reasoning(rng)
    variables["params"]["value"]["kernel"] *= 0
    np.testing.assert_array_equal(module.apply(variables, x), x)


def test_sgr_does_not_know_where_a_position_is(rng):
    module, variables, x = reasoning(rng)
    order = rng.permutation(np.prod(SIDES))

    def permute(y):
        return y.reshape(2, -1, WIDTH)[:, order].reshape(x.shape)

    found, permuted = module.apply(variables, x), module.apply(variables, permute(x))
    np.testing.assert_allclose(permuted, permute(found), rtol=1e-4, atol=1e-4)


def test_the_additive_mapping_degenerates(rng):
    """The published score cannot depend on node and position at once: the reason for the mapping by interaction."""
    nodes, positions = (jnp.asarray(rng.normal(size=(2, n)), jnp.float32) for n in (9, 30))
    over_nodes = additive_weights(nodes, positions, "additive_nodes")
    np.testing.assert_allclose(over_nodes, np.broadcast_to(softmax(nodes)[:, None], (2, 30, 9)), rtol=1e-5)
    np.testing.assert_allclose(additive_weights(nodes, positions, "additive_positions"), 1 / 9, rtol=1e-5)
    # The positions then get one and the same sum; with the interaction they do not.
    for mapping, is_same in (("additive_nodes", True), ("additive_positions", True), ("interaction", False)):
        module, variables, x = reasoning(rng, mapping)
        variables["params"] = jax.tree.map(lambda leaf: 0.1 * leaf, variables["params"])
        added = module.apply(variables, x) - x
        spread = np.ptp(np.asarray(added), axis=(1, 2)).max() / np.abs(added).max()
        assert (spread < 1e-4) == is_same, (mapping, spread)


def test_an_unknown_mapping_is_refused(rng):
    with pytest.raises(ValueError, match="mapping='literal': expected one of 'interaction', 'additive_nodes'"):
        SGR(TREE, WIDTH, "literal").init(jax.random.key(0), draw_features(rng), None, False)


def neurons_of(x, params, stats, tree, growth):
    """The maps and logits of all neurons for one map of root features, neuron by neuron."""
    maps, logits = {}, np.zeros((*x.shape[:2], tree.num_nodes - 1))
    for depth in range(max(tree.depths) + 1):
        nodes = tree.at_depth(depth)
        inner = 4 * growth
        for i, node in enumerate(nodes):
            mine, grown = slice(i * inner, (i + 1) * inner), slice(i * growth, (i + 1) * growth)
            y = x @ params[f"squeeze_{depth}"]["kernel"][0, 0][:, mine]
            if depth:
                above = np.concatenate([maps[ancestor] for ancestor in tree.ancestors(node)], -1)
                y = y + above @ params[f"ancestors_{depth}"]["kernel"][0, 0][:, mine]

            def part(name, channels, depth=depth):
                arrays = (params[f"{name}_{depth}"], stats[f"{name}_{depth}"])
                return ({key: array[channels] for key, array in group.items()} for group in arrays)

            y = normalize(y, *part("norm", mine))
            y = convolve(y, params[f"grow_{depth}"]["kernel"][..., grown])
            maps[node] = normalize(y, *part("norm_grow", grown))
    for node in maps:
        edges = [child - 1 for child in tree.children(node)]
        logits[..., edges] = maps[node] @ params["classify"]["kernel"][:, edges] + params["classify"]["bias"][edges]
    return np.concatenate([maps[node] for node in sorted(maps)], -1), logits


def descend(logits, tree):
    """Follow the most probable child from the root."""
    node = 0
    while node < tree.num_inner:
        children = tree.children(node)
        node = children[int(np.argmax([logits[child - 1] for child in children]))]
    return node - tree.num_inner


def test_dsspn_equals_its_formula(rng):
    module, features = DSSPN(TREE, WIDTH, GROWTH), draw_features(rng)
    variables = draw_variables(module, rng, features, None, False)
    found = module.apply(variables, features, None, False)
    params, stats = jax.tree.map(np.float64, variables["params"]), variables["batch_stats"]
    root = atrous_sum(np.float64(features.final[0]), params["root"], stats["root"])
    maps, logits = neurons_of(root, params, stats, TREE, GROWTH)
    for mine, expected in (
        (found.features[0], np.concatenate([root, maps], -1)),
        (found.outputs["neurons"][0], logits),
    ):
        assert expected.std() > 0.1
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    expected = np.array([[descend(at, TREE) for at in row] for row in logits])
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found.logits[0].argmax(-1), expected)


@settings(max_examples=8)
@given(hierarchies(), st.integers(0, 1000))
def test_the_largest_logit_is_that_of_the_descent(hierarchy, seed):
    tree = make_tree(5, hierarchy)
    neurons = np.random.default_rng(seed).normal(size=(1, 2, 3, tree.num_nodes - 1)).astype(np.float32)
    logits = np.asarray(descent_logits(jnp.asarray(neurons), tree))
    expected = [descend(at, tree) for at in neurons.reshape(6, -1)]
    np.testing.assert_array_equal(logits.argmax(-1).ravel(), expected)
    assert (logits.max(-1) == 0).all() and ((logits < 0).sum(-1) == 4).all()  # no other class reaches it
    for c, path in enumerate(paths_of(tree)):
        margins = [
            neurons[..., node - 1] - neurons[..., np.array(tree.children(tree.parents[node])) - 1].max(-1)
            for node in path
        ]
        np.testing.assert_allclose(logits[..., c], sum(margins), rtol=1e-5, atol=1e-5)


def test_on_a_flat_tree_dsspn_is_one_classifier(rng):
    module, features = DSSPN(FLAT, WIDTH, GROWTH), draw_features(rng)
    variables = module.init(jax.random.key(0), features, None, False)
    found = module.apply(variables, features, None, False)
    assert FLAT.num_inner == 1 and found.outputs["neurons"].shape[-1] == 6
    np.testing.assert_allclose(
        softmax(np.asarray(found.logits)), softmax(np.asarray(found.outputs["neurons"])), rtol=1e-5
    )
    # It begins near even odds for all classes, also of its sigmoids.
    np.testing.assert_allclose(jax.nn.sigmoid(variables["params"]["classify"]["bias"]), 1 / 6, rtol=1e-5)


def slow_neuron_loss(logits, classes, tree):
    """Sum over the active neurons of each image; see `neuron_loss`."""
    losses = []
    for image, truth in zip(logits, classes, strict=True):
        is_labeled, loss, below = truth != 255, 0.0, tree.below()
        for neuron in range(tree.num_inner):
            if not any(below[neuron, c] for c in truth[is_labeled]):
                continue
            for child in tree.children(neuron):
                at = [(image[i, j, child - 1], below[child, truth[i, j]]) for i, j in np.argwhere(is_labeled)]
                loss += np.mean([np.log1p(np.exp(-z if is_true else z)) for z, is_true in at])
        losses.append(loss)
    return np.mean(losses)


def outputs_of(neurons, tree):
    return {
        "neurons": jnp.asarray(neurons, jnp.float32),
        "below": jnp.asarray(tree.below()[1:]),
        "neuron_of": jnp.asarray(tree.parents[1:]),
    }


def test_the_loss_of_the_neurons_equals_a_slow_sum(rng):
    neurons = rng.normal(size=(3, 4, 5, TREE.num_nodes - 1))
    classes = rng.choice([0, 3, 4, 255], (3, 4, 5))  # the group "c" never occurs
    classes[1], classes[2] = np.where(classes[1] == 3, 1, classes[1]), 255
    labels = jnp.asarray(np.repeat(np.repeat(classes, 4, 1), 4, 2), jnp.uint8)
    expected = slow_neuron_loss(neurons, classes, TREE)
    loss, gradient = jax.value_and_grad(lambda x: neuron_loss(outputs_of(x, TREE), labels, "finest"))(
        jnp.asarray(neurons)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # The neuron of "c" is inactive in the first image, active in the second; nothing is in the third one.
    of_c = [child - 1 for child in TREE.children(TREE.at_depth(1)[1])]
    size = np.abs(np.asarray(gradient)).sum((1, 2))
    assert not size[0, of_c].any() and size[1, of_c].all() and not size[2].any()
    assert (np.delete(size[0], of_c) > 0).all()
    assert np.isfinite(neuron_loss(outputs_of(neurons, TREE), labels, "full_size"))


def test_inactive_neurons_learn_nothing(rng):
    """Neither their own loss nor that of the classes reaches a neuron none of whose classes occurs in the images."""
    features = draw_features(rng, n=2)
    asked = ContextSettings(6, 1, key_width=WIDTH, hierarchy=GROUPS)
    spec = CONTEXTS["dsspn"]
    module = spec.make(asked)
    variables = module.init(jax.random.key(0), features, None, False)
    objective = WithContextLosses(PerPixelObjective(), spec.losses)
    labels = jnp.asarray(rng.choice([0, 3, 255], (2, 4 * SIDES[0], 4 * SIDES[1])), jnp.uint8)

    def compute(params):
        found, _ = module.apply(variables | {"params": params}, features, None, True, mutable=["batch_stats"])
        return objective(Pyramids((found.logits,), (), None, found.outputs), labels)[0]

    gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(compute))(variables["params"]))["context"]
    a, c = TREE.at_depth(1)
    edges = {node: [child - 1 for child in TREE.children(node)] for node in (a, c)}
    assert not gradient["classify"]["kernel"][:, edges[c]].any() and gradient["classify"]["kernel"][:, edges[a]].any()
    of_a, of_c = np.split(gradient["grow_1"]["kernel"], 2, -1)  # the two neurons of this depth
    assert of_a.any() and not of_c.any()


@pytest.mark.parametrize("name", ["sgr", "dsspn"])
def test_bfloat16_stays_near_float32(rng, name):
    features = draw_features(rng, n=2)
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        asked = ContextSettings(6, 2, key_width=16, dtype=dtype, hierarchy=GROUPS)
        module = CONTEXTS[name].make(asked)
        inputs = (Features((), jnp.tile(features.final, (1, 2, 2, 1)).astype(dtype)), None, False)

        def run(module=module, inputs=inputs):
            output = module.init_with_output(jax.random.key(0), *inputs)[0]
            return output.levels, output.logits, dict(output.outputs).get("neurons")

        found[dtype] = jax.jit(run)()
    levels, logits, neurons = found[jnp.bfloat16]
    assert levels[-1].dtype == jnp.bfloat16
    for exact, near in zip(found[jnp.float32][0], levels, strict=True):
        np.testing.assert_allclose(np.float32(near), exact, atol=0.03 * np.abs(exact).max())
    if name == "dsspn":
        assert logits.dtype == neurons.dtype == jnp.float32


@pytest.mark.parametrize(
    ("data", "num_inner", "backbone", "depth"),
    [
        ("ade20k", 21, "resnet101", 2048),
        ("coco_stuff10k", 34, "resnet101", 2048),
        ("coco_stuff10k", 34, "hrnet_w48", 720),
    ],
)
def test_parameter_counts_follow_from_the_trees(data, num_inner, backbone, depth):
    """Both networks at full width, counted from the layer list."""
    space = read_label_space(data, None)
    num_classes, hierarchy = space.num_classes, space.hierarchy
    tree = make_tree(num_classes, hierarchy)
    assert tree.num_inner == num_inner
    root, num_nodes = 4 * 9 * depth * 256 + 2 * 256, tree.num_nodes
    # Vote, gather, reason, value, query, key, and the nodes' vectors.
    sgr = 257 * num_nodes + 256 * 256 + 556 * 256 + 3 * 256 * 256 + 300 * num_nodes
    neurons = [256 * 192 + 48 * 192 * depth + 2 * 192 + 9 * 192 * 48 + 2 * 48 for depth in tree.depths]
    dsspn = sum(neurons) + 49 * (num_nodes - 1)
    for name, expected in (("sgr", root + sgr), ("dsspn", root + dsspn)):
        model = build_segmenter(
            num_classes, backbone=backbone, context=name, representation="per_pixel", hierarchy=hierarchy
        )
        params = abstract_variables(model)["params"]
        assert num_parameters({"params": params["context"]}) == expected
        assert ("semantic_head" in params) == (name == "sgr")
