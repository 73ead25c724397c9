"""Idle time of the device, as measured from a trace."""

import numpy as np
import pytest
from support import idle_time


def test_gaps_are_the_time_that_no_interval_covers(rng):
    """Compare with a slow twin that marks every nanosecond."""
    for _ in range(50):
        starts = rng.integers(0, 100, 8)
        intervals = [(int(start), int(start + rng.integers(0, 20))) for start in starts]
        is_free = np.ones(200, bool)
        for start, end in intervals:
            is_free[start:end] = False
        covered = np.zeros(200, bool)
        for start, end in idle_time.find_gaps(intervals, 10, 90):
            assert start < end
            assert not covered[start - 1 : end].any()  # gaps neither overlap nor touch, so none can be longer
            covered[start:end] = True
        assert (covered[10:90] == is_free[10:90]).all()
        assert not covered[:10].any()
        assert not covered[90:].any()


def test_the_first_step_is_left_out_and_the_innermost_call_is_named():
    host = [(0, 1000, "outer"), (100, 400, "loop"), (205, 245, "next"), (290, 292, "short")]
    busy = [(0, 210), (230, 260), (220, 240), (280, 500)]
    found = idle_time.measure(idle_time.Trace([0, 200, 300], busy, host), num_longest=1)
    assert found["idle_share"] == pytest.approx(0.3)  # 210 … 220 and 260 … 280 of 200 … 300
    assert found["gaps"] == 2
    assert found["step_ms"] == pytest.approx([1e-4])
    assert found["longest"] == [{"after_ms": pytest.approx(6e-5), "ms": pytest.approx(2e-5), "host": "loop"}]


def test_a_trace_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="2 steps and 1 programs: at least three steps are needed"):
        idle_time.measure(idle_time.Trace([0, 200], [(0, 100)], []), num_longest=1)


def test_a_run_without_a_trace_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trace: train with --config.training.profile"):
        idle_time.find_trace(tmp_path)
