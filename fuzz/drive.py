"""One target under atheris: `python -m fuzz.drive TARGET [options of libFuzzer] [directories]`.

libFuzzer ends the process when it is done, so each target has one of its own.
"""

from __future__ import annotations

import os
import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

# Comparisons in string methods guide it as well. Its hook for regular expressions knows no possessive quantifiers.
atheris.enabled_hooks.add("str")

with atheris.instrument_imports(include=["trio_wsb"]):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    # For a merge libFuzzer starts itself anew, by the name that stands here.
    sys.argv[0] = os.environ.get("FUZZ_COMMAND", sys.argv[0])
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
