"""Several providers as one configuration: whose a name is, and whose a problem."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest

from trio_wsb.config.disable import usable
from trio_wsb.config.document import Document, Element, read_document
from trio_wsb.config.merge import Merged, Part, merge
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding, Problem
from trio_wsb.config.validate import Names

MAIN = """
entryPoints: {web: {address: ':80'}}
http:
  routers: {r: {rule: Path(`/`), service: chat@docker, middlewares: [auth]}}
  middlewares: {auth: {ipAllowList: {sourceRange: [10.0.0.0/8]}}}
  services: {chat: {loadBalancer: {servers: [{url: http://file}]}}}
"""

LABELS = """
http:
  routers: {r: {rule: Path(`/d`), service: chat, middlewares: [auth@file]}}
  services: {chat: {loadBalancer: {servers: [{url: http://docker}]}}}
"""


class Labels:
    """What a provider that is no file gives: a document's parts with places of its own."""

    def __init__(self, text: str) -> None:
        self._document = read_document(text.encode(), "container web-1", dynamic=True, provider="docker")

    @property
    def source(self) -> str:
        return self._document.source

    @property
    def config(self) -> Config | None:
        return self._document.config

    @property
    def problems(self) -> list[Problem]:
        return self._document.problems

    @property
    def names(self) -> Names:
        return self._document.names

    @property
    def elements(self) -> frozenset[Element]:
        return self._document.elements

    def placed(self, found: Iterable[Finding]) -> list[Problem]:
        return [attrs.evolve(each, line=0, column=0) for each in self._document.placed(found)]


def merged(main: str, *labels: str) -> Merged:
    return merge(
        [Part(read_document(main.encode(), "main.yaml")), *(Part(Labels(each), "docker") for each in labels)]
    )


def told(whole: Merged) -> list[str]:
    return [str(problem) for problems in whole.judge(Names()).values() for problem in problems]


def test_each_provider_has_names_of_its_own() -> None:
    whole = merged(MAIN, LABELS)
    assert list(whole.config.http.services) == ["chat", "chat@docker"]
    routers = whole.config.http.routers
    assert list(routers) == ["r", "r@docker"]
    assert (routers["r"].service, routers["r"].middlewares) == ("chat@docker", ("auth",))
    assert (routers["r@docker"].service, routers["r@docker"].middlewares) == ("chat@docker", ("auth",))
    assert told(whole) == []


def test_a_name_without_a_provider_is_never_another_s() -> None:
    labels = "http: {routers: {r: {rule: Path(`/`), service: chat, middlewares: [auth]}}}"
    whole = merged(MAIN.replace("chat@docker", "chat"), labels)
    assert [line.partition(" (")[0] for line in told(whole)] == [
        'container web-1 http.routers.r.service: no service "chat@docker" is defined',
        'container web-1 http.routers.r.middlewares[0]: no middleware "auth@docker" is defined',
    ]


def test_what_is_wrong_with_one_disables_its_own_router() -> None:
    whole = merged(MAIN, LABELS.replace("auth@file", "gone@file"))
    judged = whole.judge(Names())
    found = usable(whole.config, [problem for problems in judged.values() for problem in problems])
    assert [each.name for each in found.disabled] == ["r@docker"]
    assert list(found.config.http.routers) == ["r"]


def test_two_of_one_provider_share_their_names() -> None:
    whole = merged(MAIN, LABELS, LABELS.replace("http://docker", "http://second"))
    balancer = whole.config.http.services["chat@docker"].load_balancer
    assert balancer is not None
    assert [str(server.url) for server in balancer.servers] == ["http://docker"]
    assert [line.partition(" (")[0] for line in told(whole)] == [
        f"container web-1 http.{name}: is defined already at container web-1 http.{name}, and that counts"
        for name in ("routers.r", "services.chat")
    ]


@pytest.mark.parametrize(
    ("line", "source", "path"),
    [
        ("http.services.chat@docker.loadBalancer.servers[0].url: no", "container web-1", ("http", "services", "chat", "loadBalancer", "servers", 0, "url")),
        ("http.services.chat.loadBalancer: no", "main.yaml", ("http", "services", "chat", "loadBalancer")),
        ("http.routers.r: no", "main.yaml", ("http", "routers", "r")),
        ("tls.certificates[1].certFile: no", "container web-1", ("tls", "certificates", 0, "certFile")),
    ],
)  # fmt: skip
def test_a_line_is_led_back_to_its_source(line: str, source: str, path: tuple[str | int, ...]) -> None:
    tls = "tls: {certificates: [{certFile: /a, keyFile: /b}]}\n"
    found = merged(MAIN + tls, LABELS + tls).find(line)
    assert found is not None
    part, finding = found
    assert (part.contribution.source, finding.path, finding.message) == (source, path, "no")


@pytest.mark.parametrize(
    "line", ["log.filePath: no", "http.services.chats: no", "no", "tls.certificates: no"]
)
def test_a_line_about_nothing_dynamic(line: str) -> None:
    assert merged(MAIN, LABELS).find(line) is None


def test_a_document_is_a_contribution() -> None:
    whole = merged(MAIN)
    assert isinstance(whole.parts[0].contribution, Document)
    assert whole.config == whole.parts[0].contribution.config


def test_what_stands_beyond_the_lists_of_all_is_the_first_one_s() -> None:
    tls = "tls: {certificates: [{certFile: /a, keyFile: /b}]}\n"
    whole = merged(MAIN + tls, LABELS + tls)
    path = ("tls", "certificates", 7, "certFile")
    assert whole.owner(path) == (whole.parts[0], path)
    assert whole.owner(("tls", "certificates", 1))[0] is whole.parts[1]
