"""trio-wsb: a WebSocket connection balancer.

The vocabulary, used alike in configuration, log, metrics and documentation:

entry point  a listener: an address on which clients connect
router       a rule that decides which service answers a request
service      a set of interchangeable backends and how to choose among them
backend      one server URL of a service
session      one client connection after its upgrade to WebSocket
count table  what each backend reports plus what the balancer knows itself
relay        the pair of pumps that moves a session's bytes

Two modules to read first: `trio_wsb.daemon.supervisor` (the nursery tree on one page) and
`trio_wsb.proxy.connection` (one client's life from top to bottom).
"""

__version__ = "0.1.0"
