"""A small name server on loopback, which tells the truth or lies as a test wants it to."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

from trio_wsb.addresses import NameServer

Lie = Callable[[bytes, bool], bytes | None]
"""Gives the bytes of an answer to the bytes of a question, None for silence; the second argument is whether it came by TCP."""

UDP_SIZE = 1232


class FakeNameServer:
    """Answers from `zone`; what it does not have does not exist. Change it at any time."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        """Records as texts by name (with its final dot) and type."""
        self.ttl = 60
        self.negative_ttl = 20
        self.rcode = dns.rcode.NOERROR
        self.silent = False
        self.lie: Lie | None = None
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """How often each question came, by name, type and `udp` or `tcp`."""
        self.address = NameServer("127.0.0.1")

    def set(self, name: str, rdtype: str, *records: str) -> None:
        self.zone[f"{name}.", rdtype] = list(records)

    def remove(self, name: str, rdtype: str) -> None:
        del self.zone[f"{name}.", rdtype]

    @asynccontextmanager
    async def running(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakeNameServer]:
        """Serve on a port of loopback, a free one unless given, the same for UDP and TCP, until the block ends."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        port = listeners[0].socket.getsockname()[1]
        self.address = NameServer(host, port)
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            await udp.bind((host, port))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_udp, udp)
                nursery.start_soon(trio.serve_listeners, self._serve_tcp, listeners)
                yield self
                nursery.cancel_scope.cancel()

    async def _serve_udp(self, udp: trio.socket.SocketType) -> None:
        while True:
            question, peer = await udp.recvfrom(65535)
            answer = self.answer(question, tcp=False)
            if answer is not None:
                await udp.sendto(answer, peer)

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            answer = self.answer(data[2:], tcp=True)
            if answer is not None:
                await stream.send_all(len(answer).to_bytes(2) + answer)

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        question = dns.message.from_wire(wire)
        asked = question.question[0]
        name, rdtype = asked.name.to_text(), dns.rdatatype.to_text(asked.rdtype)
        self.asked[name, rdtype, "tcp" if tcp else "udp"] += 1
        if self.silent:
            return None
        if self.lie is not None:
            return self.lie(wire, tcp)
        answer = self.respond(question, name, rdtype)
        data = answer.to_wire(max_size=65535)
        if len(data) > UDP_SIZE and not tcp:
            short = dns.message.make_response(question)
            short.flags |= dns.flags.TC
            return short.to_wire()
        return data

    def respond(self, question: dns.message.Message, name: str, rdtype: str) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.set_rcode(self.rcode)
        if self.rcode != dns.rcode.NOERROR:
            return answer
        steps = 0
        while (name, rdtype) not in self.zone and (name, "CNAME") in self.zone and steps < 20:
            [target] = self.zone[name, "CNAME"]
            answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", target))
            name, steps = target, steps + 1
        records = self.zone.get((name, rdtype))
        if records:
            answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", rdtype, *records))
            return answer
        soa = f"ns.{name} root.{name} 1 3600 600 86400 {self.negative_ttl}"
        answer.authority.append(dns.rrset.from_text(name, 3600, "IN", "SOA", soa))
        if not any(each == name for each, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
