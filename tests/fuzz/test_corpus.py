"""The inputs that fuzzing found worth keeping, each time the tests run; and that the targets do notice a broken promise."""

from __future__ import annotations

import pytest

from fuzz.seeds import SEEDS
from fuzz.targets import CORPUS, TARGETS, inputs


@pytest.mark.parametrize("target", TARGETS)
def test_no_promise_is_broken(target: str) -> None:
    kept = inputs(target)
    assert len(kept) >= 10, "there is no corpus: make fuzz ARGS=--keep"
    for number, data in enumerate(kept, 1):
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"line {number} of {CORPUS.name}/{target}.b64: {data!r}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_good_inputs(target: str) -> None:
    assert SEEDS[target]
    for seed in SEEDS[target]:
        TARGETS[target](seed)


def test_every_corpus_has_its_target() -> None:
    assert {path.stem for path in CORPUS.iterdir()} == set(TARGETS) == set(SEEDS)


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If forwarded fields of strangers went on, or chunk extensions were miscounted, the corpus would tell."""
    with monkeypatch.context() as patched:
        patched.setattr("trio_wsb.http.forward.is_forwarding", lambda lower: False)
        patched.setattr("trio_wsb.http.forward.is_disguised", lambda lower: False)
        with pytest.raises(AssertionError):
            run("request_head")
    with monkeypatch.context() as patched:
        patched.setattr("trio_wsb.websocket.frames.is_valid_close_code", lambda code: True)
        with pytest.raises(AssertionError):
            run("frames")


def run(target: str) -> None:
    for data in inputs(target):
        TARGETS[target](data)
