"""The main file and dynamic files as one: names, duplicates, and files that are bad for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.config.load import check, load, refresh, without
from trio_wsb.config.problems import InvalidConfiguration
from trio_wsb.config.sources import FileState, Loaded

MAIN = "entryPoints: {web: {address: ':80'}}\nproviders: {file: {directory: dynamic}}\n"
CHAT = "http: {services: {chat: {loadBalancer: {servers: [{url: 'http://%s'}]}}}}\n"
ROUTER = "http: {routers: {%s: {rule: Path(`/`), service: %s}}}\n"
BROKEN = "http: {services: {chat: {loadBalancer: {servers: ["


class Tree:
    """A main file and its directory."""

    def __init__(self, folder: Path, main: str = MAIN) -> None:
        self.main = folder / "main.yaml"
        self.folder = folder / "dynamic"
        self.folder.mkdir(exist_ok=True)
        self.main.write_text(main)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self, previous: Loaded | None = None, now: float = 0.0) -> Loaded:
        return load(self.main, previous, now=now)

    def state(self, loaded: Loaded, name: str) -> FileState:
        return next(each for each in loaded.files if each.path == str(self.folder / name))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def urls(loaded: Loaded, name: str = "chat") -> list[str]:
    balancer = loaded.config.http.services[name].load_balancer
    assert balancer is not None
    return [str(server.url) for server in balancer.servers]


def lines(loaded: Loaded) -> list[str]:
    return [
        str(problem).partition("/dynamic/")[2] or str(problem)
        for each in loaded.files
        for problem in each.problems
    ]


def test_parts_of_all_files_find_each_other(tree: Tree) -> None:
    tree.write("a.yml", ROUTER % ("r", "chat@file"))
    tree.write("sub/b.yaml", CHAT % "b")
    tree.main.write_text(MAIN + ROUTER % ("own", "chat"))
    loaded = tree.load()
    assert sorted(loaded.config.http.routers) == ["own", "r"]
    assert (urls(loaded), loaded.warnings, loaded.disabled) == (["http://b"], [], ())
    assert [Path(each.path).name for each in loaded.files] == ["a.yml", "b.yaml"]
    assert {each.problems for each in loaded.files} == {()}


def test_certificates_and_options_of_all_files_come_together(tree: Tree) -> None:
    tree.main.write_text(MAIN + "tls: {options: {one: {}}}\n")
    tree.write("a.yml", "tls: {options: {two: {}, one: {sniStrict: true}}}\n")
    loaded = tree.load()
    assert set(loaded.config.tls.options) == {"one", "two"}
    assert not loaded.config.tls.options["one"].sni_strict
    assert [each.code for each in loaded.warnings] == ["duplicate"]


def test_a_certificate_that_cannot_be_read_is_its_file_s_problem(tree: Tree) -> None:
    tree.write("a.yml", CHAT % "a")
    tree.write("b.yml", "tls: {certificates: [{certFile: /nowhere.pem, keyFile: /nowhere.key}]}\n")
    tree.write("c.yml", "tls: {certificates: []}\n")
    loaded = tree.load()
    assert urls(loaded) == ["http://a"]
    assert loaded.config.tls.certificates == ()
    (line,) = lines(loaded)
    assert line.startswith("b.yml:1:33 tls.certificates[0].certFile: ")


class TestDuplicates:
    def test_the_first_counts(self, tree: Tree) -> None:
        tree.write("b.yml", CHAT % "second" + ROUTER.replace("http: {", "#") % ("r", "chat"))
        first = tree.write("a.yml", CHAT % "first")
        loaded = tree.load()
        assert urls(loaded) == ["http://first"]
        (warning,) = loaded.warnings
        assert str(warning) == (
            f"{tree.folder}/b.yml:1:19 http.services.chat: is defined already at {first}:1:19, and that counts "
            "(give one of the two another name)"
        )
        assert {each.problems for each in loaded.files} == {()}

    def test_the_rest_of_the_second_file_counts(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "first")
        tree.write(
            "b.yml",
            "http: {services: {chat: {loadBalancer: {servers: [{url: http://b}]}}, other: {loadBalancer: "
            "{servers: [{url: http://c}]}}}}",
        )
        assert sorted(tree.load().config.http.services) == ["chat", "other"]

    def test_the_main_file_is_before_all(self, tree: Tree) -> None:
        tree.main.write_text(MAIN + CHAT % "main")
        tree.write("a.yml", CHAT % "a")
        assert urls(tree.load()) == ["http://main"]

    def test_what_is_wrong_with_the_second_does_not_disable_the_first(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "a" + "  \n")
        tree.write("b.yml", ROUTER % ("r", "chat"))
        tree.write("c.yml", "http: {routers: {r: {rule: Pth(`/`), service: chat}}}\n")
        loaded = tree.load()
        assert (list(loaded.config.http.routers), loaded.disabled) == (["r"], ())
        assert {each.key_path for each in loaded.warnings} == {"http.routers.r", "http.routers.r.rule"}

    def test_a_broken_router_keeps_its_name(self, tree: Tree) -> None:
        tree.write("a.yml", "http: {routers: {r: {rule: Pth(`/`), service: chat}}}\n")
        tree.write("b.yml", CHAT % "a")
        tree.write("c.yml", ROUTER % ("r", "chat"))
        loaded = tree.load()
        assert (dict(loaded.config.http.routers), [each.name for each in loaded.disabled]) == ({}, ["r"])

    def test_check_calls_it_an_error(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "a")
        tree.write("b.yml", CHAT % "b")
        found = {Path(each.file).name: each.problems for each in check([tree.main])}
        assert [each.severity for each in found["b.yml"]] == ["error"]
        assert (found["main.yaml"], found["a.yml"]) == ([], [])


class TestBadFiles:
    def test_one_that_is_bad_at_the_start_gives_nothing_and_the_others_run(self, tree: Tree) -> None:
        tree.write("a.yml", BROKEN)
        tree.write("b.yml", CHAT % "b")
        loaded = tree.load(now=5.0)
        assert urls(loaded) == ["http://b"]
        state = tree.state(loaded, "a.yml")
        assert (state.good, state.since) == (None, 5.0)
        assert lines(loaded)[0].startswith("a.yml:2:1: not valid YAML")

    def test_the_last_good_version_stays(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "one")
        tree.write("b.yml", ROUTER % ("r", "chat"))
        first = tree.load(now=1.0)
        for number, text in enumerate(
            (BROKEN, "", "http: {services: {chat: {loadBalancer: {servers: []}}}}\n")
        ):
            tree.write("a.yml", text)
            second = refresh(first, now=2.0 + number)
            assert second is not None
            state = tree.state(second, "a.yml")
            assert (urls(second), list(second.config.http.routers)) == (["http://one"], ["r"])
            assert state.problems
            assert state.since == 2.0 + number
            first = second
        tree.write("a.yml", CHAT % "two")
        last = refresh(first, now=9.0)
        assert last is not None
        assert (urls(last), tree.state(last, "a.yml").problems) == (["http://two"], ())

    def test_what_is_known_is_not_new(self, tree: Tree) -> None:
        tree.write("a.yml", BROKEN)
        first = tree.load(now=1.0)
        assert refresh(first, now=2.0) is None
        again = tree.load(first, now=3.0)
        assert [each.since for each in again.files] == [1.0]

    def test_every_problem_of_a_bad_file_is_told(self, tree: Tree) -> None:
        tree.write(
            "a.yml",
            "htp: 1\nlog: {level: INFO}\nhttp: {services: {a: {loadBalancer: {servers: []}}, b: {}}}\n",
        )
        assert [each.partition(": ")[0] for each in lines(tree.load())] == [
            "a.yml:1:1 htp",
            "a.yml:2:1 log",
            "a.yml:3:47 http.services.a.loadBalancer.servers",
            "a.yml:3:56 http.services.b",
        ]

    def test_an_empty_file_may_be_half_written(self, tree: Tree) -> None:
        tree.write("a.yml", "")
        (line,) = lines(tree.load())
        assert line == (
            "a.yml:1:1: the file has no configuration (write routers and services under http; to take them away remove "
            "the file, or write http: {})"
        )
        tree.write("a.yml", "http: {}\n")
        assert lines(tree.load()) == []

    def test_a_file_that_goes_takes_its_parts_with_it(self, tree: Tree) -> None:
        path = tree.write("a.yml", CHAT % "a")
        first = tree.load()
        path.unlink()
        second = refresh(first)
        assert second is not None
        assert (dict(second.config.http.services), second.files) == ({}, ())

    def test_a_directory_that_goes_does_not(self, tree: Tree, tmp_path: Path) -> None:
        tree.write("a.yml", CHAT % "a")
        first = tree.load()
        tree.folder.rename(tmp_path / "away")
        second = refresh(first)
        assert second is not None
        assert urls(second) == ["http://a"]
        (line,) = [str(problem) for each in second.files for problem in each.problems]
        assert line == (
            f"{tree.folder}:1:1: cannot be read: No such file or directory (until it can be read, what is in force stays)"
        )
        assert refresh(second) is None
        (tmp_path / "away").rename(tree.folder)
        third = refresh(second)
        assert third is not None
        assert [(each.path, each.problems) for each in third.files] == [(f"{tree.folder}/a.yml", ())]

    def test_a_missing_directory_stops_nothing(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path, MAIN.replace("dynamic", "later") + CHAT % "main")
        loaded = tree.load()
        assert urls(loaded) == ["http://main"]
        assert len(loaded.files) == 1
        (tmp_path / "later").mkdir()
        found = refresh(loaded)
        assert found is not None
        assert found.files == ()

    def test_a_bad_main_file_stops_everything(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "a")
        tree.main.write_text(MAIN + "log: {level: 5}\n")
        with pytest.raises(InvalidConfiguration) as raised:
            tree.load()
        assert [each.key_path for each in raised.value.details] == ["log.level"]

    def test_only_a_reload_reads_the_main_file(self, tree: Tree) -> None:
        tree.write("a.yml", CHAT % "a")
        first = tree.load()
        tree.main.write_text("log: {level: 5}\n")
        tree.write("a.yml", CHAT % "b")
        second = refresh(first)
        assert second is not None
        assert urls(second) == ["http://b"]

    def test_a_reference_into_a_bad_file_disables_the_router(self, tree: Tree) -> None:
        tree.write("a.yml", BROKEN)
        tree.write("b.yml", ROUTER % ("r", "chat"))
        (disabled,) = tree.load().disabled
        assert disabled.name == "r"

    def test_a_middleware_that_goes_bad_takes_no_guard_away(self, tree: Tree) -> None:
        router = "http: {routers: {r: {rule: Path(`/`), service: chat, middlewares: [guard]}}}\n"
        tree.write("a.yml", router)
        tree.write("b.yml", CHAT % "b")
        tree.write("guard.yml", "http: {middlewares: {guard: {ipAllowList: {sourceRange: [10.0.0.0/8]}}}}\n")
        first = tree.load()
        assert first.disabled == ()
        tree.write("guard.yml", "http: {middlewares: {guard: {ipAllowList: {sourceRange: [10.0.0.0/99]}}}}\n")
        second = refresh(first)
        assert second is not None
        assert [each.name for each in second.disabled] == ["r"]
        tree.write("guard.yml", "http: {middlewares: {guard: {ipAllowList: {sourceRnge: [10.0.0.0/8]}}}}\n")
        third = refresh(first)
        assert third is not None
        assert third.disabled == ()  # the file is bad as a whole, so its last good version still guards


def test_a_cycle_over_files_is_found(tree: Tree) -> None:
    service = "http: {services: {%s: {failover: {service: %s, fallback: chat}}}}\n"
    tree.write("a.yml", service % ("a", "b"))
    tree.write("b.yml", service % ("b", "a"))
    tree.write("c.yml", CHAT % "c" + " \n")
    tree.write("d.yml", ROUTER % ("r", "a"))
    loaded = tree.load()
    (disabled,) = loaded.disabled
    assert "leads back to itself" in disabled.reasons[0]
    assert list(loaded.config.http.services) == ["chat"]


def test_what_cannot_be_made_ready_is_blamed_on_its_file(tree: Tree) -> None:
    text = "http: {middlewares: {auth: {basicAuth: {usersFile: /users, users: ['%s:$apr1$a$b']}}}}\n"
    tree.write("a.yml", text % "one")
    first = tree.load()
    tree.write("a.yml", text % "two")
    second = refresh(first)
    assert second is not None
    assert second.blame(["log.filePath: no", "http.middlewares.other.basicAuth: no"]) == {}
    blamed = second.blame(["http.middlewares.auth.basicAuth.usersFile: cannot be read"])
    third = without(second, blamed)
    (state,) = third.files
    assert [str(problem).partition("dynamic/")[2] for problem in state.problems] == [
        "a.yml:1:52 http.middlewares.auth.basicAuth.usersFile: cannot be read"
    ]
    assert state.good is first.files[0].good
    assert third.config == first.config
    nothing = without(third, third.blame(["http.middlewares.auth.basicAuth: no"]))
    assert nothing.config.http.middlewares == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log: {level: INFO}\nhttp: {}\n", "a.yml:1:1 log: belongs in the main file (a dynamic file has the sections http and tls)"),
        ("wsbalancer: {pods: [http://a]}\n", "a.yml:1:1 wsbalancer: belongs in the main file"),
        ("entryPoints: {web: {address: ':1'}}\n", "a.yml:1:1 entryPoints: belongs in the main file"),
        ("providers: {file: {directory: more}}\n", "a.yml:1:1 providers: belongs in the main file"),
        ("http: {rooters: {}}\n", 'a.yml:1:8 http.rooters: unknown key (did you mean "routers"?)'),
        ("{{ range $i, $e := until 10 }}\n", "a.yml:1:"),
        ("- http\n", "a.yml:1:1: is a list, not a mapping"),
        ("http: {services: {a@b: {loadBalancer: {servers: [{url: http://a}]}}}}\n", 'a.yml:1:19 http.services.a@b: "a@b" cannot be a name'),
        ("a: [\n", "a.yml:2:1: not valid YAML"),
        ("\xff".encode().decode("latin-1") + "\x00", "a.yml:1:3: the control character U+0000"),
    ],
)  # fmt: skip
def test_what_makes_a_dynamic_file_bad(tree: Tree, text: str, expected: str) -> None:
    tree.write("a.yml", text)
    loaded = tree.load()
    assert lines(loaded)[0].startswith(expected)
    assert loaded.config.http.routers == {}


def test_check_reads_the_dynamic_files_too(tree: Tree) -> None:
    path = tree.write("a.yml", ROUTER % ("r", "gone"))
    tree.write("b.toml", "")
    for files in ([tree.main], [tree.main, path], [path, tree.main]):
        found = {Path(each.file).name: list(map(str, each.problems)) for each in check(files)}
        assert found["main.yaml"] == [
            f"{tree.folder}/b.toml:1:1: is not read (dynamic files are YAML: .yml or .yaml)"
        ]
        assert found["a.yml"] == [
            f'{path}:1:48 http.routers.r.service: no service "gone" is defined (define it)'
        ]
        assert len(found) == 2


def test_more_than_may_be_is_a_warning(tree: Tree) -> None:
    for number in range(1001):
        tree.write(f"{number:04}.yml", "http: {}\n")
    (warning,) = tree.load().warnings
    assert str(warning) == (
        f"{tree.main}:2:31 providers.file.directory: has more than 1000 files, or is deeper than 16 directories "
        "(what is beyond is not read)"
    )


def test_a_single_file(tmp_path: Path) -> None:
    tree = Tree(tmp_path, MAIN.replace("directory: dynamic", "filename: dynamic/one.yml"))
    tree.write("other.yml", CHAT % "other")
    loaded = tree.load()
    assert [str(each.problems[0]).partition(": ")[2] for each in loaded.files] == [
        "cannot be read: No such file or directory (name a file that the daemon may read)"
    ]
    tree.write("one.yml", CHAT % "one")
    found = refresh(loaded)
    assert found is not None
    assert urls(found) == ["http://one"]
    (tree.folder / "one.yml").unlink()
    gone = refresh(found)
    assert gone is not None
    assert urls(gone) == ["http://one"]


VERSIONS = (
    CHAT % "a",
    CHAT % "b",
    CHAT.replace("chat", "x") % "c",
    ROUTER % ("r", "chat"),
    BROKEN,
    "",
    "log: {}\n",
    None,
)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(VERSIONS), st.booleans()), max_size=12))
def test_what_runs_is_what_the_good_versions_say(steps: list[tuple[str, str | None, bool]]) -> None:
    """Against an obvious model: each file's last good text, the first of equal names."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        loaded, good, now = tree.load(), dict[str, str](), dict[str, str]()
        for name, text, whole in steps:
            path = tree.folder / f"{name}.yml"
            if text is None:
                path.unlink(missing_ok=True)
                good.pop(name, None)
                now.pop(name, None)
            else:
                path.write_text(text)
                now[name] = text
                if text in VERSIONS[:4]:
                    good[name] = text
            loaded = tree.load(loaded) if whole else refresh(loaded) or loaded
            chats = [good[each] for each in sorted(good) if good[each] in VERSIONS[:2]]
            services = loaded.config.http.services
            assert ("chat" in services) == bool(chats)
            if chats:
                assert CHAT % urls(loaded)[0].removeprefix("http://") == chats[0]
            assert ("x" in services) == (VERSIONS[2] in good.values())
            assert ("r" in loaded.config.http.routers) == (VERSIONS[3] in good.values() and bool(chats))
            bad = {each for each in now if now[each] != good.get(each)}
            assert {Path(each.path).stem for each in loaded.files if each.problems} == bad
