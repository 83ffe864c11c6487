"""How one backend is chosen: least connections, round robin, two choices, and the two hashes.

A strategy is made for the names and weights of a service's backends and then asked again and again with
their present loads. Backends are indices into those lists. A load of infinity means *not eligible*; a
backend of weight 0 is never chosen. Hashing strategies see ineligible backends too, because what they decide must not
depend on them: only the clients of a backend that is out go elsewhere, and they come back with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address
from itertools import accumulate
from math import inf, log1p
from random import Random
from typing import ClassVar, Protocol

from trio_wsb.addresses import IPAddress


class Loads(Protocol):
    """The present loads by index, infinity for one that is not eligible.

    A list will do; a pool works them out when they are asked for, since most strategies need but a few.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> float: ...

    def __iter__(self) -> Iterator[float]: ...


class Strategy(ABC):
    """A way to choose.

    Args:
      names: what tells the backends apart over restarts and instances, such as their URLs; each once.
      weights: their weights, 0 or more.
      rng: what breaks ties and draws.

    """

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        assert len(names) == len(set(names)) == len(weights), (
            "each backend needs a name of its own and a weight"
        )
        assert all(weight >= 0 for weight in weights), "a weight is negative"
        self.names = tuple(names)
        self._weights: Sequence[float] = tuple(weights)
        self._rng = rng

    memoryless: ClassVar[bool] = False
    """Whether a choice changes nothing, so that it can be made again with other loads."""

    @abstractmethod
    def choose(self, loads: Loads, client: IPAddress | None, /) -> int | None:
        """Return the index of the backend for the next client, or None if none is eligible.

        Args:
          loads: the present loads, one for each backend.
          client: the client's real address; None if it has none.

        """

    def adopt(self, previous: Strategy) -> None:
        """Take over, after a reload, the state of the one that chose for the same service before."""
        del previous

    def reweigh(self, weights: Sequence[float]) -> None:
        """Choose with other weights from now on, which need not be whole numbers."""
        self._weights = tuple(weights)


class LeastConnections(Strategy):
    """The smallest ``(load + 1) / weight``, which is the load for its weight after taking one more client."""

    memoryless = True

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        super().__init__(names, weights, rng)
        self._equal = len(set(weights)) == 1 and weights[0] > 0

    def reweigh(self, weights: Sequence[float]) -> None:
        """See `Strategy.reweigh`."""
        super().reweigh(weights)
        self._equal = len(set(weights)) == 1 and weights[0] > 0

    def choose(self, loads: Loads, _client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`. Ties are broken at random."""
        scores: Sequence[float]
        if self._equal:
            scores = loads if isinstance(loads, list) else list(loads)
        else:
            # Division and not multiplication with an inverse: equal fractions give equal floats.
            scores = [
                (load + 1) / weight if weight else inf
                for load, weight in zip(loads, self._weights, strict=True)
            ]
        least = min(scores, default=inf)
        if least == inf:
            return None
        first, ties = scores.index(least), scores.count(least)
        return first if ties == 1 else self._one_of(scores, least, ties)

    def _one_of(self, scores: Sequence[float], least: float, ties: int) -> int:
        """Return one of the `ties` indices whose score is `least`, each as likely as the others."""
        rng, size = self._rng, len(scores)
        if ties * 8 >= size:
            # Drawing until it is one of them is uniform too, and needs no list of them: a burst of clients to a
            # thousand idle backends has a thousand ties.
            while scores[index := rng.randrange(size)] != least:
                pass
            return index
        return rng.choice([index for index, score in enumerate(scores) if score == least])


class WeightedRoundRobin(Strategy):
    """Smooth weighted round robin: exact proportions, and the turns of a heavy backend spread evenly.

    Each turn credits every eligible backend with its weight, chooses the largest credit and takes the sum
    of the weights from it. One that is not eligible keeps its credit as it is.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        super().__init__(names, weights, rng)
        self.balance: list[float] = [0] * len(weights)
        """Credit or debt by index."""

    def choose(self, loads: Loads, _client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`."""
        balance, chosen, most, total = self.balance, None, -inf, 0.0
        for index, (weight, load) in enumerate(zip(self._weights, loads, strict=True)):
            if weight and load < inf:
                total += weight
                balance[index] = credit = balance[index] + weight
                if credit > most:
                    chosen, most = index, credit
        if chosen is not None:
            balance[chosen] -= total
        return chosen

    def adopt(self, previous: Strategy) -> None:
        """See `Strategy.adopt`: backends keep their place in the round, new ones begin at zero.

        A credit never exceeds the sum of the weights by which it was earned, and is cut to the present sum here:
        after weights went from thousands to ones the debts of old would keep a backend out for thousands of turns.
        """
        if isinstance(previous, WeightedRoundRobin):
            known = dict(zip(previous.names, previous.balance, strict=True))
            total = sum(self._weights)
            self.balance = [min(max(known.get(name, 0), -total), total) for name in self.names]


class TwoChoices(Strategy):
    """Two different backends drawn at random in proportion to weight; the smaller ``(load + 1) / weight`` wins."""

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        super().__init__(names, weights, rng)
        self._sums: list[float] = list(accumulate(weights))

    def reweigh(self, weights: Sequence[float]) -> None:
        """See `Strategy.reweigh`."""
        super().reweigh(weights)
        self._sums = list(accumulate(weights))

    def choose(self, loads: Loads, _client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`."""
        first = self._draw(loads, None)
        if first is None:
            return None
        second = self._draw(loads, first)
        if second is None:
            return first
        weights = self._weights
        return (
            first if (loads[first] + 1) / weights[first] <= (loads[second] + 1) / weights[second] else second
        )

    def _draw(self, loads: Loads, taken: int | None) -> int | None:
        sums = self._sums
        total = sums[-1] if sums else 0
        if not total:
            return None
        # Drawing again until the draw is eligible has the right distribution and usually ends at once; only
        # when most are out is it worth to look at every one.
        for _ in range(8):
            index = bisect_right(sums, self._rng.random() * total, 0, len(sums) - 1)
            if index != taken and loads[index] < inf and self._weights[index]:
                return index
        left = [
            index
            for index, load in enumerate(loads)
            if load < inf and index != taken and self._weights[index]
        ]
        return self._rng.choices(left, [self._weights[index] for index in left])[0] if left else None


_PRIME = 2**61 - 1


class RendezvousHash(Strategy):
    """Weighted rendezvous hashing of the client's address ("highest random weight").

    Each client ranks the backends in an order of its own and gets the first eligible one. When a backend comes, goes or
    changes its weight, only the clients move that it wins or loses.

    The score is ``weight / -ln(u)`` with u a hash of client and backend in (0, 1). For u the client's hash gives
    the two factors of ``a * x + b mod p``, x being the backend's hash: pairwise independent (Carter and
    Wegman, 1979), and ten times quicker for a thousand backends than a cryptographic hash for each pair.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        super().__init__(names, weights, rng)
        self._points = [int.from_bytes(_digest(name.encode())) % _PRIME for name in names]
        self._group(weights)

    def reweigh(self, weights: Sequence[float]) -> None:
        """See `Strategy.reweigh`: a backend that grows wins clients, one by one, and the others keep theirs."""
        super().reweigh(weights)
        self._group(weights)

    def _group(self, weights: Sequence[float]) -> None:
        # Among equal weights the largest u wins, so one logarithm for each different weight is enough.
        groups: dict[float, list[int]] = {}
        for index, weight in enumerate(weights):
            if weight:
                groups.setdefault(weight, []).append(index)
        self._groups = [
            (weight, indices, [self._points[index] for index in indices])
            for weight, indices in groups.items()
        ]

    def choose(self, loads: Loads, client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`."""
        digest = _digest(client.packed if client is not None else b"")
        a, b = int.from_bytes(digest[:8]) % (_PRIME - 1) + 1, int.from_bytes(digest[8:]) % _PRIME
        chosen, best = None, -inf
        for weight, indices, points in self._groups:
            draws = [(a * point + b) % _PRIME for point in points]
            largest = max(draws)
            score = _rendezvous_score(largest, weight)
            if score > best:
                chosen, best = indices[draws.index(largest)], score
        if chosen is None or loads[chosen] < inf:
            return chosen
        return self._next(loads, a, b)

    def _next(self, loads: Loads, a: int, b: int) -> int | None:
        scored = [
            (_rendezvous_score((a * point + b) % _PRIME, weight), index)
            for weight, indices, points in self._groups
            for index, point in zip(indices, points, strict=True)
            if loads[index] < inf
        ]
        return max(scored)[1] if scored else None


def _rendezvous_score(draw: int, weight: float) -> float:
    # u = (draw + 1) / (prime + 1). log1p of its distance from 1, since u itself rounds to 1 for the largest draws.
    return weight / -log1p((draw - _PRIME) / (_PRIME + 1))


class ClientNetworkHash(Strategy):
    """A hash of the client's network in proportion to weight, with nginx's ip_hash as the model.

    The network is the first three octets of an IPv4 address and the whole of an IPv6 address. If the backend is not
    eligible the hash is taken again, so that the clients of one that is out spread over all others.
    """

    _ATTEMPTS = 20

    def __init__(self, names: Sequence[str], weights: Sequence[int], rng: Random) -> None:
        super().__init__(names, weights, rng)
        self._sums = list(accumulate(weights))

    def reweigh(self, weights: Sequence[float]) -> None:
        """Change nothing: every client would move at each step, since all depends on the sum of the weights."""

    def choose(self, loads: Loads, client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`."""
        total = self._sums[-1] if self._sums else 0
        if not total:
            return None
        if client is None:
            network = b""
        else:
            network = client.packed[:3] if isinstance(client, IPv4Address) else client.packed
        index = 0
        for attempt in range(self._ATTEMPTS):
            index = bisect_right(self._sums, int.from_bytes(_digest(network, attempt)) % total)
            if loads[index] < inf:
                return index
        # Almost all are out: the next one on the list.
        for step in range(1, len(self._sums)):
            following = (index + step) % len(self._sums)
            if self._weights[following] and loads[following] < inf:
                return following
        return None


def _digest(data: bytes, salt: int = 0) -> bytes:
    # Python's own hash() differs between processes, and every instance must decide alike, also after a restart.
    return blake2b(data, digest_size=16, salt=salt.to_bytes(2)).digest()


STRATEGIES: dict[str, type[Strategy]] = {
    "leastconn": LeastConnections,
    "wrr": WeightedRoundRobin,
    "p2c": TwoChoices,
    "hrw": RendezvousHash,
    "iphash": ClientNetworkHash,
}
"""Strategies by their name in the configuration."""
