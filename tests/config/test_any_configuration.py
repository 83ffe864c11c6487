"""Whatever the file holds, reading it ends with problems or with a configuration that reads back the same."""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.helpers import document
from trio_wsb.config.effective import to_yaml
from trio_wsb.config.model import key_of
from trio_wsb.config.reference import key_paths
from trio_wsb.config.shortform import File, WSBalancer

KEYS = sorted(
    {path.rpartition(".")[2] for path in key_paths()} | {"a", "web", "global", "tls", "middlewares"}
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["http://a", "http://b", "http://a/", "30s", "0s", ":80", "/metric", "Path(`/`)", "10.0.0.0/8", "hrw", "a"]),
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)
PLACES: list[dict[str, Any]] = [
    {key_of(field): VALUES for field in attrs.fields(cls)} for cls in (File, WSBalancer)
]
ROOTS = st.fixed_dictionaries({}, optional=PLACES[0]) | st.fixed_dictionaries(
    {"wsbalancer": st.fixed_dictionaries({}, optional=PLACES[1])}
)

DURATIONS = st.floats(0.1, 1e6).map(lambda seconds: round(seconds, 3)) | st.sampled_from(
    ["1m30s", "2h", "100ms", "1d"]
)
SERVICE = st.fixed_dictionaries(
    {
        "servers": st.lists(
            st.fixed_dictionaries(
                {"url": st.integers(1, 65535).map("http://[::1]:{}".format)},
                optional={"weight": st.integers(1, 10), "maxConnections": st.integers(0, 10)},
            ),
            min_size=1,
            unique_by=lambda server: str(server["url"]),
        )
    },
    optional={
        "strategy": st.sampled_from(["leastconn", "wrr", "p2c", "hrw", "iphash"]),
        "passHostHeader": st.booleans(),
        "session": st.fixed_dictionaries(
            {"writeTimeout": DURATIONS},
            optional={
                "idleTimeout": st.sampled_from([0, "1s", "15m"]),
                "lifetimeJitter": st.sampled_from(["0%", "12.5%"]),
                "maxMessageBytes": st.sampled_from([0, "64KiB", 1]),
                "messageRate": st.sampled_from([0, "10/s", "1/h", 0.5]),
                "byteRate": st.sampled_from([0, "64KiB", 1024]),
            },
        ),
        "connectionCount": st.fixed_dictionaries({"path": st.just("/m")}, optional={"interval": DURATIONS, "timeout": DURATIONS}),
    },
)  # fmt: skip
NAMES = st.text("abcABC 0123456789.:-_~#é\"'", min_size=1, max_size=8).filter(lambda name: name.strip() != "")
GOOD = st.fixed_dictionaries(
    {
        "http": st.fixed_dictionaries(
            {"services": st.dictionaries(NAMES, SERVICE.map(lambda each: {"loadBalancer": each}))}
        )
    }
)


@given(ROOTS)
@settings(deadline=None, max_examples=300)
def test_anything_with_our_keys(root: object) -> None:
    read = document(json.dumps(root))
    for problem in read.problems:
        assert str(problem).isprintable()
        assert problem.line >= 1
        assert problem.column >= 1
    if not read.problems:
        assert read.config is not None
        assert document(to_yaml(read.config)).config == read.config


@given(GOOD)
@settings(deadline=None)
def test_what_is_right_has_no_problems_and_reads_back_the_same(root: object) -> None:
    read = document(json.dumps(root))
    assert read.problems == []
    assert read.config is not None
    again = document(to_yaml(read.config))
    assert again.problems == []
    assert again.config is not None
    assert list(again.config.http.services) == list(read.config.http.services)
