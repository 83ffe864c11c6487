"""Rates and percentages as people write them, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.units import format_percent, format_rate, parse_duration, parse_percent, parse_rate


@pytest.mark.parametrize(
    ("written", "rate"), [("10/s", 10.0), ("600/m", 10.0), ("1 / h", 1 / 3600), (5, 5.0), (0.5, 0.5)]
)
def test_rates(written: object, rate: float) -> None:
    assert parse_rate(written) == rate


@pytest.mark.parametrize("written", ["10", "10/d", "-1/s", "", "1e3/s", True, None, -1, float("inf"), [1]])
def test_what_is_no_rate(written: object) -> None:
    with pytest.raises(ValueError, match='is not a rate; write a rate such as "10/s"'):
        parse_rate(written)


@pytest.mark.parametrize(("rate", "text"), [(10.0, "10/s"), (1 / 3600, "1/h"), (0.5, "0.5/s"), (0.0, "0/s")])
def test_rates_are_written_plainly(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@given(st.floats(0, 1e6, allow_subnormal=False))
def test_rates_read_back_the_same(rate: float) -> None:
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("written", "fraction"), [("20%", 0.2), ("0%", 0.0), ("100 %", 1.0), ("12.5%", 0.125)]
)
def test_percentages(written: str, fraction: float) -> None:
    assert parse_percent(written) == fraction


@pytest.mark.parametrize("written", ["20", 20, 0.2, "101%", "-1%", "%", None])
def test_what_is_no_percentage(written: object) -> None:
    with pytest.raises(ValueError, match='is not a percentage; write a percentage such as "20%"'):
        parse_percent(written)


@pytest.mark.parametrize(("fraction", "text"), [(0.2, "20%"), (0.29, "29%"), (0.0, "0%"), (1.0, "100%")])
def test_percentages_are_written_plainly(fraction: float, text: str) -> None:
    assert format_percent(fraction) == text


@given(st.integers(0, 100_000))
def test_percentages_read_back_the_same(thousandths: int) -> None:
    fraction = parse_percent(f"{thousandths / 1000}%")
    assert parse_percent(format_percent(fraction)) == fraction


@pytest.mark.parametrize("value", [True, None, [], b"30s"])
def test_what_is_no_duration_at_all(value: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write"):
        parse_duration(value)
