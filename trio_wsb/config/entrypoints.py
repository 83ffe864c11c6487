"""What holds for every request of an entry point."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from trio_wsb.config.checks import between
from trio_wsb.config.options import option
from trio_wsb.units import Size

HEAD_SIZE: Final = between(1024, 16 * 2**20)
"""Bytes of a request head: less than the least refuses browsers, more than the most invites to fill the memory."""


@frozen
class EntryPointHTTP:
    """What holds for every request of an entry point."""

    max_header_bytes: Size = option(
        "Size of a request head, with its request line (which has 8 KiB at most); 431 over it.",
        Size(64 * 1024),
        check=HEAD_SIZE,
    )
