from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_wsb.net.poller import AT_ONCE, Watched, watch

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


def tcp_pair() -> Ends:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


async def returns(watched: Watched) -> bool:
    """Whether a wait ends by what is there already."""
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.01) as scope:
        await watched.wait()
    return not scope.cancelled_caught


async def test_what_was_there_before_is_an_edge(ends: Ends) -> None:
    one, other = ends
    other.send(b"x")
    watched = watch(one)
    await watched.wait()
    assert one.recv(10) == b"x"
    assert not await returns(watched)
    watched.forget()


async def test_an_edge_wakes_who_waits_once_for_each(ends: Ends) -> None:
    one, other = ends
    watched, woken = watch(one), []

    async def read() -> None:
        while True:
            await watched.wait()
            try:
                woken.append(one.recv(10))
            except BlockingIOError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for word in (b"a", b"b", b"c"):
            await trio.testing.wait_all_tasks_blocked()
            other.send(word)
            with trio.fail_after(5):
                while word not in woken:
                    await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert woken == [b"a", b"b", b"c"]
    watched.forget()


async def test_an_edge_for_which_nobody_waits_is_kept(ends: Ends) -> None:
    one, other = ends
    watched = watch(one)
    assert not await returns(watched)
    other.send(b"x")
    await trio.sleep(0.01)  # taken while nobody waits
    assert await returns(watched)
    assert one.recv(10) == b"x"
    assert not await returns(watched)
    watched.forget()


async def test_an_end_that_came_with_the_last_bytes_is_told(ends: Ends) -> None:
    one, other = ends
    watched = watch(one)
    other.send(b"last")
    other.shutdown(socket.SHUT_WR)
    await watched.wait()
    assert one.recv(100) == b"last"  # fewer bytes than asked for, and no edge comes after them
    with trio.fail_after(5):
        await watched.wait()
    assert one.recv(100) == b""
    with trio.fail_after(5):
        await watched.wait()
    watched.forget()


async def test_a_reset_is_told() -> None:
    one, other = tcp_pair()
    with one, other:
        watched = watch(one)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await watched.wait()
                with pytest.raises(ConnectionResetError):
                    one.recv(1)

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.close()
        watched.forget()


async def test_only_one_task_may_wait(ends: Ends) -> None:
    watched = watch(ends[0])
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            await watched.wait()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await watched.wait()
        nursery.cancel_scope.cancel()
    assert not await returns(watched)  # a wait that was cancelled has left nothing behind
    watched.forget()


async def test_who_waits_learns_that_it_is_forgotten(ends: Ends) -> None:
    watched = watch(ends[0])
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await watched.wait()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        watched.forget()


async def test_a_number_that_is_used_again_is_another_socket() -> None:
    for word in (b"first", b"second"):
        one, other = socket.socketpair()
        one.setblocking(False)
        watched = watch(one)
        other.send(word)
        await watched.wait()
        assert one.recv(100) == word
        assert not await returns(watched)
        watched.forget()
        one.close()
        other.close()


async def test_one_that_is_given_up_can_be_watched_by_others(ends: Ends) -> None:
    one, other = ends
    watched = watch(one)
    with pytest.raises(FileExistsError):
        watch(one)
    watched.give_up()
    again = watch(one)
    other.send(b"x")
    await again.wait()
    again.forget()


async def test_many_edges_at_once_are_all_told() -> None:
    pairs = [socket.socketpair() for _ in range(AT_ONCE + 44)]
    told: set[int] = set()

    async def read(number: int, watched: Watched) -> None:
        await watched.wait()
        told.add(number)

    all_watched = [watch(one) for one, _ in pairs]
    async with trio.open_nursery() as nursery:
        for number, watched in enumerate(all_watched):
            nursery.start_soon(read, number, watched)
        await trio.testing.wait_all_tasks_blocked()
        for _, other in pairs:
            other.send(b"x")
    assert len(told) == len(pairs)
    for watched, (one, other) in zip(all_watched, pairs, strict=True):
        watched.forget()
        one.close()
        other.close()


def test_each_run_has_its_own_and_leaves_no_descriptor() -> None:
    async def wait() -> None:
        one, other = socket.socketpair()
        with one, other:
            watched = watch(one)
            other.send(b"x")
            await watched.wait()
            watched.forget()

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        trio.run(wait)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
