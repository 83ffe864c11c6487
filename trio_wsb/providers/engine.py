"""The Docker Engine API, as far as it tells which containers there are: four requests, all of them GET.

    /version                            which versions of the API the Engine has
    /vX/containers/json                 ids of the running containers
    /vX/containers/ID/json              one container
    /vX/events?filters=...              what happens to them, one JSON object a line for as long as the connection lasts

The Engine may be a socket proxy that lets nothing else through. Nothing that it says is believed: every answer has a deadline and a
size, and is a value or an `EngineError`. Source: the Engine's published API reference, version 1.24 and later.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httpx
import trio
from attrs import define, frozen

from trio_wsb.background.counts import system_context
from trio_wsb.background.faults import describe_fault, leaves
from trio_wsb.config.containers import Container, parse_container
from trio_wsb.config.docker import DockerProvider
from trio_wsb.config.problems import quoted
from trio_wsb.errors import Error

WANTED_API: Final = (1, 44)
"""The version of the API that is asked for; of an Engine that has not got it the nearest one that it has."""

MAX_ANSWER: Final = 64 * 2**20
"""Bytes of an answer; a list of ten thousand containers has ten million."""

MAX_EVENT: Final = 2**20
"""Bytes of one event; it has all labels of its container."""

MAX_CONTAINERS: Final = 10_000

KEEP_ALIVE: Final = 60
"""Seconds of silence after which TCP asks whether the Engine is still there; its events can be hours apart."""

_EVENTS: Final = {
    "type": ["container", "network"],
    "event": [
        "start", "die", "destroy", "pause", "unpause", "rename", "update", "health_status", "connect", "disconnect",
    ],
}  # fmt: skip
"""What may change the table. Without the list each health check of each container would be three events."""

_VERSION: Final = re.compile(r"1\.(\d{1,4})")
_ID: Final = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]{0,127}")
_CLOSE_TIMEOUT: Final = 1.0
_ENDED: Final = "the stream of events ended"

TransportFactory = Callable[[DockerProvider], httpx.AsyncBaseTransport]


class EngineError(Error):
    """The Engine does not answer as it should; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoContainer(Error):
    """There is no container of this id, or no longer."""


@frozen
class Version:
    """What an Engine says of itself, and the version of the API that it is spoken to in."""

    engine: str
    api: str


def engine_transport(options: DockerProvider) -> httpx.AsyncBaseTransport:
    """Return what reaches the Engine that `options` name; with TLS it reads files, so then call it off the event loop.

    Raises:
      OSError: a file for TLS cannot be read, or has nothing usable in it.

    """
    endpoint = options.endpoint
    if endpoint.scheme == "unix":
        return httpx.AsyncHTTPTransport(uds=endpoint.path, verify=_unused_context(), trust_env=False)
    keep_alive = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE // 4),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    ]
    return httpx.AsyncHTTPTransport(verify=_context(options), trust_env=False, socket_options=keep_alive)


def _context(options: DockerProvider) -> ssl.SSLContext:
    tls = options.tls
    if not _is_secure(options):
        return _unused_context()
    if tls is None:
        return system_context()
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _unused_context() -> ssl.SSLContext:
    """Return a context for connections without TLS, for which httpx would load the system's authorities."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _is_secure(options: DockerProvider) -> bool:
    return options.endpoint.base(tls=options.tls is not None).startswith("https:")


@asynccontextmanager
async def open_engine(options: DockerProvider, make_transport: TransportFactory) -> AsyncIterator[Engine]:
    """Give the Engine that `options` name, for as long as the block lasts.

    Raises:
      EngineError: a file for TLS cannot be used.

    """
    try:
        if _is_secure(options):
            transport = await trio.to_thread.run_sync(make_transport, options)
        else:
            transport = make_transport(options)
    except OSError as error:  # ssl.SSLError is one
        reason = str(error.strerror or getattr(error, "reason", None) or "no certificate in it")
        raise EngineError(f"providers.docker.tls: cannot be used: {reason.lower()}") from error
    try:
        yield Engine(options, transport)
    finally:
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await transport.aclose()


class Engine:
    """Requests to an Engine."""

    def __init__(self, options: DockerProvider, transport: httpx.AsyncBaseTransport) -> None:
        """Prepare; nothing is asked yet. The transport stays the caller's."""
        tls = options.tls is not None
        self._base = options.endpoint.base(tls=tls)
        self._timeout = options.http_client_timeout or float("inf")
        self._transport = transport
        self._prefix = ""
        self._fields = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "trio-wsb"}
        if options.username is not None:
            user = f"{options.username}:{options.password or ''}".encode()
            self._fields["Authorization"] = f"Basic {base64.b64encode(user).decode()}"

    async def greet(self) -> Version:
        """Find out who it is, and which version of the API to speak; to be called before anything else.

        Raises:
          EngineError: it does not answer, or is no Engine.

        """
        document = await self._get("/version")
        if not isinstance(document, dict) or not isinstance(document.get("ApiVersion"), str):
            raise EngineError("GET /version: the answer is not an Engine's")
        newest = _number(document["ApiVersion"])
        oldest = _number(document.get("MinAPIVersion") or "1.24")
        if newest is None or oldest is None:
            raise EngineError("GET /version: the version of the API is not understood")
        api = f"1.{max(min(WANTED_API[1], newest), oldest)}"
        self._prefix = f"/v{api}"
        return Version(str(document.get("Version", "unknown"))[:64], api)

    async def running(self) -> list[str]:
        """Return the ids of the running containers.

        Raises:
          EngineError: it does not answer as it should.

        """
        document = await self._get(f"{self._prefix}/containers/json")
        if not isinstance(document, list):
            raise EngineError("GET /containers/json: the answer is no list")
        ids = [each.get("Id") if isinstance(each, dict) else None for each in document]
        if len(ids) > MAX_CONTAINERS:
            raise EngineError(f"there are more than {MAX_CONTAINERS} containers")
        if not all(isinstance(each, str) and _ID.fullmatch(each) for each in ids):
            raise EngineError("GET /containers/json: a container has no id")
        return cast("list[str]", ids)

    async def inspect(self, identity: str) -> Container | None:
        """Return a container, None when it does not run.

        Raises:
          EngineError: it does not answer as it should, or describes something that is no container.
          NoContainer: there is none of this id.

        """
        document = await self._get(f"{self._prefix}/containers/{identity}/json")
        try:
            return parse_container(document)
        except ValueError as error:
            raise EngineError(f"GET /containers/{identity[:12]}/json: the answer {error}") from None

    async def follow(
        self, told: Callable[[str], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call `told` with the id of each container to which something happens, until the stream ends.

        Started as soon as events are heard: what happens from then on is told.

        Raises:
          EngineError: it ended, always.

        """
        url = f"{self._prefix}/events"
        with self._faults(url):
            with trio.fail_after(self._timeout):
                response = await self._ask(url, {"filters": json.dumps(_EVENTS)})
            try:
                _check(response, url)
                task_status.started()
                await _feed(response, _Lines(told, url).take)
            except httpx.HTTPError as error:
                raise EngineError(_ENDED) from error
            finally:
                await _close(response)
        raise EngineError(_ENDED)

    async def _get(self, path: str) -> Any:
        with self._faults(path), trio.fail_after(self._timeout):
            response = await self._ask(path, {})
            try:
                _check(response, path)
                body = await _read(response, path)
            finally:
                await _close(response)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise EngineError(f"GET {path}: the answer is no complete JSON") from None

    async def _ask(self, path: str, query: dict[str, str]) -> httpx.Response:
        request = httpx.Request("GET", f"{self._base}{path}", params=query, headers=self._fields)
        return await self._transport.handle_async_request(request)

    def _faults(self, path: str) -> _Faults:
        return _Faults(path, self._timeout)


@frozen
class _Faults:
    """Turns what goes wrong with a request into an `EngineError`."""

    path: str
    timeout: float

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, (EngineError, NoContainer)):
            return
        found = list(leaves(error))
        if all(
            isinstance(each, (httpx.HTTPError, OSError, trio.TooSlowError, trio.BrokenResourceError))
            for each in found
        ):
            raise EngineError(f"GET {self.path}: {describe_fault(error, self.timeout)}") from error


@define
class _Lines:
    """Puts the lines of a stream together, and tells which containers they are about."""

    told: Callable[[str], None]
    url: str
    rest: bytes = b""

    def take(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            if line.strip() and (identity := _concerned(line)):
                self.told(identity)
        if len(self.rest) > MAX_EVENT:
            raise EngineError(f"GET {self.url}: an event is over {MAX_EVENT // 2**20} MiB")


def _check(response: httpx.Response, path: str) -> None:
    if response.status_code == 404 and "/containers/" in path:
        raise NoContainer
    if response.status_code != 200:
        raise EngineError(f"GET {path}: answered {response.status_code}")


async def _read(response: httpx.Response, path: str) -> bytes:
    body = bytearray()

    def take(chunk: bytes) -> None:
        body.extend(chunk)
        if len(body) > MAX_ANSWER:
            raise EngineError(f"GET {path}: the answer is over {MAX_ANSWER // 2**20} MiB")

    await _feed(response, take)
    return bytes(body)


async def _feed(response: httpx.Response, take: Callable[[bytes], None]) -> None:
    """Give the body of `response` to `take` as it comes, to its end; an EngineError of `take` ends it too."""
    failure: EngineError | None = None
    try:
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            try:
                if failure is None:
                    take(chunk)
            except EngineError as error:
                # Leaving the loop would leave generators inside httpx to the garbage collector. With the connection
                # closed their next read ends them.
                failure = error
                await response.aclose()
    except (httpx.HTTPError, trio.ClosedResourceError):
        if failure is None:
            raise
    if failure is not None:
        raise failure


async def _close(response: httpx.Response) -> None:
    with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
        await response.aclose()


def _number(version: object) -> int | None:
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return None if found is None else int(found[1])


def _concerned(line: bytes) -> str:
    """Return the id of the container that an event is about, "" if it is about none.

    Raises:
      EngineError: it is no event, and who knows what else went lost with it.

    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise EngineError("the stream of events is no JSON") from None
    actor = event.get("Actor") if isinstance(event, dict) else None
    if not isinstance(actor, dict):
        raise EngineError("the stream of events has something else in it")
    identity = actor.get("ID")
    if event.get("Type") == "network":
        attributes = actor.get("Attributes")
        identity = attributes.get("container") if isinstance(attributes, dict) else None
    elif event.get("Type") != "container":
        return ""
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        return ""
    return identity


def show_engine(options: DockerProvider) -> str:
    """Return how the log and the status name the Engine of `options`."""
    return quoted(str(options.endpoint)).strip('"')
