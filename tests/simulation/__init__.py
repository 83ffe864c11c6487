"""A simulated world around the real balancer: whole stories in virtual time, each from one seed.

network     connections with latency, splits, resets, stalls and hosts that vanish
ledger      what each side has sent and must arrive: byte for byte, once, in order
peers       clients and backends that speak WebSocket, politely or not
world       the balancer, put together as the supervisor does it, without sockets and files
invariants  what must hold after every step, and at the end
stories     what happens: scale-out, crash, flapping, lies, reload storms, drains, rebalancing, limits
run         one seed, or many; `python -m tests.simulation --seed N` replays one
"""
