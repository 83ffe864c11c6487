from __future__ import annotations

import attrs
import pytest

from trio_wsb.middleware import (
    basic_auth,
    breaker,
    compress,
    forward_auth,
    header_options,
    in_flight,
    ip_allow,
    origin,
    path,
    rate_limit,
    redirect,
    retry,
    source,
)
from trio_wsb.middleware.options import (
    FIELD_NAME,
    FIELD_VALUE,
    NOT_EMPTY,
    POSITIVE,
    STATUS,
    Bound,
    between,
    is_field_value,
    is_token,
)

MODULES = [
    basic_auth, breaker, compress, forward_auth, header_options, in_flight, ip_allow, origin, path, rate_limit,
    redirect, retry, source,
]  # fmt: skip
CLASSES = sorted(
    {
        each
        for module in MODULES
        for name, each in vars(module).items()
        if name.endswith("Options") and isinstance(each, type)
    },
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_option_is_documented_and_keeps_its_own_bound(cls: type) -> None:
    assert cls.__doc__
    fields = attrs.fields(attrs.resolve_types(cls))
    for each in fields:
        assert set(each.metadata) == {"doc", "key", "reload", "check", "secret"}
        assert each.metadata["doc"].endswith(".")
        check = each.metadata["check"]
        if check is not None:
            assert check.text
            if each.default is not attrs.NOTHING and each.default is not None:
                check(each.default)


@pytest.mark.parametrize(
    ("bound", "right", "wrong"),
    [
        (between(0, 5), [0, 5], [-1, 6]),
        (STATUS, [200, 599], [101, 600, 0]),
        (NOT_EMPTY, ["x", (1,)], ["", ()]),
        (POSITIVE, [0.1], [0, -1]),
        (FIELD_NAME, ["X-A", "x_b"], ["", "X A", "X:", "grün"]),
        (FIELD_VALUE, ["", "a b\tc", "grün"], ["a\nb", "a\rb", "\0", "€", "\x7f"]),
        (path.PATH, ["/", "/a"], ["", "a"]),
    ],
)
def test_bounds(bound: Bound, right: list[object], wrong: list[object]) -> None:
    for value in right:
        bound(value)
    for value in wrong:
        with pytest.raises(ValueError, match="; write "):
            bound(value)


def test_words() -> None:
    assert is_token("*")
    assert not is_token("a,b")
    assert is_field_value("")
