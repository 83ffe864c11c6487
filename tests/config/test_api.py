"""The section `api`: written as a mapping, as true and as false, and read back the same."""

from __future__ import annotations

import pytest

from tests.config.helpers import config
from trio_wsb.config.api import API
from trio_wsb.config.effective import to_yaml

PODS = "wsbalancer: {pods: [http://a]}\n"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", API()),
        ("api:\n", API()),
        ("api: true\n", API()),
        ("api: {}\n", API()),
        ("api: false\n", None),
        ("api: {dashboard: false, basePath: /b}\n", API(dashboard=False, base_path="/b")),
        ("api: {allowedHosts: ['*.internal']}\n", API(allowed_hosts=("*.internal",))),
    ],
)
def test_it_is_read_and_read_back(written: str, read: API | None) -> None:
    found = config(written + PODS)
    assert found.api == read
    assert config(to_yaml(found)) == found
