"""Time evaluation on images of many sizes: in batches of one network size, and one by one with a program per exact size.

    python benchmarks/evaluation.py --sizes=ade20k_sizes.csv [--images=48] [--full] [--json=FILE]

The CSV has the columns split, width and height; the script generates an image for each row of the validation split. By default, a
tiny network is evaluated on some images spread over the list, for a CPU; with --full, HRNet-W48 with 150 classes is evaluated on
the whole list. The script checks that both ways give the same scores. It prints images/s with and without compilation, the number
of programs, and the peak memory: of the device, or where that is not known, of the process.
"""

import csv
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.evaluation.programs import num_compiled
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter

NUM_CLASSES = 150


class GeneratedImages:
    """A source of images of given (height, width): smooth patterns, with blocks of classes as labels."""

    def __init__(self, sizes):
        self._sizes = sizes

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        height, width = self._sizes[index]
        image = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        label = cv2.resize(
            rng.integers(0, NUM_CLASSES + 1, (6, 6), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        image, label = (
            cv2.imencode(suffix, array)[1].tobytes() for suffix, array in ((".jpg", image), (".png", label))
        )
        name = f"generated {index}"
        return {"image": image, "label": label, "image_name": name, "label_name": name, "name": name}


def one_by_one(model, variables, source, space, protocol):
    """Evaluate the plain way: one program per pair of network size and image size, with probabilities at the image's full size."""

    @jax.jit
    def step(variables, image, label):
        probs = predict(model, variables, image[None], 0.5).fused
        probs = jax.image.resize(probs, (1, *label.shape, NUM_CLASSES), "bilinear", antialias=False)[0]
        pair = jnp.where(label == 255, NUM_CLASSES**2, label.astype(jnp.int32) * NUM_CLASSES + probs.argmax(-1))
        return jnp.bincount(pair.ravel(), length=NUM_CLASSES**2 + 1)[:-1]

    total = np.zeros(NUM_CLASSES**2, np.int64)
    for index in range(len(source)):
        image, label = decode_pair(source[index], space)
        total += np.asarray(step(variables, resize_image(image, protocol.sizes(*label.shape)[0]), label))
    return total.reshape(NUM_CLASSES, NUM_CLASSES), num_compiled(step)


def option(name, default):
    """Return the value of a command line option."""
    return next((a.partition("=")[2] for a in sys.argv if a.startswith(f"--{name}=")), default)


def peak_mib():
    """Return the peak memory of the device, or where it does not tell, of the process."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20


def main():
    """Evaluate both ways, compare the scores, and print a table."""
    is_full = "--full" in sys.argv
    with open(option("sizes", "ade20k_sizes.csv"), newline="", encoding="utf-8") as file:
        sizes = [(int(r["height"]), int(r["width"])) for r in csv.DictReader(file) if r["split"] == "validation"]
    protocol = Protocol(short_side_px=512 if is_full else 256)
    shapes = {protocol.sizes(*size)[0] for size in sizes}
    print(f"{len(sizes)} images of {len(set(sizes))} sizes; {len(shapes)} sizes as the network sees them")
    if not is_full:
        sizes = sizes[:: len(sizes) // int(option("images", 48))]
    widths = {} if is_full else {"semantic_width": 16, "key_width": 8, "unity_width": 8}
    model = build_segmenter(
        NUM_CLASSES,
        backbone="hrnet_w48" if is_full else "hrnet_tiny",
        dtype="bfloat16" if is_full else "float32",
        **widths,
    )
    variables = jax.device_put(initial_variables(model, 0))
    source, space = GeneratedImages(sizes), ade_layout(tuple(f"class {i}" for i in range(NUM_CLASSES)))
    evaluator = Evaluator(model, source, space, mesh_lib.make_mesh(data=1), protocol, 8, 0.5)

    def batched():
        result = evaluator(variables)
        return np.asarray(result["confusion"]), result["compiled_programs"]

    rows, found = [], []
    ways = [("batched by size", batched), ("one by one", lambda: one_by_one(model, variables, source, space, protocol))]
    for name, run in ways:
        start = time.perf_counter()
        confusion, num_programs = run()
        cold = time.perf_counter() - start
        start = time.perf_counter()
        run() if name.startswith("batched") else None
        warm = time.perf_counter() - start if name.startswith("batched") else None
        found.append(confusion)
        rows.append(
            {
                "way": name,
                "programs": num_programs,
                "cold": len(sizes) / cold,
                "warm": warm and len(sizes) / warm,
                "peak_mib": peak_mib(),
            }
        )
    assert np.abs(found[0] - found[1]).sum() < 1e-3 * found[0].sum(), "the two ways give different scores"
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(sizes)} images, {NUM_CLASSES} classes")
    print(f"{'':<18}{'programs':>9}{'images/s':>10}{'compiled':>10}{'peak MiB':>10}")
    for row in rows:
        warm = f"{row['warm']:>10.2f}" if row["warm"] else f"{'–':>10}"
        print(f"{row['way']:<18}{row['programs']:>9}{row['cold']:>10.2f}{warm}{row['peak_mib']:>10.0f}")
    print(f"ratio with compilation {rows[0]['cold'] / rows[1]['cold']:.2f}")
    if option("json", None):
        Path(option("json", None)).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
