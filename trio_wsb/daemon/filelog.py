"""What the log says of dynamic files: each problem once, when it comes, and that it is over."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from trio_wsb.config.sources import FileState

log = structlog.stdlib.get_logger("trio_wsb.files")


def log_files(before: Sequence[FileState], after: Sequence[FileState]) -> None:
    """Log what has happened to dynamic files; nothing for one that is as it was.

    Args:
      before: how they stood, empty at the start.
      after: how they stand now.

    """
    known = {each.path: each for each in before}
    for each in after:
        old = known.pop(each.path, None)
        if each.problems:
            if old is None or old.problems != each.problems:
                _log_problems(each)
        elif old is None:
            log.info("dynamic file in force", file=each.path)
        elif old.problems:
            log.info("dynamic file in force again", file=each.path)
        elif old.digest != each.digest:
            log.info("dynamic file changed", file=each.path)
    for path, old in known.items():
        if old.newest is not None:  # else it is the directory, which is there again
            log.info("dynamic file removed", file=path)


def in_force(state: FileState) -> str:
    """Return in words which version of a file is in force."""
    if not state.problems:
        return "newest"
    return "last good" if state.good is not None else "none"


def _log_problems(state: FileState) -> None:
    for problem in state.problems:
        log.error("configuration problem", problem=str(problem))
    log.error(
        "dynamic file not in force as it is now",
        file=state.path,
        problems=len(state.problems),
        inForce=in_force(state),
    )
