"""The object file is read as if it were not ours."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.net.kernel import elf
from trio_wsb.net.kernel.maps import SECTION

OBJECT = resources.files("trio_wsb.net.kernel").joinpath("relay.bpf.o").read_bytes()
REPOSITORY = Path(__file__).parents[3]
MAPS = {"slots": 11, "directions": 12, "sockets": 13, "notes": 14}


def test_the_shipped_object() -> None:
    program = elf.read_program(OBJECT, SECTION)
    assert {name for _, name in program.maps} == set(MAPS)
    assert sorted(name for _, name in program.functions) == ["cut_off", "relay", "step"]
    assert program.functions[0][0] == 0


def test_descriptors_are_put_in() -> None:
    program = elf.read_program(OBJECT, SECTION)
    code = program.linked(MAPS)
    for offset, name in program.maps:
        assert code[offset + 1] >> 4 == 1
        assert int.from_bytes(code[offset + 4 : offset + 8], "little") == MAPS[name]
    changed = {offset + i for offset, _ in program.maps for i in (1, 4)}
    assert all(code[i] == program.code[i] for i in range(len(code)) if i not in changed)


def test_a_callback_is_a_distance() -> None:
    program = elf.read_program(OBJECT, SECTION)
    callbacks = {at for at, _ in program.functions[1:]}
    calls = [
        index
        for index in range(0, len(program.code), 8)
        if program.code[index] == 0x18 and program.code[index + 1] >> 4 == 4
    ]
    found = set()
    for call in calls:
        distance = int.from_bytes(program.code[call + 4 : call + 8], "little", signed=True)
        found.add(call // 8 + distance + 1)
    assert found == callbacks


def test_a_map_is_missing() -> None:
    with pytest.raises(elf.BadObject, match="needs a map"):
        elf.read_program(OBJECT, SECTION).linked({})


def test_another_section() -> None:
    with pytest.raises(elf.BadObject, match="no section"):
        elf.read_program(OBJECT, "xdp")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, OBJECT[:100], OBJECT[:700]])
def test_no_object(data: bytes) -> None:
    with pytest.raises(elf.BadObject):
        elf.read_program(data, SECTION)


@given(st.integers(0, len(OBJECT) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(OBJECT)))
def test_anything_else_is_refused_or_read(at: int, data: bytes, size: int) -> None:
    broken = (OBJECT[:at] + data + OBJECT[at + len(data) :])[:size]
    try:
        elf.read_program(broken, SECTION)
    except elf.BadObject:
        pass


def test_the_shipped_object_is_what_the_source_says(tmp_path: Path) -> None:
    clang = shutil.which("clang-14")
    if clang is None or not Path("/usr/include/bpf/bpf_helpers.h").exists():
        pytest.skip("clang-14 or libbpf-dev is not installed")
    source = Path(elf.__file__).with_name("relay.bpf.c")
    shutil.copy(source, tmp_path)
    (recipe,) = (
        line for line in (REPOSITORY / "Makefile").read_text().splitlines() if line.startswith("\t$(CLANG)")
    )
    words = recipe.replace("$(shell uname -m)", platform.machine()).split()
    flags = words[1 : words.index("-c")]
    # By its bare name, as the object has it inside.
    subprocess.run([clang, *flags, "-c", source.name, "-o", "built.o"], cwd=tmp_path, check=True)
    built, shipped = (
        elf.read_program((tmp_path / "built.o").read_bytes(), SECTION),
        elf.read_program(OBJECT, SECTION),
    )
    assert built == shipped, "run make bpf"
