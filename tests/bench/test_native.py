"""The two C programs, against each other and against a client of other make."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from bench.native import Backends, LoadGenerator, backends, parse_figures
from bench.processes import BenchError, free_port

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

FOREIGN_101 = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
"""The accept value of RFC 6455 section 1.3, which answers another key."""


@pytest.fixture
def echo() -> Iterator[Backends]:
    with backends(2) as servers:
        yield servers


@needs_compiler
@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 300_000])
def test_every_length_encoding_is_echoed(echo: Backends, size: int) -> None:
    figures = LoadGenerator().echo(echo.ports, sessions=4, size=size, seconds=0.05)
    assert figures["messages"] > 0
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]
    # A percentile is the lower edge of its bucket, so none is above the slowest.
    assert figures["p999_us"] <= figures["max_us"]
    echo.wait_until_quiet()


@needs_compiler
def test_handshakes_are_counted_and_leave_nothing_open(echo: Backends) -> None:
    figures = LoadGenerator().handshakes(echo.ports, clients=4, seconds=0.1)
    assert figures["handshakes_per_s"] == pytest.approx(figures["handshakes"] / 0.1, rel=0.01)
    echo.wait_until_quiet()


@needs_compiler
def test_a_rate_is_kept_and_never_exceeded(echo: Backends) -> None:
    marks: list[int] = []
    figures = LoadGenerator().rate(
        echo.ports,
        sessions=4,
        size=64,
        seconds=0.2,
        rate=1000,
        mark=lambda: marks.append(sum(echo.sessions())),
    )
    assert marks[0] == 4, "all sessions are open when measuring begins"
    assert len(marks) == 2
    # What was due before the first tick of the measured time may be in it, and no more than that.
    assert 0 < figures["messages"] <= 205
    assert figures["wanted_per_s"] == 1000
    echo.wait_until_quiet()


@needs_compiler
def test_a_storm_brings_everybody_back(echo: Backends) -> None:
    figures = LoadGenerator().storm(echo.ports, sessions=200)
    assert (figures["alive"], figures["refused"]) == (200, 0)
    assert figures["storm_s"] * 1e6 >= figures["max_us"]
    echo.wait_until_quiet()


@needs_compiler
def test_who_is_refused_in_a_storm_comes_back() -> None:
    with backends(1) as servers, socket.create_server(("127.0.0.1", 0)) as listener:
        busy = threading.Thread(
            target=answer_once, args=(listener, b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        )
        busy.start()
        figures = LoadGenerator().storm([listener.getsockname()[1], *servers.ports], sessions=1)
        busy.join()
    assert (figures["alive"], figures["refused"]) == (1, 1)


@needs_compiler
def test_idle_sessions_are_spread_and_counted(echo: Backends) -> None:
    with LoadGenerator().idle(echo.ports, sessions=50):
        assert echo.sessions() == [25, 25]
    echo.wait_until_quiet()


@needs_compiler
def test_the_backend_speaks_with_another_client(echo: Backends) -> None:
    with connect(f"ws://127.0.0.1:{echo.ports[0]}/", compression=None, max_size=None) as client:
        client.send("ünïcode")
        assert client.recv() == "ünïcode"
        client.send([b"in ", b"three ", b"fragments"])
        assert client.recv() == b"in three fragments"
        assert client.ping(b"here?").wait(5)
        big = bytes(range(256)) * 16_384
        client.send(big)
        assert client.recv() == big
    assert client.close_code == 1000
    echo.wait_until_quiet()


@needs_compiler
def test_the_backend_drops_an_unmasked_frame(echo: Backends) -> None:
    with connect(f"ws://127.0.0.1:{echo.ports[0]}/", compression=None) as client:
        client.socket.sendall(b"\x82\x01x")
        with pytest.raises(Exception, match="no close frame received"):
            client.recv()


@needs_compiler
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered with .HTTP/1.1 503 Service Unavailable"),
        (FOREIGN_101, "wrong Sec-WebSocket-Accept"),
        (b"", "lost during its handshake"),
    ],
)
def test_a_wrong_answer_gives_no_figure(answer: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer_once, args=(listener, answer))
        server.start()
        with pytest.raises(BenchError, match=message):
            LoadGenerator().handshakes([listener.getsockname()[1]], clients=1, seconds=1)
        server.join()


@needs_compiler
@pytest.mark.parametrize("options", [{"sessions": 0}, {"sessions": 200_000}])
def test_a_number_out_of_range_is_named(options: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="--sessions must be a number from 1 to 100000"):
        LoadGenerator().echo([1], size=64, seconds=1, **options)


def test_output_that_holds_no_figures_is_shown() -> None:
    with pytest.raises(BenchError, match="printed 'ready"):
        parse_figures("ready\n")
    assert parse_figures('{"mode": "echo", "messages": 3}') == {"messages": 3.0}


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(answer)


@needs_compiler
def test_a_rate_that_nobody_can_take_is_told() -> None:
    with pytest.raises(BenchError, match=r"loadgen rate: .*Connection refused"):
        LoadGenerator().rate([free_port()], sessions=1, size=64, seconds=0.1, rate=10)
