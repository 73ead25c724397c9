"""Files of vision transformers in every publisher's layout: each array arrives at its place, and a wrong file says what it is."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.published_vits import LAYOUTS, MICROS, to_published, variables_of

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.backbones.vit import VIT, dinov3_micro, vit_micro
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.weights.importer import import_weights


def import_into(model, state):
    """Import a file; return the variables of the backbone by path."""
    abstract = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    found = import_weights(state, abstract, BACKBONES["vit_micro"].importers)
    assert not found.left and not found.converted
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


@pytest.mark.parametrize(("name", "layout"), [(name, layout) for name in LAYOUTS for layout in LAYOUTS[name]])
def test_layouts(name, layout):
    found = import_into(MICROS[name](), to_published(variables_of(name), layout))
    jax.tree.map(np.testing.assert_array_equal, found, variables_of(name))


@pytest.mark.parametrize("layout", LAYOUTS["vit_micro"])
def test_a_position_of_the_class_token_is_added_to_it_where_there_are_registers(layout):
    variables = flatten_dict(variables_of("vit_micro"))
    variables[("params", "register_tokens")] = np.float32([[1] * 16, [2] * 16])
    variables[("params", "class_position")] = np.full((1, 16), 0.25, np.float32)
    found = import_into(vit_micro(registers=2), to_published(unflatten_dict(variables), layout))["params"]
    np.testing.assert_array_equal(found["class_token"], variables[("params", "class_token")] + np.float32(0.25))
    np.testing.assert_array_equal(found["register_tokens"], variables[("params", "register_tokens")])
    np.testing.assert_array_equal(found["positions"], variables[("params", "positions")])


def test_timm_leaves_out_biases_that_are_0():
    state = to_published(variables_of("dinov3_micro"), "timm")
    state = {name: array for name, array in state.items() if not name.endswith(("q_bias", "v_bias"))}
    attention = import_into(dinov3_micro(), state)["params"]["block_2"]["attn"]
    assert not attention["query"]["bias"].any() and not attention["value"]["bias"].any()
    assert "bias" not in attention["key"] and attention["out"]["bias"].any()


def test_a_file_of_another_depth_says_so():
    state = to_published(variables_of("vit_micro"), "timm")
    state = {name: array for name, array in state.items() if not name.startswith("blocks.3.")}
    with pytest.raises(UserError, match=r"16 channels and 3 blocks with patches of 14 px, .* and 4 blocks"):
        import_into(vit_micro(), state)


@pytest.mark.parametrize("layout", LAYOUTS["dinov3_micro"])
def test_a_file_of_dinov3_does_not_fit_dinov2(layout):
    state = to_published(variables_of("dinov3_micro"), layout)
    message = r"patches of 16 px, rotary positions and 2 register tokens, .* patches of 14 px, positions of 4 × 4 patches and no"
    with pytest.raises(UserError, match=message):
        import_into(vit_micro(), state)


def test_members_are_named():
    def shapes(width, blocks):
        return {"patch_embed.proj.weight": (width, 3, 14, 14)} | {
            f"blocks.{i}.norm1.weight": (width,) for i in range(blocks)
        }

    member = VIT["dinov2_s"].importers[0].member
    assert member(shapes(384, 12)) == "a ViT-S with patches of 14 px, rotary positions and no register tokens"
    assert "ViT-L" in member(shapes(1024, 24))
    assert "1024 channels and 23 blocks" in member(shapes(1024, 23))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "dinov3_micro",
            {"blocks.1.attn.qkv.bias_mask": np.ones(48)},
            r"blocks.1.attn.qkv.bias\[k\] is not 0: this network has no",
        ),
        ("dinov3_micro", {"blocks.1.extra.weight": np.ones(3)}, r"1 are unknown: blocks.1.extra.weight"),
        ("dinov3_micro", {"blocks.1.attn.qkv.weight": np.ones((47, 16))}, r"names are missing: .*attn.qkv.weight\[k\]"),
        ("dinov3_micro", {"blocks.1.attn.qkv.weight": np.float32(1)}, r"1 are unknown: blocks.1.attn.qkv.weight"),
        (
            "vit_micro",
            {"pos_embed": np.ones((1, 19, 16))},
            r"pos_embed has 19 positions: expected those of a square grid",
        ),
        ("vit_micro", {"pos_embed": np.ones(16)}, r"rotary positions"),
        ("vit_micro", {"pos_embed": np.ones((1, 26, 16))}, r"positions of 5 × 5 patches"),
        ("vit_micro", {"cls_token": np.ones((1, 1, 15))}, r"cls_token \(1, 15\) instead of \(1, 16\)"),
        ("vit_micro", {"register_tokens": np.float32(1)}, r"1 are unknown: register_tokens"),
    ],
)
def test_a_damaged_file_says_where(name, changes, message):
    with pytest.raises(UserError, match=message):
        import_into(MICROS[name](), to_published(variables_of(name), "facebook") | changes)
