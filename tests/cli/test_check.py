from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.config.helpers import config
from trio_wsb.cli.check import check

GOOD = "wsbalancer: {pods: [http://a]}\n"
BAD = "log: {level: 5}\nhtpp: 1\nglobal: {}\n"
DANGLING = "http: {routers: {r: {rule: Path(`/`), service: chat}}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"good": GOOD, "bad": BAD, "dangling": DANGLING}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, arguments)


@pytest.mark.usefixtures("folder")
class TestCheck:
    def test_nothing_to_say(self) -> None:
        result = run("good.yaml")
        assert (result.exit_code, result.output) == (0, "")

    def test_errors(self) -> None:
        result = run("bad.yaml", "good.yaml")
        assert result.exit_code == 1
        assert result.stdout.splitlines() == [
            "bad.yaml:1:14 log.level: 5 is a number, not a string (write DEBUG, INFO, WARN or ERROR)",
            'bad.yaml:2:1 htpp: unknown key (did you mean "http"?)',
            "bad.yaml:3:1 global: has no meaning here and is ignored (nothing is reported or updated) [warning]",
        ]
        assert result.stderr == "2 errors, 1 warning\n"

    def test_warnings_alone(self) -> None:
        result = run("dangling.yaml")
        assert result.exit_code == 0
        assert result.stdout == (
            'dangling.yaml:1:48 http.routers.r.service: no service "chat" is defined (define it) [warning]\n'
        )
        assert result.stderr == "1 warning\n"

    def test_a_bad_rule_is_an_error_though_the_others_run(self, folder: Path) -> None:
        (folder / "rule.yaml").write_text(DANGLING.replace("Path(", "Pth("))
        result = run("rule.yaml")
        assert result.exit_code == 1
        assert result.stdout == (
            "rule.yaml:1:28 http.routers.r.rule: unknown matcher 'Pth' (did you mean Path?)\n"
            "    Pth(`/`)\n"
            "    ^\n"
        )

    def test_strict(self) -> None:
        result = run("--strict", "dangling.yaml")
        assert result.exit_code == 1
        assert "[warning]" not in result.stdout
        assert result.stderr == "1 error\n"

    def test_resolve(self) -> None:
        result = run("--resolve", "good.yaml", "bad.yaml")
        assert result.exit_code == 1
        assert result.stdout.startswith("---\n# good.yaml\n")
        assert config(result.stdout) == config(GOOD)
        assert "interval: 30s" in result.stdout
        assert "bad.yaml:2:1" in result.stderr

    def test_missing_file(self) -> None:
        result = run("nowhere.yaml")
        assert result.exit_code == 1
        assert result.stdout.startswith("nowhere.yaml:1:1: cannot be read: No such file or directory")

    def test_no_file(self) -> None:
        assert run().exit_code == 2
