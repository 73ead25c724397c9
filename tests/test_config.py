"""Configuration: what is refused and how, and that every experiment of configs/ fits together."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
from support.methods import check_step

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.paper.tables import TABLE_2A
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file, experiment, keys, reference

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [
    ("scenes", ""),
    *(("camvid", variant) for variant in ("", "cpu,B")),
    *(("ablation", variant) for variant in ("A", "I")),
    *(("ade20k", variant) for variant in ("", "hrnet", "anl,pyramid", "ccnet", "ocr")),
    ("coco_stuff10k", ""),
    ("pascal_context", ""),
    ("pretrain_scenes", ""),
]


def load(name, variant):
    return config_lib.resolve(config_file.load(config_file.find(f"{name}:{variant}")))


def test_every_packaged_config_is_tried():
    assert {name for name, _ in EXPERIMENTS} == {path.stem for path in (ROOT / "configs").glob("*.py")}


@pytest.mark.parametrize(("name", "variant"), EXPERIMENTS)
def test_a_full_step_of_every_config_fits_together(name, variant):
    """Shapes and types alone: nothing is computed, so the full sizes are tried."""
    config = config_lib.resolve_durations(load(name, variant), num_training_images=16_210)
    model = experiment.make_model(config, 11)
    # Of full width, but each block and module once: the others have the same shapes.
    shallow = model.backbone.clone(num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1)
    model = model.clone(backbone=shallow)
    check_step(config, model, abstract_variables(model))


def test_an_unknown_variant_is_refused():
    with pytest.raises(
        UserError, match=r"camvid.py:gpu: .*'gpu' is not known .*; expected .* group: cpu; long; A \| B"
    ):
        load("camvid", "gpu")
    with pytest.raises(UserError, match=r"camvid.py:A,cpu,B: .*A and B exclude each other"):
        load("camvid", "A,cpu,B")
    with pytest.raises(UserError, match=r"camvid:cpu,long,A: long is a recipe .*; expected camvid:cpu,long"):
        load("camvid", "cpu,long,A")


def test_words_of_a_variant_combine_in_any_order():
    assert load("camvid", "cpu,F") == load("camvid", "F,cpu")
    assert load("camvid", "cpu,long") == load("camvid", "long") != load("camvid", "cpu")
    small = load("camvid", "cpu,F")
    assert (small.model.backbone, small.model.context, small.training.procedure) == ("hrnet_small", "none", "tp")


@pytest.mark.parametrize("letter", TABLE_2A)
def test_rows_differ_in_the_three_choices_alone(letter):
    """And in the auxiliary loss, which only ANL has."""
    row, default = load("ablation", letter), load("ablation", "")
    changed_keys = {d.partition(":")[0].rpartition(".")[2] for d in keys.differences(default, row)}
    assert changed_keys <= {"context", "representation", "procedure", "auxiliary_weight"}
    assert (row.model.context, row.model.representation) == (
        TABLE_2A[letter].context,
        TABLE_2A[letter].representation,
    )


def test_methods_of_table_1_learn_from_hard_pixels_unless_a_pyramid_decides():
    alone, levels = load("ade20k", "anl"), load("ade20k", "anl,pyramid")
    assert (alone.training.ohem_threshold, alone.training.supervision) == (0.9, "full_size")
    assert (levels.training.ohem_threshold, levels.training.supervision) == (None, "finest")
    assert alone.model.context == levels.model.context == "anl"


def test_defaults_survive_the_round_trip():
    config = config_lib.resolve(config_lib.defaults())
    filled = dataclasses.replace(config_lib.Model(), strides=(32, 16, 8, 4))  # those that the backbone's stride gives
    assert config == dataclasses.replace(config_lib.Config(), model=filled)
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_a_multi_grid_survives_the_round_trip():
    values = {"model.backbone": "resnet101", "model.strides": (32, 16, 8), "model.multi_grid": (4, 8, 16)}
    config = config_lib.changed(config_lib.Config(), values)
    assert config_lib.from_json(config_lib.to_json(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.rot": "x"}, r"config\.data\.rot is not a configuration key: did you mean config\.data\.root\?"),
        ({"trainings": 3}, r"config\.trainings is not a configuration key: did you mean config\.training\?"),
        ({"said": {}}, r"config\.said is not a configuration key"),
        ({"model.scan": "on"}, r"config\.model\.scan is not a configuration key any more: .*; leave it out"),
        (
            {"data.crop_px": 500},
            r"config\.data\.crop_px=500 is not divisible by the coarsest stride 32: take 480 or 512",
        ),
        ({"data.crop_px": 20}, r"take 32 or 64"),
        (
            {"model.context": "cfnet", "model.semantic_width": 12},
            r"config\.model\.semantic_width=12: CFNet has 8 heads and needs a multiple of 8",
        ),
        ({"data.crop_px": 64.0}, r"config\.data\.crop_px=64\.0: expected int, found float"),
        ({"data.name": "imagenet"}, r"config\.data\.name='imagenet': expected one of ade20k"),
        ({"data.is_flipped": 1}, r"config\.data\.is_flipped=1: expected true or false, found int"),
        ({"data.prepared": 3}, r"config\.data\.prepared=3: expected str, found int"),
        (
            {"model.backbone": "resnet"},
            r"config\.model\.backbone='resnet': expected one of \d+ names, such as resnet50, resnet101, "
            r"resnet_tiny; `pyrseg help model\.backbone` lists them all",
        ),
        ({"model.backbone": "zzz"}, r"expected one of \d+ names, such as hrnet_w18, hrnet_w32, hrnet_w48;"),
        ({"data.on_error": "resnet"}, r"config\.data\.on_error='resnet': expected one of stop, "),
        ({"training.procedure": "TP"}, r"config\.training\.procedure='TP': expected one of tp, gt, raw"),
        ({"training.steps": "many"}, r"config\.training\.steps='many': expected int, .* '2 epochs', found str"),
        ({"training.steps": 0}, r"config\.training\.steps=0: expected at least 1"),
        ({"training.steps": "0 epochs"}, r"config\.training\.steps='0 epochs': expected more than 0 epochs"),
        ({"training.steps": None}, r"config\.training\.steps is not set: expected int"),
        ({"training.batch_size": 0}, r"config\.training\.batch_size=0: expected at least 1"),
        ({"training.learning_rate": float("nan")}, r"config\.training\.learning_rate=nan: expected a finite number"),
        ({"evaluation.threshold": 1.5}, r"config\.evaluation\.threshold=1\.5: expected at most 1"),
        ({"data.scale_min": 3.0}, r"config\.data\.scale_min=3\.0 is larger than config\.data\.scale_max=2\.0"),
        ({"model.strides": (32, 16)}, r"config\.model\.strides: strides=\(32, 16\): the finest stride is 16"),
        ({"model.strides": (32, 4)}, r"config\.model\.strides: strides=\(32, 4\): expected .* each twice the next"),
        ({"model.strides": 4}, r"config\.model\.strides=4: expected integers such as \(8, 4\), found int"),
        ({"model.strides": (8, "4")}, r"config\.model\.strides\[1\]='4': expected int, found str"),
        (
            {"loss.cross_entropy": 0.0, "loss.boundary": 1.0},
            r"config\.loss\.cross_entropy=0\.0: focal and dice and lovasz are 0, too, .*: give one of them a positive weight",
        ),
        (
            {"loss.unity": 0.5, "model.representation": "per_pixel"},
            r"config\.loss\.unity=0\.5 applies only to config\.model\.representation='pyramid': .*; leave it at 1\.0",
        ),
        ({"loss.label_smoothing": 1.5}, r"config\.loss\.label_smoothing=1\.5: expected at most 1"),
        ({"loss.class_weights": (1, "2")}, r"config\.loss\.class_weights=.*: expected str"),
        (
            {"training.supervision": "full_size"},
            r"config\.training\.supervision='full_size' applies only to config\.model",
        ),
        (
            {"training.accumulate": 3},
            r"config\.training\.batch_size=16 cannot be split into config\.training\.accumulate=3",
        ),
        ({"parallel.data": 0}, r"config\.parallel\.data=0"),
        ({"data": 3}, r"config\.data=3: expected a group of keys: name, root"),
        ({"seed": True}, r"config\.seed=True: expected int"),
    ],
)
def test_a_value_that_does_not_fit_is_named(changes, message):
    values = config_lib.defaults()
    for name, value in changes.items():
        group, _, last = name.rpartition(".")
        setattr(values[group] if group else values, last, value)
    with pytest.raises(UserError, match=message):
        config_lib.resolve(values)  # as from a config file
    with pytest.raises(UserError, match=message):
        config_lib.resolve(config_lib.defaults(), changes)  # as from flags


def test_a_whole_number_is_a_number_and_a_list_is_a_tuple():
    config = config_lib.changed(config_lib.Config(), {"training.learning_rate": 1, "model.strides": [8, 4]})
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)
    assert config.model.strides == (8, 4)
    with pytest.raises(UserError, match=r"config\.training\.learning_rate=True: expected float, found true"):
        config_lib.changed(
            config, {"training.learning_rate": True}
        )  # not as from a config file: ConfigDict makes it 1.0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("evaluation.short_side_px", "None", None),
        ("evaluation.short_side_px", "512", 512),
        ("data.prepared", "None", None),
        ("data.prepared", "/data/None", "/data/None"),
        ("data.remap", "None", "None"),  # this text cannot be None
        ("training.stop_after", "none", None),
        ("training.steps", "2.5 epochs", "2.5 epochs"),
        ("training.ohem_threshold", "0.7", 0.7),
        ("training.learning_rate", "1e-3", 1e-3),
        ("training.batch_size", "many", "many"),  # the schema refuses it
        ("data.is_flipped", "false", False),
        ("data.is_flipped", "1", True),
        ("data.is_flipped", "maybe", "maybe"),
        ("model.strides", "(32, 16, 8, 4)", (32, 16, 8, 4)),
        ("model.strides", "8,4", (8, 4)),
        ("model.strides", "[4]", (4,)),
        ("seed", "-1", -1),
    ],
)
def test_text_of_the_command_line_is_read_by_the_type_of_its_key(name, text, value):
    found = keys.parse_text(keys.keys_of(config_lib.Config)[name], text)
    assert found == value
    assert type(found) is type(value)


def test_every_value_that_a_key_can_hold_survives_the_command_line():
    config = config_lib.Config()
    for name, about in keys.keys_of(config_lib.Config).items():
        assert keys.parse_text(about, str(about.default)) == keys.value_of(config, name), name


def test_differences_name_the_keys_that_matter():
    old = config_lib.resolve(config_lib.defaults())
    changes = {"training.steps": 7, "data.workers": 0, "training.stop_after": 5, "model.backbone": "hrnet_tiny"}
    assert keys.differences(old, config_lib.changed(old, changes)) == [
        "config.model.backbone: 'hrnet_w48' → 'hrnet_tiny'",
        "config.training.steps: 150000 → 7",
    ]


@pytest.mark.parametrize(
    ("text", "num_images", "steps"),
    [
        ("120 epochs", 20_210, 151_575),  # ADE20K; 20,210 / 16 is not a whole number
        ("110 epochs", 9_000, 61_875),  # COCO-Stuff 10K
        ("200 epochs", 4_998, 62_475),  # PASCAL-Context
        ("120 epochs", 20_210 - 4_000, 121_575),
        ("1 epoch", 17, 2),
        ("0.1 epochs", 160, 1),
        ("3 steps", 17, 3),
    ],
)
def test_epochs_become_steps(text, num_images, steps):
    config = config_lib.changed(config_lib.Config(), {"training.steps": text})
    assert config_lib.resolve_durations(config, num_images).training.steps == steps


def test_a_duration_in_epochs_is_kept_beside_its_steps():
    said = config_lib.changed(config_lib.Config(), {"training.steps": "120 epochs", "training.stop_after": "1 epoch"})
    config = config_lib.resolve_durations(said, 20_210)
    assert json.loads(config_lib.to_json(config))["training"]["steps"] == 151_575
    assert config.said == {"training.steps": "120 epochs", "training.stop_after": "1 epochs"}
    assert config_lib.from_json(config_lib.to_json(config)) == config
    assert keys.differences(config, said) == []  # the same config file continues the run
    other = config_lib.resolve_durations(config_lib.changed(said, {"training.steps": "130 epochs"}), 20_210)
    assert keys.differences(config, other) == ["config.training.steps: 151575 → 164207"]
    assert "training.steps" not in config_lib.changed(config, {"training.steps": 9}).said


def test_epochs_of_a_data_set_of_unknown_size_are_refused():
    config = config_lib.changed(config_lib.Config(), {"training.steps": "2 epochs"})
    with pytest.raises(
        UserError, match=r"config\.training\.steps='2 epochs': the number of .* give a number of steps here"
    ):
        config_lib.resolve_durations(config, None)
    assert config_lib.resolve_durations(config_lib.Config(), None) == config_lib.Config()


def test_every_key_is_read_somewhere():
    """A key that nothing reads is a promise that is not kept."""
    read = set()
    for path in (ROOT / "pyrseg_jax").rglob("*.py"):
        if path.parent.name != "schema" and path.name != "config.py":
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert {name.rpartition(".")[2] for name in keys.keys_of(config_lib.Config)} - read == set()


def test_every_key_is_explained():
    for name, about in keys.keys_of(config_lib.Config).items():
        assert about.description[0].isupper(), name
        assert about.description.endswith("."), name
        assert about.since, name
        has_unit = name.endswith(("_px", "_s")) or name in ("training.batch_size", "model.strides", "training.steps")
        assert about.unit is not None or not has_unit, name


def test_every_choice_is_explained():
    for name, about in keys.keys_of(config_lib.Config).items():
        assert all(keys.choices_of(about).values()), name


def test_runs_with_retired_keys_can_still_be_read(caplog):
    config = config_lib.resolve(config_lib.defaults())
    values = json.loads(config_lib.to_json(config))
    values["model"]["scan"] = "auto"
    with caplog.at_level("INFO"):
        assert config_lib.from_json(json.dumps(values)) == config
        assert config_lib.from_json(json.dumps(values)) == config
    assert caplog.text.count("config.model.scan of this run is ignored") <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not JSON"),
        ("{", "this is not JSON"),
        ("[1, 2]", "the document=.*expected an object with keys and values, found list"),
        ('{"training": {"learning_rate": NaN}}', "config.training.learning_rate=nan: expected a finite number"),
        ('{"training": {"steps": "ten"}}', "config.training.steps='ten': expected int"),
        ('{"training": []}', r"config.training=\[\]: expected a group of keys"),
        ('{"data": {"rot": 1}}', "did you mean config.data.root?"),
        ('{"said": 3}', "said"),
        ("{}", "the key data is missing"),
        ("[" * 100_000, "this is not JSON"),
        ('{"seed": ' + "9" * 10_000 + "}", "this is not JSON"),
        (b"\xff\xfe", "this is not JSON"),
    ],
)
def test_a_damaged_config_of_a_run_is_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        config_lib.from_json(text, "runs/x/config.json")
    assert str(caught.value).startswith("runs/x/config.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def write_config(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(body)
    return config_file.find(str(path))


def test_a_config_is_found_as_a_path_and_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no configs/ is
    by_name = config_file.find("camvid:cpu,F")
    assert by_name.path == ROOT / "configs" / "camvid.py"
    assert by_name == config_file.find(f"{by_name.path}:cpu,F") == config_file.find("camvid.py:cpu,F")
    assert config_file.default_run_name(by_name) == "camvid-cpu-F"
    (tmp_path / "camvid.py").write_text("")
    assert config_file.find("camvid.py").path == Path("camvid.py")  # a file goes first
    with pytest.raises(UserError, match=r"--config=camwid:F: there is no such file, and no packaged config .*camvid"):
        config_file.find("camwid:F")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(: pass", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1", "AttributeError.*get_config"),
        ("def get_config(): return 3", "get_config returned int: expected a ConfigDict"),
        ("def get_config(): raise SystemExit('no')", "SystemExit: no"),
        ("def get_config(): raise KeyError", "KeyError"),
        ("def get_config(): raise ValueError('one\\ntwo')", "ValueError: two"),
    ],
)
def test_a_config_file_that_fails_is_one_line(tmp_path, body, message):
    name = write_config(tmp_path, body)
    with pytest.raises(UserError, match=f"--config={name.path}: .*{message}") as caught:
        config_file.load(name)
    assert "\n" not in str(caught.value)


def test_every_packaged_config_describes_its_words():
    for name, path in config_file.packaged().items():
        summary, groups = config_file.describe(path)
        assert summary.endswith("."), name
        for word in (word for group in groups for word in group):
            load(name, word)
            assert groups
            assert all(text for group in groups for text in group.values())
        with pytest.raises(UserError, match="is not known"):
            load(name, "nonsense")


def test_the_reference_of_the_keys_is_up_to_date():
    for path, text in reference.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: python -m pyrseg_jax.run.reference"


def test_the_schema_for_editors_accepts_what_a_run_writes():
    schema = json.loads(reference.json_schema())
    assert schema["additionalProperties"] is False
    about = schema["$defs"]["Training"]["properties"]["batch_size"]
    assert (about["minimum"], about["default"], about["unit"], about["resumable"]) == (1, 16, "images", False)
    assert "hrnet_w48" in schema["$defs"]["Model"]["properties"]["backbone"]["enum"]
    assert set(json.loads(config_lib.to_json(config_lib.Config()))) <= set(schema["properties"])
