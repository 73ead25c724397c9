"""Measure how much our networks differ from PyTorch's at full size, as in the table of docs/guide/results.md.

    python benchmarks/parity.py [--backbones=hrnet_w18,hrnet_w32,hrnet_w48] [--gradients=hrnet_w18] [--json=FILE]

Both networks have the same random weights and statistics. The PyTorch twins (tests/support/torch_twins.py) compute the reference in
float64. So the differences are rounding errors in float32: ours and, for comparison, those of PyTorch in float32. A difference is
the largest absolute one divided by the largest value; for gradients, see `tests/support/parity.py::far_gradients`. Needs
`pip install torch`.
"""

import argparse
import copy
import json
import os
import sys
import time
from pathlib import Path

# Compile fast rather than well, because compilation takes most of the time here.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from support import parity  # noqa: E402

from pyrseg_jax.models import segmenter  # noqa: E402
from pyrseg_jax.run import experiment  # noqa: E402

SMALL, LARGE = (64, 64), (256, 192)
NUMBERS = ("logits", "pytorch", "gradients", "pytorch_gradients")
WIDTHS = {"width": 512, "key_width": 256}  # as in the published heads


def inference(backbone, context, resize, size) -> dict:
    """Compare the logits of both classifiers at inference, and count the positions with the same class in bfloat16."""
    model, twin, reference, variables = load(backbone, context, resize)
    images = parity.images_of(*size, count=1)
    expected = parity.run_twin(reference, images, train=False)
    found = parity.make_run(model, train=False)(variables, images)
    theirs = [None if y is None else y.detach() for y in parity.run_twin(twin, images, train=False)]
    half = parity.build(backbone, context, resize, dtype="bfloat16", **WIDTHS)[0]
    classes = np.argmax(parity.make_run(half, train=False)(variables, images)[0], -1)
    same = float((classes == expected[0].detach().numpy().argmax(-1)).mean())
    return {"logits": far(found[:2], expected), "pytorch": far(theirs, expected), "bfloat16": same}


def training_float64(backbone, context, resize, size) -> dict:
    """Compare as `training` does, but with ours in float64, too: then only the logits, which stay float32, are rounded."""
    segmenter.DTYPES["float64"] = np.float64
    with jax.enable_x64(True):
        return training(backbone, context, resize, size, dtype="float64")


def training(backbone, context, resize, size, dtype="float32") -> dict:
    """Compare the logits with the statistics of the batch, and the gradients."""
    model, twin, reference, variables = load(backbone, context, resize, dtype)
    variables = jax.tree.map(lambda a: np.asarray(a, dtype), variables)
    images, rng = parity.images_of(*size), np.random.default_rng(2)
    shapes = jax.eval_shape(parity.make_run(model, True), variables, images)[:2]
    weights = [None if y is None else rng.normal(size=y.shape).astype(np.float32) for y in shapes]
    gradients, *found, _ = parity.make_training(model, weights)(variables, images)
    expected = parity.train_twin(reference, images, weights)
    theirs = [None if y is None else y.detach() for y in parity.train_twin(twin, images, weights)]
    return {
        "logits": far(found, expected),
        "pytorch": far(theirs, expected),
        "gradients": parity.far_gradients(gradients, reference, variables, context),
        "pytorch_gradients": parity.far_twins(twin, reference),
    }


def far(found, expected) -> float:
    """Return the larger difference of the two classifiers."""
    return max(parity.far(a, b) for a, b in zip(found, expected, strict=True) if b is not None)


def load(backbone, context, resize, dtype="float32"):
    """Return our model, its twin in float32 and in float64, and the variables that all of them have."""
    model, twin = parity.build(backbone, context, resize, dtype=dtype, **WIDTHS)
    variables = parity.draw(model)
    parity.load(twin, variables, context)
    return model, twin, copy.deepcopy(twin).double(), variables


def main() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbones", default="hrnet_w18,hrnet_w32,hrnet_w48", help="compared at inference")
    parser.add_argument("--gradients", default="hrnet_w18", help="backbones whose gradients are compared, too")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    experiment.use_compilation_cache()
    cases = [(inference, b, "none", "half_pixel", SMALL) for b in arguments.backbones.split(",")]
    first = arguments.backbones.split(",")[0]
    cases += [(inference, first, "none", "align_corners", LARGE)]
    cases += [(inference, first, context, "half_pixel", LARGE) for context in ("ocr", "anl", "ccnet")]
    for backbone in filter(None, arguments.gradients.split(",")):
        cases += [(measure, backbone, "none", "half_pixel", LARGE) for measure in (training, training_float64)]
    cases += [(training, None, context, "half_pixel", SMALL) for context in ("none", "ocr", "anl", "ccnet")]
    rows = []
    print(
        "| backbone | head | resize | images | mode | logits | PyTorch's | gradients | PyTorch's | bfloat16, same class |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for measure, backbone, context, resize, size in cases:
        start = time.perf_counter()
        found = measure(backbone, context, resize, size)
        rows.append(
            {"backbone": backbone, "head": context, "resize": resize, "size": size, "mode": measure.__name__} | found
        )
        texts = [f"{found[key]:.1e}" if key in found else "–" for key in NUMBERS]
        half = f"{100 * found['bfloat16']:.1f} %" if "bfloat16" in found else "–"
        place = f"{backbone or '(none)'} | {context} | {resize} | {size[0]}×{size[1]} | {measure.__name__}"
        print(f"| {place} | {' | '.join(texts)} | {half} |", flush=True)
        print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
