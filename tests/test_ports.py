"""Ports of different workers never meet, and no port is given twice or while somebody has it."""

from __future__ import annotations

import socket
from itertools import chain

from tests.ports import ALL, SHARES, free_port, share


def test_no_two_workers_have_the_same_ports() -> None:
    shares = [share(f"gw{index}") for index in range(SHARES)]
    assert sorted(chain.from_iterable(shares)) == list(ALL)
    assert share("") == share("master") == shares[0]
    assert share(f"gw{SHARES}") == shares[0]


def test_each_is_new_and_free() -> None:
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == len(given)
    following = given[-1] + 1
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", following))
        except (OSError, OverflowError):
            pass  # somebody has it already
        assert free_port() != following
