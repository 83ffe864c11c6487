"""The watcher on real directories: every way to change a file is noticed. Driven by what it tells, never by sleeping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

import trio_wsb.providers.watch
from trio_wsb.config.directory import Place
from trio_wsb.config.providers import FileProvider
from trio_wsb.providers.watch import FileWatcher

PATIENCE = 30.0

DYNAMIC = FileProvider(directory="dynamic")


class Watched:
    """A watcher over `dynamic` beside a main file, and what it has told."""

    def __init__(self, folder: Path, options: FileProvider = DYNAMIC) -> None:
        self.folder = folder / "dynamic"
        self.place = Place.of(options, folder / "main.yaml")
        self.told = 0
        self._news = trio.Event()
        self.watcher = FileWatcher(self._tell)
        self.watcher.configure(self.place)

    def _tell(self) -> None:
        self.told += 1
        self._news.set()

    async def begun(self) -> None:
        """Return once the watcher has told that it watches."""
        await self.after(lambda: None, lambda: True)

    async def after(self, change: Callable[[], object], done: Callable[[], bool]) -> None:
        """Make a change, and return once it was told and what it leads to is `done`."""
        told = self.told
        change()
        with trio.fail_after(PATIENCE):
            while self.told == told or not done():
                self._news = trio.Event()
                await self._news.wait()

    async def notices(self, change: Callable[[], object]) -> None:
        await self.after(change, lambda: True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio_wsb.providers.watch, "QUIET", 20)


@pytest.fixture
async def watched(tmp_path: Path, nursery: trio.Nursery) -> Watched:
    (tmp_path / "dynamic").mkdir()
    made = Watched(tmp_path)
    nursery.start_soon(made.watcher.run)
    await made.begun()
    return made


async def test_files(watched: Watched) -> None:
    path, folder = watched.folder / "a.yml", watched.folder
    await watched.notices(lambda: path.write_text("one"))
    await watched.notices(lambda: path.write_text("two"))

    def rename() -> None:
        (folder / ".a.yml.tmp").write_text("three")
        (folder / ".a.yml.tmp").rename(path)

    await watched.notices(rename)

    def append() -> None:
        with path.open("a") as file:
            file.write("four")

    await watched.notices(append)
    await watched.notices(path.unlink)
    await watched.notices(lambda: path.write_text("five"))


async def test_directories_in_it(watched: Watched) -> None:
    below = watched.folder / "below"
    path = below / "a.yml"

    def make() -> None:
        below.mkdir()
        path.write_text("one")

    await watched.notices(make)
    await watched.notices(lambda: path.write_text("two"))
    await watched.notices(lambda: below.rename(watched.folder / ".hidden"))
    await watched.notices(lambda: (watched.folder / ".hidden").rename(below))
    await watched.notices(lambda: path.write_text("three"))


async def test_a_config_map(watched: Watched) -> None:
    """As the kubelet does it: the data in a directory of its own, ``..data`` leads to it and is turned by a rename."""
    folder = watched.folder

    def release(number: int) -> None:
        (folder / f"..{number}").mkdir()
        (folder / f"..{number}" / "a.yml").write_text(f"# {number}")
        (folder / "..data_tmp").symlink_to(f"..{number}")
        (folder / "..data_tmp").rename(folder / "..data")

    def first() -> None:
        release(1)
        (folder / "a.yml").symlink_to("..data/a.yml")

    await watched.notices(first)
    for number in range(2, 5):
        await watched.notices(lambda number=number: release(number))  # type: ignore[misc]  # mypy cannot infer it


async def test_a_directory_that_goes_and_comes_back(watched: Watched, tmp_path: Path) -> None:
    away, path = tmp_path / "away", watched.folder / "a.yml"
    await watched.notices(lambda: path.write_text("one"))
    await watched.notices(lambda: watched.folder.rename(away))
    await watched.notices(lambda: away.rename(watched.folder))
    await watched.notices(lambda: path.write_text("two"))


async def test_a_directory_that_is_not_there_yet(tmp_path: Path, nursery: trio.Nursery) -> None:
    watched = Watched(tmp_path, FileProvider(directory="not/there/yet"))
    nursery.start_soon(watched.watcher.run)
    await watched.begun()
    path = tmp_path / "not" / "there" / "yet" / "a.yml"
    await watched.notices(lambda: path.parent.mkdir(parents=True))
    await watched.notices(lambda: path.write_text("one"))
    await watched.notices(lambda: path.write_text("two"))


async def test_a_single_file(tmp_path: Path, nursery: trio.Nursery) -> None:
    watched = Watched(tmp_path, FileProvider(filename="one.yml"))
    nursery.start_soon(watched.watcher.run)
    await watched.begun()
    path = tmp_path / "one.yml"
    await watched.notices(lambda: path.write_text("one"))
    await watched.notices(lambda: path.replace(tmp_path / "two.yml"))
    await watched.notices(lambda: (tmp_path / "two.yml").replace(path))


async def test_a_new_place_is_watched_instead(watched: Watched, tmp_path: Path) -> None:
    other = Place.of(FileProvider(filename="other.yml"), tmp_path / "main.yaml")
    await watched.notices(lambda: watched.watcher.configure(other))
    await watched.notices(lambda: (tmp_path / "other.yml").write_text("one"))
    watched.watcher.configure(None)
    await watched.notices(lambda: watched.watcher.configure(watched.place))


async def test_without_notifications_files_are_looked_at(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trio_wsb.providers.watch._notify

    def full(paths: list[str], polling: bool) -> object:
        if not polling:
            raise OSError(28, "No space left on device")
        return real(paths, polling)

    monkeypatch.setattr(trio_wsb.providers.watch, "_notify", full)
    monkeypatch.setattr(trio_wsb.providers.watch, "POLL_INTERVAL", 50)
    (tmp_path / "dynamic").mkdir()
    watched = Watched(tmp_path)
    with capture_logs() as logged:
        nursery.start_soon(watched.watcher.run)
        await watched.begun()
    assert [line["event"] for line in logged if line["log_level"] == "warning"] == [
        "no notifications about files, looking at them each second"
    ]
    await watched.notices(lambda: (watched.folder / "a.yml").write_text("one"))
    await watched.notices(lambda: (watched.folder / "a.yml").write_text("two, longer"))


async def test_it_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "dynamic").mkdir()
    watched = Watched(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watcher.run)
        await watched.begun()
        with trio.fail_after(PATIENCE):
            nursery.cancel_scope.cancel()


async def test_what_comes_and_goes_after_it_has_told(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Whoever was told may have read what was there in between, and has to look again though it looks as before."""
    watched = Watched(tmp_path)
    nursery.start_soon(watched.watcher.run)
    await watched.begun()

    def come_and_go() -> None:
        watched.folder.mkdir()
        (watched.folder / "all.yml").touch()
        watched.folder.rename(tmp_path / "away")

    await watched.notices(come_and_go)
