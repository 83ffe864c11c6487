from __future__ import annotations

import pytest

from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.sticky import default_cookie_name, sticky_value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http://127.0.0.1:18401", "0c09029357dedd72"),
        ("http://127.0.0.1:18401/", "5c1c21fc8f38c227"),
        ("named", "a157d36a739191c1"),
    ],
)
def test_values_of_traefik(name: str, value: str) -> None:
    """Seen with Traefik 3.7: the URL counts as it was written."""
    assert sticky_value(name) == value


@pytest.mark.parametrize(("service", "name"), [("unnamed", "_d59b4"), ("can2", "_9f0ed")])
def test_names_of_traefik(service: str, name: str) -> None:
    assert default_cookie_name(service) == name


def test_a_url_keeps_what_was_written_and_is_the_same_server() -> None:
    one, two = parse_backend_url("http://a:80/"), parse_backend_url("http://a")
    assert one == two
    assert hash(one) == hash(two)
    assert (one.written, two.written) == ("http://a:80/", "http://a")
