"""Freed memory is kept on the CPU. Each test starts a process of its own, because the setting holds for a whole process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COUNT_FAULTS = """
import resource, sys
from pyrseg_jax.distributed import host_memory
is_kept = host_memory.keep_memory_between_steps() if "keep" in sys.argv else False
import jax, jax.numpy as jnp
x = jnp.ones((4096, 8))
run = jax.jit(lambda x: (x @ x.T) @ x)  # the product in between is temporary: 64 MB
for _ in range(3):
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    run(x).block_until_ready()
print(is_kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from pyrseg_jax.distributed import host_memory; print(host_memory.keep_memory_between_steps())"


def run(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    ran = subprocess.run(command, cwd=ROOT, env=mine | environment, capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.skipif(not os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_a_step_reuses_the_memory_of_the_previous_one():
    assert run(COUNT_FAULTS, "keep", JAX_PLATFORMS="cpu")[0] == "True"
    kept, given_back = (int(run(COUNT_FAULTS, *more, JAX_PLATFORMS="cpu")[1]) for more in (["keep"], []))
    pages = 40 * 64 * 2**20 // os.sysconf("SC_PAGESIZE")
    assert given_back > 0.7 * pages
    assert kept < 0.4 * pages  # now and then a small allocation is in the way, and the heap grows


GROWTH = """
import os, sys
from pathlib import Path
from pyrseg_jax.distributed import host_memory
print(host_memory.return_memory() if "return" in sys.argv else False)
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
before, small = resident(), []
for number in (8, 7, 6, 5):  # arrays of several sizes, with small objects between them that stay
    large = []
    for _ in range(8):
        large.append(b"x" * (number * 2**20))
        small.append(b"x" * 20_000)
    del large
print((resident() - before) // 2**20)
"""


@pytest.mark.skipif(not os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_a_server_gives_large_arrays_back_though_small_objects_stay():
    is_returned, growth = run(GROWTH, "return")
    assert is_returned == "True" and int(growth) < 4
    assert int(run(GROWTH)[1]) > 16
    assert run(GROWTH, "return", MALLOC_ARENA_MAX="2")[0] == "False"


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_nothing_changes_where_jax_may_use_an_accelerator(platforms):
    assert run(KEEP, JAX_PLATFORMS=platforms) == ["False"]


@pytest.mark.parametrize("setting", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}])
def test_the_settings_of_the_user_are_kept(setting):
    assert run(KEEP, JAX_PLATFORMS="cpu", **setting) == ["False"]


def test_only_worker_processes_keep_memory_between_images():
    code = """
import multiprocessing
from pyrseg_jax.distributed.host_memory import keep_memory_between_images
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(keep_memory_between_images(), pool.apply(keep_memory_between_images))
"""
    has_glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
    assert run(code) == ["False", str(has_glibc)]
