"""Bad inputs and the exact lines that they must give: the tables in problems/*.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.config.helpers import SERVERS, lines, problems

TABLES = sorted((Path(__file__).parent / "problems").glob("*.txt"))


def rows() -> Iterator[object]:
    for table in TABLES:
        for block in table.read_text("utf-8").split("== ")[1:]:
            name, _, rest = block.partition("\n")
            text, _, expected = rest.partition("\n--\n")
            marks = []
            if "not valid YAML" in expected and not yaml.__with_libyaml__:
                marks.append(pytest.mark.skip("the words are libyaml's"))
            yield pytest.param(f"{text}\n", expected.split("\n"), id=f"{table.stem}-{name}", marks=marks)


@pytest.mark.parametrize(("text", "expected"), list(rows()))
def test_line(text: str, expected: list[str]) -> None:
    assert lines(text) == [line for line in expected if line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1:1: the file has no configuration"),
        ("log:\n\tlevel: INFO\n", "f.yaml:2:1: not valid YAML: a tab in the indentation (indent with spaces)"),
        ("log:\n  level: INFO\n\tformat: json\n", "f.yaml:3:1: not valid YAML: a tab in the indentation"),
        ("log:\n  level: I\x01\n", "f.yaml:2:11: the control character U+0001 is not allowed (remove it)"),
        ("log: \x00\n", "f.yaml:1:6: the control character U+0000 is not allowed (remove it)"),
        ("log:\r\n  level: \x7f", "f.yaml:2:10: the control character U+007F is not allowed (remove it)"),
        (b"log: \xff", "f.yaml:1:6: the file is not UTF-8 text (save the file as UTF-8)"),
        (b"log:\n  \xc3\xa9: \xed\xa0\x80", "f.yaml:2:6: the file is not UTF-8 text (save the file as UTF-8)"),
        ("log: {}".encode("utf-16"), "f.yaml:1:1: the file is not UTF-8 text (save the file as UTF-8)"),
        ("ping: {terminatingStatusCode: " + "9" * 401 + "}", "f.yaml:1:31 ping.terminatingStatusCode: is a number of 401 digits"),
        ("listen: " + "x" * 99, f'f.yaml:1:9 listen: "{"x" * 57}..." is not an address to listen on'),
        ("k" * 500 + ": 1", f"f.yaml:1:1 {'k' * 500}: unknown key (valid keys are "),
        ("[" * 65, "f.yaml:1:65 [0][0][0][0]: is nested deeper than 64 levels (flatten it)"),
    ],
)  # fmt: skip
def test_text_that_a_table_cannot_hold(text: str | bytes, expected: str) -> None:
    found = lines(text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_everything_at_once() -> None:
    text = """\
global: {}
zebra: 1
entryPoints:
  web: {address: ":99999"}
  other: {address: "127.0.0.1:9000"}
  same: {address: "127.0.0.1:9000"}
http:
  routers:
    r: {rule: "Host(", service: missing}
  services:
    chat:
      loadBalancer:
        strategy: random
        servers:
          - url: http://a
          - url: 5
          - {wieght: 2}
          - url: http://a/
        sticky: {}
log: {level: INFO}
log: {level: 5}
wsbalancer:
  pods: [http://b, http://c, http://b]
  cacheTTL: often
"""
    found = [(each.line, each.key_path, each.severity) for each in problems(text)]
    assert found == [
        (1, "global", "warning"),
        (2, "zebra", "error"),
        (4, "entryPoints.web.address", "error"),
        (6, "entryPoints.same.address", "error"),
        (9, "http.routers.r.rule", "error"),
        (13, "http.services.chat.loadBalancer.strategy", "error"),
        (16, "http.services.chat.loadBalancer.servers[1].url", "error"),
        (17, "http.services.chat.loadBalancer.servers[2]", "error"),
        (17, "http.services.chat.loadBalancer.servers[2].wieght", "error"),
        (18, "http.services.chat.loadBalancer.servers[3].url", "error"),
        (19, "http.services.chat.loadBalancer.sticky", "error"),
        (21, "log", "error"),
        (23, "wsbalancer.pods[2]", "error"),
        (24, "wsbalancer.cacheTTL", "error"),
    ]


def test_a_cut_part_is_not_missed_by_those_that_name_it() -> None:
    text = SERVERS + "          - url: 5\n  routers:\n    r: {rule: Path(`/`), service: chat}\n"
    assert [each.key_path for each in problems(text)] == ["http.services.chat.loadBalancer.servers[0].url"]


def test_ten_thousand_problems_are_cut_short() -> None:
    text = SERVERS + "          - url: 5\n" * 10_000
    found = problems(text)
    assert len(found) == 1000
    assert found[0].line == 6


def test_a_shared_mistake_is_cut_out_once() -> None:
    text = """\
http:
  services:
    one: &one
      loadBalancer:
        servers: [{url: 5}, {url: http://a}, {url: http://b}, {url: http://a}]
    two: *one
"""
    keys = [each.key_path for each in problems(text)]
    assert keys.count("http.services.one.loadBalancer.servers[0].url") == 1
    assert keys.count("http.services.two.loadBalancer.servers[0].url") == 1
    assert keys.count("http.services.two.loadBalancer.servers[3].url") == 1
    assert len(keys) == 4
