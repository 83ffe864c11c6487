"""Names are asked for in threads of their own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from trio_wsb.net.hostnames import OwnThreads
from trio_wsb.net.sockets import ask_system


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the system's resolver hang until the event is set."""
    free = threading.Event()

    def hang(*arguments: int) -> list[object]:
        if arguments[-1] & socket.AI_NUMERICHOST:  # which Trio tries on the event loop, for it never waits
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        free.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield free
    free.set()


async def test_names_that_hang_take_no_thread_from_others(stuck: threading.Event) -> None:
    trio.socket.set_custom_hostname_resolver(OwnThreads(2))
    shared = trio.to_thread.current_default_thread_limiter()
    found: list[object] = []

    async def ask(number: int) -> None:
        found.append(await ask_system(f"name-{number}.invalid", 80))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        assert shared.borrowed_tokens == 0
        assert await trio.to_thread.run_sync(lambda: "a thread") == "a thread"
        stuck.set()
    assert len(found) == 5


async def test_a_question_that_is_given_up_is_left_to_itself(stuck: threading.Event) -> None:
    trio.socket.set_custom_hostname_resolver(OwnThreads(1))
    with trio.move_on_after(0.01) as scope:
        await ask_system("name.invalid", 80)
    assert scope.cancelled_caught


async def test_it_answers_as_trio_does() -> None:
    expected = await trio.socket.getaddrinfo("localhost", "80", type=socket.SOCK_STREAM)
    name = await trio.socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    trio.socket.set_custom_hostname_resolver(OwnThreads())
    assert await trio.socket.getaddrinfo("localhost", "80", type=socket.SOCK_STREAM) == expected
    assert (
        await trio.socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        == name
    )
    with pytest.raises(socket.gaierror):
        await trio.socket.getaddrinfo("no-such-name.invalid", 80)
