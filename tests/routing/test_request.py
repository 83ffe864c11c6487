from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_wsb.addresses import parse_ip
from trio_wsb.http.head import parse_request_head
from trio_wsb.routing.request import RequestView, normal_escapes, normal_host, normal_path, parse_query


@pytest.mark.parametrize(
    ("field", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com:8080", "example.com"),
        ("example.com.:80", "example.com"),
        ("example.com.", "example.com"),
        ("10.0.0.1:9000", "10.0.0.1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_hosts(field: str, host: str) -> None:
    assert normal_host(field) == host
    assert normal_host(host) == host


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/", "/"),
        ("*", "*"),
        ("/a//b/", "/a/b/"),
        ("//", "/"),
        ("//evil.example/x", "/evil.example/x"),
        ("/%61dmin", "/admin"),
        ("/%2e%2e/secret", "/secret"),
        ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
        ("/100%", "/100%25"),
        ("/%zz", "/%25zz"),
        ("/%2561", "/%2561"),
        ("/%%361", "/%2561"),
        ("/%", "/%25"),
        ("/a%20b%22%5c%7C%7b", '/a b"\\|{'),
        (
            "/%3a%2F%3f%23%5b%5D%40!%21%24%26%27%28%29%2a%2b%2c%3b%3d",
            "/%3A%2F%3F%23%5B%5D%40!%21%24%26%27%28%29%2A%2B%2C%3B%3D",
        ),
        ("/gr%C3%BCn", "/grün"),
        ("/%e2%82%ac%F0%9F%98%80", "/€😀"),
        ("/%c3x%bc", "/\ufffdx\ufffd"),
        ("/%c3%2f%bc", "/\ufffd%2F\ufffd"),
        ("/%00", "/\0"),
        ("/public/../admin", "/admin"),
        ("/../../etc", "/etc"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/a/b//..//c", "/a/c"),
        ("/a/%2e%2E//", "/"),
        ("/a/..%2fb", "/a/..%2Fb"),
        ("/a;/../b", "/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a../b", "/a../b"),
    ],
)
def test_paths(sent: str, path: str) -> None:
    assert normal_path(sent) == path


@given(
    st.lists(st.sampled_from([".", "..", "", "a", "%2e", "%2E.", "b.c", "%61", "%2F", "%", "%%36", "1"])).map(
        "/".join
    )
)
@example("%%361dmin")
@example("%%32%46")
def test_a_normal_path_is_one_already(rest: str) -> None:
    path = normal_path("/" + rest)
    assert normal_path(path) == path
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))


@given(st.text(), st.text("ab/.%?", max_size=5))
def test_escapes_of_what_is_not_reserved_make_no_difference(text: str, more: str) -> None:
    escaped = quote(text, safe="")
    literal = "".join(
        character if character not in ":/?#[]@!$&'()*+,;=%" else quote(character, safe="")
        for character in text
    )
    assert normal_escapes(escaped + quote(more)) == normal_escapes(literal + quote(more))
    assert unquote(normal_escapes(escaped)) == text


def test_a_view_of_what_stands_in_a_request() -> None:
    view = RequestView.of("API.example.com:443", "/ws/?a=/../b")
    assert (view.host, view.path, view.parameter("a")) == ("api.example.com", "/ws/", ["/../b"])
    assert (view.method, view.client, list(view.field_values("origin"))) == ("GET", None, [])


def test_a_view_of_a_head() -> None:
    head = parse_request_head(
        b"POST /%77s?a=1&b&a=2 HTTP/1.1\r\nHost: A.example.:80\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    )
    client = parse_ip("10.0.0.1")
    view = RequestView.of_request(head, client)
    assert (view.host, view.path, view.method, view.client) == ("a.example", "/ws", "POST", client)
    assert list(view.field_values("x-a")) == ["1", "2"]
    assert [list(view.parameter(name)) for name in ("a", "b", "c")] == [["1", "2"], [""], []]
    assert RequestView.of_request(head, None, lambda name: [name]).field_values("x-a") == ["x-a"]


def test_a_view_shows_no_secret() -> None:
    view = RequestView("a.example", "/ws", query="token=hunter2", field_values=lambda _: ["hunter2"])
    assert repr(view) == "<RequestView GET 'a.example' '/ws'>"


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("&&;", {}),
        ("a", {"a": [""]}),
        ("a=1&b=2;a=3", {"a": ["1", "3"], "b": ["2"]}),
        ("a=b=c", {"a": ["b=c"]}),
        ("=x", {"": ["x"]}),
        ("a+b=%2B+c", {"a b": ["+ c"]}),
        ("a=%zz&b=1&c=%&%4=x", {"b": ["1"]}),
        ("a=%FF", {"a": ["\ufffd"]}),
    ],
)
def test_queries(query: str, parameters: dict[str, list[str]]) -> None:
    assert parse_query(query) == parameters


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4))))
def test_a_form_comes_back(pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs)
    parameters = parse_query(query)
    assert sum(len(values) for values in parameters.values()) == len(pairs)
    for name, values in parameters.items():
        assert values == [value for key, value in parse_qsl(query, keep_blank_values=True) if key == name]


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_any_target_makes_a_view(rest: str) -> None:
    view = RequestView.of("a.example", "/" + rest)
    view.parameter("a")
    assert view.path.startswith("/")
