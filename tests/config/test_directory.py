"""Which files of a directory are read, in which order, and what is watched for their sake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_wsb.config.directory import MAX_DEPTH, MAX_FILES, Place, Survey
from trio_wsb.config.providers import FileProvider


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "dynamic"
    made.mkdir()
    return made


def survey(folder: Path, directory: str | None = None, filename: str | None = None) -> Survey:
    if filename is None:
        directory = directory or "dynamic"
    place = Place.of(FileProvider(filename, directory), folder.parent / "main.yaml")
    assert place is not None
    return place.survey()


def names(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in survey(folder).files]


def watched(folder: Path, directory: str | None = None, filename: str | None = None) -> set[str]:
    return {path for path, _, _ in survey(folder, directory, filename).watched}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_order_is_that_of_the_names(folder: Path) -> None:
    for name in ("b.yml", "a.YML", "c/z.yaml", "c/a.yml", "bb/deeper/x.yml", "d.yml"):
        touch(folder / name)
    assert names(folder) == ["a.YML", "b.yml", "bb/deeper/x.yml", "c/a.yml", "c/z.yaml", "d.yml"]
    assert watched(folder) >= {str(folder / each) for each in ("", "bb", "bb/deeper", "c")} | {
        str(folder.parent)
    }


def test_what_is_passed_over(folder: Path) -> None:
    for name in (
        ".a.yml.swp",
        ".b.yml",
        "c.yml~",
        "d.yml.bak",
        "#e.yml#",
        ".git/f.yml",
        "..data/g.yml",
        "h",
        "i.txt",
    ):
        touch(folder / name)
    (folder / "directory.yml").mkdir()
    (folder / "elsewhere").symlink_to("/")
    assert names(folder) == []
    for name in ("j.toml", "k.json"):
        touch(folder / name)
    assert [Path(path).name for path in survey(folder).passed_over] == ["j.toml", "k.json"]


def test_the_main_file_is_none_of_them(folder: Path) -> None:
    main = touch(folder / "main.yaml")
    touch(folder / "a.yml")
    place = Place.of(FileProvider(directory="."), main)
    assert place is not None
    assert [Path(path).name for path in place.survey().files] == ["a.yml"]
    single = Place.of(FileProvider(filename="main.yaml"), main)
    assert single is not None
    assert (single.survey().files, single.survey().missing) == ((), "is the main file itself")


def test_links_are_followed_and_what_they_go_through_is_watched(folder: Path, tmp_path: Path) -> None:
    releases = tmp_path / "srv"
    touch(releases / "1" / "x.yml")
    (releases / "current").symlink_to("1")
    (folder / "x.yml").symlink_to(releases / "current" / "x.yml")
    assert names(folder) == ["x.yml"]
    assert watched(folder) >= {str(folder), str(releases), str(releases / "1")}
    before = survey(folder)
    touch(releases / "2" / "x.yml")
    (releases / "next").symlink_to("2")
    (releases / "next").rename(releases / "current")
    after = survey(folder)
    assert before.stamps != after.stamps
    assert str(releases / "2") in watched(folder)


def test_a_link_to_nothing_is_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "a.yml").symlink_to("missing/deep.yml")
    assert names(folder) == ["a.yml"]
    assert str(folder) in watched(folder)
    (folder / "loop.yml").symlink_to("loop.yml")
    assert names(folder) == ["a.yml", "loop.yml"]


def test_what_is_missing_is_waited_for_where_it_would_appear(folder: Path) -> None:
    assert survey(folder, directory="no/such/thing").missing == "No such file or directory"
    assert watched(folder, directory="no/such/thing") == {str(folder.parent)}
    (folder.parent / "no" / "such").mkdir(parents=True)
    assert watched(folder, directory="no/such/thing") == {str(folder.parent / "no" / "such")}
    assert watched(folder, filename="no/such/thing.yml") == {str(folder.parent / "no" / "such")}
    assert survey(folder, filename="no/such/thing.yml").files == (str(folder.parent / "no/such/thing.yml"),)


def test_a_directory_that_was_replaced_is_another_one(folder: Path, tmp_path: Path) -> None:
    before = survey(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    assert survey(folder).watched != before.watched


def test_every_write_and_rename_changes_the_stamps(folder: Path) -> None:
    path = touch(folder / "a.yml")
    seen = [survey(folder).stamps]
    path.write_text("http: {}")
    seen.append(survey(folder).stamps)
    os.utime(path, (1, 1))
    seen.append(survey(folder).stamps)
    touch(folder / ".b").rename(path)
    seen.append(survey(folder).stamps)
    path.unlink()
    seen.append(survey(folder).stamps)
    assert len(set(seen)) == len(seen)


def test_there_is_a_most(folder: Path) -> None:
    for number in range(MAX_FILES + 1):
        (folder / f"{number:05}.yml").touch()
    found = survey(folder)
    assert (len(found.files), found.more) == (MAX_FILES, True)


def test_there_is_a_deepest(folder: Path) -> None:
    deep = folder.joinpath(*"d" * MAX_DEPTH)
    touch(deep / "a.yml")
    assert (len(survey(folder).files), survey(folder).more) == (1, False)
    touch(deep / "d" / "b.yml")
    assert (len(survey(folder).files), survey(folder).more) == (1, True)


def test_names_that_are_no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.yml")).touch()
    assert len(survey(folder).files) == 1


def test_no_place() -> None:
    assert Place.of(FileProvider(), "/main.yaml") is None


def test_a_directory_that_may_not_be_read_hides_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(folder / "a.yml")
    touch(folder / "private" / "b.yml")
    really = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("private"):
            raise PermissionError(13, "Permission denied")
        return really(path)

    before = survey(folder)
    monkeypatch.setattr(os, "scandir", scandir)
    after = survey(folder)
    assert [Path(each).name for each in before.files] == ["a.yml", "b.yml"]
    assert [Path(each).name for each in after.files] == ["a.yml"]
    assert before.stamps != after.stamps, "so that it is looked at again when it can be read"


def test_what_goes_while_it_is_looked_at_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(folder / "a.yml")
    touch(folder / "b.yml")
    (folder / "dangling.yml").symlink_to("nowhere.yml")
    really = os.stat

    def stat(path: str, **options: bool) -> os.stat_result:
        if str(path).endswith(("b.yml", "dynamic")):
            raise FileNotFoundError(2, "No such file or directory")
        return really(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    after = survey(folder)
    assert [Path(each).name for each in after.files] == ["a.yml", "dangling.yml"]
    assert str(folder) not in {path for path, _, _ in after.watched}


def test_a_link_to_a_directory_is_no_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "a.yml").symlink_to(tmp_path / "elsewhere")
    assert names(folder) == []
    # As the one file that is wanted it is one that cannot be read.
    assert survey(folder, filename="dynamic/a.yml").files == (str(folder / "a.yml"),)


def test_a_link_that_leads_up_and_down_again(folder: Path, tmp_path: Path) -> None:
    touch(tmp_path / "shared" / "a.yml")
    (folder / "a.yml").symlink_to("../shared/../shared/a.yml")
    assert names(folder) == ["a.yml"]
    assert str(tmp_path / "shared") in watched(folder)
