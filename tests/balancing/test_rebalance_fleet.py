"""Rebalancing of whole fleets in virtual time: it converges, never goes below the mean, and then it is quiet."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.fleet import Fleet, Scenario, scale_out
from trio_wsb.balancing.moving import RebalancePolicy


def policy(rate: float, tolerance: float = 0.2) -> RebalancePolicy:
    return RebalancePolicy(enabled=True, rate=rate, tolerance=tolerance, min_age=0.0)


def happen(scenario: Scenario, every: float = 5.0) -> Fleet:
    """Let a scenario happen and return the fleet as it was at the end."""
    found: list[Fleet] = []

    async def main() -> None:
        fleet = Fleet(scenario)
        found.append(fleet)
        await fleet.run(every)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return found[0]


@pytest.mark.parametrize(
    ("scenario", "mean"),
    [
        pytest.param(scale_out(6, 4, 100, policy=policy(10.0), duration=200.0), 60, id="10"),
        pytest.param(scale_out(60, 40, 50, policy=policy(20.0), duration=240.0), 30, id="100"),
        pytest.param(scale_out(700, 300, 20, policy=policy(200.0), duration=50.0), 14, id="1000"),
    ],
)
def test_after_a_scale_out(scenario: Scenario, mean: int) -> None:
    fleet = happen(scenario)
    assert fleet.loads == [mean] * len(scenario.loads)
    # Exactly the excess has moved, each session once, and nobody was ever below the mean or above where it began.
    assert len(fleet.shed) == sum(max(0, load - mean) for load in scenario.loads)
    assert min(fleet.lowest_after_shed.values()) == mean
    assert max(max(sample.loads) for sample in fleet.samples) == max(scenario.loads)
    # At the rate of the policy.
    times = [time for time, _ in fleet.shed]
    assert (times[-1] - times[0]) * scenario.policy.rate == pytest.approx(len(times), rel=0.05)


def test_clients_that_take_minutes_to_return_are_waited_for() -> None:
    fleet = happen(scale_out(3, 1, 400, policy=policy(50.0), reconnect=(5.0, 200.0), duration=900.0))
    assert fleet.loads == [300] * 4
    assert len(fleet.shed) == 300


def test_three_balancers_shed_the_excess_once() -> None:
    scenario = scale_out(6, 4, 300, balancers=3, policy=policy(5.0), duration=1500.0)
    fleet = happen(scenario)
    assert max(fleet.loads) <= 180 * 1.2
    assert len(fleet.shed) <= 720 * 1.1
    assert min(fleet.lowest_after_shed.values()) >= 180 * 0.97
    quiet = [sample.loads for sample in fleet.samples[-100:]]
    assert all(loads == quiet[0] for loads in quiet)


def test_ten_balancers_with_reports_of_a_minute_ago() -> None:
    scenario = scale_out(6, 4, 300, balancers=10, interval=60.0, policy=policy(5.0), duration=2400.0)
    fleet = happen(scenario, every=20.0)
    assert max(fleet.loads) <= 180 * 1.2
    assert len(fleet.shed) <= 720 * 1.25
    assert min(fleet.lowest_after_shed.values()) >= 180 * 0.9
    quiet = [sample.loads for sample in fleet.samples[-40:]]
    assert all(loads == quiet[0] for loads in quiet)


@pytest.mark.parametrize("strategy", ["wrr", "p2c"])
def test_strategies_that_send_some_of_them_back(strategy: str) -> None:
    fleet = happen(scale_out(6, 4, 300, strategy=strategy, policy=policy(50.0), duration=1800.0))
    assert max(fleet.loads) <= 180 * 1.2
    last = fleet.shed[-1][0] - fleet.shed[0][0]
    assert last < 900


def test_sessions_that_come_and_go_meanwhile() -> None:
    fleet = happen(scale_out(6, 4, 200, churn=300.0, policy=policy(50.0), duration=600.0))
    assert max(fleet.loads) - min(fleet.loads) <= 2


SCENARIOS = st.builds(
    lambda loads, weights, strategy, rate, slowest, tolerance, seed: Scenario(
        tuple(loads),
        tuple(weights[: len(loads)]),
        strategy=strategy,
        reconnect=(0.1, slowest),
        policy=policy(rate, tolerance),
        duration=900.0,
        seed=seed,
    ),
    st.lists(st.integers(0, 120), min_size=2, max_size=8),
    st.lists(st.integers(1, 4), min_size=8, max_size=8),
    st.just("leastconn"),
    st.sampled_from([1.0, 10.0, 100.0]),
    st.sampled_from([1.0, 30.0, 250.0]),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.integers(0, 100),
)


@given(SCENARIOS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_any_fleet_settles(scenario: Scenario) -> None:
    fleet = happen(scenario, every=10.0)
    total, weights = sum(scenario.loads), scenario.weights
    shares = [total / sum(weights) * weight for weight in weights]
    for index, load in fleet.lowest_after_shed.items():
        assert load >= int(shares[index]), "it shed below its share"
    moved: dict[int, int] = {}
    for _, index in fleet.shed:
        moved[index] = moved.get(index, 0) + 1
    for index, count in moved.items():
        assert count <= scenario.loads[index] - int(shares[index]), (
            "it shed more than its excess: it oscillates"
        )
    assert sum(fleet.loads) + fleet.samples[-1].away >= total - 1
    for load, share in zip(fleet.loads, shares, strict=True):
        assert load <= max(share * (1 + scenario.policy.tolerance), share + 1) + 1


def test_two_runs_differ_by_their_seed_alone() -> None:
    scenario = scale_out(3, 1, 40, policy=policy(5.0), duration=100.0)
    first, second = happen(scenario), happen(evolve(scenario, seed=2))
    assert first.loads == second.loads
    assert first.shed != second.shed
