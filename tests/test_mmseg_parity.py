"""Published heads: equal to mmsegmentation's, from weights through our importer.

`tests/support/mmseg_cases.py` lists the heads, and `benchmarks/method_parity.py` prints the differences.
"""

import pytest

pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

from support.mmseg_cases import CASES, slow_operators  # noqa: E402

PARAMETERS = [(name, convention) for name, case in CASES.items() for convention in case.conventions]


@pytest.mark.parametrize(("name", "convention"), PARAMETERS)
@pytest.mark.parametrize("seed", range(2))
def test_equal_to_mmsegmentation(name, convention, seed):
    """Outputs in float32; gradients and running statistics in float64, in which every single drawing must agree."""
    with slow_operators():
        pair = CASES[name].build(seed, convention)
        assert pair.compare_outputs() < 1e-5
        assert max(pair.compare_training("float64")) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_float32(name):
    """For one of six drawings, since a single value on the other side of a ReLU changes a gradient by some hundredths."""
    found = []
    with slow_operators():
        for seed in range(6):
            gradients, statistics = CASES[name].build(seed).compare_training()
            assert statistics < 1e-4
            if gradients < 1e-3:
                return
            found.append(gradients)
    pytest.fail(f"gradients differ by {found}")
