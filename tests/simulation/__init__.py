"""A simulated world around the real balancer: whole stories in virtual time, each from one seed.

network     connections with latency, splits, resets, stalls and hosts that vanish
kernel      the kernel relay over such connections, with the kernel as a model: its sockets (`psock`) and its program (`verdict`)
drill       one session over that model, without a balancer
ledger      what each side has sent and must arrive: byte for byte, once, in order
peers       clients and backends that speak WebSocket, politely or not
plain       plain requests
copies      backends that get copies of sessions
world       the balancer, put together as the supervisor does it, without sockets and files
invariants  what must hold after every step, and at the end
stories     what happens: scale-out, crash, flapping, lies, reload storms, drains, rebalancing, limits
errands     and more of it: sticky clients, plain requests, mirrors, much traffic, lies in a storm
run         one seed, or many; `python -m tests.simulation --seed N` replays one
"""
