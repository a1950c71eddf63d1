"""The report's figures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpose.report import PERCENTILES, Histogram


@given(st.lists(st.floats(0.01, 1e8), min_size=1, max_size=300))
def test_percentiles_are_right_to_half_a_percent_and_the_maximum_exactly(
    values: list[float],
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found = histogram.percentiles()
    for name, q in PERCENTILES.items():
        exact = float(np.percentile(values, q, method="inverted_cdf"))
        assert found[name] == pytest.approx(exact, rel=0.0051)
    assert found["max"] == max(values)
    assert histogram.n == len(values)
    assert histogram.mean == pytest.approx(float(np.mean(values)))


def test_memory_does_not_grow_with_the_run() -> None:
    histogram = Histogram()
    for value in (0.0, -1.0, 1e30):
        histogram.add(value)  # whatever comes, it is counted
    assert histogram.n == 3
    assert histogram.percentiles()["max"] == 1e30
