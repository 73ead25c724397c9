"""Measure how far our published heads are from mmsegmentation's.

    python benchmarks/method_parity.py ["--heads=pspnet;danet"] [--seeds=2]

Both sides have the same random weights, statistics and feature maps; ours come through the importer. All differences are the
largest absolute one of an array, relative to its largest value. "Outputs" are those in evaluation, in float32 on both sides,
and "extra" are outputs beside the class logits. "Gradients" are those of a random sum of all outputs in training with respect
to every parameter, and "state" the running means and EMANet's bases after that step, from mmsegmentation in float64: ours in
float64, of which the importer keeps float32, and ours in float32. Numbers are the largest of all seeds. In float32, a value on
the other side of a ReLU can change a gradient by some hundredths, so of these gradients the smallest is printed, too. See
`tests/support/reference_networks.py` for what must be installed.
"""

import argparse
import contextlib
import importlib.metadata
import os
import sys
from pathlib import Path

# Compile fast rather than well, because compilation takes most of the time here.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.mmseg_cases import CASES, slow_operators  # noqa: E402

PACKAGES = ("jax", "flax", "numpy", "torch", "torchvision", "mmsegmentation", "mmengine", "mmcv-lite")
OUTPUT_STRIDE = 4  # of C2, whose size says that of the image


def measure(name: str, convention: str, num_seeds: int) -> str:
    """Return the row of one head."""
    case, outputs, extra, double, single = CASES[name], [], [], [], []
    for seed in range(num_seeds):
        pair = case.build(seed, convention)
        found = pair.compare_each_output()
        outputs.append(max(value for key, value in found.items() if key not in case.extra))
        extra += [found[key] for key in case.extra]
        double.append(pair.compare_training("float64"))
        single.append(pair.compare_training())
    height, width = (OUTPUT_STRIDE * side for side in case.sizes[0])
    gradients, state = zip(*double, strict=True)
    gradients_32, state_32 = zip(*single, strict=True)
    cells = [name, f"{height}×{width}", convention, f"{max(outputs):.1e}", f"{max(extra):.1e}" if extra else "–"]
    cells += [f"{max(gradients):.1e}", f"{max(state):.1e}", f"{min(gradients_32):.1e} … {max(gradients_32):.1e}"]
    return f"| {' | '.join([*cells, f'{max(state_32):.1e}'])} |"


def main() -> None:
    """Compare all heads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", default=";".join(CASES), help="keys of `CASES`, joined with semicolons")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES) + "\n")
    print("| head | images | resize | outputs | extra | gradients, float64 | state | gradients, float32 | state |")
    print(f"{'|---' * 9}|")
    with slow_operators():
        for name in arguments.heads.split(";"):
            for convention in CASES[name].conventions:
                with contextlib.redirect_stdout(sys.stderr):  # the arrays that differ most
                    row = measure(name, convention, arguments.seeds)
                print(row, flush=True)


if __name__ == "__main__":
    main()
