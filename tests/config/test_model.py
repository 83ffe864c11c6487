"""The model speaks for itself: every field is documented, and every default keeps its own bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import trio_wsb.config.entrypoints as entrypoints
import trio_wsb.config.model as model
import trio_wsb.config.services as services
import trio_wsb.config.tls as tls
from tests.config.helpers import FILE, config, document
from trio_wsb.config import accesslog, api, checks, docker, metrics, middlewares, providers, session
from trio_wsb.config.effective import REDACTED, effective, to_yaml
from trio_wsb.config.foreign import FOREIGN, foreign
from trio_wsb.config.load import check_files, load
from trio_wsb.config.model import Config, key_of
from trio_wsb.config.reference import key_paths, reference
from trio_wsb.config.shortform import File, WSBalancer
from trio_wsb.middleware.options import Bound, between

ROOT = Path(__file__).parents[2]
CLASSES = [
    each
    for module in (model, services, middlewares, entrypoints, tls)
    for each in vars(module).values()
    if attrs.has(each) and each.__module__ == module.__name__
]


def fields() -> Iterator[tuple[Any, Any]]:
    for cls in [*CLASSES, WSBalancer, File]:
        for field in attrs.fields(cls):
            yield cls, field


@pytest.mark.parametrize(
    ("cls", "field"), [pytest.param(c, f, id=f"{c.__name__}.{f.name}") for c, f in fields()]
)
def test_field(cls: Any, field: Any) -> None:
    assert field.metadata["doc"][-1] in ".`"
    assert field.metadata["reload"] in {"yes", "new sessions", "restart"}
    check = field.metadata["check"]
    if check is not None and field.default not in (attrs.NOTHING, None, ""):
        made = isinstance(field.default, type(attrs.Factory(dict)))
        check(field.default.factory() if made else field.default)


def test_keys_are_camel_case() -> None:
    names = {key_of(field) for _, field in fields()}
    assert {"graceTimeOut", "trustedIPs", "rootCAs", "cacheTTL", "entryPoints", "field", "filePath"} <= names
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name) for name in names)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (between(0, 5), [0, 5], [-1, 6]),
        (checks.AT_LEAST_0, [0, 10**9], [-1, 10**9 + 1]),
        (checks.STATUS, [100, 599], [99, 600]),
        (checks.PERIOD, [0.01, 30.0], [0.0, 0.009]),
        (checks.DEADLINE, [0.001], [0.0]),
        (checks.URL_PATH, ["/", "/metric?a=b", "/%20"], ["", "metric", "/a b", "/a#b", "/é", "/a\n"]),
        (checks.PAGE_PATH, ["/", "/a"], ["", "/a?b"]),
        (checks.NOT_EMPTY, ["a"], ["", " "]),
        (checks.FILE_PATH, ["a", "/a b"], ["", "a\nb"]),
    ],
)
def test_check(check: Bound, right: list[object], wrong: list[object]) -> None:
    for value in right:
        check(value)
    for value in wrong:
        with pytest.raises(ValueError, match="; "):
            check(value)


def test_a_foreign_key_is_none_of_ours() -> None:
    for cls, keys in FOREIGN.items():
        assert keys.keys().isdisjoint(key_of(field) for field in attrs.fields(cls))
    assert foreign(File, "global") == foreign(Config, "global")
    assert foreign(WSBalancer, "global") is None


@pytest.mark.parametrize(("cls", "key"), [(cls, key) for cls, keys in FOREIGN.items() for key in keys])
def test_foreign_key(cls: type, key: str) -> None:
    """Every one is understood where it stands, and ignored ones change nothing."""
    verdict = foreign(cls, key)
    assert verdict is not None
    text = PLACES[cls]
    read = document(text.replace("HERE", f"{key}: {{}}"))
    (problem,) = read.problems
    assert problem.key_path.endswith(f"{key}")
    assert problem.severity == ("error" if verdict.verdict == "unsupported" else "warning")
    if verdict.verdict != "unsupported":
        assert read.config == config(text.replace("HERE", ""))


SERVICE = "http: {services: {s: %s}}\n"
BALANCER = SERVICE % "{loadBalancer: {servers: [{url: http://a}], %s}}"
PARTS = "http: {services: {b: {loadBalancer: {servers: [{url: http://a}]}}, %s}}"
PLACES = {
    model.Config: "HERE\nhttp: {}",
    model.EntryPoint: "entryPoints: {e: {address: ':80', HERE}}",
    entrypoints.EntryPointHTTP: "entryPoints: {e: {address: ':80', http: {HERE}}}",
    model.Transport: "entryPoints: {e: {address: ':80', transport: {HERE}}}",
    model.RespondingTimeouts: "entryPoints: {e: {address: ':80', transport: {respondingTimeouts: {HERE}}}}",
    model.ForwardedHeaders: "entryPoints: {e: {address: ':80', forwardedHeaders: {HERE}}}",
    model.HTTP: "http: {HERE}",
    providers.Providers: "providers: {HERE}\nhttp: {}",
    docker.DockerProvider: "providers: {docker: {HERE}}\nhttp: {}",
    providers.FileProvider: "providers: {file: {filename: a.yml, HERE}}\nhttp: {}",
    model.Router: "http: {routers: {r: {rule: Path(`/`), service: wsbalancer, HERE}}}\nwsbalancer: {pods: [http://a]}",
    services.Service: SERVICE % "{loadBalancer: {servers: [{url: http://a}]}, HERE}",
    services.PassiveHealthCheck: BALANCER % "passiveHealthCheck: {HERE}",
    services.Weighted: PARTS % "a: {weighted: {services: [{name: b}], HERE}}",
    services.Failover: PARTS % "a: {failover: {service: b, fallback: b, HERE}}",
    services.Mirroring: PARTS % "a: {mirroring: {service: b, HERE}}",
    services.LoadBalancer: BALANCER % "HERE",
    session.Session: BALANCER % "session: {HERE}",
    services.Server: SERVICE % "{loadBalancer: {servers: [{url: http://a, HERE}]}}",
    metrics.Metrics: "metrics: {HERE}\nhttp: {}",
    metrics.Prometheus: "metrics: {prometheus: {HERE}}\nhttp: {}",
    middlewares.Middleware: "http: {middlewares: {m: {retry: {attempts: 2}, HERE}}}",
    model.ServersTransport: "http: {serversTransports: {t: {HERE}}}",
    model.ForwardingTimeouts: "http: {serversTransports: {t: {forwardingTimeouts: {HERE}}}}",
    model.Log: "log: {HERE}",
    tls.RouterTLS: "http: {routers: {r: {rule: Path(`/`), service: ping@internal, tls: {HERE}}}}",
    tls.Store: "tls: {stores: {default: {HERE}}}\nhttp: {}",
    tls.TLSOptions: "tls: {options: {o: {HERE}}}\nhttp: {}",
    tls.ClientAuth: "tls: {options: {o: {clientAuth: {HERE}}}}\nhttp: {}",
    api.API: "api: {HERE}\nhttp: {}",
    accesslog.AccessLog: "accessLog: {HERE}\nhttp: {}",
}


def test_the_reference_is_current() -> None:
    committed = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    assert committed == reference(), (
        "run: python -m trio_wsb.config.reference > docs/reference/configuration.md"
    )


def test_the_reference_has_every_key() -> None:
    text = reference()
    for path in key_paths():
        assert f"`{path}`" in text or f"## `{path}" in text or path in {"http", "log", "ping", "control"}, (
            path
        )


def test_the_annotated_files_have_no_problems() -> None:
    files = sorted((ROOT / "etc").glob("*.yaml"))
    assert len(files) >= 2
    assert check_files(files) == []
    for file in files:
        assert load(file).warnings == []


def test_the_annotated_files_have_every_key() -> None:
    names = ("trio-wsb-full.yaml", "trio-wsb-middlewares.yaml")
    full = "".join((ROOT / "etc" / name).read_text("utf-8") for name in names)
    short = (ROOT / "etc/trio-wsb.yaml").read_text("utf-8")
    for path in key_paths():
        key = path.rpartition(".")[2]
        assert re.search(rf"^[\s#-]*{key}:", full, re.MULTILINE), path
    for field in attrs.fields(WSBalancer):
        assert re.search(rf"{key_of(field)}:", short), field.name


@pytest.mark.parametrize("name", ["trio-wsb.yaml", "trio-wsb-full.yaml"])
def test_the_effective_configuration_reads_back_the_same(name: str) -> None:
    first = load(ROOT / "etc" / name).config
    again = document(to_yaml(first))
    assert again.problems == []
    assert again.config == first


def test_odd_names_read_back_the_same() -> None:
    names = ["on", "10:30", "1e3", "0o7", "true", "null", "a b", "é", "- x", "#", "5", "~", "x: y"]
    services = "".join(
        f"    {name!r}: {{loadBalancer: {{servers: [{{url: http://a}}]}}}}\n" for name in names
    )
    first = config(f"http:\n  services:\n{services}")
    assert list(first.http.services) == names
    assert config(to_yaml(first)) == first


def test_secrets_are_not_shown() -> None:
    @attrs.frozen
    class Safe:
        key: str = model.option("A key.", "", secret=True)
        empty: str = model.option("Nothing.", "", secret=True)
        none: str | None = model.option("None.", None)

    assert effective(Safe("hunter2")) == {"key": REDACTED, "empty": ""}


def test_a_password_in_a_url_is_not_shown() -> None:
    read = document("wsbalancer: {pods: ['ftp://me:hunter2@host']}")
    assert f"{FILE}:1:21 wsbalancer.pods[0]" in str(read.problems[0])
    assert "hunter2" not in str(read.problems[0])
