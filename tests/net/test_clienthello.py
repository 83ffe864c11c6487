from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.net.clienthello import (
    ILLEGAL_PARAMETER,
    MAX_HELLO,
    MAX_RECORDS,
    ClientHello,
    ClientHelloError,
    Incomplete,
    alert_record,
    parse_client_hello,
)


def real_hello(name: str | None, protocols: list[str] | None = None, *, tls12: bool = False) -> bytes:
    """Return the ClientHello that OpenSSL sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def hello(*extensions: tuple[int, bytes], more: bytes = b"") -> bytes:
    """Return a ClientHello message with these extensions."""
    listed = b"".join(kind.to_bytes(2, "big") + vector(2, body) for kind, body in extensions)
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    body += vector(2, listed) + more
    return b"\x01" + vector(3, body)


def records(message: bytes, size: int = 1 << 14) -> bytes:
    """Return `message` in records of `size` bytes."""
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def server_name(*names: bytes) -> tuple[int, bytes]:
    return 0, vector(2, b"".join(b"\0" + vector(2, name) for name in names))


def alpn(*names: bytes) -> tuple[int, bytes]:
    return 16, vector(2, b"".join(vector(1, name) for name in names))


def test_what_openssl_sends() -> None:
    found = parse_client_hello(real_hello("Chat.Example", ["h2", "http/1.1"]))
    assert found == ClientHello("chat.example", (b"h2", b"http/1.1"), (0x0304, 0x0303))
    assert parse_client_hello(real_hello(None, tls12=True)) == ClientHello("", None, (0x0303,))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1 << 14])
def test_the_message_may_come_in_any_number_of_records(size: int) -> None:
    message = hello(server_name(b"a.test"), alpn(b"http/1.1"))
    found = parse_client_hello(records(message, size))
    assert found == ClientHello("a.test", (b"http/1.1",), (0x0303,))


@given(st.integers(min_value=1, max_value=50))
def test_every_beginning_asks_for_more_and_never_for_too_much(size: int) -> None:
    whole = records(hello(server_name(b"a.test")), size)
    end = next(at for at in range(len(whole) + 1) if isinstance(parse_client_hello(whole[:at]), ClientHello))
    for at in range(end):
        found = parse_client_hello(whole[:at])
        assert isinstance(found, Incomplete)
        assert at < found.needed <= len(whole)


def test_what_is_no_tls() -> None:
    assert parse_client_hello(b"GET / HTTP/1.1\r\n") is None
    assert parse_client_hello(b"\x80\x2e\x01\x03\x01") is None  # the hello of SSL 2
    assert parse_client_hello(b"") == Incomplete(1)


def test_a_hello_of_a_time_before_extensions() -> None:
    body = b"\x03\x01" + bytes(32) + vector(1, bytes(32)) + vector(2, b"\0\x2f") + vector(1, b"\0")
    assert parse_client_hello(records(b"\x01" + vector(3, body))) == ClientHello(versions=(0x0301,))


def test_names_are_normalised() -> None:
    found = parse_client_hello(records(hello(server_name(b"Chat.Example."))))
    assert isinstance(found, ClientHello)
    assert found.server_name == "chat.example"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x16\x02\x00\x00\x05hello", "record"),
        (b"\x16\x03\x01\x00\x00", "record"),
        (b"\x16\x03\x01\xff\xff", "record"),
        (records(b"\x02" + vector(3, b"x")), "not a ClientHello"),
        (b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x03", "too large"),
        (records(b"\x01" + vector(3, b"\x03\x03")), "cut short"),
        (records(hello(more=b"x")), "behind the extensions"),
        (records(hello(server_name(b"a"), server_name(b"b"))), "twice"),
        (records(hello(server_name(b"a", b"b"))), "server name"),
        (records(hello(server_name(b""))), "server name"),
        (records(hello(server_name(b"a\nb"))), "server name"),
        (records(hello(server_name("ä.test".encode()))), "server name"),
        (records(hello((0, b"\0\x05\0\0"))), "cut short"),
        (records(hello(alpn(b""))), "protocol"),
        (records(hello(alpn())), "protocol"),
        (records(hello((16, b"\0\x02\x05h"))), "cut short"),
        (records(hello(server_name(b"a")), 4)[:9] + b"\x17\x03\x03\x00\x01x", "record"),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfd", "too large"),
        (records(b"\x01" + vector(3, bytes(MAX_RECORDS)), 1), "too many records"),
    ],
)
def test_what_cannot_be_answered(data: bytes, reason: str) -> None:
    with pytest.raises(ClientHelloError, match=reason) as raised:
        parse_client_hello(data)
    assert raised.value.alert in {10, 47, 50}


def test_a_name_that_is_none_is_an_illegal_parameter() -> None:
    with pytest.raises(ClientHelloError) as raised:
        parse_client_hello(records(hello(server_name(b"a b"))))
    assert raised.value.alert == ILLEGAL_PARAMETER


def check_any(data: bytes) -> None:
    try:
        found = parse_client_hello(data)
    except ClientHelloError:
        return  # any other exception is a fault
    if isinstance(found, Incomplete):
        assert len(data) < found.needed <= MAX_HELLO
    elif found is not None:
        assert found.server_name.isascii()
        assert found.server_name.isprintable()


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    check_any(data)
    check_any(b"\x16" + data)
    check_any(records(b"\x01" + vector(3, data)))


@given(st.data())
def test_a_real_hello_with_bytes_changed(data: st.DataObject) -> None:
    changed = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 5))):
        changed[data.draw(st.integers(0, len(REAL) - 1))] = data.draw(st.integers(0, 255))
    check_any(bytes(changed[: data.draw(st.integers(1, len(REAL)))]))


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=40), st.integers(1, 600))
def test_names_go_through_whatever_the_records(name: str, size: int) -> None:
    message = hello((0x0A0A, b""), server_name(name.encode()), (0xFF01, b"\0"))
    found = parse_client_hello(records(message, size))
    assert isinstance(found, ClientHello)
    assert found.server_name == name


def test_looking_again_at_what_drips_in_is_bounded() -> None:
    whole = records(b"\x01" + vector(3, bytes(8000)), 1)
    looks = 0

    def look_again() -> None:
        nonlocal looks
        size = 0
        while isinstance(found := parse_client_hello(whole[:size]), Incomplete):
            size, looks = found.needed, looks + 1

    with pytest.raises(ClientHelloError, match="too many records"):
        look_again()
    assert looks <= 2 * MAX_RECORDS + 1


def test_an_alert_is_a_whole_record() -> None:
    assert alert_record(112) == b"\x15\x03\x01\x00\x02\x02\x70"


REAL = real_hello("chat.example", ["http/1.1"])
