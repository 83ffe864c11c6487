"""The table of cases on the real Traefik: where it says the same as ours, it does the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.daemon.harness import PATIENCE, Running, free_port, http_client
from tests.daemon.waiting import eventually
from tests.routing.cases import CASES, OURS_REFUSES, REFUSED, Case
from tests.traefik.harness import traefik_program
from trio_wsb.routing.rules import parse_rule

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(traefik_program() is None, reason="traefik is not installed"),
]

TAKEN, NOT_TAKEN = 418, 404
"""What noop@internal answers, and what no router does."""


class Routers:
    """A Traefik with one router for each rule, told apart by a header of the request."""

    def __init__(self, rules: Sequence[str], port: int, routers: dict[str, Any]) -> None:
        self._rules = rules
        self._port = port
        self._routers = routers

    def refused(self, rule: str) -> bool:
        """Whether Traefik disabled the router of this rule."""
        router = self._routers[f"r{self._rules.index(rule)}@file"]
        return bool(router["status"] == "disabled")

    def priority(self, rule: str) -> int:
        found: int = self._routers[f"r{self._rules.index(rule)}@file"]["priority"]
        return found

    async def ask(self, case: Case) -> int:
        """Return the status that the request of `case` gets."""
        marks = f"X-Case: {self._rules.index(case.rule)}\r\n\r\n".encode()
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                await stream.send_all(case.request.removesuffix(b"\r\n") + marks)
                answer = b""
                while b"\r\n" not in answer:
                    received = await stream.receive_some()
                    assert received
                    answer += received
        return int(answer.split()[1])


@asynccontextmanager
async def routers(
    directory: Path, rules: Sequence[str], *, distinguished: bool = True
) -> AsyncIterator[Routers]:
    """Run Traefik with these rules; `distinguished` ones take only requests of their own."""
    program = traefik_program()
    assert program is not None
    port, api = free_port(), free_port()
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "api": {"insecure": True},
        "entryPoints": {
            "web": {"address": f"127.0.0.1:{port}"},
            "traefik": {"address": f"127.0.0.1:{api}"},
        },
        "providers": {
            "providersThrottleDuration": "10ms",
            "file": {"filename": str(directory / "dynamic.yml"), "watch": False},
        },
    }
    dynamic = {
        f"r{number}": {
            "rule": f"({rule}) && Header(`X-Case`, `{number}`)" if distinguished else rule,
            "service": "noop@internal",
            "entryPoints": ["web"],
        }
        for number, rule in enumerate(rules)
    }
    (directory / "traefik.yml").write_text(json.dumps(static))
    (directory / "dynamic.yml").write_text(json.dumps({"http": {"routers": dynamic}}))
    url = f"http://127.0.0.1:{api}/api/http/routers?per_page=1000"
    async with (
        Running.program(program, f"--configFile={directory / 'traefik.yml'}"),
        http_client() as client,
    ):

        async def listed() -> dict[str, Any]:
            try:
                answer = await client.get(url)
            except httpx.TransportError:
                return {}  # it does not listen yet
            found = answer.json() if answer.status_code == 200 else []
            return {router["name"]: router for router in found if router["provider"] == "file"}

        yield Routers(rules, port, await eventually(listed, lambda found: len(found) == len(rules)))


async def test_the_real_traefik_does_what_the_table_says(tmp_path: Path) -> None:
    rules = list(dict.fromkeys(case.rule for case in CASES))
    wrong: list[str] = []
    async with routers(tmp_path, rules) as traefik:
        # The routers are listed a moment before they answer.
        await eventually(
            partial(traefik.ask, Case("PathPrefix(`/`)", True, True)), lambda status: status == TAKEN
        )
        for case in CASES:
            if traefik.refused(case.rule):
                answer: bool | int | None = None
            else:
                status = await traefik.ask(case)
                answer = {TAKEN: True, NOT_TAKEN: False}.get(status, status)
            if answer is not case.traefik and answer != case.traefik:
                wrong.append(f"{case}: {answer}")
    assert not wrong


async def test_what_the_real_traefik_refuses(tmp_path: Path) -> None:
    rules = [*REFUSED, *OURS_REFUSES]
    async with routers(tmp_path, rules, distinguished=False) as traefik:
        refused = [rule for rule in rules if traefik.refused(rule)]
    assert refused == REFUSED


async def test_priorities(tmp_path: Path) -> None:
    rules = ["Path(`/grün`)", "  Path(`/x`)  ", "Host(`*.example.com`)", "Path(`/x`)||Path(`/y`)"]
    async with routers(tmp_path, rules, distinguished=False) as traefik:
        priorities = [traefik.priority(rule) for rule in rules]
    assert priorities == [parse_rule(rule).default_priority for rule in rules]
