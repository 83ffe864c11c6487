from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.routing.request import RequestView, normal_host, normal_path


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
        ("/a//b/", "/a//b/"),
        ("/%61dmin", "/admin"),
        ("/%2e%2e/secret", "/secret"),
        ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
        ("/%2561", "/%2561"),
        ("/public/../admin", "/admin"),
        ("/../../etc", "/etc"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a../b", "/a../b"),
    ],
)
def test_paths(sent: str, path: str) -> None:
    assert normal_path(sent) == path


@given(st.lists(st.sampled_from([".", "..", "", "a", "%2e", "%2E.", "b.c", "%61", "%2F"])).map("/".join))
def test_a_normal_path_is_one_already(rest: str) -> None:
    path = normal_path("/" + rest)
    assert normal_path(path) == path
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))


def test_a_view_of_what_stands_in_a_request() -> None:
    assert RequestView.of("API.example.com:443", "/ws/?a=/../b") == RequestView("api.example.com", "/ws/")
