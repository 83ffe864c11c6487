"""Plain requests of `curl` through the balancer: HTTP/1.0, Expect: 100-continue, uploads from files."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE, Daemon, daemon
from tests.interop.peers.httpserver import CUT_OFF_AFTER, digest_of, http_server, large
from tests.interop.stage import services

CURL = shutil.which("curl")

pytestmark = [pytest.mark.daemon, pytest.mark.skipif(CURL is None, reason="curl is not installed")]

LARGE = 20 * 2**20


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[Daemon]:
    with http_server() as url:
        async with daemon(tmp_path, [], http=services({"/": [url]})) as running:
            yield running


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.writelines(large(LARGE))
    return path


async def curl(*arguments: str, exits: tuple[int, ...] = (0,)) -> tuple[bytes, str]:
    """Run curl, which must end with one of these statuses; its output, and what it says about the exchange."""
    assert CURL is not None
    command = [CURL, "--silent", "--verbose", "--noproxy", "*", "--max-time", str(PATIENCE), *arguments]
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode in exits, said
    return done.stdout, said


async def test_get_and_head_on_one_connection(balancer: Daemon) -> None:
    urls = [f"{balancer.url}/{path}" for path in ("hello", "chunked/70000", "status/204", "hello")]
    output, said = await curl(*urls)
    assert output == b"hello\n" + b"".join(large(70_000)) + b"hello\n"
    assert said.count("Re-using existing connection") == 3
    output, said = await curl("--head", *urls)
    assert output.count(b"HTTP/1.1 200 OK") == 3
    assert output.count(b"HTTP/1.1 204 No Content") == 1
    assert said.count("Re-using existing connection") == 3


async def test_http_1_0(balancer: Daemon, large_file: Path) -> None:
    # Chunks are taken off for a client that does not know them, and the end is that of the connection.
    output, said = await curl("--http1.0", f"{balancer.url}/chunked/{LARGE}")
    assert hashlib.sha256(output).hexdigest() == digest_of(LARGE)
    assert "transfer-encoding" not in said.lower()
    output, _ = await curl("--http1.0", f"{balancer.url}/hello")
    assert output == b"hello\n"
    output, _ = await curl("--http1.0", "--head", f"{balancer.url}/large/1000")
    assert b"Content-Length: 1000\r\n" in output
    output, _ = await curl("--http1.0", "--data-binary", f"@{large_file}", f"{balancer.url}/digest")
    seen = json.loads(output)
    assert (seen["size"], seen["digest"]) == (LARGE, digest_of(LARGE))


async def test_uploads(balancer: Daemon, large_file: Path) -> None:
    for arguments, method, chunked in (
        (("--data-binary", f"@{large_file}"), "POST", False),
        (("--data-binary", f"@{large_file}", "--header", "Transfer-Encoding: chunked"), "POST", True),
        (("--upload-file", str(large_file)), "PUT", False),
        (("--upload-file", str(large_file), "--header", "Transfer-Encoding: chunked"), "PUT", True),
    ):
        output, _ = await curl(*arguments, f"{balancer.url}/digest")
        seen = json.loads(output)
        assert (seen["size"], seen["digest"]) == (LARGE, digest_of(LARGE))
        assert (seen["method"], seen["chunked"]) == (method, chunked)


async def test_expect_100_continue_is_the_backend_s_to_answer(balancer: Daemon, large_file: Path) -> None:
    output, said = await curl(
        "--upload-file",
        str(large_file),
        "--header",
        "Expect: 100-continue",
        # Longer than the test may take: the upload begins because it was asked for.
        "--expect100-timeout",
        str(2 * PATIENCE),
        f"{balancer.url}/digest",
    )
    assert said.count("< HTTP/1.1 100 Continue") == 1
    seen = json.loads(output)
    assert (seen["size"], seen["digest"], seen["expect"]) == (LARGE, digest_of(LARGE), "100-continue")


async def test_errors_and_headers_of_the_backend_arrive(balancer: Daemon) -> None:
    for status in (400, 401, 404, 418, 429, 500, 503):
        output, said = await curl(f"{balancer.url}/status/{status}")
        assert output == f"this is {status}\n".encode()
        assert f"< HTTP/1.1 {status} " in said
        assert "< X-Reason: asked for" in said


async def test_an_answer_that_breaks_off_is_an_error_for_curl(balancer: Daemon) -> None:
    partial_file, receive_error = 18, 56
    output, _ = await curl(f"{balancer.url}/cut-off", exits=(partial_file, receive_error))
    assert len(output) <= CUT_OFF_AFTER
    # HTTP/1.0 has no other sign of the end than that of the connection, so this end must not look like one.
    await curl("--http1.0", f"{balancer.url}/cut-off-chunked", exits=(receive_error,))
