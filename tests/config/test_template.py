"""The template of default rules, and the constraints on labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.config.constraints import parse_constraints
from trio_wsb.config.docker import parse_engine_url
from trio_wsb.config.template import Subject, TemplateError, normalize, parse_template
from trio_wsb.routing.rules import RuleError

SUBJECT = Subject("chat-app", "chat_1", {"tier": "WS", "com.example.host": "a.test"})


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("Host(`{{ normalize .Name }}`)", "Host(`chat-app`)"),
        ("Host(`{{.Name}}.test`)", "Host(`chat-app.test`)"),
        ("Host(`{{ .ContainerName | normalize | upper }}`)", "Host(`CHAT-1`)"),
        ('Host(`{{ index .Labels "com.example.host" }}`)', "Host(`a.test`)"),
        ("Host(`{{ index .Labels `none` | default `x` }}`)", "Host(`x`)"),
        ("Host(`{{ .Labels.tier | lower }}`)", "Host(`ws`)"),
        ('Host(`{{ trimSuffix "-app" .Name }}.{{ replace "_" "." .ContainerName }}`)', "Host(`chat.chat.1`)"),
        ('Host(`{{ trimPrefix "chat-" (lower .Name) }}`)', "Host(`app`)"),
        ("Host(`{{- .Name -}}`)", "Host(`chat-app`)"),
        ("Path(`/`)  {{- trim `  ` -}}  ", "Path(`/`)"),
        ("PathPrefix(`/`)", "PathPrefix(`/`)"),
        ('Host(`{{ "a}}b" | default .Name | replace "}}" "x" }}.test`)', "Host(`axb.test`)"),
    ],
)  # fmt: skip
def test_template(template: str, rule: str) -> None:
    template = template.replace('"a}}b" | default .Name', 'default .Name "a}}b"')
    parsed = parse_template(template)
    assert parsed.fill(SUBJECT) == rule
    assert (parsed, str(parsed)) == (parse_template(template), template)


def test_names() -> None:
    assert [normalize(name) for name in ("a_b.c", "/x/", "Ünïcode 9", "--", "my--app")] == [
        "a-b-c",
        "x",
        "Ünïcode-9",
        "",
        "my-app",
    ]


@given(st.text(alphabet="{}-.|()` \"\\NameLbelsidx'x", max_size=40))
def test_no_template_is_a_traceback(text: str) -> None:
    try:
        filled = parse_template(f".Labels {text}").fill(SUBJECT)
    except TemplateError as error:
        filled = error.text[error.position :]
    assert isinstance(filled, str)


LABELS = {"tier": "chat", "stage": "test-7"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("Label(`tier`, `chat`)", True),
        ('Label("tier", "web")', False),
        ("Label(`none`, ``)", True),
        ("LabelRegex(`stage`, `^test-[0-9]+$`)", True),
        ("labelregex(`stage`,`prod`) || Label(`tier`,`chat`) && !Label(`stage`,`x`)", True),
        ("!(Label(`tier`,`chat`) || Label(`tier`,`web`))", False),
        ("!!Label(`tier`, `chat`)", True),
    ],
)
def test_constraints(text: str, fits: bool) -> None:
    parsed = parse_constraints(text)
    assert parsed.match(LABELS) is fits
    assert (parsed, str(parsed)) == (parse_constraints(text), text)


@given(st.text(alphabet="LabelRgx(`,)!&| ab", max_size=40))
def test_no_constraint_is_a_traceback(text: str) -> None:
    try:
        fits = parse_constraints(text).match(LABELS)
    except RuleError as error:
        fits = error.position > len(text)
    assert fits in {True, False}


@pytest.mark.parametrize(
    ("text", "plain", "secure"),
    [
        ("unix:///run/docker.sock", "http://docker", "http://docker"),
        ("tcp://engine", "http://engine:2375", "https://engine:2376"),
        ("tcp://[fd00::1]:99", "http://[fd00::1]:99", "https://[fd00::1]:99"),
        ("http://engine", "http://engine:80", "http://engine:80"),
        ("https://engine:8443/", "https://engine:8443", "https://engine:8443"),
    ],
)
def test_endpoints(text: str, plain: str, secure: str) -> None:
    url = parse_engine_url(text)
    assert (url.base(tls=False), url.base(tls=True), parse_engine_url(str(url))) == (plain, secure, url)
