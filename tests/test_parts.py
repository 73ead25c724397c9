"""What the parts of a training step compute and move: read from programs, and compared with counts by hand and with XLA's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from support.runs import tiny_config

from pyrseg_jax.ahead_of_time.hlo_traffic import Instruction, read_entry
from pyrseg_jax.ahead_of_time.lowering import count_flops_per_image, trace_training
from pyrseg_jax.ahead_of_time.parts import PARTS, Moved, Products, count_moved, count_products, part_of
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.run import experiment

# As XLA prints programs: for a GPU, a call with scratch space; for a TPU, copies to its own memory, S(1), and slices.
PROGRAM = """HloModule jit_step

%fused (p: f32[8]) -> f32[8] {
  ROOT %inner = f32[8]{0} negate(%p), metadata={op_name="jit(step)/jvp(Segmenter)/context/neg"}
}

ENTRY %main.1 (x.1: f32[8,4], y.1: bf16[16]) -> f32[8] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %y.1 = bf16[16]{0} parameter(1)
  %copy-start.1 = (bf16[16]{0:T(256)S(1)}, bf16[16]{0:T(256)}, u32[]{:S(2)}) copy-start(%y.1)
  %copy-done.1 = bf16[16]{0:T(256)S(1)} copy-done(%copy-start.1)
  %f.1 = bf16[16]{0:T(256)} fusion(%copy-done.1), calls=%fused, metadata={op_name="jit(step)/jvp(Segmenter)/context/add"}, \
backend_config={"window_config":{"estimated_cycles":"70"}}
  %call.1 = (f32[8]{0}, s8[4194304]{0}) custom-call(%x.1, %f.1), custom_call_target="__cublas$lt$matmul", \
metadata={op_name="jit(step)/transpose(jvp(Segmenter))/backbone/stage3/dot_general"}
  %get.1 = f32[8]{0} get-tuple-element(%call.1), index=0
  %slice-start.1 = ((f32[8]{0}), f32[2]{0:S(1)}, s32[]{:S(2)}) slice-start(%get.1), slice={[0:2]}
  %slice-done.1 = f32[2]{0:S(1)} slice-done(%slice-start.1)
  %slice.1 = f32[4]{0} slice(%get.1), slice={[0:4]}, metadata={op_name="jit(step)/jvp()/slice"}
  ROOT %t.1 = (f32[4]{0}, f32[2]{0}) tuple(%slice.1, %slice-done.1)
}
"""


def test_bytes_and_cycles_are_read_from_a_program():
    context, stage3 = (
        "jit(step)/jvp(Segmenter)/context/add",
        "jit(step)/transpose(jvp(Segmenter))/backbone/stage3/dot_general",
    )
    assert read_entry(PROGRAM) == [
        Instruction(context, 32, 0),  # 16 bfloat16 are read into the TPU's own memory, for the fusion
        Instruction(context, 32, 70),
        Instruction(stage3, 4 * 32 + 32 + 32, 0),  # x and f are read, 8 float32 are written
        Instruction("", 8, 0),
        Instruction("jit(step)/jvp()/slice", 2 * 16, 0),
    ]
    assert count_moved(PROGRAM) == {
        ("context module", "forward"): Moved(64, 70),
        ("backbone, stage 3", "backward"): Moved(192),
        ("optimizer, and copies without a name", "forward"): Moved(8),
        ("targets and losses", "forward"): Moved(32),
    }


@pytest.mark.parametrize(
    "name, expected",
    [
        ("jit(step)/jvp(Segmenter)/backbone/stem1/conv", ("backbone, stem", "forward")),
        ("jit(step)/transpose(jvp(Segmenter))/backbone/stage4/HRModule/add", ("backbone, stage 4", "backward")),
        ("jit(step)/jvp(Segmenter)/backbone/Bottleneck/conv3", ("backbone, rest", "forward")),
        ("jit(step)/transpose(jvp(Segmenter))/unity_head/reduce/conv", ("heads", "backward")),
        ("jit(step)/transpose(jvp())/mul", ("targets and losses", "backward")),
        ("jit(step)/mul", ("optimizer, and copies without a name", "forward")),
    ],
)
def test_every_name_has_a_part(name, expected):
    assert part_of(name) == expected
    assert expected[0] in PARTS


class Segmenter(nn.Module):
    """Two layers whose products can be counted by hand."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, padding=1, name="backbone")(x)
        return nn.Dense(5, use_bias=False, name="context")(x)


def test_products_are_counted_with_their_gradients():
    module, x = Segmenter(), jnp.ones((2, 8, 8, 4))
    variables = module.init(jax.random.key(0), x)
    traced = jax.jit(jax.grad(lambda v, x: jnp.square(module.apply(v, x)).sum(), argnums=(0, 1))).trace(variables, x)
    found = count_products(traced.jaxpr, "cpu")
    dense, convolution = 2 * (2 * 4 * 4) * 8 * 5, 2 * (2 * 4 * 4) * 8 * (9 * 4)
    sizes = 4 * (2 * 8 * 8 * 4 + 9 * 4 * 8 + 2 * 4 * 4 * 8)
    # A gradient is as many products as the layer, and there are two of them: of the kernel and of the input.
    assert found["context module", "forward"].flops == dense
    assert found["context module", "backward"].flops == 2 * dense
    assert found["backbone, rest", "forward"] == Products(convolution, sizes)
    assert found["backbone, rest", "backward"] == Products(2 * convolution, 2 * sizes)


def test_the_products_of_a_step_are_nearly_all_of_its_flops():
    config = tiny_config()
    parts = experiment.make_model(config, 4), experiment.make_optimizer(config), experiment.make_objective(config)
    traced = trace_training(*parts, mesh_lib.make_mesh(1), batch_size=1, crop_px=64)
    found = count_products(traced.jaxpr, "cpu")
    # XLA leaves out the zeros around a map, and adds what is not a product.
    flops = sum(products.flops for products in found.values())
    assert flops == pytest.approx(count_flops_per_image(parts[0], parts[2], 64), rel=0.05)
    assert {part for part, _ in found} >= {"backbone, stage 4", "context module", "heads"}
