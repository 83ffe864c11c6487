from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from trio_wsb.addresses import ListenAddress, parse_listen
from trio_wsb.daemon.activation import InheritedSocket, assign, take_sockets
from trio_wsb.errors import ConfigurationError

FIRST = 200
"""Where the tests put what is handed over; 3 and up belong to the test runner."""

PID = 42


def listening(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen()
    return sock


@contextmanager
def handed_over(*things: socket.socket | int) -> Iterator[None]:
    """Put descriptors where a service manager puts them, inheritable as it does; closes the originals."""
    for number, thing in enumerate(things, FIRST):
        os.dup2(thing if isinstance(thing, int) else thing.fileno(), number, inheritable=True)
        if isinstance(thing, socket.socket):
            thing.close()
    yield
    for number in range(FIRST, FIRST + len(things)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def variables(count: int, names: str | None = None, pid: int = PID) -> dict[str, str]:
    found = {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid), "PATH": "/bin"}
    return found if names is None else {**found, "LISTEN_FDNAMES": names}


def take(environment: dict[str, str]) -> list[InheritedSocket]:
    taken = take_sockets(environment, pid=PID, first=FIRST)
    assert environment == {"PATH": "/bin"}
    return taken


def close(sockets: Sequence[InheritedSocket]) -> None:
    for each in sockets:
        each.sock.close()


def problems(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        take(environment)
    return caught.value.problems


def test_sockets_are_taken_with_their_names() -> None:
    first, second = listening(), listening()
    addresses = [first.getsockname(), second.getsockname()]
    with handed_over(first, second):
        taken = take(variables(2, "web:admin"))
        assert [each.name for each in taken] == ["web", "admin"]
        assert [each.sock.getsockname() for each in taken] == addresses
        assert [each.address for each in taken] == [ListenAddress(*address) for address in addresses]
        for each in taken:
            assert not os.get_inheritable(each.sock.fileno())
            assert not os.get_blocking(each.sock.fileno())
        close(taken)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen()
    with handed_over(sock):
        (taken,) = take(variables(1, "unknown"))
        assert str(taken.address) == f"unix:{path}"
        wanted = {
            "tcp": ListenAddress("", 80),
            "other": ListenAddress("", 0, "/other"),
            "web": ListenAddress("", 0, path),
        }
        assert assign([taken], wanted) == {taken: "web"}
        taken.sock.close()


def test_names_are_optional() -> None:
    with handed_over(listening()):
        taken = take(variables(1))
        assert [each.name for each in taken] == ["unknown"]
        close(taken)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": str(PID + 1), "LISTEN_FDNAMES": "web"},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(PID)},
        {"LISTEN_PID": str(PID)},
    ],
)
def test_nothing_for_us(environment: dict[str, str]) -> None:
    assert take({**environment, "PATH": "/bin"}) == []


def test_bad_variables() -> None:
    assert problems({**variables(0), "LISTEN_FDS": "two"}) == ["LISTEN_FDS: is not a number"]
    assert problems(variables(2, "web")) == ["LISTEN_FDNAMES: has 1 names for 2 descriptors"]


def test_what_cannot_be_listened_on_is_named_and_everything_is_closed() -> None:
    with ExitStack() as stack:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        silent = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        with handed_over(listening(), datagram, other, silent, null):
            assert problems(variables(6, "web:metrics:local:silent:null:gone")) == [
                (
                    'LISTEN_FDS: descriptor 201 ("metrics") is a datagram socket '
                    "(an entry point listens on streams; write ListenStream=)"
                ),
                (
                    'LISTEN_FDS: descriptor 202 ("local") is neither an IP nor a Unix socket '
                    "(write ListenStream=PORT or ListenStream=/PATH)"
                ),
                'LISTEN_FDS: descriptor 203 ("silent") does not listen (a socket unit for this service has Accept=no)',
                'LISTEN_FDS: descriptor 204 ("null") is not a socket',
                'LISTEN_FDS: descriptor 205 ("gone") is not open',
            ]


def test_the_socket_of_one_connection_is_refused() -> None:
    """What Accept=yes hands over."""
    with listening() as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with handed_over(accepted):
            assert "does not listen" in problems(variables(1, "connection"))[0]


@pytest.fixture
def v4() -> Iterator[InheritedSocket]:
    with listening() as sock:
        yield InheritedSocket("trio-wsb.socket", sock)


def at(address: str, inherited: InheritedSocket) -> ListenAddress:
    return parse_listen(address.replace("PORT", str(inherited.address.port)))


@pytest.mark.parametrize(
    ("bound", "configured", "fits"),
    [
        ("127.0.0.1", "127.0.0.1:PORT", True),
        ("127.0.0.1", "127.0.0.2:PORT", False),
        ("127.0.0.1", "[::ffff:127.0.0.1]:PORT", True),
        ("127.0.0.1", "127.0.0.1:1", False),
        ("127.0.0.1", ":PORT", False),
        ("127.0.0.1", "0.0.0.0:PORT", False),
        ("127.0.0.1", "localhost:PORT", False),
        ("0.0.0.0", ":PORT", True),
        ("0.0.0.0", "0.0.0.0:PORT", True),
        ("0.0.0.0", "[::]:PORT", False),
        ("0.0.0.0", "127.0.0.1:PORT", False),
    ],
)
def test_matching_by_address(bound: str, configured: str, fits: bool) -> None:
    with listening(bound) as sock:
        inherited = InheritedSocket("x", sock)
        assert inherited.fits(at(configured, inherited)) is fits


def test_a_name_goes_before_an_address(v4: InheritedSocket) -> None:
    wanted = {"other": at("127.0.0.1:PORT", v4), "web": ListenAddress("", 80)}
    assert assign([v4], wanted) == {v4: "other"}
    v4.name = "web"
    assert assign([v4], wanted) == {v4: "web"}


def test_several_sockets_for_one_entry_point() -> None:
    with listening() as one, listening() as two, listening() as three:
        sockets = [InheritedSocket("web", one), InheritedSocket("x", two), InheritedSocket("web", three)]
        wanted = {"web": sockets[1].address, "admin": ListenAddress("127.0.0.1", 1)}
        assert assign(sockets, wanted) == dict.fromkeys(sockets, "web")


def test_sockets_that_nobody_wants(v4: InheritedSocket) -> None:
    assert assign([v4], {"web": ListenAddress("127.0.0.1", 1)}) == {}
