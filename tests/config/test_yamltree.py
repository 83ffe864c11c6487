from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.config.helpers import SERVERS, document, lines
from trio_wsb.config.yamltree import (
    MAX_DEPTH,
    MAX_EXPANSION,
    MAX_PROBLEMS,
    ListNode,
    MapNode,
    Mark,
    Tree,
    compose,
)

both_parsers = pytest.mark.parametrize("libyaml", [True, False], ids=["libyaml", "python"])


def read(text: str, *, libyaml: bool = True) -> Tree:
    return compose(text.encode(), "f", libyaml=libyaml)


def bomb(levels: int, width: int) -> str:
    rows = ["a0: &a0 [" + ", ".join("x" * width) + "]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(rows)


@both_parsers
def test_core_schema(libyaml: bool) -> None:
    tree = read(
        "{a: , b: ~, c: 'null', d: true, e: no, f: 10:30, g: 0o17, h: 0x1F, i: 1e3, j: -.inf, k: .nan, "
        'l: 007, m: 1_000, n: "8", o: 2001-01-01, p: +5, q: .5, r: ! 5, s: !!str 5, t: !!float 5, u: ., v: -}',
        libyaml=libyaml,
    )
    assert tree.problems == ()
    root = tree.root
    assert isinstance(root, MapNode)
    assert math.isnan(float(str(root.pop("k"))))
    assert root == {
        "a": None, "b": None, "c": "null", "d": True, "e": "no", "f": "10:30", "g": 15, "h": 31, "i": 1000.0,
        "j": -math.inf, "l": 7, "m": "1_000", "n": "8", "o": "2001-01-01", "p": 5, "q": 0.5, "r": "5", "s": "5",
        "t": 5, "u": ".", "v": "-",
    }  # fmt: skip


@both_parsers
def test_marks(libyaml: bool) -> None:
    root = read('a: 1\nbé:\n  - "x y"\n  - {c: &n text}\n', libyaml=libyaml).root
    assert isinstance(root, MapNode)
    assert root.marks["a"] == (Mark(1, 1, 0), Mark(1, 4, 0))
    items = root["bé"]
    assert isinstance(items, ListNode)
    assert items.marks == [Mark(3, 5, 1), Mark(4, 5)]
    assert items.indices == [0, 1]
    assert isinstance(items[1], MapNode)
    # The value begins at its anchor, from where its text is not to be counted.
    assert items[1].marks["c"] == (Mark(4, 6, 0), Mark(4, 9))


@both_parsers
def test_a_byte_order_mark_counts_for_nothing(libyaml: bool) -> None:
    tree = compose(b"\xef\xbb\xbfa: 1", "f", libyaml=libyaml)
    assert tree.root == {"a": 1}
    assert tree.mark.column == 1


@both_parsers
def test_merge_keys(libyaml: bool) -> None:
    tree = read(
        "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nall: {<<: [*one, *two], c: 3}\nplain: {'<<': 1}",
        libyaml=libyaml,
    )
    root = tree.root
    assert isinstance(root, MapNode)
    assert root["all"] == {"a": 1, "b": 1, "c": 3}
    merged = root["all"]
    assert isinstance(merged, MapNode)
    assert merged.marks["b"][0].line == 1
    assert merged.marks["c"][0].line == 3
    assert root["plain"] == {"<<": 1}


def test_merged_servers_keep_their_places() -> None:
    text = """\
http:
  services:
    one: {loadBalancer: &base {strategy: wrong, servers: [{url: http://a}]}}
    two: {loadBalancer: {<<: *base, strategy: wrr}}
    three: {loadBalancer: {<<: *base}}
"""
    assert [line.partition(" ")[0] for line in lines(text)] == ["f.yaml:3:42"] * 2


@both_parsers
def test_bomb(libyaml: bool) -> None:
    tree = read(bomb(30, 9), libyaml=libyaml)
    assert tree.root is None
    assert [str(problem) for problem in tree.problems] == [
        f"f:6:10 a5[0]: aliases expand to more than {MAX_EXPANSION} values (write the values out)"
    ]


def test_merge_bomb() -> None:
    keys = ", ".join(f"k{n}: 1" for n in range(1000))
    tree = read(f"base: &base {{{keys}}}\nall:\n" + "  - {<<: *base}\n" * 1000)
    assert tree.root is None
    assert "aliases expand" in str(tree.problems[0])


def test_aliases_below_the_bound_are_fine() -> None:
    tree = read("a: &a [1, 2, 3]\nb: [" + "*a, " * 20_000 + "]")
    assert tree.problems == ()
    assert isinstance(tree.root, MapNode)
    shared = tree.root["b"]
    assert isinstance(shared, ListNode)
    assert len(shared) == 20_000


@both_parsers
@pytest.mark.parametrize("unit", ["[", "{", "- ", "? ", "[{", "{[a]: ", "a: {", "!!seq ["])
def test_nesting(unit: str, libyaml: bool) -> None:
    tree = read(unit * 2000, libyaml=libyaml)
    assert tree.root is None
    assert f"nested deeper than {MAX_DEPTH} levels" in str(tree.problems[-1])


def test_nesting_up_to_the_bound_is_fine() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH).problems == ()


@both_parsers
@pytest.mark.parametrize(
    "text", [r'"\ud800"', r'"\UFFFFFFFF"', r'"\x07"', "!<> a", "%YAML 3.0\n--- a", "%TAG", "&", "*", "@"]
)
def test_odd_text_is_a_problem(text: str, libyaml: bool) -> None:
    assert len(read(f"{text}", libyaml=libyaml).problems) == 1


@both_parsers
def test_every_duplicate_is_named(libyaml: bool) -> None:
    tree = read("a: 1\nb: {c: 1, c: 2, c: 3}\na: 4", libyaml=libyaml)
    assert tree.root == {"a": 1, "b": {"c": 1}}
    assert [(problem.line, problem.column, problem.key_path) for problem in tree.problems] == [
        (2, 11, "b.c"), (2, 17, "b.c"), (3, 1, "a"),
    ]  # fmt: skip


@both_parsers
@pytest.mark.parametrize("end", ["[", '"', "}", '"\\UFFFFFFFF"', "*a"])
def test_one_problem_too_many_at_the_end(end: str, libyaml: bool) -> None:
    tree = read("a: 1\n" + "a: 1\n" * (MAX_PROBLEMS - 1) + end, libyaml=libyaml)
    assert len(tree.problems) == MAX_PROBLEMS


@given(st.binary(max_size=300))
@example(b"\xff\xfe")
@settings(deadline=None)
def test_any_bytes(data: bytes) -> None:
    for libyaml in (True, False):
        document(data, libyaml=libyaml)


YAMLISH = st.lists(
    st.sampled_from(
        ["a", "http", "wsbalancer", "pods", ":", ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ",", "&a ", "*a",
         "<<", "!", "!!str ", "'", '"', "|", ">", "?", "#", "%", "---", "...", "\t", "~", "1", "true", "http://a", "\\", "\x85"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@given(YAMLISH)
@settings(deadline=None, max_examples=300)
def test_anything_like_yaml(text: str) -> None:
    for libyaml in (True, False):
        document(text, libyaml=libyaml)


def test_a_megabyte() -> None:
    text = SERVERS + "".join(f"          - url: http://10.{n // 250}.{n % 250}.1\n" for n in range(30_000))
    assert len(text) > 1_000_000
    read_all = document(text)
    assert read_all.config is not None
    balancer = read_all.config.http.services["chat"].load_balancer
    assert balancer is not None
    assert len(balancer.servers) == 30_000
    # Half a second on an idle machine; the bound is there to notice time that grows with the square.
