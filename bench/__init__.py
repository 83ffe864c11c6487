"""Measures trio-wsb beside other proxies, on this machine and in the same minutes: ``python -m bench``.

Words used here:

*peer*
    what is measured: a proxy, or ``direct`` (no proxy: the limit that load generator and backends set).
*backends*
    three echo servers on ports of 127.0.0.1, served by one process (``echo_backend.c``).
*load generator*
    the clients (``loadgen.c``): a closed loop that checks every echoed byte, or it gives no figure at all.
*scenario*
    one question: echo of a size, cost at a fixed rate, handshakes, memory, reload and their like.
*round*
    every scenario once with every peer, the peers in turn, so that a machine that slows down slows all.
*sample*
    the figures of one peer in one scenario of one round. What is reported is their median.

Everything runs on loopback addresses and for a bounded time, and what was started is stopped.
"""
