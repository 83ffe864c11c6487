"""Questions to a name server on loopback: what it answers, how it fails, and how it lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from tests.providers.nameserver import FakeNameServer
from trio_wsb.addresses import NameServer
from trio_wsb.balancing.discovery import Answer, Query, QueryType, ServiceRecord
from trio_wsb.providers.lookup import DNSLookup, LookupFailed

NAME = "chat.internal"


@pytest.fixture
async def server() -> AsyncIterator[FakeNameServer]:
    async with FakeNameServer().running() as running:
        yield running


async def ask(server: FakeNameServer, type_: QueryType = "A", *, timeout: float = 5.0) -> Answer:
    return await DNSLookup((server.address,), timeout)(Query(NAME, type_))


async def test_addresses(server: FakeNameServer) -> None:
    server.set(NAME, "A", "10.0.0.1", "10.0.0.2")
    server.set(NAME, "AAAA", "fd00::1")
    server.ttl = 17
    found = await ask(server)
    assert (sorted(map(str, found.records)), found.ttl) == (["10.0.0.1", "10.0.0.2"], 17)
    assert (await ask(server, "AAAA")).records == ("fd00::1",)


async def test_service_records(server: FakeNameServer) -> None:
    server.set(NAME, "SRV", "10 5 8080 one.internal.", "20 0 8081 two.internal.")
    found = await ask(server, "SRV")
    assert set(found.records) == {
        ServiceRecord(10, 5, 8080, "one.internal."),
        ServiceRecord(20, 0, 8081, "two.internal."),
    }
    server.set(NAME, "SRV", "0 0 0 .")
    assert await ask(server, "SRV") == Answer((), 60, "the service is not offered")


async def test_aliases_are_followed_and_the_shortest_ttl_counts(server: FakeNameServer) -> None:
    server.set(NAME, "CNAME", "other.internal.")
    server.set("other.internal", "A", "10.0.0.3")
    assert (await ask(server)).records == ("10.0.0.3",)


async def test_no_name_and_no_records_are_answers(server: FakeNameServer) -> None:
    assert await ask(server) == Answer((), 20, "the name does not exist")
    server.set(NAME, "A", "10.0.0.1")
    assert await ask(server, "AAAA") == Answer((), 20, "the name has no AAAA records")


async def test_a_long_answer_comes_by_tcp(server: FakeNameServer) -> None:
    addresses = [f"10.{index >> 8}.{index & 255}.1" for index in range(4000)]
    server.set(NAME, "A", *addresses)
    assert set((await ask(server)).records) == set(addresses)
    assert server.asked[f"{NAME}.", "A", "tcp"] == 1


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
async def test_a_failure_is_named(server: FakeNameServer, rcode: str) -> None:
    server.rcode = dns.rcode.from_text(rcode)
    with pytest.raises(LookupFailed) as caught:
        await ask(server)
    assert caught.value.reason == f"127.0.0.1 port {server.address.port} answered {rcode}"


async def test_silence_ends(server: FakeNameServer) -> None:
    server.silent = True
    with pytest.raises(LookupFailed) as caught:
        await ask(server, timeout=0.1)
    assert caught.value.reason == "no answer within 0.1 s"


async def test_nobody_there() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        nobody = NameServer("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(LookupFailed) as caught:
            await DNSLookup((nobody,), 0.5)(Query(NAME, "A"))
    assert "127.0.0.1 port" in caught.value.reason or "no answer" in caught.value.reason


async def test_the_next_name_server_is_asked(server: FakeNameServer) -> None:
    async with FakeNameServer().running() as broken:
        broken.rcode = dns.rcode.REFUSED
        server.set(NAME, "A", "10.0.0.1")
        found = await DNSLookup((broken.address, server.address), 5.0)(Query(NAME, "A"))
    assert found.records == ("10.0.0.1",)


def _records(wire: bytes, name: str, rdtype: str, *records: str) -> dns.message.Message:
    answer = dns.message.make_response(dns.message.from_wire(wire))
    answer.answer.append(dns.rrset.from_text(name, 60, "IN", rdtype, *records))
    return answer


async def test_records_of_others_are_passed_over(server: FakeNameServer) -> None:
    def lie(wire: bytes, tcp: bool) -> bytes:
        answer = _records(wire, "bank.example.", "A", "10.6.6.6")
        answer.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "TXT", '"10.6.6.6"'))
        return answer.to_wire()

    server.lie = lie
    assert (await ask(server)).records == ()


async def test_a_circle_of_aliases(server: FakeNameServer) -> None:
    def lie(wire: bytes, tcp: bool) -> bytes:
        answer = _records(wire, f"{NAME}.", "CNAME", "b.internal.")
        answer.answer.append(dns.rrset.from_text("b.internal.", 60, "IN", "CNAME", f"{NAME}."))
        return answer.to_wire()

    server.lie = lie
    with pytest.raises(LookupFailed, match="ChainTooLong"):
        await ask(server)


async def test_truncated_by_tcp_too(server: FakeNameServer) -> None:
    def lie(wire: bytes, tcp: bool) -> bytes:
        answer = dns.message.make_response(dns.message.from_wire(wire))
        answer.flags |= dns.flags.TC
        return answer.to_wire()

    server.lie = lie
    with pytest.raises(LookupFailed, match="cut off"):
        await ask(server)


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40, bytes(600)])
async def test_junk(server: FakeNameServer, junk: bytes) -> None:
    # By UDP whatever has not our identifier may come from anybody and is not looked at; by TCP it cannot.
    server.lie = lambda wire, tcp: wire[:2] + junk
    with pytest.raises(LookupFailed):
        await ask(server, timeout=0.2)


async def test_an_answer_to_another_question(server: FakeNameServer) -> None:
    def lie(wire: bytes, tcp: bool) -> bytes:
        other = dns.message.make_query("bank.example.", "A")
        other.id = dns.message.from_wire(wire).id
        answer = dns.message.make_response(other)
        answer.answer.append(dns.rrset.from_text("bank.example.", 60, "IN", "A", "10.6.6.6"))
        return answer.to_wire()

    server.lie = lie
    with pytest.raises(LookupFailed):
        await ask(server, timeout=0.2)


async def test_the_name_servers_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(LookupFailed, match=r"resolv\.conf names no name server"):
        await DNSLookup(resolv_conf=str(tmp_path / "resolv.conf"))(Query(NAME, "A"))
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nsearch internal\noptions timeout:1\n")
    resolver = DNSLookup(resolv_conf=str(file))._resolver()
    assert (resolver.nameservers, resolver.search[0].to_text()) == (["127.0.0.1"], "internal.")
    # It is read anew for each question, since the host may move to another network.
    file.write_text("nameserver 127.0.0.2\n")
    assert DNSLookup(resolv_conf=str(file))._resolver().nameservers == ["127.0.0.2"]
