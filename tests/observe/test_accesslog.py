"""The access log: what is written of requests and sessions, in each format, behind which filters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import parse_backend_url, parse_ip
from trio_wsb.balancing.backend import Backend
from trio_wsb.config import accesslog as options
from trio_wsb.config.accesslog import (
    FIELDS,
    SECRET_HEADERS,
    AccessLogFields,
    AccessLogFilters,
    AccessLogFormat,
    AccessLogHeaders,
    AccessLogQuery,
    StatusRange,
    parse_status_range,
)
from trio_wsb.http.head import parse_request_head
from trio_wsb.http.headers import Headers
from trio_wsb.net.memory import memory_channel_pair
from trio_wsb.observe.accessline import second_text
from trio_wsb.observe.accesslog import AccessLog
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.peer import Peer
from trio_wsb.proxy.record import RequestRecord, Stage
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.secure import Secured, Terms
from trio_wsb.proxy.session import Session
from trio_wsb.units import Duration

BACKEND = Backend(parse_backend_url("http://10.0.0.1:8080"))
STARTED = 1_700_000_000.25
KEEP = AccessLogFields(headers=AccessLogHeaders("keep"))

HEAD = (
    b"GET /chat?token=secret&room=7 HTTP/1.1\r\nHost: chat.example:8443\r\nUser-Agent: curl/8\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat, secret\r\n"
    b"Authorization: Bearer secret\r\nReferer: https://u:secret@a.example/?code=secret#secret\r\n\r\n"
)


class Lines(list[str]):
    """An output that keeps lines."""

    def put(self, line: str) -> None:
        self.append(line)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    second_text.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    second_text.cache_clear()


def record(head: bytes = HEAD, **changes: Any) -> RequestRecord:
    made = RequestRecord("web", Peer(parse_ip("10.0.0.9"), "10.0.0.9:4000"), 12, 100.0, STARTED)
    made.head = parse_request_head(head)
    made.client = parse_ip("192.0.2.7")
    made.upgrade = b"websocket" in head
    made.router, made.service, made.backend, made.tries = "chat", "chat@docker", BACKEND, 2
    made.status, made.origin_status, made.ended, made.stage = 101, 101, 100.05, Stage.ANSWER
    made.origin_duration = 0.03
    made.answer = made.origin_answer = Headers([("Set-Cookie", "s=secret"), ("Server", "x")])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def plain(path: str = "/a", **changes: Any) -> RequestRecord:
    head = f"POST {path} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/8\r\n\r\n".encode("latin-1")
    values = {
        "status": 200,
        "origin_status": 200,
        "bytes_in": 3,
        "bytes_out": 5,
        "origin_bytes": 5,
        "tries": 1,
    }
    return record(head, **{**values, **changes})


def session(**changes: Any) -> Session:
    client, _ = memory_channel_pair()
    backend, _ = memory_channel_pair()
    relay = Relay(
        client, backend, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=0, watch=lambda _: None
    )
    relay.cause, relay.close_code = Cause.CLIENT_CLOSED, 1000
    relay.up.scanner.feed(b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8")
    relay.down.scanner.feed(b"\x81\x02hi\x81\x01!")
    made = Session(
        relay, BACKEND, "chat@docker", "chat", "web", "192.0.2.7", "10.0.0.9", "chat.example", "/chat", 2
    )
    made.id, made.opened_at, made.ended_at = 5, 100.05, 160.0
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def written(settings: options.AccessLog, made: RequestRecord) -> list[str]:
    lines = Lines()
    AccessLog(settings, lines).request_ended(made)
    return lines


def both(settings: options.AccessLog, made: RequestRecord | None = None, **changes: Any) -> list[str]:
    """Return the lines of a session."""
    lines = Lines()
    log, one = AccessLog(settings, lines), session(**changes)
    log.session_opened(one, made or record())
    log.session_ended(one)
    return lines


# Golden lines.


def test_json_of_a_request() -> None:
    (line,) = written(options.AccessLog(format="json"), plain("/a?x=1"))
    assert json.loads(line) == {
        "event": "request",
        "ClientAddr": "10.0.0.9:4000", "ClientHost": "192.0.2.7", "ClientPort": "4000", "ClientUsername": "-",
        "DownstreamContentSize": 5, "DownstreamStatus": 200, "Duration": 50_000_000,
        "OriginContentSize": 5, "OriginDuration": 30_000_000, "OriginStatus": 200, "Overhead": 20_000_000,
        "RequestAddr": "a.example", "RequestContentSize": 3, "RequestCount": 12, "RequestHost": "a.example",
        "RequestMethod": "POST", "RequestPath": "/a?x=REDACTED", "RequestPort": "-",
        "RequestProtocol": "HTTP/1.1", "RequestScheme": "http", "RetryAttempts": 0, "RouterName": "chat@file",
        "ServiceAddr": "10.0.0.1:8080", "ServiceName": "chat@docker", "ServiceURL": "http://10.0.0.1:8080",
        "StartLocal": "2023-11-14T22:13:20.250000Z", "StartUTC": "2023-11-14T22:13:20.250000Z",
        "entryPointName": "web", "tries": 1,
        "level": "info", "msg": "", "time": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert line.endswith("}\n")


def test_json_of_a_session() -> None:
    opened, ended = map(json.loads, both(options.AccessLog(format="json", fields=KEEP)))
    assert {
        key: value for key, value in opened.items() if key.startswith(("request_", "origin_", "down"))
    } == {
        "request_User-Agent": "curl/8",
        "request_Upgrade": "websocket",
        "request_Connection": "Upgrade",
        "request_Sec-Websocket-Protocol": "REDACTED",
        "request_Authorization": "REDACTED",
        "request_Referer": "https://a.example/?code=REDACTED",
        "origin_Set-Cookie": "REDACTED",
        "origin_Server": "x",
        "downstream_Set-Cookie": "REDACTED",
        "downstream_Server": "x",
    }
    assert (opened["event"], opened["session"], opened["tries"], opened["RetryAttempts"]) == (
        "session_opened",
        5,
        2,
        1,
    )
    assert (opened["DownstreamStatus"], opened["Duration"], opened["Overhead"]) == (
        101,
        50_000_000,
        20_000_000,
    )
    assert (opened["RequestHost"], opened["RequestPort"]) == ("chat.example", "8443")
    same = (
        "ClientAddr",
        "ClientHost",
        "RequestPath",
        "RouterName",
        "ServiceName",
        "ServiceURL",
        "StartUTC",
        "RequestCount",
    )
    assert all(opened[key] == ended[key] for key in same)
    assert ended["event"] == "session_ended"
    assert (ended["Duration"], ended["Overhead"], ended["OriginDuration"]) == (
        60_000_000_000,
        20_000_000,
        30_000_000,
    )
    own = {key: ended[key] for key in options.OWN_FIELDS if key in ended and key != "event"}
    assert own == {
        "session": 5, "tries": 2, "cause": "client_closed", "closeCode": 1000, "closedBy": "client",
        "messagesIn": 1, "messagesOut": 2, "bytesIn": 16, "bytesOut": 7,
    }  # fmt: skip
    assert (ended["DownstreamContentSize"], ended["RequestContentSize"]) == (7, 16)
    assert ended["time"] == "2023-11-14T22:14:20Z"
    assert not [key for key in ended if key.startswith("request_")]


def test_common() -> None:
    (line,) = written(options.AccessLog(fields=KEEP), plain("/a?x=1", username="bob"))
    assert line == (
        '192.0.2.7 - bob [14/Nov/2023:22:13:20 +0000] "POST /a?x=REDACTED HTTP/1.1" 200 5 "-" "curl/8" '
        '12 "chat@file" "http://10.0.0.1:8080" 50ms\n'
    )
    opened, ended = both(options.AccessLog(fields=KEEP))
    start = (
        '192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /chat?token=REDACTED&room=REDACTED HTTP/1.1" 101 '
    )
    rest = ' "https://a.example/?code=REDACTED" "curl/8" 12 "chat@file" "http://10.0.0.1:8080" '
    assert opened == f"{start}0{rest}50ms Upgrade=websocket event=session_opened session=5 tries=2\n"
    assert ended == (
        f"{start}7{rest}60000ms event=session_ended session=5 tries=2 cause=client_closed closeCode=1000 "
        "closedBy=client messagesIn=1 messagesOut=2 bytesIn=16 bytesOut=7\n"
    )


def test_generic_common() -> None:
    settings = options.AccessLog(format="genericCLF")
    (line,) = written(settings, plain())
    assert line == '192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "POST /a HTTP/1.1" 200 5 "-" "-"\n'
    (opened,) = both(settings)
    assert '" 101 0 "-" "-"\n' in opened


def test_a_refused_handshake() -> None:
    made = record(
        status=503, reason="no available server", stage=Stage.CHOOSING, tries=0, backend=None, origin_status=0
    )
    (line,) = written(options.AccessLog(), made)
    assert line.endswith(
        '"-" 50ms Upgrade=websocket event=request stage=choosing reason="no available server"\n'
    )
    (line,) = written(options.AccessLog(format="json"), made)
    found = json.loads(line)
    assert (found["stage"], found["reason"], found["request_Upgrade"]) == (
        "choosing",
        "no available server",
        "websocket",
    )
    assert "tries" not in found
    assert "ServiceURL" not in found


def test_a_head_that_could_not_be_read() -> None:
    made = plain(status=400, reason="malformed", router="", service="", backend=None)
    made.head = None
    (line,) = written(options.AccessLog(), made)
    assert '] "- - -" 400 5 "-" "-" 12 "-" "-" 50ms\n' in line
    (line,) = written(options.AccessLog(format="json"), made)
    assert json.loads(line)["RequestMethod"] == "-"


@pytest.mark.parametrize("form", ["json", "common"])
@pytest.mark.parametrize("fields", [AccessLogFields(), KEEP])
def test_upgrades_are_found_once_each(form: AccessLogFormat, fields: AccessLogFields) -> None:
    settings = options.AccessLog(format=form, fields=fields)
    refused = written(settings, record(status=401, reason="no"))
    lines = [*both(settings), *refused, *written(settings, plain())]
    found = [line for line in lines if re.search("Upgrade.*websocket", line)]
    assert len(lines) == 4
    assert len(found) == 2


# Fields and filters.


def test_fields_by_name() -> None:
    dropping = AccessLogFields("drop", {"RequestPath": "keep", "DownstreamStatus": "keep"})
    (line,) = written(options.AccessLog(format="json", fields=dropping), plain())
    assert json.loads(line) == {
        "RequestPath": "/a", "DownstreamStatus": 200, "level": "info", "msg": "", "time": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    (line,) = written(options.AccessLog(fields=dropping), plain(username="bob"))
    assert line == '- - - [-] "- /a -" 200 - "-" "-" - "-" "-" 0ms\n'
    without = AccessLogFields(names={"ClientUsername": "drop", "ClientHost": "drop", "closeCode": "drop"})
    assert written(options.AccessLog(fields=without), plain(username="bob"))[0].startswith("- - - [14/Nov")
    _, ended = both(options.AccessLog(fields=without))
    assert "closeCode" not in ended
    assert "cause=client_closed" in ended


def test_every_field_has_a_name_that_can_be_configured() -> None:
    settings = options.AccessLog(format="json")
    secured = Secured(Terms("default", ()), "a.example", "1.3", "TLS_AES_128_GCM_SHA256")
    made = plain(reason="x", origin_bytes=50)
    made.peer = evolve(made.peer, secured=secured)
    lines = [*both(settings), *written(settings, made)]
    found = json.loads(lines[-1])
    assert (found["RequestScheme"], found["TLSVersion"], found["TLSCipher"]) == (
        "https",
        "1.3",
        "TLS_AES_128_GCM_SHA256",
    )
    names = {key for line in lines for key in json.loads(line)}
    assert names - {"level", "msg", "time", "request_Upgrade"} == FIELDS


def test_query_parameters_by_name() -> None:
    fields = AccessLogFields(query_parameters=AccessLogQuery("drop", {"room": "keep"}))
    (line, _) = both(options.AccessLog(format="json", fields=fields))
    assert json.loads(line)["RequestPath"] == "/chat?room=7"


def shown(filters: AccessLogFilters, made: RequestRecord) -> bool:
    return bool(written(options.AccessLog(filters=filters), made))


def test_filters() -> None:
    assert shown(AccessLogFilters(), plain(status=999))
    codes = AccessLogFilters(status_codes=(StatusRange(200, 299), StatusRange(404, 404)))
    assert [shown(codes, plain(status=status)) for status in (199, 200, 299, 300, 404)] == [
        False, True, True, False, True,
    ]  # fmt: skip
    retried = AccessLogFilters(retry_attempts=True)
    assert [shown(retried, plain(tries=tries)) for tries in (0, 1, 2)] == [False, False, True]
    slow = AccessLogFilters(min_duration=Duration(0.1))
    assert [shown(slow, plain(ended=ended)) for ended in (100.05, 100.2)] == [False, True]
    # One that lets a line pass is enough.
    assert shown(evolve(codes, min_duration=Duration(0.01)), plain(status=500))


def test_filters_on_sessions() -> None:
    def events(filters: AccessLogFilters) -> list[str]:
        lines = both(options.AccessLog(format="json", filters=filters))
        return [json.loads(line)["event"] for line in lines]

    success = AccessLogFilters(status_codes=(parse_status_range("200-299"),))
    assert events(success) == ["session_opened", "session_ended"]
    assert events(AccessLogFilters(status_codes=(StatusRange(101, 101),))) == [
        "session_opened",
        "session_ended",
    ]
    assert events(AccessLogFilters(status_codes=(StatusRange(400, 599),))) == []
    assert events(AccessLogFilters(min_duration=Duration(10.0))) == ["session_ended"]
    assert events(AccessLogFilters(retry_attempts=True)) == ["session_opened", "session_ended"]


def test_internal_requests() -> None:
    made = plain(service="ping@internal")
    assert written(options.AccessLog(), made) == []
    assert len(written(options.AccessLog(add_internals=True), made)) == 1


def test_what_opened_before_the_log_has_no_end_line_and_a_reload_keeps_the_rest() -> None:
    lines = Lines()
    log = AccessLog(options.AccessLog(), lines)
    log.session_ended(session())
    assert lines == []
    log.session_opened(session(), record())
    other = Lines()
    log.configure(options.AccessLog(format="json"), other)
    log.session_ended(session())
    assert (len(lines), [json.loads(line)["event"] for line in other]) == (1, ["session_ended"])
    log.session_ended(session())
    assert len(other) == 1  # nothing is remembered of what is over


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    second_text.cache_clear()
    (line,) = written(options.AccessLog(format="json"), plain())
    found = json.loads(line)
    assert (found["StartLocal"], found["StartUTC"], found["time"]) == (
        "2023-11-14T23:13:20.250000+01:00",
        "2023-11-14T22:13:20.250000Z",
        "2023-11-14T23:13:20+01:00",
    )
    (line,) = written(options.AccessLog(), plain())
    assert "[14/Nov/2023:23:13:20 +0100]" in line


# Forgery and leaks, whatever a stranger sends.


@frozen
class Forged:
    user: str
    agent: str
    path: str
    authority: str
    method: str


LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=30)
FORGED = st.builds(
    Forged,
    user=st.text(max_size=30),
    agent=LATIN | st.just('" 200 5 "-" "\x1b[31m'),
    path=st.text(st.sampled_from("!\"%&'()*+,-./:;<=>@[\\]^_`{|}~ab?#"), max_size=20),
    authority=st.sampled_from(["a.example", "[::1]:80", "a-b_c.example:8080"]),
    method=st.text(st.sampled_from("!#$%&'*+-.^_`|~AZ"), min_size=1, max_size=8),
)
SETTINGS = st.builds(
    options.AccessLog,
    format=st.sampled_from(["json", "common", "genericCLF"]),
    fields=st.builds(
        AccessLogFields,
        names=st.dictionaries(st.sampled_from(sorted(FIELDS)), st.sampled_from(["keep", "drop"]), max_size=3),
        headers=st.builds(AccessLogHeaders, default_mode=st.sampled_from(["keep", "drop", "redact"])),
    ),
)


def forged(values: Forged) -> RequestRecord:
    head = record().head
    assert head is not None
    made = record(username=values.user)
    made.head = evolve(
        head,
        method=values.method,
        path="/" + values.path.partition("?")[0],
        target="/" + values.path,
        query=values.path.partition("?")[2],
        authority=values.authority,
        headers=Headers(
            [("User-Agent", values.agent), ("Referer", values.agent), (values.method, values.agent)]
        ),
    )
    return made


@given(FORGED, SETTINGS)
def test_no_line_can_be_forged(values: Forged, settings: options.AccessLog) -> None:
    made = forged(values)
    for line in (*written(settings, made), *both(settings, made)):
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert line.isascii()
        if settings.format == "json":
            assert json.loads(line)["level"] == "info"
        else:
            fields = re.fullmatch(
                r'[^ "]+ - [^ "]+ \[[^\]"]*\] "[^" ]+ [^" ]+ [^" ]+" \S+ \S+ "[^"]*" "[^"]*"(?P<rest>.*)\n',
                line,
            )
            assert fields is not None, line
            assert (fields["rest"] == "") == (settings.format == "genericCLF")


def secret_headers() -> st.SearchStrategy[list[tuple[str, str]]]:
    names = st.sampled_from(sorted(SECRET_HEADERS)).flatmap(
        lambda name: st.sampled_from([name, name.upper(), name.title()])
    )
    return st.lists(st.tuples(names, st.just("Bearer S3cr3t")), max_size=4)


@given(secret_headers(), SETTINGS, st.booleans())
def test_credentials_never_stand_in_a_line(
    fields: list[tuple[str, str]], settings: options.AccessLog, upgrade: bool
) -> None:
    made = record(upgrade=upgrade, answer=Headers(fields), origin_answer=Headers(fields))
    head = made.head
    assert head is not None
    made.head = evolve(
        head, headers=Headers([*fields, ("Referer", "http://u:S3cr3t@h/?S3cr3t")]), query="t=S3cr3t"
    )
    for line in (*written(settings, made), *both(settings, made)):
        assert "S3cr3t" not in line


# The configuration's own values.


@pytest.mark.parametrize("text", ["200-299", "404", 404])
def test_status_ranges(text: str | int) -> None:
    assert str(parse_status_range(text)) == str(text)


@pytest.mark.parametrize("text", ["", "2xx", "299-200", "099", "600", "200-", "200 - 299", -1, 99])
def test_what_is_no_status_range(text: str | int) -> None:
    with pytest.raises(ValueError, match="; write"):
        parse_status_range(text)
