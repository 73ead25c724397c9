"""The methods of the paper's Table 1 by name: their recipes, their networks on both backbones, and the table of the README."""

import re
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict
from support.methods import load, make_shallow, trace

from pyrseg_jax.commands import configs
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.weights.head import at_four_levels, has_layers
from pyrseg_jax.paper import table_1, variants
from pyrseg_jax.paper.methods import METHODS
from pyrseg_jax.paper.modern import FAMILY_OF
from pyrseg_jax.paper.releases import RELEASES
from pyrseg_jax.paper.tables import TABLE_1
from pyrseg_jax.run import keys

ROOT = Path(__file__).parents[1]


def test_every_context_module_has_a_word():
    reached = {method.context for method in METHODS.values()}
    reached |= {c for method in METHODS.values() for c in (method.of_release, method.of_mmsegmentation) if c}
    assert CONTEXTS.keys() - reached == set()


@pytest.mark.parametrize("word", METHODS)
def test_every_word_stands_for_a_context_module(word):
    method = METHODS[word]
    spec = CONTEXTS[method.context]
    assert method.has_resize == spec.has_resize
    assert ("model.strides" not in method.on_resnet) or spec.stride is None
    assert method.release is None or method.release in RELEASES


# One method of each kind: a module on one map, with an auxiliary classifier, with losses of its own, a decoder, a refiner. The
# others are slow tests here; at tiny widths, test_objective.py trains every context module.
QUICK = ("ours", "ocr", "encnet", "upernet", "pointrend")


def cells():
    """Return each method on each family of backbones."""
    for word in METHODS:
        for backbone in ("resnet101", "hrnet_w48"):
            if backbone == "hrnet_w48" or word != "hrnet":
                is_quick = backbone == "resnet101" and word in QUICK
                yield pytest.param(word, backbone, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("word", "backbone"), cells())
def test_a_full_step_fits_together_per_pixel_and_with_the_pyramid(word, backbone):
    """The cells of the README's table that say "runs": at full size, but shapes alone."""
    words = [word] if backbone == "hrnet_w48" else [backbone, word]
    for more in ([], ["pyramid"]):
        config = load("ade20k", ",".join([*words, *more]))
        assert config.model.backbone == backbone
        is_pyramid = bool(more) or word == "ours"
        assert config.model.representation == ("pyramid" if is_pyramid else "per_pixel")
        assert config.data.crop_px % config.model.strides[0] == 0
        trace(config)


def imports():
    """Return each method with the publishers of its weights; after the first method of a publisher they are slow tests."""
    seen = set()
    for word in METHODS:
        for family, publishers in METHODS[word].weights.items():
            for publisher in publishers:
                marks = pytest.mark.slow if (family, publisher) in seen else ()
                seen.add((family, publisher))
                yield pytest.param(word, family, publisher, marks=marks, id=f"{word}-{family}-{publisher}")


@pytest.mark.parametrize(("word", "family", "publisher"), imports())
def test_published_heads_fit_the_network_of_the_words(word, family, publisher):
    """Every layer of the published head is in the network, with the options that the weights were trained with."""
    words = [word] + (["resnet101"] if family == "ResNet" else [])
    words += ["mmsegmentation"] if publisher == "mmsegmentation" else []
    config = load("ade20k", ",".join(words))
    spec = BACKBONES[config.model.backbone]
    paths = flatten_dict(abstract_variables(make_shallow(config, num_classes=150)))
    published = {head.source: head for importer in spec.importers for head in importer.heads}
    heads = [
        head
        for source, head in published.items()
        if publisher.lower() in source.lower() and has_layers(at_four_levels(paths), head)
    ]
    assert heads, f"{publisher}: no head that the network has, among {list(published)}"
    for option, value in heads[0].trained.items():
        if option == "resize" and not METHODS[word].has_resize:
            continue
        chosen = getattr(config.model, option)
        assert value in (chosen, {"output_stride": spec.output_stride}.get(option) if chosen is None else chosen)


@pytest.mark.parametrize("word", METHODS)
def test_words_set_the_recipe_of_the_release_on_a_resnet(word):
    """Whatever the data set: every key that a release names has its value there."""
    for name in ("ade20k", "coco_stuff10k", "pascal_context"):
        if word == "hrnet":
            continue
        for variant, release in ((word, METHODS[word].release), (f"{word},mmsegmentation", "mmsegmentation")):
            config = load(name, f"resnet50,{variant}")
            assert config.model.backbone == "resnet50"
            wanted = {**(RELEASES[release].keys_for(name) if release else {}), **METHODS[word].on_resnet}
            for key, value in wanted.items():
                found = keys.value_of(config, key)
                assert config.said.get(key, found) == value or found == value, key


# What the releases' own files say.
FACTS = {
    "resnet101,pspnet": {"learning_rate": 0.01, "head_multiplier": 10.0, "weight_decay": 1e-4, "auxiliary_weight": 0.4},
    "resnet101,pspnet,mmsegmentation": {"learning_rate": 0.01, "head_multiplier": 1.0, "weight_decay": 5e-4},
    "resnet101,upernet": {"learning_rate": 0.02, "weight_decay": 1e-4, "steps": 200_000, "output_stride": 32},
    "resnet101,encnet": {"head_multiplier": 10.0, "auxiliary_weight": 0.2, "steps": "120 epochs", "stem": "deep"},
    "resnet101,danet": {"head_multiplier": 10.0, "auxiliary_weight": 0.0, "multi_grid": (4, 8, 16), "stem": "v1"},
    "resnet101,emanet": {"learning_rate": 0.009, "multi_grid": (2, 8, 16), "auxiliary_weight": 0.0},
    "resnet101,ocr": {"learning_rate": 0.02, "steps": 150_000, "warmup_steps": 1000, "context": "ocr_openseg"},
    "resnet101,qgn": {"learning_rate": 0.02, "steps": 100_000, "output_stride": 32},
    "resnet101,psanet": {"dilation": "plain", "resize": "align_corners", "crop_px": 480},
    "resnet101,psanet,mmsegmentation": {"dilation": "contracted", "context": "psanet_mmseg", "crop_px": 512},
    "resnet101,pointrend": {"output_stride": 32, "warmup_steps": 200, "stem": "v1c"},
    "resnet101,acfnet": {"auxiliary_weight": pytest.approx(4 / 7)},
}


@pytest.mark.parametrize("words", FACTS)
def test_recipes_have_the_numbers_of_the_releases(words):
    config = load("ade20k", words)
    for name, expected in FACTS[words].items():
        group = next(g for g in (config.training, config.model, config.data) if hasattr(g, name))
        found = config.said.get(f"training.{name}", getattr(group, name))
        assert found == expected, name


def test_the_paper_s_recipe_stays_on_its_own_backbone():
    """HRNet's recipe, hard pixels for methods with one class per pixel, and the config's own method without words."""
    ours, per_pixel, pyramid = load("ade20k", ""), load("ade20k", "ocr"), load("ade20k", "ocr,pyramid")
    assert keys.differences(ours, load("ade20k", "ours")) == []
    assert keys.differences(ours, pyramid) == ["config.model.context: 'coarse_to_fine' → 'ocr'"]
    changed = {line.split(":")[0] for line in keys.differences(pyramid, per_pixel)}
    assert changed == {f"config.{key}" for key in ("model.representation", "training.supervision", *HARD_PIXELS)}


HARD_PIXELS = ("training.ohem_threshold", "training.ohem_min_kept")


@pytest.mark.parametrize("name", ["scenes", "camvid"])
def test_small_configs_change_the_network_and_keep_their_recipe(name):
    allowed = {f"config.{key}" for key in variants.NETWORK_KEYS}
    for word in ("hrnet", "anl", "ccnet", "ocr"):
        changed = {line.split(":")[0] for line in keys.differences(load(name, "ours"), load(name, word))}
        assert changed <= allowed
        alone, pyramid = load(name, word), load(name, f"{word},pyramid")
        changed = {line.split(":")[0] for line in keys.differences(alone, pyramid)}
        assert changed == {"config.model.representation", "config.training.supervision"}
    (line,) = keys.differences(load(name, "H"), load(name, "ours"))
    assert line.startswith("config.training.auxiliary_weight")  # which no classifier reads


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("denet", r"'denet' is not known \(did you mean 'danet'\?\)"),
        ("danet,pspnet", "danet and pspnet exclude each other; expected one of ours"),
        ("resnet50,resnet101", "resnet50 and resnet101 exclude each other"),
        (
            "resnet101,hrnet",
            "hrnet and resnet101 exclude each other: hrnet is the baseline on an HRNet; expected another",
        ),
    ],
)
def test_words_that_do_not_fit_are_refused(variant, message):
    with pytest.raises(UserError, match=message):
        load("ade20k", variant)


@pytest.mark.parametrize("variant", ["A,ocr", "cpu,ocr,A", "pyramid,B"])
def test_a_row_and_a_method_exclude_each_other(variant):
    with pytest.raises(UserError, match=r"[AB] and \w+ exclude each other: a row of Table 2a fixes context"):
        load("camvid", variant)


def test_table_1_has_the_rows_of_the_paper():
    assert len(TABLE_1) == 21
    assert all(row.method in METHODS for row in TABLE_1)
    assert [row.name for row in TABLE_1 if row.backbone == "HRNet-W48"] == ["HRNet", "OCR", "CCNet", "ANL", "Ours"]
    best = (
        max(row.ade20k for row in TABLE_1 if row.ade20k),
        max(row.coco_stuff10k for row in TABLE_1 if row.coco_stuff10k),
    )
    assert (TABLE_1[-1].ade20k, TABLE_1[-1].coco_stuff10k) == best == (47.37, 41.4)
    assert METHODS["dsspn"].rows("dsspn")[0].note.startswith("COCO-Stuff: trained on several data sets; 37.3")


def test_the_table_of_the_readme_is_current():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table_1.updated(text) == text, "the README is stale: python -m pyrseg_jax.paper.table_1"
    for row in TABLE_1:
        assert re.search(
            rf"^\| {row.name}\b.*\| `{row.method}` \|.*{re.escape(row.describe_scores())}", text, re.MULTILINE
        )


def test_words_are_listed_in_a_hundred_columns(capsys):
    configs.show()
    listed = capsys.readouterr().out
    assert max(map(len, listed.splitlines())) <= 100
    assert re.search(r"^  :ccnet +CCNet .* ResNet-101 45.22 / –; HRNet-W48 45.65 / 39.8", listed, re.MULTILINE)
    for line in (
        "Methods, for ade20k, camvid",
        "  words from the lists below: methods, backbones, recipes, predictions",
    ):
        assert line in listed
    assert listed.count("  :danet ") == 1


def test_every_modern_backbone_is_a_word():
    """All but the families that have a recipe elsewhere, and the smallest networks, which are for tests."""
    others = {name for name in BACKBONES if name.startswith(("hrnet", "resnet")) or name.endswith("micro")}
    assert {word for word in FAMILY_OF if word in variants.BACKBONES} == BACKBONES.keys() - others


MODERN_FACTS = {
    "convnext_b,upernet": {"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.05, "layer_decay": 0.9},
    "swin_t,upernet,pyramid": {"name": "adamw", "learning_rate": 6e-5, "weight_decay": 0.01, "layer_decay": None},
    "mit_b5,segformer": {"learning_rate": 6e-5, "head_multiplier": 10.0, "context": "segformer"},
    "mit_b0,segformer,mmsegmentation": {"context": "segformer_mmseg", "ohem_threshold": None},
    "dinov2_b": {"learning_rate": 3e-5, "layer_decay": 0.9, "representation": "pyramid", "steps": 160_000},
    "mobilenetv3_l": {"name": "sgd", "learning_rate": 0.02, "steps": "120 epochs"},
}


@pytest.mark.parametrize("words", MODERN_FACTS)
def test_words_of_modern_backbones_bring_their_recipe(words):
    config = load("ade20k", words)
    assert config.model.backbone == words.partition(",")[0]
    for name, expected in MODERN_FACTS[words].items():
        group = next(g for g in (config.optimizer, config.training, config.model) if hasattr(g, name))
        assert config.said.get(f"training.{name}", getattr(group, name)) == expected, name


@pytest.mark.parametrize(
    "words",
    [
        "mit_b0,segformer,pyramid",
        *(
            pytest.param(f"{word},{more}", marks=pytest.mark.slow)
            for word in ("convnext_b", "convnextv2_a", "swin_t", "mit_b0", "dinov2_s", "dinov3_s", "mobilenetv3_s")
            for more in ("ours", "upernet", "upernet,pyramid", "pspnet,pyramid", "segformer", "deeplabv3plus,pyramid")
        ),
    ],
)
def test_a_full_step_fits_together_on_a_modern_backbone(words):
    assert trace(load("ade20k", words)) is not None
