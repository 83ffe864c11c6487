"""Dynamic files in the running daemon: changes apply by themselves, sessions live on, and one bad file harms nobody else."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE, Backend, Daemon, backends, clients, daemon, echo

pytestmark = pytest.mark.daemon

ROUTER = "http: {routers: {chat: {rule: PathPrefix(`/`), service: chat@file}}}\n"
HALF = "http:\n  services:\n    chat:\n      loadBalancer:\n        servers: [{url: 'http"


def service(*found: Backend, name: str = "chat", **options: object) -> str:
    servers = [{"url": each.url} for each in found]
    return json.dumps({"http": {"services": {name: {"loadBalancer": {"servers": servers, **options}}}}})


def replace(path: Path, text: str) -> None:
    """Write a file as careful programs do."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


@asynccontextmanager
async def with_directory(tmp_path: Path, **files: str) -> AsyncIterator[tuple[Daemon, Path]]:
    """Run the daemon over a directory of dynamic files."""
    folder = tmp_path / "dynamic"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)
    providers = {"file": {"directory": "dynamic"}, "providersThrottleDuration": "1ms"}
    async with daemon(tmp_path, [], providers=providers, http={}) as running:
        await running.logged("watching dynamic files")
        yield running, folder


async def until(running: Daemon, **expected: tuple[str, str]) -> dict[str, Any]:
    """Return the status once the files are as `expected`: state and version in force by the file's name."""
    with trio.fail_after(PATIENCE):
        while True:
            seen = len(running.running.lines)
            document = await running.status()
            files = {
                Path(each["path"]).stem: (each["state"], each["inForce"])
                for each in document["configuration"]["files"]
            }
            if files == expected:
                return document
            await running.running.line('"configuration reloaded"', after=seen)


GOOD = ("ok", "newest")
LAST = ("bad", "last good")
NOTHING = ("bad", "none")


async def test_one_bad_file_at_the_start_stops_nobody(tmp_path: Path) -> None:
    async with (
        backends(1) as (backend,),
        with_directory(tmp_path, a=HALF, b=service(backend), c=ROUTER) as (running, folder),
        clients() as made,
    ):
        document = await until(running, a=NOTHING, b=GOOD, c=GOOD)
        (bad,) = [each for each in document["configuration"]["files"] if each["state"] == "bad"]
        assert bad["problems"][0].startswith(f"{folder}/a.yml:5:")
        assert running.log("configuration problem")[0]["problem"] == bad["problems"][0]
        await echo(await made.connect(f"{running.ws}/ws"), "hello")
        replace(folder / "a.yml", "http: {middlewares: {limit: {rateLimit: {average: 0}}}}\n")
        await running.logged("dynamic file in force again", file=f"{folder}/a.yml")


async def test_sessions_live_through_a_hundred_changes(tmp_path: Path) -> None:
    async with (
        backends(2) as (one, two),
        with_directory(tmp_path, chat=service(one), router=ROUTER) as (running, folder),
        clients() as made,
    ):
        sessions = await made.connect_many(f"{running.ws}/ws", 10)
        path = folder / "chat.yml"
        for number in range(100):
            match number % 5:
                case 0:
                    replace(path, service(one, two))
                case 1:
                    path.write_text(HALF)  # and nothing more, for now
                case 2:
                    path.write_text("")
                case 3:
                    (folder / f"{number}.yml").write_text(service(two, name=f"other{number}"))
                case _:
                    replace(path, service(two, one, strategy="wrr"))
            if number % 10 == 9:
                others = {f"{each}": GOOD for each in range(3, number, 5)}
                await until(running, chat=GOOD, router=GOOD, **others)
                for session in sessions:
                    await echo(session, f"{number}")
        replace(path, service(two))
        last = await until(running, chat=GOOD, router=GOOD, **{f"{n}": GOOD for n in range(3, 100, 5)})
        for session in sessions:
            await echo(session, "still here")
        assert last["sessions"]["open"] == 10
        # The first one's sessions live on though it is in no file any more, and are counted.
        live = {each["url"]: each["live"] for each in last["backends"] if each["live"]}
        assert live == {one.url: 10}
        await echo(await made.connect(f"{running.ws}/ws"), "new")
        assert running.log("session ended") == []


async def test_what_is_bad_is_said_once_everywhere(tmp_path: Path) -> None:
    async with (
        backends(1) as (backend,),
        with_directory(tmp_path, chat=service(backend), router=ROUTER) as (running, folder),
    ):
        await until(running, chat=GOOD, router=GOOD)
        path = folder / "chat.yml"
        replace(path, HALF)
        document = await until(running, chat=LAST, router=GOOD)
        assert [each["name"] for each in document["services"]] == ["chat"]
        assert document["configuration"]["lastReload"]["succeeded"]
        assert [each["path"] for each in document["configuration"]["lastReload"]["badFiles"]] == [str(path)]
        seen = len(running.log("configuration problem"))
        assert seen == 1
        # A change of another file, and a reload, say nothing again.
        (folder / "more.yml").write_text(service(backend, name="more"))
        await until(running, chat=LAST, router=GOOD, more=GOOD)
        command = (sys.executable, "-m", "trio_wsb", "reload", "--socket", str(tmp_path / "control.sock"))
        reload = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
        assert reload.returncode == 1
        assert b"reloaded in" in reload.stdout
        assert f"not in force as it is now: {path} (in force: last good)" in reload.stderr.decode()
        assert len(running.log("configuration problem")) == seen
        path.unlink()
        document = await until(running, router=GOOD, more=GOOD)
        await running.logged("dynamic file removed", file=str(path))
        (router,) = document["routers"]
        assert (router["name"], router["status"]) == ("chat", "disabled")


async def test_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    providers = {"file": {"directory": "later"}, "providersThrottleDuration": "1ms"}
    async with (
        backends(1) as (backend,),
        daemon(tmp_path, [], providers=providers, http={}) as running,
        clients() as made,
    ):
        await until(running, later=NOTHING)
        folder.mkdir()
        (folder / "all.yml").write_text(service(backend))
        (folder / "router.yml").write_text(ROUTER)
        await until(running, all=GOOD, router=GOOD)
        session = await made.connect(f"{running.ws}/ws")
        folder.rename(tmp_path / "away")
        await until(running, later=NOTHING, all=GOOD, router=GOOD)
        await echo(session, "hello")
        await echo(await made.connect(f"{running.ws}/ws"), "new")


async def test_what_a_file_names_is_its_own_problem(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("ada:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    auth = "http: {middlewares: {auth: {basicAuth: {usersFile: %s}}}}\n"
    async with with_directory(tmp_path, auth=auth % users) as (running, folder):
        await until(running, auth=GOOD)
        replace(folder / "auth.yml", auth % (tmp_path / "missing"))
        document = await until(running, auth=LAST)
        (problem,) = document["configuration"]["files"][0]["problems"]
        assert problem == (
            f"{folder}/auth.yml:1:52 http.middlewares.auth.basicAuth.usersFile: cannot be read: No such file or directory"
        )


async def test_watch_false_waits_for_a_reload(tmp_path: Path) -> None:
    folder = tmp_path / "dynamic"
    folder.mkdir()
    async with backends(1) as (backend,):
        providers = {"file": {"directory": "dynamic", "watch": False}}
        async with daemon(tmp_path, [], providers=providers, http={}) as running:
            (folder / "chat.yml").write_text(service(backend))
            await running.reload(count=1)
            await until(running, chat=GOOD)
            assert running.log("watching dynamic files") == []
