"""The log file: where it may stand, and what becomes of the log when it cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from trio_wsb.observe.log import LogOutput


@pytest.fixture
def output() -> Iterator[LogOutput]:
    made = LogOutput()
    yield made
    made.close()


def test_its_directory_is_created(tmp_path: Path, output: LogOutput) -> None:
    path = tmp_path / "logs" / "today" / "a.log"
    for text in ("first", "second"):
        output.configure(level="INFO", form="json", path=str(path))
        structlog.get_logger().info(text)
    assert [line.partition('"msg": ')[2][:7] for line in path.read_text().splitlines()] == [
        '"first"',
        '"second',
    ]


def test_a_directory_that_cannot_be_created(tmp_path: Path, output: LogOutput) -> None:
    good = tmp_path / "good.log"
    output.configure(level="INFO", form="json", path=str(good))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        output.configure(level="INFO", form="json", path=str(tmp_path / "file" / "a.log"))
    structlog.get_logger().info("as before")
    assert "as before" in good.read_text()


def test_it_is_opened_anew_on_request(tmp_path: Path, output: LogOutput) -> None:
    path = tmp_path / "a.log"
    output.reopen()  # nothing is open: no harm
    output.configure(level="INFO", form="json", path=str(path))
    log = structlog.get_logger()
    log.info("first")
    path.rename(tmp_path / "a.log.1")
    log.info("second")
    output.reopen()
    log.info("third")
    assert "third" in path.read_text()
    assert path.read_text().count("\n") == 1
    assert (tmp_path / "a.log.1").read_text().count("\n") == 2
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        output.reopen()
