"""Freed memory is kept on CPU: in processes of their own, for it holds for all of a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COUNT_FAULTS = """
import resource, sys
from pyrseg_jax.distributed import host_memory
is_kept = host_memory.keep_freed_memory() if "keep" in sys.argv else False
import jax, jax.numpy as jnp
x = jnp.ones((4096, 8))
run = jax.jit(lambda x: (x @ x.T) @ x)  # what is in between is temporary: 64 MB
for _ in range(3):
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    run(x).block_until_ready()
print(is_kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from pyrseg_jax.distributed import host_memory; print(host_memory.keep_freed_memory())"


def run(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    ran = subprocess.run(command, cwd=ROOT, env=mine | environment, capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.skipif(not os.confstr("CS_GNU_LIBC_VERSION"), reason="of glibc")
def test_a_step_takes_the_memory_of_the_one_before():
    assert run(COUNT_FAULTS, "keep", JAX_PLATFORMS="cpu")[0] == "True"
    kept, given_back = (int(run(COUNT_FAULTS, *more, JAX_PLATFORMS="cpu")[1]) for more in (["keep"], []))
    pages = 40 * 64 * 2**20 // os.sysconf("SC_PAGESIZE")
    assert given_back > 0.7 * pages
    assert kept < 0.4 * pages  # now and then something small lies in the way, and the heap grows


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_with_accelerators_the_host_is_left_alone(platforms):
    assert run(KEEP, JAX_PLATFORMS=platforms) == ["False"]


@pytest.mark.parametrize("setting", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}])
def test_who_has_tuned_the_c_library_is_not_overruled(setting):
    assert run(KEEP, JAX_PLATFORMS="cpu", **setting) == ["False"]
