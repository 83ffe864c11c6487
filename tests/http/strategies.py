"""Messages to test with: heads and bodies as honest peers send them, and ways to cut them up."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPECIAL = {"host", "content-length", "transfer-encoding", "connection"}

tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=20)
names = tokens.filter(lambda name: name.lower() not in SPECIAL)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f") | st.just("\t"),
    max_size=40,
).map(lambda value: value.strip(" \t"))
fields = st.lists(st.tuples(names, values), max_size=12)
targets = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=60
).map(lambda rest: "/" + rest)
methods = tokens.filter(lambda method: method != "CONNECT")
paddings = st.text(" \t", max_size=3)


@st.composite
def request_heads(draw: st.DrawFn) -> bytes:
    """Valid heads, with whatever optional whitespace the grammar allows."""
    lines = [f"{draw(methods)} {draw(targets)} HTTP/1.1", "Host: example.com:8080"]
    lines += [f"{name}:{draw(paddings)}{value}{draw(paddings)}" for name, value in draw(fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@st.composite
def response_heads(draw: st.DrawFn) -> bytes:
    """Valid heads of final responses."""
    reason = draw(values)
    lines = [f"HTTP/1.1 {draw(st.integers(200, 599))} {reason}"]
    lines += [f"{name}:{draw(paddings)}{value}{draw(paddings)}" for name, value in draw(fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Return `data` in pieces, none of them empty."""
    places = draw(st.lists(st.integers(0, len(data)), max_size=12, unique=True))
    edges = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a payload and a chunked body that carries it, with extensions and trailers."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
    extensions = st.sampled_from(["", ";a", ";a=b", '; a = "x;\\"y"', ";a;b=c"])
    zeros = st.sampled_from(["", "0", "000"])
    trailers = st.sampled_from(["", "Checksum: abc\r\n", "A: \r\nServer-Timing: db;dur=1\r\n"])
    body = b""
    for piece in pieces:
        size = draw(zeros) + draw(st.sampled_from([f"{len(piece):x}", f"{len(piece):X}"]))
        body += (size + draw(extensions) + "\r\n").encode() + piece + b"\r\n"
    body += (draw(zeros) + "0" + draw(extensions) + "\r\n" + draw(trailers) + "\r\n").encode()
    return b"".join(pieces), body
