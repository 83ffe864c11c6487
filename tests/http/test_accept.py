from __future__ import annotations

import pytest

from trio_wsb.http.accept import prefers_html, quality
from trio_wsb.http.headers import Headers

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


def accept(*values: str) -> Headers:
    return Headers([("Accept", value) for value in values])


@pytest.mark.parametrize(
    ("value", "html", "json"),
    [
        ("", 1.0, 1.0),
        ("*/*", 1.0, 1.0),
        (FIREFOX, 1.0, 0.8),
        (CHROME, 1.0, 0.8),
        ("application/json", 0.0, 1.0),
        ("text/html;q=0.5, application/json;q=0.501", 0.5, 0.501),
        ("text/*;q=0.3, text/html;q=0.7", 0.7, 0.0),  # the most specific counts, RFC 9110 section 12.5.1
        ("text/*;q=1, text/html;q=0", 0.0, 0.0),
        ("TEXT/HTML;Q=0.4", 0.4, 0.0),
        ("text/html ; q=0.4 , */* ; q=0.1", 0.4, 0.1),
        ("text/html;level=1", 0.0, 0.0),
        ("text/html;q=2, text/html;q=0.5000, text/html;q=", 0.0, 0.0),
        ("garbage, ;;;, text/html", 1.0, 0.0),
    ],
)
def test_quality(value: str, html: float, json: float) -> None:
    headers = accept(value)
    assert quality(headers, "text/html") == html
    assert quality(headers, "application/json") == json
    assert prefers_html(headers) is (html > json)


def test_without_the_field_everything_is_welcome() -> None:
    assert quality(Headers(), "text/html") == 1.0
    assert not prefers_html(Headers())


def test_several_fields_are_one_list() -> None:
    assert quality(accept("text/html;q=0.2", "application/json;q=0.3"), "application/json") == 0.3


def test_a_thousand_ranges_are_not_all_read() -> None:
    assert quality(accept(",".join(["a/b"] * 1000 + ["text/html"])), "text/html") == 0.0
