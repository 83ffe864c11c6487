"""The clients of a story, what becomes of each of their conversations, and what must be true of it at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import trio
from attrs import define, field
from websockets.frames import Opcode

from tests.simulation.backend import SimBackend
from tests.simulation.copies import Copies
from tests.simulation.ledger import Lane, Violation, encode
from tests.simulation.network import GIVE_UP, Conditions, SimChannel, drawn_conditions
from tests.simulation.peers import Manner, Talker
from tests.simulation.plain import Asker, fields_of
from tests.simulation.world import World
from trio_wsb.addresses import BackendURL
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.session import Session

BY_PEERS = frozenset({Cause.CLIENT_CLOSED, Cause.BACKEND_CLOSED})
GOING = frozenset({Cause.DRAIN, Cause.REBALANCE, Cause.SHUTDOWN, Cause.IDLE_TIMEOUT, Cause.MAX_LIFETIME})
UNANSWERED = {Cause.CLIENT_PING_TIMEOUT: "client", Cause.BACKEND_PING_TIMEOUT: "backend"}
TOO_BIG = frozenset({Cause.CLIENT_MESSAGE_TOO_BIG, Cause.BACKEND_MESSAGE_TOO_BIG})

STICKY = "home"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE_PATIENCE = 70.0
"""Seconds that a client waits for an answer to its handshake."""

LAST_SECONDS = GIVE_UP + 30.0
"""Seconds after the end of a client's connection in which the balancer must be done with it, whatever happened to it."""


@define(frozen=True)
class Habits:
    """What the clients and backends of a story are like. Times in seconds; the others are weights or chances."""

    lifetime: float = 20.0
    gap: float = 4.0
    """Between two messages of a side."""
    sizes: tuple[int, ...] = (0, 1, 5, 125, 126, 700)
    pushes: float = 0.3
    """How often a backend sends by itself too."""
    echoes: float = 0.3
    ends: Mapping[str, float] = field(factory=lambda: {"client": 3, "backend": 1})
    """How a conversation ends when its time is over."""
    manners: Mapping[str, float] = field(factory=lambda: {"polite": 1})
    stalls: float = 0.0
    """How many connections are held up once, for up to 8 s."""
    early: float = 0.1
    """How many clients send a message without waiting for the 101."""
    plain: float = 0.0
    """How often a client asks plain requests instead of opening a session."""
    returns: bool = True
    pause: float = 1.0
    """Before a client comes back."""


@define(eq=False)
class Conversation:
    """One client connection, from its handshake to its end."""

    number: int
    near: SimChannel
    conditions: Conditions
    up: Lane
    down: Lane
    who: str = ""
    done: trio.Event = field(factory=trio.Event)
    status: int | None = None
    client: Talker | None = None
    backend: Talker | None = None
    at: BackendURL | None = None
    tampered: bool = False

    @property
    def clean(self) -> bool:
        """Whether nobody has done it any harm, and both sides keep to the rules."""
        sides = (self.client, self.backend)
        confused = self.near.confused or (self.backend is not None and self.backend.channel.peer.confused)
        return not (self.tampered or confused) and all(
            each is not None and each.manner.polite and not each.faulty for each in sides
        )

    @property
    def halved(self) -> bool:
        """Whether the client has ended its direction without a Close frame."""
        return self.client is not None and self.client.halved


@define(eq=False)
class Jar:
    """A client's cookies."""

    value: str | None = None
    given: bool = False
    """Whether the last answer has set it."""
    expected: str | None = None
    """What was sent last."""

    def line(self) -> str:
        """Return the field to be sent, if any."""
        return "" if self.value is None else f"Cookie: other=1; {STICKY}={self.value}\r\n"

    def take(self, answer: bytes) -> None:
        """Keep what an answer sets."""
        found = fields_of(answer).get(b"set-cookie")
        self.given = found is not None
        if found is not None:
            name, _, rest = found.decode().partition("=")
            if name == STICKY:
                self.value = rest.partition(";")[0]


class Crowd:
    """Clients that come, talk, end and come back; `run` is one of them."""

    def __init__(self, world: World, habits: Habits) -> None:
        self.world = world
        self.habits = habits
        self.rng = Random(world.rng.random())
        self.leaving = False
        self.conversations: dict[str, Conversation] = {}
        self.open: dict[Conversation, None] = {}
        self.answers: Counter[int | None] = Counter()
        """What handshakes came to, by status."""
        self.codes: Counter[int | None] = Counter()
        """Of the Close frames that clients got."""
        self.judged = 0
        self.whole = 0
        """Conversations in which every byte had to arrive, and did."""
        self.plain: Counter[int | None] = Counter()
        """What plain requests came to, by status."""
        self.copies = Copies(self.rng)
        self.cookies: dict[str, BackendURL] = {}
        """Where the cookies lead that were seen."""
        self.loyal = 0
        """Clients that came back to the backend that their cookie leads to."""
        self.disturbed: set[BackendURL] = set()
        """Backends that a client may find closed to it."""
        self._number = 0
        self._left = trio.Event()
        world.accepted = self.accepted

    def leave(self) -> None:
        """Let everybody go who is there, and nobody come back."""
        self.leaving = True
        self._left.set()

    async def pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._left.wait()

    # Clients.

    async def run(self, delay: float = 0.0) -> None:
        """Be a client until everybody leaves."""
        await self.pause(delay)
        jar = Jar()
        while not self.leaving:
            if self.rng.random() < self.habits.plain:
                await self.ask()
            else:
                await self.converse(jar)
            if not self.habits.returns:
                return
            await self.pause(self.habits.pause * self.rng.uniform(0.2, 1.8))

    async def ask(self) -> None:
        """Ask plain requests on a connection of their own."""
        world, rng = self.world, self.rng
        far, near = world.network.connect(drawn_conditions(rng, rough=world.rough, tls=world.tls))
        self._number += 1
        _, done = world.connect(near)
        asker = Asker(far, rng, str(self._number), world.done)
        try:
            await asker.run()
        except Violation as violation:
            world.fail(violation)
        self.plain += asker.statuses
        with trio.move_on_after(LAST_SECONDS):
            await done.wait()
            return
        world.fail(Violation(f"request {self._number}: the balancer still holds its connection"))

    async def converse(self, jar: Jar) -> None:
        """Connect, talk and end; check what came of it."""
        world, rng = self.world, self.rng
        conditions = drawn_conditions(rng, rough=world.rough, tls=world.tls)
        far, near = world.network.connect(conditions)
        self._number += 1
        path = f"/chat/{self._number}"
        conversation = Conversation(
            self._number,
            near,
            conditions,
            Lane(f"{self._number} up", True),
            Lane(f"{self._number} down", False),
        )
        jar.expected = jar.value
        self.conversations[path] = conversation
        self.open[conversation] = None
        conversation.who, conversation.done = world.connect(near)
        try:
            rest = await self._shake_hands(conversation, far, path, jar)
            if rest is not None:
                await self._talk(conversation, far, rest)
        finally:
            far.close()
            self.open.pop(conversation, None)
            del self.conversations[path]
        with trio.move_on_after(LAST_SECONDS):
            await conversation.done.wait()
            await trio.lowlevel.checkpoint()
            while not conversation.near.closed:
                await trio.sleep(0.05)
            await self._backend_over(conversation)
            self.judge(conversation)
            self._judge_cookie(conversation, jar)
            return
        world.fail(Violation(f"conversation {conversation.number}: the balancer still holds its connection"))

    async def _backend_over(self, conversation: Conversation) -> None:
        backend = conversation.backend
        if backend is not None and backend.manner.polite:
            while not backend.ended:
                await trio.sleep(0.05)

    async def _shake_hands(
        self, conversation: Conversation, far: SimChannel, path: str, jar: Jar
    ) -> bytes | None:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{jar.line()}\r\n"
        ).encode()
        if self.rng.random() < self.habits.early:
            frame = encode(b"early", Opcode.TEXT, mask=True)
            conversation.up.send(frame)
            conversation.up.written += frame
            request += frame
        head, buffer = bytearray(), bytearray(65536)
        try:
            with trio.move_on_after(HANDSHAKE_PATIENCE):
                await send_all(far, request)
                while b"\r\n\r\n" not in head and (count := await receive_some(far, buffer)):
                    head += buffer[:count]
        except OSError:
            pass
        answer, found, rest = bytes(head).partition(b"\r\n\r\n")
        if found:
            conversation.status = int(answer.split(b" ")[1])
            jar.take(answer)
        self.answers[conversation.status] += 1
        return rest if conversation.status == 101 else None

    async def _talk(self, conversation: Conversation, far: SimChannel, rest: bytes) -> None:
        talker = conversation.client = Talker(
            far, conversation.up, conversation.down, self.rng, self._manner(0.0), True, self.world.fail, rest
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._act_client, conversation, talker)
            await talker.run()
            nursery.cancel_scope.cancel()
        self.codes[talker.code] += 1

    async def _act_client(self, conversation: Conversation, talker: Talker) -> None:
        rng, habits = self.rng, self.habits
        until = trio.current_time() + habits.lifetime * rng.uniform(0.2, 1.8)
        if rng.random() < habits.stalls:
            self.world.network.at(
                trio.current_time() + rng.random() * habits.lifetime / 2, lambda: self._stall(conversation)
            )
        while not self.leaving and trio.current_time() < until:
            await self.pause(min(rng.expovariate(1 / habits.gap), until - trio.current_time()))
            if not self._left.is_set() and trio.current_time() < until:
                self._message(conversation, talker)
        ending = rng.choices(list(habits.ends), list(habits.ends.values()))[0]
        await self._end(conversation, talker, "client" if self.leaving else ending)

    async def _end(self, conversation: Conversation, talker: Talker, ending: str) -> None:
        backend = conversation.backend
        match ending:
            case "client":
                talker.close(self.rng.choice((1000, 1001, 4000)))
            case "backend" if backend is not None:
                backend.close(self.rng.choice((1000, 1011, 4001)))
                await trio.sleep(30)
                talker.close()
            case "both" if backend is not None:
                talker.close(1000)
                backend.close(4002)
            case "reset":
                talker.reset()
            case "drop":
                talker.drop()
            case "vanish":
                talker.vanish()
            case "half":
                talker.half_close()
            case "stay":
                await self.pause(1000)
                talker.close()
            case "backend reset" if backend is not None:
                backend.reset()
            case "backend drop" if backend is not None:
                backend.drop()
            case "backend vanish" if backend is not None:
                backend.vanish()
            case _:
                talker.close()

    def _stall(self, conversation: Conversation) -> None:
        if not conversation.done.is_set() and not conversation.near.closed:
            conversation.tampered = True
            conversation.near.hold(self.rng.uniform(0.5, 8.0))

    def _message(self, conversation: Conversation, talker: Talker) -> None:
        # What takes longer than the balancer waits for an end would be cut by right.
        legs = [conversation.conditions]
        if conversation.backend is not None:
            legs.append(conversation.backend.channel.outgoing.conditions)
        most = min(min(4 * leg.capacity, 60 * leg.segment) for leg in legs)
        talker.message(min(self.rng.choice(self.habits.sizes), most))

    def _manner(self, echoes: float) -> Manner:
        habits, rng = self.habits, self.rng
        match rng.choices(list(habits.manners), list(habits.manners.values()))[0]:
            case "deaf":
                return Manner(deaf=True)
            case "slow":
                return Manner(slow=rng.choice((0.05, 0.5, 3.0)), echoes=echoes)
            case "mute":
                return Manner(mute=True)
            case "dozy":
                return Manner(dozes=rng.choice((0.05, 0.3)), echoes=echoes)
        return Manner(echoes=echoes)

    # Backends.

    async def accepted(self, server: SimBackend, channel: SimChannel) -> None:
        """Serve a connection that the balancer has made to a backend."""
        talker: Talker | None = None
        try:
            path, _, dropped = (await server.handshake(channel) or "").partition(" ")
            conversation = self.conversations.get(path)
            if server.url in self.world.copied:
                if path:
                    lane = None if conversation is None else conversation.up
                    await self.copies.take(server, channel, path, lane)
                return
            if conversation is None:
                return
            # An earlier try may have been accepted too, by a backend that broke before anybody knew.
            conversation.down = Lane(f"{conversation.number} down", False)
            conversation.at = server.url
            manner = self._manner(self.habits.echoes)
            talker = conversation.backend = Talker(
                channel, conversation.down, conversation.up, self.rng, manner, False, self.world.fail
            )
            if dropped:
                talker.faulty = True
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._act_backend, conversation, talker)
                await talker.run()
                nursery.cancel_scope.cancel()
        except Violation as violation:
            self.world.fail(violation)
        except (OSError, trio.ClosedResourceError):
            pass  # the balancer has given it up, or the story
        finally:
            channel.close()
            server.ended(channel)
            if talker is not None:
                talker.ended = True

    async def _act_backend(self, conversation: Conversation, talker: Talker) -> None:
        rng, habits = self.rng, self.habits
        while rng.random() < habits.pushes:
            await trio.sleep(rng.expovariate(1 / habits.gap))
            self._message(conversation, talker)

    def break_down(self, server: SimBackend, how: str) -> None:
        """End all connections of a backend at once: reset, drop or vanish."""
        self.disturbed.add(server.url)
        for conversation in list(self.open):
            if conversation.at == server.url:
                conversation.tampered = True
        for channel in list(server.connections):
            {"reset": channel.abort, "drop": channel.close, "vanish": channel.vanish}[how]()

    # What must be true.

    def _judge_cookie(self, conversation: Conversation, jar: Jar) -> None:
        """Check that a cookie leads where it was given, and that its client is sent there."""
        if conversation.status != 101 or conversation.at is None or jar.value is None:
            return
        words = f"conversation {conversation.number} at {conversation.at}"
        if jar.given and self.cookies.setdefault(jar.value, conversation.at) != conversation.at:
            self.world.fail(Violation(f"{words}: its cookie leads to {self.cookies[jar.value]}"))
        home = self.cookies.get(jar.expected or "")
        if home is None:
            return
        if home == conversation.at:
            self.loyal += 1
        elif home not in self.disturbed:
            self.world.fail(Violation(f"{words}: its cookie leads to {home}, where nothing was wrong"))

    def judge(self, conversation: Conversation) -> None:
        """Check a conversation that is over. What is wrong fails the story."""
        self.judged += 1
        try:
            self._judge(conversation)
        except Violation as violation:
            self.world.fail(violation)

    def _judge(self, conversation: Conversation) -> None:
        session = self.world.witness.sessions.pop(conversation.who, None)
        words = f"conversation {conversation.number}"
        if not conversation.near.closed:
            raise Violation(f"{words}: the client's connection was never closed")
        if session is None:
            if conversation.status == 101:
                raise Violation(f"{words}: a session that was never counted")
            return
        words += f" (session {session.id}, {session.cause}, at {session.backend.url})"
        if session.ended_at is None:
            raise Violation(f"{words}: its connection is over and the session is not")
        client, backend = conversation.client, conversation.backend
        if conversation.at != session.backend.url or backend is None:
            raise Violation(f"{words}: it was at {conversation.at}")
        up, down = self._whole(conversation, session)
        if conversation.clean and not conversation.halved and not self._too_slow(conversation, session):
            assert client is not None
            if session.cause not in BY_PEERS | GOING | TOO_BIG:
                raise Violation(f"{words}: nobody had done it any harm")
            for name, talker, told in (
                ("client", client, session.relay.code_to_client),
                ("backend", backend, session.relay.code_to_backend),
            ):
                # A session whose time is over is cut by right, with what is on its way; one whose peers were
                # about to end it by themselves when a drain came, too.
                going = session.cause in GOING or (session.cause in BY_PEERS and session.relay.ending)
                cut = going and _is_over(session) and talker.code == 1006
                if talker.code != (told or 1006) and not cut:
                    raise Violation(f"{words}: the {name} got {talker.code}, and {told} was recorded")
                if talker.broke and session.cause in BY_PEERS and not session.relay.ending:
                    raise Violation(f"{words}: the {name}'s connection broke")
        conversation.up.finish(whole=up)
        conversation.down.finish(whole=down)
        if up and down:
            self.whole += 1
            for lane, pump in ((conversation.up, session.relay.up), (conversation.down, session.relay.down)):
                passed = lane.frames_received - lane.own_frames
                if pump.scanner.frames != passed:
                    raise Violation(
                        f"{words}: {pump.scanner.frames} frames counted, {passed} arrived on {lane.name}"
                    )

    @staticmethod
    def _too_slow(conversation: Conversation, session: Session) -> bool:
        """Return whether a ping was not answered by one who dozes over what came before it, for longer than is allowed."""
        unanswered = {"client": conversation.client, "backend": conversation.backend}.get(
            UNANSWERED.get(session.cause, "") if session.cause else ""
        )
        return unanswered is not None and unanswered.manner.dozes > 0

    def _whole(self, conversation: Conversation, session: Session) -> tuple[bool, bool]:
        """Return for both directions whether every byte that was sent must have arrived."""
        client, cause = conversation.client, session.cause
        if not conversation.clean or client is None:
            return False, False
        if conversation.halved:
            # All that was sent before goes through, and the end after it, where the connections can end one direction.
            legs = (conversation.near, conversation.backend.channel.peer) if conversation.backend else ()
            return cause is Cause.CLIENT_LOST and all(leg.can_half_close for leg in legs), False
        if cause in BY_PEERS:
            whole = not session.relay.ending
            return whole, whole
        if cause in GOING and client.said_close and client.code is not None:
            # What has not got through when the time for an answer is over is cut by right, after a Close of ours.
            told = conversation.up.close
            return not _is_over(session) and (told is None or not told.ours), False
        return False, False


def _is_over(session: Session) -> bool:
    """Whether its time was over when it ended."""
    return (session.ended_at or 0.0) >= session.relay._deadline - 0.05
