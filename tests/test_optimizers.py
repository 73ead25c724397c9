"""Optimizers and schedules against plain twins in NumPy, and which parameter gets which treatment."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.training.averaging import begin_average, move_average
from pyrseg_jax.training.freezing import check_patterns, is_match, keep, read_patterns
from pyrseg_jax.training.optimizer import OptimizerSettings, is_decayed, is_matrix, make_optimizer
from pyrseg_jax.training.schedules import SCHEDULES, make_schedule

STEPS = 20
# Path → shape: every kind of parameter that an optimizer tells apart, once.
SHAPES = {
    ("backbone", "stem", "kernel"): (3, 3, 3, 4),
    ("backbone", "block1", "wide", "kernel"): (2, 5),
    ("backbone", "block1", "depthwise", "kernel"): (3, 3, 1, 4),
    ("backbone", "block2", "conv", "kernel"): (2, 2, 3 * 2, 4),
    ("backbone", "block2", "norm", "scale"): (4,),
    ("context", "tall", "kernel"): (6, 3),
    ("context", "tall", "bias"): (3,),
    ("semantic_head", "classify_1", "kernel"): (1, 1, 4, 3),
}
MATRICES = {("backbone", "block1", "wide"), ("backbone", "block2", "conv"), ("context", "tall")}
DEPTHS = {"stem": 0, "block1": 1, "block2": 2}


def depth_of(path):
    return DEPTHS[path[0]]


def draw(rng):
    return {path: rng.normal(size=shape) for path, shape in SHAPES.items()}


def gradient_of(params):
    """Return a gradient that depends on the parameters, so that an early mistake grows."""
    return {path: 0.3 * np.sin(3 * p) + 0.1 * p.mean() + 0.05 for path, p in params.items()}


def orthogonalize(matrix, num_steps, epsilon):
    """Apply the quintic Newton-Schulz iteration of Jordan et al. 2024."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (np.linalg.norm(x) + epsilon)
    for _ in range(num_steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if is_tall else x


class Twin:
    """All optimizers, one parameter after another, in float64."""

    def __init__(self, settings, schedule):
        self.s, self.schedule, self.t = settings, schedule, 0
        self.first = {path: np.zeros(shape) for path, shape in SHAPES.items()}
        self.second = {path: np.zeros(shape) for path, shape in SHAPES.items()}

    def step(self, params, gradients):
        after = {path: self.move(path, p, gradients[path]) for path, p in params.items()}
        self.t += 1
        return after

    def move(self, path, p, g):
        s, t = self.s, self.t + 1
        if path[1] in s.frozen:
            return p
        rate = float(self.schedule(self.t)) * (1.0 if path[0] == "backbone" else s.head_multiplier)
        if s.layer_decay is not None and path[0] == "backbone":
            rate *= s.layer_decay ** (3 - DEPTHS[path[1]])
        decay = s.weight_decay if s.decay_mask == "all" or path[-1] == "kernel" else 0.0
        if s.name == "sgd":
            g = g + decay * p
            self.first[path] = s.momentum * self.first[path] + g
            return p - rate * (g + s.momentum * self.first[path] if s.nesterov else self.first[path])
        if s.name == "muon" and path[:-1] in MATRICES and path[-1] == "kernel":
            beta = s.muon_momentum
            m = self.first[path] = beta * self.first[path] + (1 - beta) * g
            if s.nesterov is not False:
                m = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
            else:
                m = m / (1 - beta**t)
            sides = (p.size // p.shape[-1], p.shape[-1])
            update = orthogonalize(m.reshape(sides), s.muon_steps, s.epsilon).reshape(p.shape)
            return p - rate * (s.muon_rms * math.sqrt(max(sides)) * update + decay * p)
        m = self.first[path] = s.beta1 * self.first[path] + (1 - s.beta1) * g
        v = self.second[path] = s.beta2 * self.second[path] + (1 - s.beta2) * g**2
        if s.nesterov and s.name == "adamw":
            m = s.beta1 * m / (1 - s.beta1 ** (t + 1)) + (1 - s.beta1) * g / (1 - s.beta1**t)
        else:
            m = m / (1 - s.beta1**t)
        return p - rate * (m / (np.sqrt(v / (1 - s.beta2**t)) + s.epsilon) + decay * p)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": True, "decay_mask": "kernels", "weight_decay": 0.05, "head_multiplier": 10.0},
        {"layer_decay": 0.7, "momentum": 0.5, "frozen": ("stem",)},
        {"name": "adamw", "weight_decay": 0.05},
        {"name": "adamw", "weight_decay": 0.05, "decay_mask": "kernels", "layer_decay": 0.65, "beta2": 0.95},
        {
            "name": "adamw",
            "nesterov": True,
            "beta1": 0.8,
            "epsilon": 1e-3,
            "head_multiplier": 3.0,
            "frozen": ("block1",),
        },
        {"name": "muon", "weight_decay": 0.1, "decay_mask": "kernels", "layer_decay": 0.8},
        {
            "name": "muon",
            "nesterov": False,
            "muon_momentum": 0.8,
            "muon_steps": 3,
            "muon_rms": 1.0,
            "frozen": ("block2",),
        },
    ],
    ids=str,
)
def test_an_optimizer_equals_its_twin(rng, settings):
    schedule = make_schedule("cosine", 0.05, STEPS, warmup_steps=5)
    settings = OptimizerSettings(**settings)
    with jax.enable_x64(True):
        patterns = tuple(f"*/{name}" for name in settings.frozen)
        named = OptimizerSettings(**vars(settings) | {"depth_of": depth_of, "frozen": patterns})
        optimizer = make_optimizer(schedule, named)
        expected = draw(rng)
        params = unflatten_dict({path: jnp.asarray(p) for path, p in expected.items()})
        state, twin = optimizer.init(params), Twin(settings, schedule)
        update = jax.jit(lambda g, s, p: optimizer.update(g, s, p))
        for _ in range(STEPS):
            gradients = gradient_of({path: np.asarray(p) for path, p in flatten_dict(params).items()})
            updates, state = update(unflatten_dict(gradients), state, params)
            params = jax.tree.map(jnp.add, params, updates)
            expected = twin.step(expected, gradient_of(expected))
        for path, p in flatten_dict(params).items():
            np.testing.assert_allclose(p, expected[path], rtol=1e-5, atol=1e-6, err_msg="/".join(path))


def test_muon_takes_matrices_between_hidden_layers():
    assert {path for path, shape in SHAPES.items() if is_matrix(path, shape)} == {(*p, "kernel") for p in MATRICES}
    config = config_lib.changed(
        config_lib.Config(), {"model.backbone": "resnet_tiny", "model.strides": (64, 32, 16, 8)}
    )
    params = abstract_variables(experiment.make_model(config, 3), 128)["params"]
    others = {
        path for path, leaf in flatten_dict(params).items() if path[-1] == "kernel" and not is_matrix(path, leaf.shape)
    }
    assert {path[0] for path in others} == {"backbone", "semantic_head", "unity_head"}
    assert len({path for path in others if path[0] == "backbone"}) == 1  # the one that reads the image


def test_kernels_alone_decay_with_the_mask():
    undecayed = (
        "bias",
        "scale",
        "gamma",
        "position_embedding",
        "register_tokens",
        "relative_position_table",
        "codewords",
    )
    assert not any(is_decayed(("backbone", "x", name)) for name in undecayed)
    assert is_decayed(("backbone", "x", "kernel"))


@pytest.mark.parametrize("backbone", ["convnext_micro", "swin_micro"])
def test_the_layers_of_a_backbone_learn_the_slower_the_nearer_they_are_to_the_image(backbone):
    """A gradient of ones shows the factors: 0.5 for the last layer, half of it for the one before; 1 for all that follows."""
    settings = {"training.weight_decay": 0.0, "training.momentum": 0.0, "training.learning_rate": 1.0}
    settings |= {"model.backbone": backbone, "optimizer.layer_decay": 0.5, "optimizer.schedule": "constant"}
    config = config_lib.changed(config_lib.Config(), settings)
    params = abstract_variables(experiment.make_model(config, 3))["params"]
    ones = jax.tree.map(lambda p: np.ones(p.shape[-1:], np.float32), params)
    optimizer = experiment.make_optimizer(config)
    updates = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g)[0])(ones)
    depth_of = BACKBONES[backbone].depth_of
    found = {path: -float(x[0]) for path, x in flatten_dict(updates).items()}
    depths = {path: depth_of(path[1:]) for path in found if path[0] == "backbone"}
    last = max(depths.values())
    assert last > 2
    for path, factor in found.items():
        assert factor == (0.5 ** (last + 1 - depths[path]) if path in depths else 1.0), path


def test_half_precision_keeps_single_precision_states():
    changes = {
        "model.backbone": "hrnet_tiny",
        "model.dtype": "bfloat16",
        "optimizer.name": "adamw",
        "optimizer.ema": 0.99,
    }
    config = config_lib.changed(config_lib.Config(), changes)
    variables = abstract_variables(experiment.make_model(config, 3))
    state = jax.eval_shape(experiment.make_optimizer(config).init, variables["params"])
    floats = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {jnp.dtype("float32")}


# --- schedules


def slow_schedule(name, peak, steps, power, warmup, start, final, step):
    if name == "one_cycle":
        warmup, start = warmup or max(1, round(0.3 * steps)), 1 / 25 if start is None else start
    start = start or 0.0
    rise = 1.0 if not warmup or step >= warmup else start + (1 - start) * (step + 1) / warmup
    if name == "poly":
        left = max(0.0, 1 - step / steps)
        return rise * peak * (final + (1 - final) * left**power)
    done = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    fall = {"cosine": (1 + math.cos(math.pi * done)) / 2, "one_cycle": 1 - done, "constant": 1.0}[name]
    return rise * peak * (final + (1 - final) * fall)


@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 60),
    st.floats(0.5, 2),
    st.integers(0, 30),
    st.none() | st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_schedule_equals_its_twin(name, steps, power, warmup, start, final):
    options = {"power": power, "warmup_steps": warmup, "warmup_start": start, "final_factor": final}
    rates = make_schedule(name, 0.2, steps, **options)(np.arange(70))
    expected = [slow_schedule(name, 0.2, steps, power, warmup, start, final, step) for step in range(70)]
    np.testing.assert_allclose(np.broadcast_to(rates, 70), expected, rtol=2e-5, atol=2e-7)


def test_the_default_schedule_is_that_of_earlier_versions():
    rates = [make_schedule("poly", 0.02, 1000, warmup_steps=10)(step) for step in range(12)]
    decay = [0.02 * (1 - step / 1000) ** 0.9 for step in range(12)]
    np.testing.assert_allclose(rates, [d * min(1, (s + 1) / 10) for s, d in enumerate(decay)], rtol=1e-6)
    assert float(make_schedule("poly", 0.02, 1000)(1000)) == 0


# --- the moving average


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30), st.floats(0, 0.9999))
def test_a_moving_average_equals_the_closed_form(values, decay):
    """The average is Σ share_n · value_n · Π_{m > n} (1 - share_m), and the first value keeps what is left."""
    average = begin_average({"x": jnp.float32(values[0])})
    for step, value in enumerate(values):
        average = move_average(average, {"x": jnp.float32(value)}, step, decay)
    kept = np.array([min(decay, (1 + step) / (10 + step)) for step in range(len(values))])
    weights = (1 - kept) * np.append(np.cumprod(kept[::-1])[::-1][1:], 1.0)
    expected = np.dot(weights, values) + np.prod(kept) * values[0]
    np.testing.assert_allclose(average["x"], expected, rtol=1e-4, atol=1e-4)


# --- patterns of frozen parts


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("backbone", ["backbone/a/kernel", "backbone/b/bias"]),
        ("backbone/*", ["backbone/a/kernel", "backbone/b/bias"]),
        ("*/b", ["backbone/b/bias"]),
        ("backbone/?/bias", ["backbone/b/bias"]),
        ("*/kernel", ["backbone/a/kernel", "head/kernel"]),
        ("back", []),
    ],
)
def test_a_pattern_matches_paths_and_what_is_below_them(pattern, matched):
    paths = ["backbone/a/kernel", "backbone/b/bias", "head/kernel"]
    assert [path for path in paths if is_match(tuple(path.split("/")), [pattern])] == matched


def test_patterns_are_joined_with_commas():
    assert read_patterns(" backbone/* , head,") == ("backbone/*", "head")
    assert read_patterns(None) == read_patterns("") == ()


def test_what_is_kept_is_kept_bit_for_bit():
    before, after = (
        {"a": {"x": np.float32(-0.0)}, "b": np.float32(1)},
        {"a": {"x": np.float32(0.0)}, "b": np.float32(2)},
    )
    kept = keep(before, after, ["a"])
    assert np.signbit(kept["a"]["x"])
    assert kept["b"] == 2
    assert keep(before, after, []) is after


def test_patterns_that_freeze_nothing_or_everything_are_refused():
    params = {"backbone": {"stage1": {"kernel": 0}, "stage2": {"kernel": 0}}, "head": {"kernel": 0}}
    check_patterns(["backbone/stage1*", "head"], params)
    with pytest.raises(
        UserError, match=r"^freeze=backbone/stge1/\*: no parameter .* nearest paths are backbone/stage1,"
    ):
        check_patterns(["backbone/*", "backbone/stge1/*"], params)
    with pytest.raises(UserError, match=r"^freeze=xyz: .* nearest paths are backbone, head"):
        check_patterns(["xyz"], params)
    with pytest.raises(UserError, match=r"^freeze=backbone,head: .* nothing is left to train"):
        check_patterns(["backbone", "head"], params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.name": "adam"}, r"config\.optimizer\.name='adam': expected one of sgd, adamw, muon"),
        (
            {"optimizer.beta2": 0.95},
            r"config\.optimizer\.beta2=0\.95 applies only to .*'adamw' or 'muon', and this is 'sgd'",
        ),
        (
            {"optimizer.muon_steps": 3, "optimizer.name": "adamw"},
            r"muon_steps=3 applies only to .*'muon', and this is 'adamw'",
        ),
        ({"optimizer.ema": 1.0}, r"config\.optimizer\.ema=1: expected less than 1"),
        (
            {"optimizer.layer_decay": 0.9},
            r"config\.optimizer\.layer_decay=0\.9: the backbone 'hrnet_w48' defines no order",
        ),
        ({"optimizer.final_factor": 0.1, "optimizer.schedule": "constant"}, r"final_factor=0\.1 does not apply to"),
        (
            {"optimizer.warmup_start": 0.1},
            r"warmup_start=0\.1 applies only to a warm-up: set config\.training\.warmup_steps",
        ),
        ({"training.best_metric": "iou"}, r"config\.training\.best_metric='iou': expected one of miou, "),
        (
            {"training.best_metric": "loss", "evaluation.protocol": "hrnet"},
            r"best_metric='loss': config\.evaluation\.protocol='hrnet' cuts images into windows",
        ),
        ({"training.best_metric": "loss", "evaluation.loss": False}, r"best_metric='loss' needs the validation loss"),
    ],
)
def test_keys_that_do_not_fit_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        config_lib.changed(config_lib.Config(), changes)


def test_a_pattern_that_matches_nothing_names_the_key():
    config = config_lib.changed(
        config_lib.Config(), {"model.backbone": "hrnet_tiny", "optimizer.freeze": "backbone/stag1"}
    )
    with pytest.raises(UserError, match=r"^config\.optimizer\.freeze=backbone/stag1: no parameter"):
        experiment.check_frozen(config, experiment.make_model(config, 3))
