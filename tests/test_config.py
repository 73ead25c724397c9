"""Configuration: what is refused and how, and that every experiment of configs/ fits together."""

import ast
import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.paper import tables as paper
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment, keys
from pyrseg_jax.training.step import initial_state, make_train_step

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [
    ("scenes", ""),
    *(("camvid", variant) for variant in ("", "cpu,B")),
    *(("ablation", variant) for variant in ("A", "I")),
    *(("ade20k", variant) for variant in ("", "hrnet", "anl,pyramid", "ccnet", "ocr")),
    ("coco_stuff10k", ""),
]


def load(name, variant):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return config_lib.resolve(module.get_config(variant))


def test_every_config_is_listed_here():
    assert {name for name, _ in EXPERIMENTS} == {path.stem for path in (ROOT / "configs").glob("*.py")}


@pytest.mark.parametrize(("name", "variant"), EXPERIMENTS)
def test_a_full_step_of_every_config_fits_together(name, variant):
    """Shapes and types alone: nothing is computed, so the full sizes are tried."""
    config = load(name, variant)
    model = experiment.make_model(config.model, num_classes=11)
    # Of full width, but each block and module once: the others have the same shapes.
    shallow = model.backbone.clone(num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1)
    model = model.clone(backbone=shallow)
    optimizer = experiment.make_optimizer(config)
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(data=1))
    state = jax.eval_shape(lambda v: initial_state(v, optimizer), abstract_variables(model))
    n, side = config.training.batch_size, config.data.crop_px
    batch = {
        "image": jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((n, side, side), jnp.uint8),
    }
    after, metrics = jax.eval_shape(step, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    assert metrics["loss"].dtype == jnp.float32


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"camvid.py:gpu: 'gpu' is not known; expected .*: cpu; A \| B"):
        load("camvid", "gpu")
    with pytest.raises(ValueError, match=r"camvid.py:A,cpu,B: A and B exclude each other"):
        load("camvid", "A,cpu,B")


def test_words_of_a_variant_combine_in_any_order():
    assert load("camvid", "cpu,F") == load("camvid", "F,cpu")
    small = load("camvid", "cpu,F")
    assert (small.model.backbone, small.model.context, small.training.procedure) == ("hrnet_small", "none", "tp")


@pytest.mark.parametrize("letter", paper.ROWS)
def test_rows_differ_in_the_three_choices_alone(letter):
    """And in the auxiliary loss, which only ANL has."""
    row, default = load("ablation", letter), load("ablation", "")
    changed_keys = {d.partition(":")[0].rpartition(".")[2] for d in keys.differences(default, row)}
    assert changed_keys <= {"context", "representation", "procedure", "auxiliary_weight"}
    assert (row.model.context, row.model.representation) == (
        paper.TABLE_2A[letter].context,
        paper.TABLE_2A[letter].representation,
    )


def test_methods_of_table_1_learn_from_hard_pixels_unless_a_pyramid_decides():
    alone, levels = load("ade20k", "anl"), load("ade20k", "anl,pyramid")
    assert (alone.training.ohem_threshold, alone.training.supervision) == (0.9, "full_size")
    assert (levels.training.ohem_threshold, levels.training.supervision) == (None, "finest")
    assert alone.model.context == levels.model.context == "anl"


def test_defaults_survive_the_round_trip():
    config = config_lib.resolve(config_lib.defaults())
    assert config == config_lib.Config()
    assert config_lib.from_json(config_lib.to_json(config)) == config


def changed(**changes):
    config = config_lib.defaults()
    with config.unlocked():
        for key, value in changes.items():
            group, _, name = key.rpartition("__")
            target = config[group] if group else config
            with target.ignore_type():
                target[name] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__rot": "x"}, r"config\.data\.rot is not a configuration key: did you mean config\.data\.root\?"),
        ({"trainings": 3}, r"config\.trainings is not a configuration key: did you mean config\.training\?"),
        (
            {"data__crop_px": 500},
            r"config\.data\.crop_px=500 is not divisible by the coarsest stride 32: take 480 or 512",
        ),
        ({"data__crop_px": 20}, r"take 32 or 64"),
        ({"model__backbone": "resnet"}, r"config\.model\.backbone='resnet': expected one of hrnet_w18"),
        ({"training__procedure": "TP"}, r"config\.training\.procedure='TP': expected one of tp, gt, raw"),
        ({"training__steps": "many"}, r"config\.training\.steps='many': expected int, found str"),
        ({"training__batch_size": 0}, r"config\.training\.batch_size=0: expected at least 1"),
        ({"training__learning_rate": float("nan")}, r"config\.training\.learning_rate=nan: expected at least 0"),
        ({"evaluation__threshold": 1.5}, r"config\.evaluation\.threshold=1\.5: expected at most 1"),
        ({"data__scale_min": 3.0}, r"config\.data\.scale_min=3\.0 is larger than config\.data\.scale_max=2\.0"),
        ({"model__strides": (32, 16)}, r"config\.model\.strides=\(32, 16\): the finest must be 4"),
        ({"model__strides": (32, 4)}, r"config\.model\.strides: strides=\(32, 4\): expected .* each twice the next"),
        (
            {"training__ohem_threshold": 0.9},
            r"config\.training\.ohem_threshold=0\.9 is for config\.model\.representation='per_pixel'",
        ),
        ({"training__supervision": "full_size"}, r"config\.training\.supervision='full_size' is for config\.model"),
        ({"parallel__data": 0}, r"config\.parallel\.data=0"),
        ({"data": 3}, r"config\.data=3: expected a group of keys: name, root"),
        ({"seed": True}, r"config\.seed=True: expected int"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        config_lib.resolve(changed(**changes))


def test_differences_name_the_keys_that_matter():
    old = config_lib.resolve(config_lib.defaults())
    new = config_lib.resolve(
        changed(training__steps=7, data__workers=0, training__stop_after=5, model__backbone="hrnet_tiny")
    )
    assert keys.differences(old, new) == [
        "config.model.backbone: 'hrnet_w48' → 'hrnet_tiny'",
        "config.training.steps: 150000 → 7",
    ]


def test_every_key_is_read_somewhere():
    """A key that nothing reads is a promise that is not kept."""
    read = set()
    for path in (ROOT / "pyrseg_jax").rglob("*.py"):
        if path.name != "config.py":
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}

    def leaves(cls):
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(field.default):
                yield from leaves(type(field.default))
            else:
                yield field.name

    assert set(leaves(config_lib.Config)) - read == set()


def test_runs_that_left_scanning_to_the_program_can_still_be_read():
    config = config_lib.resolve(config_lib.defaults())
    old = config_lib.to_json(config).replace('"scan": "off"', '"scan": "auto"')
    assert '"auto"' in old
    assert config_lib.from_json(old) == config
