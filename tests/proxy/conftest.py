"""Tests of what every relay does run over both: `pytest.mark.usefixtures("relay_kind")`.

A test that is about one of them alone is marked `only_relay(kind, reason)`.
"""

from __future__ import annotations

from typing import get_args

import pytest

from tests.proxy import world
from trio_wsb.proxy.relaying import RelayKind


@pytest.fixture
def relay_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RelayKind:
    """Who moves the bytes of sessions in this test."""
    kind: RelayKind = request.param
    monkeypatch.setattr(world, "default_relay", kind)
    return kind


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each kind of relay that it is for."""
    if "relay_kind" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only_relay")
        kinds = [only.args[0]] if only is not None else sorted(get_args(RelayKind))
        metafunc.parametrize("relay_kind", kinds, indirect=True)
