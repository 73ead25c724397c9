"""The comparison with PyTorch behind train_step.py and inference.py."""

import argparse
import dataclasses
from pathlib import Path

import torch
import versus
from timing import describe_machine, in_turn, print_table, write_json

HEADER = ("network, head", "ours", "PyTorch", "compiled", "ratio", "memory, GiB: ours", "PyTorch", "utilisation")


def main(kind: str, description: str) -> None:
    """Compare steps of a kind, "training" or "inference", for the networks of the command line."""
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
    parser.add_argument("--full", action="store_true", help="sizes for an accelerator")
    parser.add_argument("--backbones")
    parser.add_argument("--heads")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--crop_px", type=int)
    parser.add_argument("--num_classes", type=int, default=150)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eager_only", action="store_true", help="without torch.compile, which takes minutes")
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
    # Of the plain program: loops, which compilers count once, are unrolled.
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, scan="off"))
    flops = versus.Ours(plain, options.num_classes, *batch).flops(kind)
    memory = compiled.memory_analysis()
    return {
        "kind": kind,
        "network": f"{backbone}, {head}",
        "images_per_second": {k: options.batch_size / s for k, s in seconds.items() if k != "product"},
        "gib": {
            "ours": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30,
            "torch": versus.peak_gib(runs["eager"]),
        },
        "utilisation": flops / seconds["ours"] / (peak_flops / seconds["product"]),
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
        f"{100 * result['utilisation']:.0f} %",
    )
