from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.middleware.helpers import request, response, summary
from trio_wsb.http.headers import Field
from trio_wsb.middleware.compress import Compress, CompressOptions, Decision, GzipBody

GZIP = ("Accept-Encoding", "gzip, br")


def decide(
    fields: list[Field],
    *,
    options: CompressOptions | None = None,
    accept: Field | None = GZIP,
    status: int = 200,
    length: int | None = 5000,
    method: str = "GET",
    upgrade: bool = False,
) -> Decision:
    sent = request("/", [accept] if accept else [], method=method, upgrade=upgrade)
    return Compress(options or CompressOptions()).decide(sent, response(status, fields), length)


def test_what_changes() -> None:
    fields = [
        ("Content-Type", "text/html"),
        ("Content-Length", "5000"),
        ("ETag", '"abc"'),
        ("Accept-Ranges", "bytes"),
    ]
    decision = decide(fields)
    assert decision.compress
    assert list(decision.headers) == [
        ("Content-Type", "text/html"),
        ("Vary", "Accept-Encoding"),
        ("Content-Encoding", "gzip"),
        ("ETag", 'W/"abc"'),
    ]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br;q=0.5, gzip", True),
        ("gzip ; q=0.5", True),
        ("gzip;q=0.001", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0", False),
        ("gzip;Q=0.0", False),
        ("gzip;q=.", False),
        ("gzip;x=1", False),
        ("x-gzip", False),
        ("br, zstd", False),
        ("*", False),
        ("identity", False),
        ("", False),
    ],
)
def test_who_gets_it(accept: str, expected: bool) -> None:
    decision = decide([], accept=("Accept-Encoding", accept))
    assert decision.compress is expected
    # Who takes anything gets it plain, but another one with the same words might not.
    assert ("vary" in decision.headers) is (expected or accept == "*")
    assert not decide([], accept=None).compress


@pytest.mark.parametrize(
    ("fields", "status", "length"),
    [
        ([], 200, 1023),
        ([("Content-Encoding", "br")], 200, 5000),
        ([("Content-Type", "text/event-stream; charset=utf-8")], 200, None),
        ([("Content-Type", "application/grpc")], 200, None),
        ([("Content-Type", "nonsense")], 200, None),
        ([("Cache-Control", "public, No-Transform")], 200, 5000),
        ([], 206, 5000),
        ([], 204, 0),
        ([], 304, None),
    ],
)
def test_what_is_left_as_it_is(fields: list[Field], status: int, length: int | None) -> None:
    decision = decide(fields, status=status, length=length)
    assert not decision.compress
    assert list(decision.headers) == [*fields, ("Vary", "Accept-Encoding")]


@pytest.mark.parametrize(("status", "length"), [(200, 1024), (200, None), (404, 5000), (500, None)])
def test_what_is_compressed(status: int, length: int | None) -> None:
    assert decide([], status=status, length=length).compress


@pytest.mark.parametrize(("method", "upgrade"), [("HEAD", False), ("GET", True)])
def test_without_a_body_nothing_changes(method: str, upgrade: bool) -> None:
    fields = [("Content-Length", "5000")]
    decision = decide(fields, method=method, upgrade=upgrade)
    assert (decision.compress, list(decision.headers)) == (False, fields)


@pytest.mark.parametrize(
    ("options", "content_type", "expected"),
    [
        (CompressOptions(excluded_content_types=("Image/PNG",)), "image/png; x=y", False),
        (CompressOptions(excluded_content_types=("image/png; x=z",)), "image/png", False),
        (CompressOptions(excluded_content_types=("image/png",)), "text/html", True),
        (CompressOptions(included_content_types=("text/html",)), "text/html;charset=utf-8", True),
        (CompressOptions(included_content_types=("text/html",)), "text/plain", False),
        (CompressOptions(included_content_types=("text/html",)), "", False),
        (CompressOptions(encodings=("br",)), "text/html", False),
    ],
)
def test_types(options: CompressOptions, content_type: str, expected: bool) -> None:
    assert decide([("Content-Type", content_type)], options=options).compress is expected


def test_vary_and_weak_tags_stay() -> None:
    fields = [("Vary", "accept-encoding, Origin"), ("ETag", 'W/"a"')]
    assert list(decide(fields).headers) == [*fields, ("Content-Encoding", "gzip")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=2000), st.booleans())))
def test_the_body_comes_back(pieces: list[tuple[bytes, bool]]) -> None:
    coder, decoder = GzipBody(), zlib.decompressobj(16 + zlib.MAX_WBITS)
    whole, coded, held = b"", b"", b""
    for data, flush in pieces:
        out = coder.feed(memoryview(data), flush=flush)
        coded += out
        held += data
        seen = decoder.decompress(out)
        whole += seen
        held = held[len(seen) :]
        if flush and data:
            assert held == b"", "whoever waits for this piece has it"
    coded += coder.finish()
    assert gzip.decompress(coded) == b"".join(data for data, _ in pieces)


def test_problems() -> None:
    assert summary(CompressOptions().problems()) == []
    options = CompressOptions(
        excluded_content_types=("text/html",), included_content_types=("html",), encodings=("br",)
    )
    assert summary(options.problems()) == [
        (("included_content_types",), "error"),
        (("included_content_types", 0), "error"),
        (("encodings",), "warning"),
    ]
