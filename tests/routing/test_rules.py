from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_wsb.addresses import parse_ip
from trio_wsb.routing.grammar import MAX_NESTING
from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import MAX_RULE_LENGTH, RuleError, parse_rule


def takes(rule: str, host: str = "example.com", target: str = "/") -> bool:
    return parse_rule(rule).matches(RequestView.of(host, target))


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        ("Host(`example.com`) && PathPrefix(`/api`)", True),
        ("Host(`example.com`)&&PathPrefix(`/ws`)", False),
        ("Host(`other.com`) || PathPrefix(`/api`)", True),
        ("Path(`/x`) || Path(`/y`) && Host(`example.com`)", False),
        ("PathPrefix(`/api`) || Path(`/y`) && Host(`other.com`)", True),
        ("(PathPrefix(`/api`) || Path(`/y`)) && Host(`other.com`)", False),
        ("!Host(`other.com`)", True),
        ("!Host(`other.com`) && !PathPrefix(`/api`)", False),
        ("!(Host(`other.com`) || Path(`/y`))", True),
        ("!!Host(`example.com`)", True),
        ("! ( ( Host ( `example.com` ) ) )", False),
        ("  Host(`example.com`)\n  &&\tPathPrefix(`/api`)\r\n", True),
        ('Host("example.com") && PathPrefix("/api")', True),
        ("host(`example.com`) && PATHPREFIX(`/api`) && pathPrefix(`/`)", True),
    ],
)
def test_operators(rule: str, taken: bool) -> None:
    assert takes(rule, target="/api/v1") is taken


def test_double_quotes_have_two_escapes_and_backticks_none() -> None:
    assert takes(r'Path("/a\"b\\c")', target="/a%22b%5Cc")
    assert takes(r"Path(`/a\c`)", target="/a%5Cc")
    assert takes(r'PathRegexp("^/\\d\\\"$")', target="/7%22")
    assert takes('Path(`/")&&`)', target="/%22)&&")


def test_a_rule_keeps_its_text_and_is_compared_by_it() -> None:
    rule = parse_rule("Host(`a.example`) ")
    assert rule.text == "Host(`a.example`) "
    assert rule.default_priority == 18
    assert parse_rule("Path(`/grün`)").default_priority == 14  # bytes, as Traefik counts
    assert rule == parse_rule("Host(`a.example`) ")
    assert rule != parse_rule("Host(`a.example`)")
    assert len({rule, parse_rule("Host(`a.example`) ")}) == 1
    assert repr(rule) == "Rule(text='Host(`a.example`) ')"


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("", 0, "the rule is empty", "PathPrefix(`/`)"),
        (" \n", 2, "the rule is empty", "PathPrefix(`/`)"),
        ("Host", 4, "Host has no value", "Host(`...`)"),
        ("Host()", 5, "Host has no value", "Host(`...`)"),
        ("Host(`a`", 4, "a parenthesis is never closed", ""),
        ("(Host(`a`) || Path(`/`)", 0, "a parenthesis is never closed", ""),
        ("Host(`a`))", 9, "a parenthesis was never opened", ""),
        ("Host(`a", 5, "a backtick is never closed", ""),
        ('Host("a', 5, "a double quote is never closed", ""),
        ('Path("/a\\n")', 8, "unknown escape", "backticks"),
        ('Path("/a\\', 8, "unknown escape", "backticks"),
        ("Host(example.com)", 5, "the value is not quoted", "backticks"),
        ("Host('a')", 5, "the value is not quoted", "backticks"),
        ("Header(`a`, ", 12, "the rule ends where a value should be", "backticks"),
        ("Header(`a`,)", 11, "the value is not quoted", "backticks"),
        ("Host(", 5, "the rule ends where a value should be", "backticks"),
        ("Host(`a`, `b`)", 8, "Host takes one value", "Host(`...`) || Host(`...`)"),
        ("Method(`GET`,`POST`)", 12, "Method takes one value", "Method(`...`) || Method(`...`)"),
        ("Header(`a`)", 10, "Header takes two values", "Header(`NAME`, `VALUE`)"),
        ("Header(`a` `b`)", 11, "unexpected '`'", "&& or ||"),
        ("Query(`a`, `b`, `c`)", 14, "Query takes two values", "Query(`NAME`, `VALUE`)"),
        ("Header(`a`, ``)", 12, "Header has an empty value", "Header(`NAME`, `VALUE`)"),
        ("Host(`a` `b`)", 9, "unexpected '`'", "&& or ||"),
        ("Host(`a`) Path(`/`)", 10, "unexpected 'P'", "&& or ||"),
        ("Host(`a`) & Path(`/`)", 10, "unknown operator '&'", "write &&"),
        ("Host(`a`) | Path(`/`)", 10, "unknown operator '|'", "write ||"),
        ("Host(`a`) && ", 13, "the rule ends where a matcher should be", "Host(`example.com`)"),
        ("Host(`a`) && || Path(`/`)", 13, "unexpected '|' where a matcher should be", "Host(`example.com`)"),
        ("!", 1, "the rule ends where a matcher should be", "Host(`example.com`)"),
        ("()", 1, "unexpected ')' where a matcher should be", "Host(`example.com`)"),
        ("`/ws`", 0, "unexpected '`' where a matcher should be", "Host(`example.com`)"),
        ("Hosts(`a`)", 0, "unknown matcher 'Hosts'", "did you mean Host?"),
        ("PathPrefx(`/`)", 0, "unknown matcher 'PathPrefx'", "did you mean PathPrefix?"),
        ("Zzz(`/`)", 0, "unknown matcher 'Zzz'", "Query, QueryRegexp, Method and ClientIP"),
        ("not Host(`a`)", 0, "unknown operator 'not'", "&&, || and !"),
        ("PathRegex(`/`)", 0, "unknown matcher 'PathRegex'", "did you mean PathRegexp?"),
        ("Headers(`a`, `b`)", 0, "Headers is a matcher of Traefik v2", "in v3 it is Header(`NAME`, `VALUE`)"),
        (
            "HeadersRegexp(`a`)",
            0,
            "HeadersRegexp is a matcher of Traefik v2",
            "HeaderRegexp(`NAME`, `PATTERN`)",
        ),
        ("HostHeader(`a`)", 0, "HostHeader is a matcher of Traefik v2", "in v3 it is Host(`...`)"),
        (
            "Query(`a=b`)",
            6,
            "Query has 'a=b', which is the form of Traefik v2",
            "in v3 it is Query(`a`, `b`)",
        ),
        ("Path(`/{id}`)", 7, "Path has a variable in braces, as in Traefik v2", "PathRegexp(`^/[^/]+$`)"),
        (
            "PathRegexp(`^/(a`)",
            14,
            "PathRegexp has a bad regular expression: a parenthesis is never closed",
            "",
        ),
        (
            r'PathRegexp("\\d\"(?=a)")',
            17,
            "PathRegexp has a bad regular expression: (?= looks around, which RE2 cannot",
            "&& and !",
        ),
        (
            r"HeaderRegexp(`X-A`, `a\`)",
            22,
            "HeaderRegexp has a bad regular expression: a backslash is the last character",
            "",
        ),
        ("Header(`X A`, `b`)", 7, "Header has 'X A', which is no name of a header field", "Origin"),
        ("HeaderRegexp(`host`, `b`)", 13, "HeaderRegexp does not see the Host field", "HostRegexp"),
        ("Method(`G T`)", 7, "Method has 'G T', which is no method", "GET"),
        (
            "ClientIP(`10.0.0`)",
            9,
            "ClientIP has '10.0.0', which is not an address or network",
            '"10.0.0.0/8"',
        ),
        ("HostRegexp(`ä`)", 11, "HostRegexp has a character that no host has", "xn--"),
        ("Path(`/a//b`)", 5, "Path has '/a//b', which no request matches", "write /a/b"),
        ("PathPrefix(`/a/./b`)", 11, "PathPrefix has '/a/./b', which no request matches", "write /a/b"),
        ("HostSNI(`*`)", 0, "HostSNI is a matcher of TCP routers", "Host(`...`)"),
        ("Host(`a.b:80`)", 5, "Host has 'a.b:80', which is no host", "without port"),
        ("Host( `` )", 6, "Host has an empty value", "Host(`...`)"),
        ("Host(`*.*.com`)", 5, "Host has '*.*.com', which is no host", "*.example.com"),
        ("Host(`*.10.0.0.1`)", 5, "Host has '*.10.0.0.1', which is no host", "*.example.com"),
        ("Host(`*.::1`)", 5, "Host has '*.::1', which is no host", "*.example.com"),
        ("Host(`exämple.com`)", 5, "Host has 'exämple.com', which is no host", "example.com"),
        ("Path(`ws`)", 5, "Path has 'ws', which is no path", "a path begins with /"),
        ("PathPrefix(``)", 11, "PathPrefix has an empty value", "PathPrefix(`...`)"),
        ("Path(`/a?b=c`)", 5, "Path has '/a?b=c', which is more than a path", "the query"),
    ],
)
def test_what_is_no_rule_is_explained_where_it_is_wrong(
    text: str, position: int, message: str, hint: str
) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule(text)
    error = raised.value
    assert (error.message, error.position, error.text) == (message, position, text)
    assert hint in error.hint
    assert str(error) == (f"{message}; {error.hint}" if error.hint else message)


def test_the_caret_stands_under_the_place() -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule("Host(`a`) &&\n  Pth(`/`) &&\n  Path(`/`)")
    assert raised.value.caret() == "  Pth(`/`) &&\n  ^"


@pytest.mark.parametrize("before", [0, 3, 60, 300])
@pytest.mark.parametrize("after", [0, 3, 60, 300])
def test_the_caret_of_a_long_line(before: int, after: int) -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule("Host(`a`) || " * before + "?" + " || Host(`a`)" * after)
    line, caret = raised.value.caret().split("\n")
    assert len(line) <= 100
    assert line[len(caret) - 1] == "?"


def test_a_caret_line_has_nothing_that_a_terminal_obeys() -> None:
    with pytest.raises(RuleError) as raised:
        parse_rule("Path(`/\x1b[2J\t`) ?")
    assert raised.value.caret() == "Path(`/ [2J `) ?\n               ^"


def nested(depth: int) -> list[str]:
    half = depth // 2
    return [
        "(" * depth + "Path(`/`)" + ")" * depth,
        "!" * depth + "Path(`/`)",
        "!(" * half + "Path(`/`)" + ")" * half + " && Host(`a`)",
    ]


@pytest.mark.parametrize("text", nested(MAX_NESTING))
def test_deep_rules(text: str) -> None:
    parse_rule(text).matches(RequestView("a", "/"))


@pytest.mark.parametrize("text", [*nested(MAX_NESTING + 2), "(" * MAX_RULE_LENGTH, "!" * MAX_RULE_LENGTH])
def test_rules_that_are_too_deep(text: str) -> None:
    with pytest.raises(RuleError, match="nested too deeply"):
        parse_rule(text)


def test_nesting_is_depth_not_number() -> None:
    assert takes(" && ".join(["(!Path(`/x`))"] * 400))


def test_long_rules() -> None:
    rule = " || ".join(["Path(`/x`)"] * 585)
    assert len(rule) <= MAX_RULE_LENGTH
    assert not takes(rule)
    with pytest.raises(RuleError, match="too long") as raised:
        parse_rule(rule.ljust(MAX_RULE_LENGTH + 1))
    assert raised.value.position == MAX_RULE_LENGTH
    assert raised.value.caret().endswith("^")


@settings(deadline=None)
@given(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from(
            [
                "Host",
                "Path",
                "PathRegexp",
                "HeaderRegexp",
                "Query",
                "ClientIP",
                "Method",
                "`[(`",
                "`10.0.0.0/8`",
                "(",
                ")",
                "`a.b`",
                '"/"',
                "`",
                '"',
                "\\",
                "&&",
                "||",
                "!",
                ",",
                " ",
                "\n",
            ]
        )
    ).map("".join)
)
@example('Path("\ud800/")')
@example("Path(`/\ud800`)")
def test_any_text_is_a_rule_or_a_rule_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except RuleError as error:
        line, caret = error.caret().split("\n")
        at = error.position
        assert 0 <= at <= len(text)
        assert len(caret) <= len(line) + 1
    else:
        rule.matches(RequestView("a.b", "/"))


Expression: TypeAlias = tuple[str, Callable[[RequestView], bool]]


def leaf(name: str, value: str, matches: Callable[[RequestView], bool]) -> st.SearchStrategy[Expression]:
    quoted = value.replace("`", '"')
    spellings = [f"{name}(`{value}`)", f'{name}( "{quoted}" )', f"{name.upper()} (`{value}`\n)"]
    return st.sampled_from([(spelling, matches) for spelling in spellings])


LEAVES = st.one_of(
    leaf("Host", "a.com", lambda request: request.host == "a.com"),
    leaf("Host", "*.a.com", lambda request: request.host == "b.a.com"),
    leaf("HostRegexp", "b.*com$", lambda request: "b" in request.host),
    leaf("Path", "/ws", lambda request: request.path == "/ws"),
    leaf("PathPrefix", "/ws", lambda request: request.path[:3] == "/ws"),
    leaf("PathPrefix", "/", lambda request: True),
    leaf("PathRegexp", "^/.+$", lambda request: len(request.path) > 1),
    leaf("Header", "X-A` , `1", lambda request: "1" in request.field_values("x-a")),
    leaf("HeaderRegexp", "X-A`,`[0-9]", lambda request: len(request.field_values("x-a")) > 0),
    leaf("Query", "q", lambda request: "" in request.parameter("q")),
    leaf("Query", "q`,`1", lambda request: "1" in request.parameter("q")),
    leaf("QueryRegexp", "q`,`.", lambda request: "1" in request.parameter("q")),
    leaf("Method", "post", lambda request: request.method == "POST"),
    leaf("ClientIP", "10.0.0.0/8", lambda request: request.client is not None),
)


def combine(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """Combine fully parenthesised expressions, so that nothing depends on precedence."""
    return st.one_of(
        inner.map(lambda a: (f"!({a[0]})", lambda request: not a[1](request))),
        st.tuples(inner, inner).map(
            lambda ab: (
                f"({ab[0][0]})&&({ab[1][0]})",
                lambda request: ab[0][1](request) and ab[1][1](request),
            )
        ),
        st.tuples(inner, inner).map(
            lambda ab: (
                f"({ab[0][0]}) || ({ab[1][0]})",
                lambda request: ab[0][1](request) or ab[1][1](request),
            )
        ),
    )


def field_values(name: str) -> list[str]:
    return ["2", "1"] if name == "x-a" else []


REQUESTS = [
    RequestView(host, path)
    for host in ("a.com", "b.a.com", "c.b.a.com", "")
    for path in ("/", "/ws", "/ws-2", "/w")
] + [
    RequestView("a.com", "/ws", method="POST", query="q=1"),
    RequestView("b.a.com", "/", query="q", client=parse_ip("10.1.2.3")),
    RequestView("a.com", "/", field_values=field_values),
    RequestView(
        "x", "/ws", method="PUT", query="q&q=1", client=parse_ip("10.0.0.0"), field_values=field_values
    ),
]


@settings(deadline=None)
@given(st.recursive(LEAVES, combine, max_leaves=12))
def test_rule_trees(expression: Expression) -> None:
    text, matches = expression
    rule = parse_rule(text)
    assert [rule.matches(request) for request in REQUESTS] == [matches(request) for request in REQUESTS]


@settings(deadline=None)
@given(st.lists(st.tuples(LEAVES, st.sampled_from(["&&", "||"])), min_size=1, max_size=8))
def test_and_binds_tighter_than_or(chain: list[tuple[Expression, str]]) -> None:
    text = " ".join(f"{leaf[0]} {operator}" for leaf, operator in chain)[:-2]
    groups: list[list[Expression]] = [[]]
    for (expression, _), before in zip(chain, ["&&", *(operator for _, operator in chain)], strict=False):
        if before == "||":
            groups.append([])
        groups[-1].append(expression)
    rule = parse_rule(text)
    for request in REQUESTS:
        assert rule.matches(request) is any(all(matches(request) for _, matches in group) for group in groups)
