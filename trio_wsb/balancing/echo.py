"""What other balancers do while we do not see it: the echo of our own choices.

Several balancers in front of the same backends see the same reports, come to the same conclusion and send everybody to the same
backend until the next report, each of them enough to fill it. So between two reports each session of ours is taken to stand for those that
the others open for the same reason: for each of ours there are `echo` of theirs. All of them together then fill what one would.

How many these are follows from the reports alone. Foreign connections are, at most, theirs; so in the long run there are
``foreign / own`` of theirs for each of ours. But foreign connections may also be of clients that come directly and follow nobody.
Those move by themselves or not at all, while others like us move as we do: if there are k of them, what they move is between
sqrt(k) (each by chance) and k (all alike) times what we move. So the echo is no more than the square of what was seen to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_wsb.balancing.counts import CountEntry

MOST: Final = 31.0
"""The largest echo: beyond it a backend that was added would fill one session in a report interval."""

_DOUBT: Final = 5.0
"""Sessions of ours that must have moved until what is seen weighs more than the assumption that all foreign connections follow."""


def echo(entries: Sequence[CountEntry]) -> float:
    """Return how many sessions others open for each of ours, judged by what the backends have reported until now."""
    own = sum(entry.own for entry in entries)
    foreign = sum(entry.foreign or 0 for entry in entries)
    if not own or not foreign:
        return 0.0
    share = foreign / own
    moved = sum(entry.foreign_moved for entry in entries) + _DOUBT * share**0.5
    moved_own = sum(entry.own_moved for entry in entries) + _DOUBT
    seen: float = (moved / moved_own) ** 2
    return min(share, seen, MOST)
