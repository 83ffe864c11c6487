from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.balancing.report import Report


def url(number: int = 1) -> BackendURL:
    return BackendURL("http", f"10.0.0.{number}", 8080)


def counters(backend: Backend) -> tuple[int, int, int]:
    return backend.live, backend.pending, backend.own


def test_a_session() -> None:
    backend = Backend(url())
    backend.begin_handshake()
    assert counters(backend) == (0, 1, 1)
    backend.session_opened(1.0)
    assert counters(backend) == (1, 0, 1)
    assert backend.opened_total == 1
    assert not backend.session_ended(90.0, 1.0)
    assert counters(backend) == (0, 0, 0)
    assert repr(backend) == "<Backend http://10.0.0.1:8080 live=0 pending=0>"


def test_a_failed_handshake() -> None:
    backend = Backend(url())
    backend.begin_handshake()
    backend.begin_handshake()
    assert backend.handshake_failed(1.0)
    assert not backend.handshake_failed(1.0)
    assert counters(backend) == (0, 0, 0)
    assert backend.failures_total == 2
    assert not backend.passive.available(1.5)


def test_an_answer_that_is_no_session_speaks_for_the_backend() -> None:
    backend = Backend(url())
    backend.begin_handshake()
    backend.handshake_ended(1.0)
    assert backend.passive.recovering


def test_an_attempt_given_up_says_nothing() -> None:
    backend = Backend(url())
    backend.begin_handshake()
    backend.handshake_ended()
    assert counters(backend) == (0, 0, 0)
    assert not backend.passive.recovering
    assert backend.passive.available(0.0)


@pytest.mark.parametrize(("lasted", "fault", "drops"), [(1.9, True, 3), (2.1, True, 0), (0.1, False, 0)])
def test_quick_drops(lasted: float, fault: bool, drops: int) -> None:
    backend = Backend(url())
    began = []
    for _ in range(3):
        backend.begin_handshake()
        backend.session_opened(10.0)
        began.append(backend.session_ended(10.0 + lasted, 10.0, backend_fault=fault))
    assert began == [False, False, drops == 3]
    assert backend.drops_total == drops
    assert backend.passive.available(10.0 + lasted) == (drops == 0)


@pytest.mark.parametrize(
    "count_out",
    [
        lambda backend: backend.handshake_failed(0.0),
        lambda backend: backend.handshake_ended(),
        lambda backend: backend.session_opened(0.0),
        lambda backend: backend.session_ended(1.0, 0.0),
    ],
)
def test_counting_out_what_was_not_counted_in(count_out: object) -> None:
    backend = Backend(url())
    assert callable(count_out)
    with pytest.raises(AssertionError, match=r"no (handshake|session) is"):
        count_out(backend)
    assert counters(backend) == (0, 0, 0)


def test_a_live_session_is_no_handshake() -> None:
    backend = Backend(url())
    backend.begin_handshake()
    backend.session_opened(0.0)
    with pytest.raises(AssertionError):
        backend.handshake_ended()
    assert counters(backend) == (1, 0, 1)


@given(st.lists(st.sampled_from(["begin", "fail", "end", "open", "close"])))
def test_counters_are_those_of_a_model_and_never_negative(steps: list[str]) -> None:
    backend, live, pending = Backend(url()), 0, 0
    for now, step in enumerate(steps):
        if step == "begin":
            backend.begin_handshake()
            pending += 1
        elif step == "close" and live:
            backend.session_ended(now, now - 1, backend_fault=True)
            live -= 1
        elif step in {"fail", "end", "open"} and pending:
            pending -= 1
            if step == "fail":
                backend.handshake_failed(now)
            elif step == "end":
                backend.handshake_ended(now)
            else:
                backend.session_opened(now)
                live += 1
        assert counters(backend) == (live, pending, live + pending)


def test_names_are_kept() -> None:
    backend = Backend(url())
    assert backend.pod == {}
    backend.learn_names(Report(1, "pod", "10.1.1.1", "node"))
    backend.learn_names(Report(1, pod_ip="10.1.1.2"))
    assert (backend.pod_name, backend.pod_ip, backend.node_name) == ("pod", "10.1.1.2", "node")
    assert backend.pod == {"podName": "pod"}


def test_one_for_a_url() -> None:
    table = BackendTable()
    first = table.get(url())
    assert table.get(url()) is first
    assert table.find(url()) is first
    assert table.find(url(2)) is None


def test_retain_drops_the_idle_and_keeps_the_used() -> None:
    table = BackendTable()
    table.retain([url(1), url(2), url(3)])
    used = table.get(url(1))
    used.begin_handshake()
    used.session_opened(0.0)
    table.retain([url(3)])
    gc.collect()
    assert table.find(url(2)) is None
    assert [backend.url for backend in table] == [url(1), url(3)]
    assert not table.configured(used)
    assert table.configured(table.get(url(3)))

    used.session_ended(60.0, 0.0)
    assert [backend.url for backend in table] == [url(3)]
    assert len(table) == 1
    del used
    gc.collect()
    assert table.find(url(1)) is None


def test_a_server_that_comes_back_meets_its_sessions() -> None:
    table = BackendTable()
    table.retain([url(1)])
    session = table.get(url(1))
    session.begin_handshake()
    table.retain([])
    table.retain([url(1)])
    assert table.get(url(1)) is session
    assert [backend.own for backend in table] == [1]


def test_a_configuration_that_is_given_up_leaves_nothing() -> None:
    table = BackendTable()
    table.retain([url(1)])
    table.get(url(2))
    gc.collect()
    assert table.find(url(2)) is None
