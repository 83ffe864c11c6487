"""The template of default rules, and the constraints on labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.config.constraints import ConstraintError, parse_constraints
from trio_wsb.config.docker import parse_engine_url
from trio_wsb.config.template import Subject, TemplateError, normalize, parse_template
from trio_wsb.routing.grammar import TextError

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


@pytest.mark.parametrize(
    ("template", "position", "message", "hint"),
    [
        ("Host(`{{ .Name ) }}`)", 15, "unexpected ')'", ""),
        ("Host(`{{ .Name ; }}`)", 15, "unexpected ';'", ""),
        ("Host(`{{ ) }}`)", 9, 'unexpected ")"', "write a field such as .Name"),
        ("Host(`{{ .Name | `x` }}`)", 17, "only a function can follow |", "functions are normalize"),
        ("Host(`{{ index .Labels }}`)", 9, "index takes two operands", "write index .Labels"),
        ("Host(`{{ range .Labels }}`)", 9, '"range" is not supported', "write a label per container"),
        ("Host(`{{ lowr .Name }}`)", 9, 'unknown function "lowr"', "normalize, lower"),
        ("Host(`{{ replace .Name }}`)", 9, "replace takes 3 operands", "write {{ replace ... .Name }}"),
        ("Host(`{{ lower (upper .Name }}`)", 15, "a parenthesis is never closed", ""),
        ("Host(`{{ " + "(" * 40 + " }}`)", 25, "is nested too deeply", "at most 16 levels"),
        ("Host(`{{ lower | }}`)", 9, "lower takes one operand", "write {{ lower ... .Name }}"),
        ("Host(`{{ .Name lower }}`)", 15, "unexpected", ""),
        ("x" * 9000, 4096, "the template is too long", "at most 4096 characters"),
    ],
)
def test_what_is_no_template(template: str, position: int, message: str, hint: str) -> None:
    with pytest.raises(TemplateError) as raised:
        parse_template(template)
    error = raised.value
    assert (error.message[: len(message)], error.position) == (message, position)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("Label(`a`, `b`) & Label(`c`, `d`)", 16, "unknown operator '&'"),
        ("Label(`a`, `b`))", 15, "a parenthesis was never opened"),
        ("Label`a`", 5, "Label has no values"),
        ("Label(`a`, `b`", 5, "a parenthesis is never closed"),
        ("Label(`a`, `b`; `c`)", 14, "unexpected ';'"),
        ("+", 0, "unexpected '+'"),
        ("x" * 5000, 4096, "the expression is too long"),
    ],
)
def test_what_is_no_constraint(text: str, position: int, message: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        parse_constraints(text)
    assert (raised.value.message, raised.value.position) == (message, position)


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
    except TextError as error:
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
