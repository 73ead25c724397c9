"""The report of an ahead-of-time compilation: estimates for other slices, and the tables for a terminal."""

from pyrseg_jax.ahead_of_time.estimate import estimate_step, other_slices
from pyrseg_jax.ahead_of_time.hardware import Accelerator
from pyrseg_jax.ahead_of_time.hlo_text import Cost
from pyrseg_jax.ahead_of_time.topologies import Target


def estimate_slices(
    cost: Cost, images_per_device: float, flops_per_image: float, target: Target, devices: int
) -> list[dict] | None:
    """Estimate a training step on the slice that it was compiled for, and on slices of other sizes.

    The others get the same number of images per device, so that their program is nearly the same.

    Args:
      cost: the cost of the compiled step on one device.
      images_per_device: batch size divided by the number of devices.
      flops_per_image: FLOPs of a training step per image, without the optimizer's.
      target: the slice that the step was compiled for.
      devices: number of devices in it.

    Returns:
      For each slice, by size: its `topology`, the values of `Estimate`, and `step_s`. None if the target is not a TPU slice.
    """
    if target.accelerator is None or not target.sides:
        return None
    kind = target.name.partition(":")[0]
    slices = {(target.sides, devices), *other_slices(target.sides, devices)}
    estimates = []
    for sides, count in sorted(slices, key=lambda slice: slice[1]):
        estimate = estimate_step(cost, images_per_device, flops_per_image, target.accelerator, count, sides)
        name = f"{kind}:{'x'.join(map(str, sides))}"
        estimates.append({"topology": name, **estimate._asdict(), "step_s": estimate.step_s})
    return estimates


def format_report(report: dict, accelerator: Accelerator | None) -> str:
    """Format a report for a terminal, as Markdown.

    Args:
      report: the report that `commands.compile.compile_ahead` returns.
      accelerator: memory and speed of each device, if known.
    """
    training = report["training"]
    flops, recomputed = training["flops_per_image"], training["flops_computed_again"]
    lines = [
        f"{report['topology']}: {report['devices']} devices, batch {report['batch_size']} of {report['crop_px']} px, "
        f"{flops / 1e9:.1f} GFLOPs per image and training step"
        + (f", and {recomputed / 1e9:.1f} to compute activations again" if recomputed else ""),
        "",
        *_memory_table(report, accelerator),
        *_traffic_table(training["collectives"]),
        *_estimate_table(report["estimate"] or []),
    ]
    return "\n".join(lines)


def _memory_table(report: dict, accelerator: Accelerator | None) -> list[str]:
    available = f" of {accelerator.memory_bytes / 2**30:.0f} GiB" if accelerator else ""
    lines = [
        "| GiB per device | arguments | outputs | shared by both | temporary | code | total |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("training", "evaluation"):
        sizes = " | ".join(f"{size / 2**30:.2f}" for size in report[name]["memory"].values())
        lines.append(f"| {name}, compiled in {report[name]['compile_s']:.0f} s | {sizes}{available} |")
    return lines


def _traffic_table(collectives: dict[str, dict]) -> list[str]:
    if not collectives:
        return []
    lines = ["", "| sent in a training step | times | MB |", "|---|---|---|"]
    return lines + [
        f"| {kind} | {found['count']} | {found['bytes'] / 1e6:.1f} |" for kind, found in collectives.items()
    ]


def _estimate_table(estimates: list[dict]) -> list[str]:
    if not estimates:
        return []
    lines = [
        "",
        "| estimate with the same batch per device | devices | ms per step | share of sending | images/s per device | images/s |",
        "|---|---|---|---|---|---|",
    ]
    for found in estimates:
        rate = found["images_per_second_per_device"]
        lines.append(
            f"| {found['topology']} | {found['devices']} | {1e3 * found['step_s']:.1f} | "
            f"{100 * found['send_s'] / found['step_s']:.1f} % | {rate:.1f} | {rate * found['devices']:.0f} |"
        )
    return lines
