"""TLS at the real daemon, with clients that are not ours: websockets, curl, openssl."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from attrs import frozen
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.daemon.harness import PATIENCE, Daemon, Running, backend, free_port
from tests.net.test_clienthello import real_hello
from tests.tlsfiles import Authority, Files, self_signed

pytestmark = pytest.mark.daemon

LAUNCHER = Path(__file__).parents[1] / "systemd/launch.py"


@frozen
class Stage:
    """The daemon with TLS, and what clients need to know."""

    daemon: Daemon
    authority: Authority
    clients: Authority
    files: Files

    async def curl(self, url: str, *options: str) -> tuple[int, str]:
        """Ask for `url`, whose host is us; return curl's exit status and the status and body of the answer."""
        target = f"::127.0.0.1:{self.daemon.port}"
        command = ["curl", "-s", "-o-", "-w", "\n%{http_code}", "--max-time", "20", "--connect-to", target]
        command += ["--cacert", str(self.authority.file), *options, url]
        done = await trio.run_process(command, capture_stdout=True, check=False)
        return done.returncode, done.stdout.decode()

    async def status_of(self, url: str, *options: str) -> str:
        """Return the status of the answer, or "000"."""
        return (await self.curl(url, *options))[1].rpartition("\n")[2]

    async def connect(
        self, host: str, context: ssl.SSLContext | None = None, path: str = "/"
    ) -> ClientConnection:
        """Open a session over TLS."""
        connecting = partial(
            connect,
            f"wss://{host}{path}",
            ssl=context or self.authority.client(),
            sock=socket.create_connection(("127.0.0.1", self.daemon.port)),
            open_timeout=PATIENCE,
            compression=None,
            max_size=None,
            proxy=None,
        )

        def open_it() -> ClientConnection:
            return connecting().__enter__()  # whoever asked for it closes it

        return await trio.to_thread.run_sync(open_it)

    def plain(self) -> socket.socket:
        """Return a TCP connection."""
        sock = socket.create_connection(("127.0.0.1", self.daemon.port), PATIENCE)
        sock.settimeout(PATIENCE)
        return sock

    def peer_certificate(self, name: str | None) -> bytes:
        """Return the certificate that a client sees which asks for `name`."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with self.plain() as sock, context.wrap_socket(sock, server_hostname=name) as secured:
            found = secured.getpeercert(binary_form=True)
            assert found is not None
            return found


def documents(stage_url: str, port: int, files: Files, clients: Authority, **entry: Any) -> dict[str, Any]:
    return {
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}", **entry}},
        "log": {"format": "json", "level": "DEBUG"},
        "http": {
            "routers": {
                "a": {"rule": "Host(`a.test`)", "service": "app", "tls": True},
                "wild": {"rule": "Host(`*.w.test`)", "service": "app", "tls": {}},
                "mutual": {"rule": "Host(`m.test`)", "service": "app", "tls": {"options": "mutual"}},
                "old": {"rule": "Host(`old.test`)", "service": "app", "tls": {"options": "old"}},
                "strict": {"rule": "Host(`strict.test`)", "service": "app", "tls": {"options": "strict"}},
                "plain": {"rule": "Host(`p.test`)", "service": "app"},
                "to-https": {
                    "rule": "Host(`a.test`) && PathPrefix(`/old`)",
                    "service": "app",
                    "middlewares": ["https"],
                },
            },
            "middlewares": {"https": {"redirectScheme": {"scheme": "https", "permanent": True}}},
            "services": {"app": {"loadBalancer": {"servers": [{"url": stage_url}]}}},
        },
        "tls": {
            "certificates": [files.section],
            "options": {
                "mutual": {"clientAuth": {"caFiles": [str(clients.file)]}},
                "old": {"maxVersion": "VersionTLS12", "cipherSuites": ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]},
                "strict": {"sniStrict": True},
            },
        },
    }  # fmt: skip


@asynccontextmanager
async def stage(
    tmp_path: Path, change: Callable[[dict[str, Any]], None] | None = None, **entry: Any
) -> AsyncIterator[Stage]:
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    files = authority.issue("front", "a.test", "*.w.test", "m.test", "old.test", "127.0.0.1")
    port = free_port()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(backend())
        document = documents(app.url, port, files, clients, **entry)
        document["control"] = {"socket": str(tmp_path / "control.sock")}
        if change is not None:
            change(document)
        path = tmp_path / "trio-wsb.yaml"
        path.write_text(yaml.safe_dump(document))
        running = await stack.enter_async_context(Running.start("run", "--config", str(path)))
        daemon = Daemon(running, path, document, port)
        await daemon.logged("started")
        try:
            yield Stage(daemon, authority, clients, files)
        except BaseException:
            print(*running.lines, sep="\n")  # pytest shows it
            raise


async def test_requests_over_tls(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        log = await on.daemon.logged("certificate")
        assert log["names"] == ["a.test", "*.w.test", "m.test", "old.test", "127.0.0.1"]
        assert log["file"] == str(on.files.cert)
        await on.daemon.logged(
            "certificate for other names, signed by itself", subject="TRIO-WSB DEFAULT CERT"
        )
        # The certificate is the right one, and what each table has is answered from it alone.
        assert await on.status_of("https://a.test/api/stats") == "200"
        assert await on.status_of("https://x.w.test/api/stats") == "200"
        assert await on.status_of("http://p.test/api/stats") == "200"
        assert await on.status_of("http://a.test/api/stats") == "404"
        assert await on.status_of("https://a.test/api/stats", "-H", "Host: p.test") == "404"
        # A name that no certificate has gets one that nobody trusts, and works for those who look away.
        assert (await on.curl("https://other.test/"))[0] == 60
        assert await on.status_of("https://other.test/api/stats", "-k", "-H", "Host: a.test") == "200"
        assert await on.status_of("https://x.y.w.test/", "-k") == "404"
        # Without a name the address decides.
        assert await on.status_of("https://127.0.0.1/api/stats", "-H", "Host: a.test") == "200"
        # What depends on the scheme sees it.
        assert await on.status_of("http://a.test/old") == "301"
        done = await on.curl("http://a.test/old", "-D-", "-o/dev/null")
        assert "location: https://a.test/old" in done[1].lower()


async def test_clients_certificates(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        known = on.clients.issue("known", "ada@x.test")
        unknown = Authority(tmp_path, "strangers").issue("unknown", "eve@x.test")
        shows = ["--cert", str(known.cert), "--key", str(known.key)]
        assert await on.status_of("https://m.test/api/stats", *shows) == "200"
        assert await on.status_of("https://m.test/api/stats") == "000"
        line = await on.daemon.logged("TLS handshake failed", reason="the client showed no certificate")
        assert (line["entryPoint"], line["serverName"], line["level"]) == ("web", "m.test", "info")
        assert (
            await on.status_of("https://m.test/", "--cert", str(unknown.cert), "--key", str(unknown.key))
            == "000"
        )
        await on.daemon.logged("TLS handshake failed", serverName="m.test")
        # Neither the Host field on a connection of another name, nor the other way round, is a way in.
        assert await on.status_of("https://a.test/api/stats", "-H", "Host: m.test") == "421"
        assert await on.status_of("https://m.test/api/stats", *shows, "-H", "Host: a.test") == "421"
        assert await on.status_of("https://127.0.0.1/api/stats", "-H", "Host: m.test") == "421"
        assert await on.status_of("http://m.test/api/stats") == "404"
        # A session with a certificate.
        with await on.connect("m.test", on.authority.client(shows=known)) as session:
            session.send("hello")
            assert session.recv(PATIENCE) == "hello"


async def test_versions_names_and_protocols(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        assert await on.status_of("https://old.test/api/stats") == "200"
        assert await on.status_of("https://old.test/", "--tlsv1.3") == "000"
        await on.daemon.logged(
            "TLS handshake failed", reason="the client offers no version of TLS that is allowed"
        )
        assert await on.status_of("https://strict.test/", "-k") == "000"
        reason = "no certificate has the name that the client asks for"
        await on.daemon.logged("TLS handshake failed", reason=reason, serverName="strict.test")
        found = await openssl(on, "-servername", "a.test", "-alpn", "h2")
        assert "alert no application protocol" in found
        found = await openssl(on, "-servername", "a.test", "-alpn", "h2,http/1.1")
        assert "ALPN protocol: http/1.1" in found
        found = await openssl(on, "-servername", "a.test", "-tls1_2", send=b"R\n")
        assert "RENEGOTIATING" in found
        assert "no renegotiation" in found
        found = await openssl(on, "-servername", "a.test", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        assert "alert protocol version" in found


async def openssl(on: Stage, *options: str, send: bytes = b"Q\n") -> str:
    """Return what `openssl s_client` says."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{on.daemon.port}", *options]

    def run() -> bytes:
        done = subprocess.run(
            command, input=send, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE
        )
        return done.stdout

    return (await trio.to_thread.run_sync(run)).decode("utf-8", "replace")


async def test_sessions_over_tls(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:

        def talk(session: ClientConnection) -> None:
            for size in (0, 1, 125, 65_536, 3_000_000):
                session.send(bytes(size))
                assert session.recv(PATIENCE) == bytes(size)
            session.close()

        sessions = [await on.connect("a.test") for _ in range(5)]
        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(trio.to_thread.run_sync, talk, session)
        line = await on.daemon.logged("session ended")
        assert (line["cause"], line["closeCode"]) == ("client_closed", 1000)


def what_comes(sock: socket.socket) -> bytes:
    """Return the next bytes, none at the end, orderly or not."""
    try:
        return sock.recv(5)
    except ConnectionResetError:
        return b""


async def test_what_strangers_send(tmp_path: Path) -> None:
    """None of it disturbs anybody else, nor leaves a connection behind."""
    transport = {"respondingTimeouts": {"readTimeout": "2s"}}
    async with stage(tmp_path, transport=transport, maxTLSHandshakes=2) as on:
        session = await on.connect("a.test")
        hello = real_hello("a.test", ["http/1.1"])
        with (
            on.plain() as silent,
            on.plain() as half,
            on.plain() as another,
            on.plain() as third,
            on.plain() as garbage,
            on.plain() as slow,
        ):
            for sock in (half, another, third):
                sock.send(hello[:40])
            garbage.send(b"\x16\x03\x01\x00\x20" + bytes(32))
            assert await trio.to_thread.run_sync(garbage.recv, 100) == b"\x15\x03\x01\x00\x02\x02\x0a"
            # They hold no place: a whole handshake still gets one.
            assert await on.status_of("https://a.test/api/stats") == "200"
            # In segments of one byte.
            slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in hello:
                slow.send(bytes([byte]))
            assert (await trio.to_thread.run_sync(slow.recv, 5))[:3] == b"\x16\x03\x03"
            # Until their time is over.
            for sock in (silent, half, another, third):
                assert await trio.to_thread.run_sync(what_comes, sock) == b""
        await on.daemon.logged("TLS handshake failed", reason="no complete ClientHello came in time")
        await on.daemon.logged("TLS handshake failed", reason="not a ClientHello")
        session.send("still here")
        assert session.recv(PATIENCE) == "still here"
        session.close()
        assert not [line for line in on.daemon.running.lines if "Traceback" in line]


async def test_places_are_bounded_and_a_stalled_client_gives_its_up(tmp_path: Path) -> None:
    transport = {"respondingTimeouts": {"readTimeout": "1s"}}
    async with stage(tmp_path, transport=transport, maxTLSHandshakes=1) as on:
        with on.plain() as holder, on.plain() as waiter:
            hello = real_hello("a.test", ["http/1.1"])
            holder.send(hello)
            assert await trio.to_thread.run_sync(what_comes, holder)
            # The time of both is over at about the same moment.
            waiter.send(hello)
            while await trio.to_thread.run_sync(what_comes, waiter):
                pass
        await on.daemon.logged("TLS handshake failed", reason="the handshake was not complete in time")
        assert await on.status_of("https://a.test/api/stats") == "200"
        document = await ask_status(on)
        (entry,) = document["entryPoints"]
        assert entry["tlsHandshakes"]["max"] == 1
        assert entry["tlsHandshakes"]["underWay"] == 0
        assert entry["tlsHandshakes"]["completed"] >= 1
        assert entry["tlsHandshakes"]["failed"] >= 1


async def ask_status(on: Stage) -> dict[str, Any]:
    path = str(on.daemon.document["control"]["socket"])
    done = await trio.run_process(
        ["curl", "-s", "--unix-socket", path, "http://localhost/status"], capture_stdout=True
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


async def test_renewed_files_are_shown_after_a_reload_and_sessions_stay(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        session = await on.connect("a.test")

        async def peer(name: str) -> bytes:
            return await trio.to_thread.run_sync(on.peer_certificate, name)

        first, default = await peer("a.test"), await peer("nobody.test")
        ticket = await resumed(on, None)
        # Nothing has changed: the same contexts, and tickets go on being good.
        await on.daemon.reload(count=1)
        assert await peer("a.test") == first
        assert await resumed(on, ticket[1]) == (True, ticket[1])
        # Renewed.
        hosts = ("a.test", "*.w.test", "m.test", "old.test", "127.0.0.1")
        on.authority.issue("front", *hosts)
        await on.daemon.reload(count=2)
        assert await peer("a.test") != first
        assert await peer("nobody.test") == default
        assert len(on.daemon.log("certificate")) == 2
        # Broken: the one before stays.
        second = await peer("a.test")
        on.files.key.write_bytes(self_signed(tmp_path, "stray").key.read_bytes())
        on.daemon.running.signal(signal.SIGHUP)
        line = await on.daemon.logged("configuration problem")
        assert "tls.certificates[0].keyFile" in line["problem"]
        assert "is not the key of the first certificate in" in line["problem"]
        await on.daemon.logged("reload failed, the old configuration stays in force")
        assert await peer("a.test") == second
        session.send("all the while")
        assert session.recv(PATIENCE) == "all the while"
        session.close()


async def resumed(on: Stage, ticket: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """Return whether a handshake resumed `ticket`, and the ticket to go on with."""
    context = RESUMING.setdefault(id(on), on.authority.client(maximum_version=ssl.TLSVersion.TLSv1_2))

    def work() -> tuple[bool, ssl.SSLSession | None]:
        with (
            on.plain() as sock,
            context.wrap_socket(sock, server_hostname="a.test", session=ticket) as secured,
        ):
            return bool(secured.session_reused), ticket or secured.session

    return await trio.to_thread.run_sync(work)


async def test_what_is_said_of_certificates(tmp_path: Path) -> None:
    old = self_signed(
        tmp_path, "old", ends=timedelta(hours=-1), begins=timedelta(days=-9), common_name="past.test"
    )
    soon = self_signed(tmp_path, "soon", ends=timedelta(days=3), common_name="soon.test")

    def change(document: dict[str, Any]) -> None:
        document["tls"]["certificates"] += [old.section, {**soon.section}]
        document["tls"]["stores"] = {"default": {"defaultCertificate": soon.section}}

    async with stage(tmp_path, change) as on:
        warnings = [line["problem"] for line in on.daemon.log("configuration warning")]
        assert any("tls.certificates[1].certFile" in each and "has expired on" in each for each in warnings)
        assert any("tls.certificates[2].certFile" in each and "expires on" in each for each in warnings)
        document = await ask_status(on)
        states = [(each["names"][0], each["state"], each["default"]) for each in document["certificates"]]
        assert states == [
            ("a.test", "valid", False),
            ("past.test", "expired", False),
            ("soon.test", "expiring", False),
            ("soon.test", "expiring", True),
        ]
        command = ["status", "--socket", str(tmp_path / "control.sock")]
        async with Running.start(*command) as shown:
            await shown.line("expired on")
            assert await shown.exit() == 0
        async with Running.start("check", "--resolve", str(on.daemon.path)) as shown:
            assert await shown.exit() == 0
            assert not [line for line in shown.lines if "PRIVATE" in line]
            assert [line for line in shown.lines if "keyFile" in line]


async def test_an_entry_point_for_tls_alone(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["entryPoints"]["web"]["http"] = {"tls": {"options": "mutual"}}
        document["http"]["routers"] = {"all": {"rule": "PathPrefix(`/`)", "service": "app"}}
        del document["tls"]["certificates"]

    async with stage(tmp_path, change) as on:
        await on.daemon.logged("no certificate is configured, clients are shown one that is signed by itself")
        known = on.clients.issue("known", "ada@x.test")
        shows = ["-k", "--cert", str(known.cert), "--key", str(known.key)]
        assert await on.status_of("https://any.test/api/stats", *shows) == "200"
        assert await on.status_of("https://any.test/api/stats", "-k") == "000"
        assert await on.status_of("http://any.test/api/stats") == "404"
        # Its own pages are behind the same door.
        assert await on.status_of("https://any.test/ping", *shows) == "200"
        assert await on.status_of("https://any.test/ping", "-k") == "000"
        assert await on.status_of("http://any.test/ping") == "404"
        assert await on.status_of("http://127.0.0.1/balancer-metrics") == "404"


RESUMING: dict[int, ssl.SSLContext] = {}


async def test_behind_a_proxy_header(tmp_path: Path) -> None:
    """The PROXY header comes before the ClientHello, and what it says is who the client is."""
    async with stage(tmp_path, proxyProtocol={"trustedIPs": ["127.0.0.1/32"]}) as on:

        def ask() -> bytes:
            with on.plain() as sock:
                sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n")
                with on.authority.client().wrap_socket(sock, server_hostname="a.test") as secured:
                    secured.sendall(b"GET /nowhere HTTP/1.1\r\nHost: p.test\r\nConnection: close\r\n\r\n")
                    return secured.recv(100)

        assert (await trio.to_thread.run_sync(ask)).startswith(b"HTTP/1.1 404")
        line = await on.daemon.logged("request refused")
        assert line["client"] == "192.0.2.7:50000"


async def test_sockets_of_the_service_manager(tmp_path: Path) -> None:
    """A listening socket that was handed over speaks TLS as one of our own does."""
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    files = authority.issue("front", "a.test")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with backend() as app:
            document = documents(app.url, port, files, clients)
            document["control"] = {"socket": str(tmp_path / "control.sock")}
            path = tmp_path / "trio-wsb.yaml"
            path.write_text(yaml.safe_dump(document))
            given = json.dumps({"descriptors": [listener.fileno()], "names": ["web"]})
            command = [str(LAUNCHER), given, sys.executable, "-m", "trio_wsb", "run", "--config", str(path)]
            fds = [listener.fileno()]
            async with Running.program(sys.executable, *command, pass_fds=fds) as running:
                daemon = Daemon(running, path, document, port)
                line = await daemon.logged("listening")
                assert line["source"] == "systemd"
                await daemon.logged("started")
                on = Stage(daemon, authority, clients, files)
                assert await on.status_of("https://a.test/api/stats") == "200"


async def test_an_entry_point_that_is_full_says_nothing(tmp_path: Path) -> None:

    def metrics(document: dict[str, Any]) -> None:
        rule = {"rule": "Host(`metrics.test`)", "service": "prometheus@internal"}
        document["http"]["routers"]["metrics"] = rule

    async with stage(tmp_path, metrics, maxConnections=1) as on:
        session = await on.connect("a.test")
        with on.plain() as sock:
            assert await trio.to_thread.run_sync(what_comes, sock) == b""
        await on.daemon.logged("entry point full, refusing connections")
        session.close()
        code, page = await on.curl("http://metrics.test/metrics")
        assert code == 0
        assert 'trio_wsb_entrypoint_connections_refused_total{entrypoint="web"} 1\n' in page


async def test_a_kept_connection_does_not_outlive_its_terms(tmp_path: Path) -> None:
    """A reload that asks clients for certificates counts for connections from before it, too."""
    async with stage(tmp_path) as on:

        def opened(**options: Any) -> ssl.SSLSocket:
            return on.authority.client(**options).wrap_socket(on.plain(), server_hostname="a.test")

        def ask(secured: ssl.SSLSocket) -> int:
            secured.sendall(b"GET /api/stats HTTP/1.1\r\nHost: a.test\r\n\r\n")
            with HTTPResponse(secured) as response:
                response.begin()
                response.read()
                return response.status

        run = trio.to_thread.run_sync
        with await run(opened) as kept, await run(opened) as another:
            assert await run(ask, kept) == 200
            on.daemon.document["http"]["routers"]["a"]["tls"] = {"options": "mutual"}
            on.daemon.write()
            await on.daemon.reload(count=1)
            assert await run(ask, kept) == 421
            assert await run(ask, another) == 421
        known = on.clients.issue("known", "ada@x.test")
        with await run(partial(opened, shows=known)) as kept:
            assert await run(ask, kept) == 200
            # The same options, with another authority in the file.
            Authority(tmp_path, "clients")
            await on.daemon.reload(count=2)
            assert await run(ask, kept) == 421
        assert (
            await on.status_of("https://a.test/", "--cert", str(known.cert), "--key", str(known.key)) == "000"
        )


async def test_a_stop_is_polite_over_tls_too(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        session = await on.connect("a.test")
        on.daemon.running.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await trio.to_thread.run_sync(session.recv, PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert await on.daemon.running.exit() == 0
