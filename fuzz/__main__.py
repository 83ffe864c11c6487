"""`python -m fuzz [TARGET...]`: coverage-guided fuzzing of the targets, one after another.

What it finds worth keeping stays in `.fuzz/TARGET`, an input that breaks a promise in `.fuzz/crash-*`. `--keep` then makes
the committed corpus anew, with no more inputs than its coverage needs. `--list` names the targets.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS, inputs, pack
from trio_wsb.units import parse_duration

WORK = Path(".fuzz")
TOKENS = Path(__file__).parent / "tokens.dict"
MAX_SIZE = 4096
MAX_KEPT_SIZE = 2048
INPUT_SECONDS = 10
"""Seconds after which one input has taken too long."""


def drive(target: str, *arguments: str) -> int:
    """Run libFuzzer on `target` and return its exit status."""
    command = [sys.executable, "-m", "fuzz.drive", target, *arguments]
    return subprocess.run(command, check=False).returncode


def unpacked(target: str) -> Path:
    """Return the directory of `target` with what is known of it: seeds, the committed corpus, and what was found since."""
    work = WORK / target
    work.mkdir(parents=True, exist_ok=True)
    for data in (*SEEDS[target], *inputs(target)):
        (work / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return work


def fuzz(target: str, seconds: float) -> bool:
    """Fuzz `target` for so long; whether no promise was broken."""
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_SIZE}",
        f"-timeout={INPUT_SECONDS}",
        f"-artifact_prefix={WORK}/{target}-",
        f"-dict={TOKENS}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    print(f"== {target}", flush=True)
    return drive(target, *options, str(unpacked(target))) == 0


def keep(target: str) -> None:
    """Make the committed corpus of `target` anew, as small as its coverage lets it be."""
    with tempfile.TemporaryDirectory() as folder:
        place, command = Path(folder) / "corpus", Path(folder) / "command"
        place.mkdir()
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fuzz.drive {target} "$@"\n')
        command.chmod(0o700)
        os.environ["FUZZ_COMMAND"] = str(command)
        options = ["-merge=1", f"-max_len={MAX_KEPT_SIZE}", "-verbosity=0"]
        failed = drive(target, *options, str(place), str(unpacked(target)))
        found = [path.read_bytes() for path in place.iterdir()]
        if failed or not found:
            sys.exit(f"{target}: the corpus could not be made smaller")
        pack(target, found)


def main() -> None:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them by default")
    parser.add_argument("--time", default="30s", help="for each target; default 30s")
    parser.add_argument("--keep", action="store_true", help="make the committed corpus anew afterwards")
    parser.add_argument("--list", action="store_true", help="name the targets and the size of their corpus")
    options = parser.parse_args()
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"no target {name}; there are: {', '.join(TARGETS)}")
    if options.list:
        for name in TARGETS:
            print(f"{name:16}{len(inputs(name)):5}")
        return
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is not installed; it has wheels for Linux: pip install 'trio-wsb[fuzz]'")
    seconds = parse_duration(options.time)
    WORK.mkdir(exist_ok=True)
    broken = [name for name in options.targets or TARGETS if seconds and not fuzz(name, seconds)]
    if broken:
        sys.exit(f"promises broken: {', '.join(broken)}; the inputs are in {WORK}/")
    for name in options.targets or TARGETS if options.keep else ():
        keep(name)


if __name__ == "__main__":
    main()
