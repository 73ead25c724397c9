"""Settings for all tests, made before JAX is imported."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# `nohup`, and shells that start a program in the background, ignore these signals, and the programs that tests start would inherit
# that: a test that interrupts one would wait forever.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
# Traced programs are millions of Python objects, and the collector would look through all of them again and again.
gc.set_threshold(100_000, 50, 100)
# Tests run each program only a few times, so quick compilation matters more than speed. Every machine shows four CPU devices.
# These are flags that every supported version of XLA knows: XLA ends the process when it meets an unknown one.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_force_host_platform_device_count=4",
]
# The fusion emitters took half of the compile time, and splitting programs into parts took some more.
QUICK_FLAGS = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def is_known(flags: list[str]) -> bool:
    """Tell whether XLA accepts the flags; a separate process asks, because an unknown flag ends it."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


# Only the first process asks; its workers inherit the answer.
if not set(FLAGS) <= set(os.environ.get("XLA_FLAGS", "").split()):
    os.environ["XLA_FLAGS"] = " ".join(FLAGS + (QUICK_FLAGS if is_known(QUICK_FLAGS) else []))
# Keeps dataset checks and compiled programs out of the user's caches, also in the programs that tests start.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"pyrseg_jax-tests-{os.getuid()}")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from support.data_sets import write_folder  # noqa: E402

# The same examples in every run, so that a change of the code is the only thing that can turn a test red. `@settings` of a single
# test may raise the number of examples.
settings.register_profile(
    "gate",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("gate")

# Files that take a minute or more, the longest first, so that the last files that workers take are short.
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
    """Start with the long files; pytest-xdist hands files out in this order (`--no-loadscope-reorder`)."""
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
    """A data set of six training and three validation pairs, each 48 × 64 pixels (height × width)."""
    return write_folder(tmp_path / "data", {"training": 6, "validation": 3})
