"""What may stand in a log: credentials and query values never do, unless they are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.config.accesslog import SECRET_HEADERS, AccessLogHeaders, AccessLogQuery, ValueMode
from trio_wsb.observe.redaction import MAX_VALUE, REDACTED, HeaderRules, QueryRules, path_text

KEEP_ALL = AccessLogHeaders("keep")
REDACT = QueryRules(AccessLogQuery())


def headers(options: AccessLogHeaders = KEEP_ALL, query: QueryRules = REDACT) -> HeaderRules:
    return HeaderRules(options, query)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("a=1&b=2", "?a=REDACTED&b=REDACTED"),
        ("token", "?REDACTED"),
        ("dG9rZW4=", "?REDACTED"),
        ("dG9rZQ==", "?REDACTED"),
        ("a==b", "?a=REDACTED"),
        ("a=1;b=2", "?a=REDACTED"),
        ("&&a=1&", "?&&a=REDACTED&"),
        ("", ""),
        ("=x", "?=REDACTED"),
    ],
)
def test_query(query: str, shown: str) -> None:
    assert REDACT.apply(query) == shown


def test_parameters_by_name() -> None:
    rules = QueryRules(AccessLogQuery("redact", {"room": "keep", "debug": "drop"}))
    assert rules.apply("room=7&token=x&debug=1&Room=8") == "?room=7&token=REDACTED&Room=REDACTED"
    assert QueryRules(AccessLogQuery("keep")).apply("a=1&b") == "?a=1&b"
    assert (
        QueryRules(AccessLogQuery("keep", {"token": "redact"})).apply("a=1&token=x") == "?a=1&token=REDACTED"
    )
    assert QueryRules(AccessLogQuery("drop")).apply("a=1&b") == ""
    assert QueryRules(AccessLogQuery("drop", {"b": "keep"})).apply("a=1&b=2") == "?b=2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/x?code=1#frag", "https://a.example/x?code=REDACTED"),
        ("https://a.example/cb#access_token=1", "https://a.example/cb"),
        ("https://u:p@a.example/x", "https://a.example/x"),
        ("//u:p@a.example/x", "//a.example/x"),
        ("https:\\\\u:p@a.example/x", "https:\\\\a.example/x"),
        ("HTTPS://u:p@q@a.example/", "HTTPS://a.example/"),
        ("/@someone/page?x", "/@someone/page?REDACTED"),
        ("https://a.example/@someone", "https://a.example/@someone"),
        ("about:client", "about:client"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert REDACT.url(url) == shown
    assert headers().value("referer", [url]) == shown


def test_headers_by_mode() -> None:
    fields = [("Host", "a"), ("X-A", "1"), ("x-a", "2"), ("Cookie", "s=1"), ("USER-AGENT", "curl")]
    assert headers().apply("request_", fields) == {
        "request_X-A": "1,2",
        "request_Cookie": REDACTED,
        "request_User-Agent": "curl",
    }
    assert headers(AccessLogHeaders("drop", {"user-agent": "keep", "Cookie": "redact"})).apply(
        "", fields
    ) == {
        "Cookie": REDACTED,
        "User-Agent": "curl",
    }
    assert headers(AccessLogHeaders("redact", {"X-A": "keep"})).apply("", fields) == {
        "X-A": "1,2",
        "Cookie": REDACTED,
        "User-Agent": REDACTED,
    }
    assert headers(AccessLogHeaders("keep", {"Cookie": "keep", "x-a": "drop"})).apply("", fields) == {
        "Cookie": "s=1",
        "User-Agent": "curl",
    }
    assert headers(AccessLogHeaders("drop", {"x-a": "drop"})).drops_all
    assert not headers(AccessLogHeaders("drop", {"x-a": "redact"})).drops_all


def test_values_are_bounded() -> None:
    assert headers().value("x", ["y" * 100_000]) == "y" * MAX_VALUE + "..."
    assert len(path_text("/" + "a" * 100_000, None, REDACT)) == MAX_VALUE + 3


def test_paths_are_escaped() -> None:
    assert path_text('/a"b\\c{d}', "x=y", REDACT) == "/a%22b%5Cc%7Bd%7D?x=REDACTED"
    assert path_text("/caf\u00e9", None, REDACT) == "/caf%C3%A9"
    assert path_text("/", "", REDACT) == "/"


MODES = st.sampled_from(list[ValueMode](["drop", "redact", "keep"]))
SECRET = "S3cr3tV4lu3"
NAMES = st.text(st.sampled_from("abcdefgh-_%."), max_size=8)


@given(MODES, st.sampled_from(sorted(SECRET_HEADERS)), st.dictionaries(NAMES, MODES), st.booleans())
def test_credentials_never_leak_unless_named(
    default: ValueMode, name: str, names: dict[str, ValueMode], upper: bool
) -> None:
    rules = headers(AccessLogHeaders(default, names))
    shown = rules.apply("request_", [(name.upper() if upper else name, SECRET)])
    assert all(SECRET not in value for value in shown.values())


@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["", SECRET, SECRET + "==", SECRET + ";x=" + SECRET])),
        max_size=5,
    ),
    st.dictionaries(NAMES, st.sampled_from(list[ValueMode](["drop", "redact"]))),
    st.sampled_from(list[ValueMode](["drop", "redact"])),
    st.sampled_from(["referer", "location", "x-forwarded-uri"]),
)
def test_query_values_never_leak(
    pairs: list[tuple[str, str]], names: dict[str, ValueMode], default: ValueMode, header: str
) -> None:
    rules = QueryRules(AccessLogQuery(default, names))
    query = "&".join(f"{name}={value}" if name else value for name, value in pairs)
    assert SECRET not in rules.apply(query)
    assert SECRET not in path_text("/chat", query, rules)
    found = headers(query=rules).value(header, [f"https://u:{SECRET}@h/p?{query}#{SECRET}"])
    assert found is not None
    assert SECRET not in found
