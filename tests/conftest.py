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

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from support.data_sets import write_folder  # noqa: E402

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
    "blocks",
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


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six training and three validation pairs of 48 × 64 pixels (height × width)."""
    return write_folder(tmp_path / "data", {"training": 6, "validation": 3})
