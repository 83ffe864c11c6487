"""The Engine over a real Unix socket: HTTP/1.1, chunked events, and what breaks off in the middle."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trustme
from attrs import evolve

from tests.providers.engine import Engine, Fault, serve, serve_connection
from trio_wsb.config.docker import DockerProvider, EngineTLS, EngineURL, parse_engine_url
from trio_wsb.providers.docker import DockerProviderTask
from trio_wsb.providers.engine import EngineError, engine_transport, open_engine

PATIENCE = 20


class Told:
    """Counts changes, so that one can be waited for."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def __call__(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not holds():
                await self._event.wait()


def at(path: Path) -> DockerProvider:
    return DockerProvider(endpoint=EngineURL("unix", path=str(path)))


async def test_events_in_chunks_and_their_ends(tmp_path: Path) -> None:
    engine, told = Engine(), Told()
    task = DockerProviderTask(told)

    def names() -> list[str]:
        return [] if task.found is None else [each.name for each in task.found.containers]

    task.configure(at(tmp_path / "docker.sock"))
    one = engine.start("one")
    async with serve(engine, tmp_path / "docker.sock"), trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        await told.until(lambda: names() == ["one"])
        two = engine.start("two", {"key": "é" * 5000})
        await told.until(lambda: names() == ["one", "two"])
        # The next stream breaks off in the middle of an event, the first list in the middle of a name.
        engine.faults += [Fault("/events", cut=100, times=1), Fault("/containers/json", cut=30, times=1)]
        engine.hang_up()
        engine.stop(two)
        await told.until(lambda: names() == ["one"])
        engine.turn(one, "unhealthy")
        await told.until(lambda: task.found is not None and task.found.containers[0].health == "unhealthy")
        assert engine.asked["/events"] >= 3
        nursery.cancel_scope.cancel()
    assert engine.listening == 0


async def test_nobody_there(tmp_path: Path) -> None:
    options = at(tmp_path / "docker.sock")
    async with open_engine(options, engine_transport) as engine:
        with pytest.raises(EngineError, match="GET /version: cannot connect: No such file or directory"):
            await engine.greet()


async def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    options = DockerProvider(
        endpoint=parse_engine_url("tcp://127.0.0.1:1"), tls=EngineTLS(ca=str(tmp_path / "ca.pem"))
    )
    with pytest.raises(EngineError, match=r"providers\.docker\.tls: cannot be used"):
        async with open_engine(options, engine_transport):
            pass
    missing = evolve(options, tls=EngineTLS(ca=str(tmp_path / "missing.pem")))
    with pytest.raises(EngineError, match="no such file"):
        async with open_engine(missing, engine_transport):
            pass


async def test_tls_with_a_certificate_of_ours(tmp_path: Path) -> None:
    authority = trustme.CA()
    ours = authority.issue_cert("balancer@example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    ours.cert_chain_pems[0].write_to_path(files["cert"])
    ours.private_key_pem.write_to_path(files["key"])
    engine = Engine()
    identity = engine.start("one")
    (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    inner = listener.transport_listener
    assert isinstance(inner, trio.SocketListener)
    port = inner.socket.getsockname()[1]
    options = DockerProvider(
        endpoint=parse_engine_url(f"tcp://127.0.0.1:{port}"),
        tls=EngineTLS(files["ca"], files["cert"], files["key"]),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, lambda stream: serve_connection(engine, stream), [listener])
        async with open_engine(options, engine_transport) as opened:
            assert (await opened.greet()).api == "1.44"
            assert await opened.running() == [identity]
            one = await opened.inspect(identity)
            assert one is not None
            assert one.name == "one"
        stranger = evolve(options, tls=EngineTLS(cert=files["cert"], key=files["key"]))
        async with open_engine(stranger, engine_transport) as opened:
            with pytest.raises(EngineError, match="the certificate is not trusted"):
                await opened.greet()
        trusting = evolve(
            options, tls=EngineTLS(None, files["cert"], files["key"], insecure_skip_verify=True)
        )
        async with open_engine(trusting, engine_transport) as opened:
            assert (await opened.greet()).engine == "27.3.1"
        nursery.cancel_scope.cancel()
