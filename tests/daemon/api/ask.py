"""Asking the API of a daemon without its network."""

from __future__ import annotations

import json
from typing import Any

from tests.daemon import pages
from tests.daemon.state import World

LOCAL = "127.0.0.1"

CONFIGURATION: dict[str, Any] = {
    "entryPoints": {"web": {"address": "127.0.0.1:9000"}, "admin": {"address": "balancer.lan:9001"}},
    "http": {
        "routers": {
            "chat": {"rule": "PathPrefix(`/chat`)", "service": "chat", "middlewares": ["limit", "auth"], "priority": 7},
            "both": {"rule": "Host(`both.example`)", "service": "both", "entryPoints": ["web"]},
            "lost": {"rule": "Host(`lost.example`)", "service": "nowhere"},
        },
        "services": {
            "chat": {
                "loadBalancer": {
                    "servers": [{"url": "http://10.0.0.1:8080"}, {"url": "http://10.0.0.2:8080", "weight": 0}],
                    "connectionCount": {"path": "/metric"},
                    "healthCheck": {"path": "/health", "headers": {"X-Key": "hunter2"}},
                    "sticky": {"cookie": {"name": "s"}},
                }
            },
            "other": {"loadBalancer": {"servers": [{"url": "http://10.0.0.3:8080"}]}},
            "both": {"weighted": {"services": [{"name": "chat", "weight": 3}, {"name": "other"}]}},
        },
        "middlewares": {
            "limit": {"rateLimit": {"average": 10}},
            "auth": {"basicAuth": {"users": ["admin:$2y$05$dO4CgPEc2h1fUHCqy.qY6eS/M8Q0CLbaKfvpUdsyvmaQwbxgSZqGO"]}},
            "key": {"headers": {"customRequestHeaders": {"Authorization": "Bearer hunter2"}}},
        },
    },
}  # fmt: skip
"""With some of everything; the name of `admin`'s address is its own."""


class Answer:
    """What the API answered."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def json(self) -> Any:
        text = self.body
        if self.fields.get("transfer-encoding") == "chunked":
            text = unchunked(text)
        return json.loads(text)


def unchunked(body: bytes) -> bytes:
    """Return a body without its chunks' sizes; it must be complete."""
    found = b""
    while body != b"0\r\n\r\n":
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert length
        found, rest = found + body[:length], body[length:]
        assert rest.startswith(b"\r\n")
        body = rest[2:]
    return found


async def ask(
    world: World,
    path: str,
    *fields: str,
    method: str = "GET",
    host: str | None = LOCAL,
    name: str = "admin",
) -> Answer | None:
    """Return the answer to a request without a router; None when it is to be routed."""
    request = pages.head(path, *fields, method=method, host=host)
    data = await pages.ask(world, request, name=name)
    return None if data is None else Answer(data)


async def get(world: World, path: str, **known: Any) -> Any:
    """Return the document at `path`, which must be there."""
    answer = await ask(world, path, **known)
    assert answer is not None
    assert answer.status == 200, (path, answer.body)
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["cache-control"] == "no-store"
    return answer.json
