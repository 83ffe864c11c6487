"""What other balancers do while we do not see it: the echo of our own choices.

Several balancers in front of the same backends see the same reports, come to the same conclusion and send everybody to the same
backend until the next report, each of them enough to fill it. So between two reports each session of ours is taken to stand for those that
the others open for the same reason: for each of ours there are `echo` of theirs. All of them together then fill what one would.

How many these are follows from the reports alone. Foreign connections are, at most, theirs; so in the long run there are
``foreign / own`` of theirs for each of ours. But foreign connections may also be of clients that come directly and follow nobody.
Those move by themselves or not at all, while others like us move as we do: if there are k of them, what they move is between
sqrt(k) (each by chance) and k (all alike) times what we move. So the echo is no more than the square of what was seen to move.

Before much has moved there is little to see, and a few sessions stand in for it until as many of ours have moved before our eyes:

- Those that were ours at the first report have probably come as the foreign ones beside them have.
- Foreign connections that have come since, beside the first of ours, probably come to fill the same gaps, as in the first burst that
  balancers get who were started together.

Foreign connections that stood still while many of ours came follow nobody, and the echo is exactly 0, not only small: reports come one
after the other, so that in a burst the oldest lacks hundreds of our sessions which the newest has, and each of these would be counted
with its echo for the one backend and without for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_wsb.balancing.counts import CountEntry

MOST: Final = 31.0
"""The largest echo: beyond it a backend that was added would fill one session in a report interval."""

_DOUBT: Final = 5.0
"""Sessions of ours that must have moved for what is seen to be believed, and at most so many stand in for what was not seen."""

_PERSUADES: Final = 4.0
"""Sessions of ours that must be seen to move to replace one that stands in."""


def echo(entries: Sequence[CountEntry]) -> float:
    """Return how many sessions others open for each of ours, judged by what the backends have reported until now."""
    own = sum(entry.own for entry in entries)
    foreign = sum(entry.foreign or 0 for entry in entries)
    if not own or not foreign:
        return 0.0
    share = foreign / own
    moved = sum(entry.foreign_moved for entry in entries)
    moved_own = sum(entry.own_moved for entry in entries)
    settled = min(_DOUBT, sum(entry.own_at_first for entry in entries))
    risen = sum(max(0, (entry.foreign or 0) - entry.foreign_at_first) for entry in entries)
    persuaded = moved_own / _PERSUADES
    moved += max(0.0, (settled - persuaded) * share**0.5, (_DOUBT - persuaded) * (risen / own) ** 0.5)
    seen: float = (moved / max(moved_own, _DOUBT)) ** 2
    return min(share, seen, MOST)
