"""Settings for all tests: before jax is imported."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here run a few times only: quick compilation matters, not speed. Four devices on any machine. Only flags that every
# supported version of XLA knows: at any other it ends the process.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_force_host_platform_device_count=4",
]
# Half of the time of compiling went to the emitters of fused operations, and some to splitting programs into parts.
QUICK_FLAGS = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def is_known(flags: list[str]) -> bool:
    """Ask a process of its own: it dies of flags that this version of XLA does not know."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


# Asked once: workers inherit it.
if not set(FLAGS) <= set(os.environ.get("XLA_FLAGS", "").split()):
    os.environ["XLA_FLAGS"] = " ".join(FLAGS + (QUICK_FLAGS if is_known(QUICK_FLAGS) else []))
# Also for the programs that the tests start. Results of surveys and compiled programs stay out of the user's caches.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"pyrseg_jax-tests-{os.getuid()}")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

CLASSES = ("sky", "ground", "post")


def assert_trees_equal(found, expected) -> None:
    """Assert that two trees of arrays have the same structure and, to the bit, the same arrays; and that there are some."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.leaves(found)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# Files of a minute or more, the longest first: the last ones that workers take should be short.
LONG = (
    "processes",
    "recovery",
    "main",
    "training",
    "parallel",
    "analysis",
    "objective",
    "config",
    "repeated",
    "evaluation",
)
RANKS = {f"test_{name}": rank for rank, name in enumerate(LONG)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files; pytest-xdist hands files out in this order (`--no-loadscope-reorder`)."""
    items.sort(key=lambda item: RANKS.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache():
    from pyrseg_jax.run import experiment

    experiment.use_compilation_cache()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def draw_pair(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a learnable picture: sky above ground, a dark post in front; label values 1, 2, 3 with a void border."""
    horizon, post = int(height * rng.uniform(0.3, 0.6)), int(width * rng.uniform(0.2, 0.7))
    label = np.full((height, width), 1, np.uint8)
    label[horizon:] = 2
    label[horizon] = 0
    label[horizon // 2 :, post : post + max(width // 12, 4)] = 3
    palette = np.array([[0, 0, 0], [120, 160, 230], [90, 140, 60], [60, 30, 30]])
    noise = rng.normal(0, 8, (height, width, 3))
    return np.clip(palette[label] + noise, 0, 255).astype(np.uint8), label


def write_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """Write a data set in the folder layout; `size` is (height, width)."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image, label = draw_pair(rng, *size)
            Image.fromarray(image).save(root / "images" / split / f"{split}_{i}.jpg", quality=95)
            Image.fromarray(label).save(root / "annotations" / split / f"{split}_{i}.png")
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six training and three validation pairs of 48 × 64 pixels (height × width)."""
    return write_folder(tmp_path / "data", {"training": 6, "validation": 3})
