"""Demo folders of a toy network, written in a moment, and what the page must show."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.resample import resize_image, upsample_argmax
from pyrseg_jax.demo.folder import DemoModel, contents, network_name
from pyrseg_jax.demo.runtime import FILES, PACKAGE, VERSION, Runtime, find_runtime
from pyrseg_jax.demo.samples import Sample
from pyrseg_jax.demo.server import make_server
from pyrseg_jax.pyramid import fuse

CLASSES = ("sky", "ground", "post", "water", "<b>wall</b>")
STRIDES, SIZES, THRESHOLD = (32, 16, 8, 4), ((64, 96), (96, 64)), 0.57


def real_runtime() -> Runtime:
    """Return ONNX Runtime Web from the user's cache, where `pyrseg demo` puts it; skip the test where it is not."""
    folder = Path(os.environ.get("ONNXRUNTIME_WEB") or Path.home() / ".cache" / "pyrseg_jax" / f"{PACKAGE}-{VERSION}")
    if not all((folder / name).is_file() for name in FILES):
        pytest.skip(f"{PACKAGE} {VERSION} is not in the cache; `pyrseg demo` downloads it once")
    return find_runtime(str(folder))


def write_fake_package(folder: Path) -> Path:
    """Write a package that has the files of ONNX Runtime Web, but not their contents."""
    (folder / "dist").mkdir(parents=True)
    for name in FILES:
        (folder / "dist" / name).write_bytes(f"fake {name}".encode())
    return folder


def toy_onnx(size: tuple[int, int]) -> bytes:
    """Return a network whose levels are linear maps of the mean color of each cell."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels"], perm=[0, 3, 1, 2]),
    ]
    constants, outputs = [], []

    def head(name: str, cells: str, width: int, activation: str) -> str:
        weights = rng.normal(0, 0.04, (width, 3, 1, 1)).astype(np.float32)
        bias = (-weights.sum((1, 2, 3)) * 110).astype(np.float32)
        constants.extend([numpy_helper.from_array(weights, f"{name}_w"), numpy_helper.from_array(bias, f"{name}_b")])
        nodes.append(helper.make_node("Conv", [cells, f"{name}_w", f"{name}_b"], [f"{name}_logits"]))
        options = {"axis": 1} if activation == "Softmax" else {}
        nodes.append(helper.make_node(activation, [f"{name}_logits"], [f"{name}_first"], **options))
        return f"{name}_first"

    constants.append(numpy_helper.from_array(np.array([1], np.int64), "channel"))
    for level, stride in enumerate(STRIDES, 1):
        grid = [1, size[0] // stride, size[1] // stride]
        cells = f"cells_{level}"
        sides = [stride, stride]
        nodes.append(helper.make_node("AveragePool", ["channels"], [cells], kernel_shape=sides, strides=sides))
        found = head(f"s{level}", cells, len(CLASSES), "Softmax")
        nodes.append(helper.make_node("Transpose", [found], [f"semantic_{level}"], perm=[0, 2, 3, 1]))
        outputs.append(helper.make_tensor_value_info(f"semantic_{level}", TensorProto.FLOAT, [*grid, len(CLASSES)]))
        if level < len(STRIDES):
            found = head(f"u{level}", cells, 1, "Sigmoid")
            nodes.append(helper.make_node("Squeeze", [found, "channel"], [f"unity_{level}"]))
            outputs.append(helper.make_tensor_value_info(f"unity_{level}", TensorProto.FLOAT, grid))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])
    graph = helper.make_graph(nodes, "toy", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def write_demo(
    folder: Path, runtime: Runtime, samples: Sequence[Sample] = (), temperatures: tuple[float, ...] | None = None
) -> Path:
    """Write a demo of the toy network."""
    folder.mkdir(parents=True)
    networks = {size: toy_onnx(size) for size in SIZES}
    for size, content in networks.items():
        (folder / network_name(size)).write_bytes(content)
    num_bytes = {size: len(content) for size, content in networks.items()}
    model = DemoModel("A <toy>", ade_layout(CLASSES), THRESHOLD, STRIDES, num_bytes, temperatures)
    for name, content in contents(model, samples, runtime).items():
        (folder / name).write_bytes(content)
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder; yields its address."""
    with make_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def expected(content: bytes, image: np.ndarray, size: tuple[int, int], threshold: float):
    """Return the labels of an image, and the fused pyramids, as Python computes them from a network of a size."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"image": resize_image(image, size)[None]}), strict=True))
    num_levels = sum(name.startswith("semantic_") for name in names)
    probs = [jnp.asarray(found[f"semantic_{level}"]) for level in range(1, num_levels + 1)]
    unity = [jnp.asarray(found[f"unity_{level}"]) for level in range(1, num_levels)]
    fused = fuse(probs, unity, threshold)
    return upsample_argmax(np.asarray(fused.probs[0]), image.shape[:2]), fused, found
