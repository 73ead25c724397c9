"""Compare our steps with PyTorch's; train_step.py and inference.py are its command lines."""

import argparse
from pathlib import Path

import torch
import versus
from timing import describe_machine, in_turn, print_table, write_json

HEADER = ("network, head", "ours", "PyTorch", "compiled", "ratio", "memory, GiB: ours", "PyTorch", "utilization")


def main(kind: str, description: str) -> None:
    """Compare all networks that the command line asks for.

    Args:
      kind: "training" or "inference".
      description: docstring of the script; its first line describes the command line.
    """
    options = _parse(description)
    peak, peak_flops = versus.matrix_product(options.dtype)
    rows, found = [], []
    for backbone in options.backbones.split(","):
        for head in options.heads.split(","):
            result = _compare(kind, backbone, head, options, peak, peak_flops)
            found.append(result)
            rows.append(_row(result))
    print(
        f"{kind}, batch {options.batch_size} of {options.crop_px}×{options.crop_px}, {options.num_classes} classes, ",
        end="",
    )
    print(f"{options.dtype}; images/s\n{describe_machine(torch=torch.__version__)}\n")
    print_table(HEADER, rows)
    write_json(options.json, found)


def _parse(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="use the sizes for an accelerator")
    parser.add_argument("--backbones", help="names, separated by commas")
    parser.add_argument("--heads", help="plain, pyramid, or both separated by a comma")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--crop_px", type=int)
    parser.add_argument("--num_classes", type=int, default=150)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed")
    parser.add_argument("--eager_only", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    defaults = {"backbones": "hrnet_w18", "heads": "plain", "batch_size": 4, "crop_px": 256, "dtype": "float32"}
    if options.full:
        backbones = "hrnet_w18,hrnet_w32,hrnet_w48"
        defaults |= {"backbones": backbones, "heads": "plain,pyramid", "batch_size": 16, "crop_px": 512}
        defaults |= {"dtype": "bfloat16"}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _compare(kind: str, backbone: str, head: str, options, peak, peak_flops: float) -> dict:
    config = versus.make_config(backbone, head, options.dtype)
    batch = versus.draw_batch(options.batch_size, options.crop_px, options.num_classes)
    ours, theirs = (cls(config, options.num_classes, *batch) for cls in (versus.Ours, versus.Theirs))
    run, compiled = getattr(ours, f"prepare_{kind}")()
    runs = {"product": peak, "ours": run}
    prepare = getattr(theirs, f"prepare_{kind}")
    runs["eager"] = prepare(False)
    if not options.eager_only:
        runs["compiled"] = prepare(True)
    seconds = in_turn(runs, options.rounds, pause_s=0.3)
    flops = ours.flops(kind)
    memory = compiled.memory_analysis()
    return {
        "kind": kind,
        "network": f"{backbone}, {head}",
        "images_per_second": {k: options.batch_size / s for k, s in seconds.items() if k != "product"},
        "gib": {
            "ours": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30,
            "torch": versus.peak_gib(runs["eager"]),
        },
        "utilization": flops / seconds["ours"] / (peak_flops / seconds["product"]),
    }


def _row(result: dict) -> tuple:
    rates, gib = result["images_per_second"], result["gib"]
    best = max(rate for name, rate in rates.items() if name != "ours")
    theirs = "–" if gib["torch"] is None else f"{gib['torch']:.2f}"
    compiled = f"{rates['compiled']:.2f}" if "compiled" in rates else "–"
    return (
        result["network"],
        f"{rates['ours']:.2f}",
        f"{rates['eager']:.2f}",
        compiled,
        f"{rates['ours'] / best:.2f}",
        f"{gib['ours']:.2f}",
        theirs,
        f"{100 * result['utilization']:.0f} %",
    )
