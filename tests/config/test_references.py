"""Names across providers: the files' own stand as written, those of other providers with their provider."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.helpers import config
from trio_wsb.config.model import Config
from trio_wsb.config.references import _fields, qualified, resolved

TEXT = """
entryPoints: {web: {address: ':80', http: {middlewares: [limit@file]}}}
tls: {options: {strict: {}}}
http:
  routers:
    r: {rule: Host(`a`), service: all@file, middlewares: [both, limit@file], tls: {options: strict@file}}
  middlewares:
    limit: {rateLimit: {average: 1}}
    both: {chain: {middlewares: [limit@file]}}
  serversTransports: {t: {}}
  services:
    a: {loadBalancer: {servers: [{url: http://a}], serversTransport: t@file}}
    all: {weighted: {services: [{name: a@file}, {name: b}]}}
    b: {failover: {service: a@file, fallback: c}}
    c: {mirroring: {service: a@file, mirrors: [{name: a@file}]}}
"""

WRITTEN = TEXT.replace("@file", "")


def test_the_files_are_one_provider() -> None:
    assert config(TEXT) == config(WRITTEN)


def test_another_provider_s_names_are_its_own() -> None:
    found = resolved(config(WRITTEN), "docker")
    router = found.http.routers["r"]
    assert (router.service, router.middlewares) == ("all@docker", ("both@docker", "limit@docker"))
    assert router.tls is not None
    assert router.tls.options == "strict@docker"
    weighted = found.http.services["all"].weighted
    assert weighted is not None
    assert [part.name for part in weighted.services] == ["a@docker", "b@docker"]
    balancer = found.http.services["a"].load_balancer
    assert balancer is not None
    assert balancer.servers_transport == "t@docker"


def test_what_needs_no_change_is_the_same_object() -> None:
    given_config = config(WRITTEN)
    assert resolved(given_config) is given_config


@pytest.mark.parametrize(
    ("name", "provider", "section", "expected"),
    [
        ("chat", "file", "http.services", "chat"),
        ("chat@file", "docker", "http.services", "chat"),
        ("chat", "docker", "http.services", "chat@docker"),
        ("chat@docker", "file", "http.services", "chat@docker"),
        ("ping@internal", "docker", "http.services", "ping@internal"),
        ("default", "docker", "tls.options", "default"),
        ("default", "docker", "http.services", "default@docker"),
        ("@file", "file", "http.services", "@file"),
        ("", "file", "http.services", ""),
    ],
)
def test_qualified(name: str, provider: str, section: str, expected: str) -> None:
    assert qualified(name, provider, section) == expected


@given(st.text(), st.sampled_from(["file", "docker", "internal"]))
def test_a_name_is_qualified_once(name: str, provider: str) -> None:
    once = qualified(name, provider)
    assert qualified(once, "file") == once or once.endswith("@file")


def test_every_reference_of_the_model_is_known() -> None:
    """A name that a field's documentation calls one is looked up in every provider."""
    seen: set[object] = set()

    def walk(cls: type) -> set[tuple[str, str]]:
        if cls in seen:
            return set()
        seen.add(cls)
        found: set[tuple[str, str]] = set()
        for each in _fields(cls):
            if each.section is not None:
                found.add((cls.__name__, each.name))
                attrs.fields_dict(cls)  # it is one of the model
            else:
                found |= walk(each.below)
        return found

    assert walk(Config) >= {
        ("EntryPointHTTP", "middlewares"),
        ("Router", "service"),
        ("Router", "middlewares"),
        ("RouterTLS", "options"),
        ("ChainOptions", "middlewares"),
        ("LoadBalancer", "servers_transport"),
        ("WeightedService", "name"),
        ("Failover", "service"),
        ("Failover", "fallback"),
        ("Mirroring", "service"),
        ("Mirror", "name"),
    }
