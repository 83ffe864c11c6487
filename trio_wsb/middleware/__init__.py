"""What happens to a request between its router and its service: Traefik's middlewares as pure logic.

    options     what the configuration says: a frozen class `...Options` for each kind, its fields named like Traefik's keys
    request     `Request`: a checked head and who sent it, immutable; a middleware returns another one
    answer      `Answer`: the middleware answers the client itself and the request goes no further
    source      the key by which clients are told apart: address, Host, or a field of the request

Nothing here waits, reads a clock or opens anything: times are arguments in seconds of one monotonic clock, and
whatever takes long (a password hash, a call to an authentication server) is done by the caller between two steps.

Two things must have happened before the first middleware sees a request, as `exchange.received` does them: fields that end
at this hop, or that the client's Connection field nominates, are gone, or a client could have a field removed that
a middleware is about to set (CVE-2024-45410); and X-Forwarded-* of a peer that is not trusted are gone too.
"""
