from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_wsb.config.directory import Place
from trio_wsb.config.load import MAX_FILE_BYTES, check, check_files, load, read_file, watched_place
from trio_wsb.config.problems import InvalidConfiguration
from trio_wsb.errors import ConfigurationError

SHORT = "wsbalancer: {pods: [http://a]}\n"
DANGLING = "http: {routers: {r: {rule: Path(`/`), service: chat}}}\n"
CHAT = "http: {services: {chat: {loadBalancer: {servers: [{url: http://a}]}}}}\n"


def write(folder: Path, text: str, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def fails(path: Path | str) -> list[str]:
    with pytest.raises(InvalidConfiguration) as raised:
        load(path)
    assert isinstance(raised.value, ConfigurationError)
    assert raised.value.problems == [str(each) for each in raised.value.details if each.severity == "error"]
    return raised.value.problems


def test_load(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, SHORT + "global: {}\n"))
    assert list(loaded.config.http.services) == ["wsbalancer"]
    assert [each.key_path for each in loaded.warnings] == ["global"]
    assert loaded.config == load(str(tmp_path / "f.yaml")).config


def test_every_problem_is_in_the_error(tmp_path: Path) -> None:
    path = write(tmp_path, "global: {}\nhtpp: 1\nlog: {level: 5}\n")
    assert fails(path) == [
        f'{path}:2:1 htpp: unknown key (did you mean "http"?)',
        f"{path}:3:14 log.level: 5 is a number, not a string (write DEBUG, INFO, WARN or ERROR)",
    ]


def test_a_reference_to_nothing_disables_the_router(tmp_path: Path) -> None:
    path = write(tmp_path, DANGLING)
    loaded = load(path)
    (disabled,) = loaded.disabled
    assert disabled.reasons == (
        f'{path}:1:48 http.routers.r.service: no service "chat" is defined (define it)',
    )
    assert str(disabled) == f'router "r" is disabled: {disabled.reasons[0]}'
    assert (loaded.config.http.routers, loaded.warnings) == ({}, [])


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    assert fails(path) == [
        f"{path}:1:1: cannot be read: No such file or directory (name a file that the daemon may read)"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT)
    path.chmod(0)
    assert "Permission denied" in fails(path)[0]


def test_a_loop_of_links(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.symlink_to(path)
    assert "cannot be read" in fails(path)[0]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        assert fails(path) == [f"{path}:1:1: is not a regular file (name a file, no directory or device)"]


def test_nul_in_the_name() -> None:
    assert fails("a\0b") == ["a\\x00b:1:1: embedded null byte"]


def test_size(tmp_path: Path) -> None:
    path = write(tmp_path, SHORT + "#" * (MAX_FILE_BYTES - len(SHORT)))
    assert load(path).warnings == []
    with path.open("a") as file:
        file.write("#")
    assert fails(path) == [f"{path}:1:1: is larger than 4 MiB (split it or remove what is not used)"]


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "larger than 4 MiB" in fails(path)[0]


def test_a_file_whose_size_is_not_told() -> None:
    assert read_file("/proc/self/status").startswith(b"Name:")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for path in (tmp_path, write(tmp_path, SHORT), tmp_path / "missing"):
        check([path])
    assert count() == before


def test_files_may_refer_to_each_other(tmp_path: Path) -> None:
    routers, services = write(tmp_path, DANGLING, "routers.yaml"), write(tmp_path, CHAT, "services.yaml")
    assert [each.severity for each in check_files([routers])] == ["warning"]
    assert check_files([routers, services]) == []
    assert check_files([services, routers]) == []


def test_strict(tmp_path: Path) -> None:
    path = write(tmp_path, "global: {}\n" + DANGLING)
    (checked,) = check([path], strict=True)
    assert checked.config is None
    assert [each.severity for each in checked.problems] == ["error", "error"]


def test_authorities_must_be_there(tmp_path: Path) -> None:
    present = write(tmp_path, "", "ca.pem")
    missing = tmp_path / "missing.pem"
    path = write(tmp_path, f"http: {{serversTransports: {{t: {{rootCAs: ['{present}', '{missing}']}}}}}}\n")
    (problem,) = check_files([path])
    assert problem.key_path == "http.serversTransports.t.rootCAs[1]"
    assert problem.message == f'"{missing}" cannot be read: No such file or directory'
    assert check_files([write(tmp_path, path.read_text().replace(str(missing), str(tmp_path)))])[
        0
    ].message == (f'"{tmp_path}" is not a regular file')


def test_the_access_logs_folder(tmp_path: Path) -> None:
    path = write(tmp_path, f"http: {{}}\naccessLog: {{filePath: {tmp_path}/logs/a.log}}\n")
    (problem,) = check_files([path])
    assert str(problem).startswith(f'{path}:2:23 accessLog.filePath: there is no directory "{tmp_path}/logs"')
    assert problem.severity == "warning"


def test_the_logs_folder(tmp_path: Path) -> None:
    path = write(tmp_path, f"log: {{filePath: {tmp_path}/logs/a.log}}\n")
    (warning,) = load(path).warnings
    assert str(warning) == (
        f'{path}:1:17 log.filePath: there is no directory "{tmp_path}/logs" (the daemon tries to create it)'
    )
    (tmp_path / "logs").touch()
    assert fails(path) == [
        f'{path}:1:17 log.filePath: "{tmp_path}/logs" is not a directory (name a file in a directory)'
    ]
    (tmp_path / "logs").unlink()
    (tmp_path / "logs").mkdir()
    assert load(path).warnings == []


def test_a_name_that_cannot_be_printed(tmp_path: Path) -> None:
    path = write(tmp_path, "", "a\nb.yaml")
    assert "\n" not in fails(path)[0]


def test_where_changes_are_watched_for(tmp_path: Path) -> None:
    def place(text: str) -> Place | None:
        return watched_place(load(write(tmp_path, text)).config, tmp_path / "f.yaml")

    (tmp_path / "dynamic").mkdir()
    assert place("http: {}\n") is None
    assert place("providers: {file: {directory: dynamic, watch: false}}\n") is None
    found = place("providers: {file: {directory: dynamic}}\n")
    assert found is not None
    assert found.survey().missing == ""


def test_the_files_for_tls_towards_the_engine_and_backends(tmp_path: Path) -> None:
    there = write(tmp_path, "", "there.pem")
    text = (
        f"providers: {{docker: {{endpoint: 'tcp://engine:2376', tls: {{ca: {there}, cert: /no/cert, key: {there}}}}}}}\n"
        f"http: {{serversTransports: {{t: {{certificates: [{{certFile: /no/a, keyFile: {there}}}]}}}}}}\n"
    )
    gone = "cannot be read: No such file or directory (name a PEM file that the daemon may read)"
    assert [line.partition(" ")[2] for line in fails(write(tmp_path, text))] == [
        f'providers.docker.tls.cert: "/no/cert" {gone}',
        f'http.serversTransports.t.certificates[0].certFile: "/no/a" {gone}',
    ]


def test_check_names_a_dynamic_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "dynamic").mkdir()
    (tmp_path / "dynamic" / "a.yml").symlink_to("nowhere")
    main = write(tmp_path, "providers: {file: {directory: dynamic}}\n")
    found = {Path(each.file).name: [str(problem) for problem in each.problems] for each in check([main])}
    assert found["f.yaml"] == []
    gone = "cannot be read: No such file or directory (name a file that the daemon may read)"
    assert found["a.yml"] == [f"{tmp_path}/dynamic/a.yml:1:1: {gone}"]
