"""Compare ONNX files with jax: results on photographs, size, time to convert, and time per image.

    python benchmarks/onnx_files.py --photographs=FOLDER [--models=camvid-small,hrnet_w18,…] [--count=20] [--size=360x480]

A model is a packaged one or `BACKBONE[:CONTEXT]`, which gets random weights. The labels and probabilities of `--count` photographs
are computed by jax, and by onnxruntime in another process, in which nothing but onnxruntime and NumPy can be imported. Then one
photograph is segmented by jax, onnxruntime and, where it is installed, LiteRT in turns, and the medians are printed. Exits with
status 1 unless 99.99 % of all labels are equal and, where the same level decides, no probability differs by more than 1e-4.
Needs `pip install ".[onnx]"`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError
from pyrseg_jax.export import litert
from pyrseg_jax.export.onnx.model import OPSET, make_model
from pyrseg_jax.export.onnx.program import Program, make_program
from pyrseg_jax.export.onnx.session import open_session
from pyrseg_jax.export.onnx.twin import dense_twin
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.normalization import MOMENTUM
from pyrseg_jax.models.segmenter import Segmenter, build_segmenter
from pyrseg_jax.pyramid.levels import nearest_multiple
from pyrseg_jax.run.networks import make_model as make_network
from pyrseg_jax.run.packaged_models import find_model, packaged_models
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

MODELS = (
    "camvid-small,hrnet_w18,resnet_tiny,convnextv2_a,swin_micro,mit_b0,mobilenetv3_s,dinov2_s,dinov3_micro,"
    "hrnet_small:ocr,hrnet_small:upernet,hrnet_small:deeplabv3plus,hrnet_small:pointrend"
)
ROUNDS = 5
ALONE = """
import sys
for name in ("jax", "flax", "onnx", "cv2", "PIL", "pyrseg_jax"): sys.modules[name] = None
import json, numpy as np, onnxruntime
path, data = sys.argv[1:]
session = onnxruntime.InferenceSession(path)
given = np.load(data)
equal, moved, largest = [], [], 0.0
for image, labels, probs, level in zip(*(given[name] for name in ("images", "labels", "probabilities", "level"))):
    found, fused, levels = session.run(["labels", "probabilities", "level"], {"image": image[None]})
    same = levels[0] == level  # a cell whose probability of being a unit-cell is tau but for rounding goes to another level
    equal.append((found[0] == labels).mean())
    moved.append((~same).mean())
    largest = max(largest, float(np.abs(fused[0] - probs)[same].max()))
print(json.dumps([float(np.mean(equal)), float(np.mean(moved)), largest]))
"""


def load(name: str, photographs: np.ndarray) -> tuple[Segmenter, dict[str, np.ndarray], float]:
    """Return a network, its weights by name, and τ; random weights are made to suit the photographs."""
    if name in packaged_models():
        workdir = Workdir(str(find_model(name)))
        config = workdir.read_config()
        model = make_network(config, workdir.read_label_space())
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        variables = jax.device_get(restore(config, model, workdir, device, None).variables)
        return (
            model,
            {"/".join(at): np.asarray(x) for at, x in flatten_dict(variables).items()},
            config.evaluation.threshold,
        )
    backbone, _, context = name.partition(":")
    widths = {"semantic_width": 64, "key_width": 32, "unity_width": 32}
    model = dense_twin(
        build_segmenter(11, backbone=backbone, context=context or "coarse_to_fine", crop_px=352, **widths)
    )
    return model, draw_weights(model, photographs), 0.5


def draw_weights(model: Segmenter, photographs: np.ndarray) -> dict[str, np.ndarray]:
    """Draw weights whose batch statistics are those of photographs, and heads whose predictions differ from place to place."""
    rng = np.random.default_rng(0)
    found = {}
    for at, array in flatten_dict(abstract_variables(model)).items():
        name, shape = "/".join(at), array.shape
        if name.endswith("scale"):
            drawn = rng.uniform(
                0.4, 0.6, shape
            )  # trained blocks add less than random ones, which multiply every rounding
        elif name.endswith("/var"):
            drawn = np.ones(shape)
        elif len(shape) > 1:
            drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) * (2 if "head" in name else 1)
        else:
            drawn = 0.1 * rng.normal(size=shape)
        found[at] = drawn.astype(np.float32)
    variables = unflatten_dict(found)

    @jax.jit
    def run(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, normalize(images), True, mutable=["batch_stats"], rngs=rngs)[1]

    for at, moved in flatten_dict(jax.device_get(run(variables, photographs))).items():
        found[at] = (moved - MOMENTUM * found[at]) / (1 - MOMENTUM)  # the statistics of this batch alone
        found[at] = np.maximum(found[at], 1e-3) if at[-1] == "var" else found[at]
    return {"/".join(at): np.asarray(array, np.float32) for at, array in found.items()}


def measure(name: str, photographs: list[np.ndarray], folder: Path) -> dict:
    """Convert a model, compare it, and time it."""
    crops = np.stack([image[:256, :256] for image in photographs[:2]])
    model, weights, threshold = load(name, crops)
    size = photographs[0].shape[0], photographs[0].shape[1]
    seen = tuple(nearest_multiple(side, max(model.strides)) for side in size)
    program = make_program(model, size, (seen[0], seen[1]), np.dtype(np.uint8))
    start = time.perf_counter()
    content = make_model(program, weights, threshold, {}, name).SerializeToString()
    converted = time.perf_counter() - start
    path = folder / "model.onnx"
    path.write_bytes(content)
    run, tau, placed = jax.jit(program.run), np.float32(threshold), jax.device_put(weights)
    results = [jax.device_get(run(placed, image[None], tau)) for image in photographs]
    arrays = {key: np.concatenate([result[key] for result in results]) for key in ("labels", "probabilities", "level")}
    np.savez(folder / "expected.npz", images=np.stack(photographs), **arrays)
    command = [sys.executable, "-I", "-c", ALONE, str(path), str(folder / "expected.npz")]
    same, moved, largest = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    image, session = photographs[0][None], open_session(path)
    ways = {
        "jax": lambda: jax.block_until_ready(run(placed, image, tau)),
        "onnx": lambda: session.run(None, {"image": image}),
    }
    phone = phone_runner(program, weights, threshold, name)
    if phone is not None:
        ways["litert"] = lambda: phone(image=image)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, call in ways.items():
            start = time.perf_counter()
            call()
            times[way].append(1000 * (time.perf_counter() - start))
    medians = {f"{way}_ms": round(float(np.median(durations))) for way, durations in times.items()}
    row = {"model": name, "opset": OPSET, "megabytes": round(len(content) / 1e6, 1), "convert_s": round(converted, 1)}
    return row | medians | {"same_labels": same, "other_levels": moved, "largest_difference": largest}


def phone_runner(program: Program, weights: dict, threshold: float, name: str):
    """Return LiteRT's runner of a network, or None where it is not installed or refuses the network."""
    try:
        return litert.open_runner(litert.convert(program, weights, threshold, {}, name), name)
    except UserError as error:
        print(f"# {error}", file=sys.stderr)
        return None


def main() -> int:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", default="360x480")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    paths = sorted(path for path in given.photographs.rglob("*") if path.suffix in (".jpg", ".png"))[: given.count]
    photographs = [resize_image(np.asarray(Image.open(path).convert("RGB")), (height, width)) for path in paths]
    is_good = True
    for name in given.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, photographs, Path(folder))
        print(json.dumps(row), flush=True)
        is_good &= row["same_labels"] >= 0.9999 and row["largest_difference"] <= 1e-4
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
