"""What other rooms program against: bodies in, bodies out, neighbours up and down.

Everything here is called and calls back on the reactor's thread. The shell that implements it is
`hop.udp.HopNode`. Source: docs/protocol/hop.md, "The promise".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol, TypeVar

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.chunk.hop.datagrams import MAX_BODY_BYTES
from packetcloud.chunk.hop.rekey import REKEY_AFTER_BYTES, REKEY_AFTER_S
from packetcloud.chunk.hop.suites import parse_networks
from packetcloud.chunk.messages import BodyKind
from packetcloud.chunk.names import GUID

Buffer = bytes | bytearray | memoryview
FoundT = TypeVar("FoundT")

MAX_PREFIX_BYTES = 1100
"""What may stand before a payload: less than a datagram that every path carries."""


class Role(IntEnum):
    """What a neighbour says it is; its signature covers the claim."""

    HOST = 1
    ROUTER = 2
    SERVICE = 3


class Settlement(Enum):
    """How a sent body ended."""

    ACCEPTED = "accepted"
    """The neighbour took custody."""
    REFUSED = "refused"
    """The neighbour has it whole and refuses it; a reason comes with this."""
    LOST = "lost"
    """The session ended, or the sender cancelled, before the neighbour answered: it may or may not
    have taken custody."""
    CANCELLED = "cancelled"
    """The sender cancelled it before the neighbour had it whole."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A receiver's "no" to one body: a `reasons.Reason` number."""

    reason: int


class Deferral(Enum):
    """A receiver's "not yet" to one body: it decides by `Neighbour.decide`."""

    PENDING = "pending"
    """The sender neither sends it again nor gives it up meanwhile."""


class Body(Protocol):
    """The bytes of one received body, in a buffer that is reused once it is released.

    Whoever holds a body last calls `release()`; not calling it costs memory, never correctness.
    Nothing read from it (memoryviews) may be used after `release()`.
    """

    @property
    def flow(self) -> int:
        """The label that its sender gave it; 0 for none."""

    def __len__(self) -> int: ...

    def head(self, count: int) -> bytes:
        """Return a copy of the first `count` bytes (fewer if the body is shorter)."""

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite bytes in place, inside the first 1024 bytes of the body."""

    def contiguous(self) -> memoryview:
        """Return the whole body as one writable memoryview; copies once if it lies scattered."""

    def look(self, at: Callable[[memoryview], FoundT]) -> FoundT:
        """Return what `at` finds in the whole body, which stays as it lies.

        The bytes are those of a moment: nothing of them may be kept or changed.
        """

    def release(self) -> None: ...


class Neighbour(Protocol):
    """An established session with a neighbour whose signature was checked."""

    guid: GUID
    role: Role
    instance: int
    """Which of several bearers of its key it is, by its own word (32 bit)."""
    is_up: bool

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def queued_bytes(self) -> int:
        """Bytes handed to `send*` and not settled yet."""

    def send(
        self,
        kind: BodyKind,
        prefix: bytes,
        payload: Buffer,
        token: object,
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        """Queue the body prefix ‖ payload. `payload` must not change until it is settled.

        A `background` body (migration, prefetch) leaves when nothing else is to be sent, and slows
        down before anybody else on the path has to.

        `token` is handed back at settlement and names the body to `cancel`: any object that is in
        use for one body at a time. A prefix has at most `MAX_PREFIX_BYTES`.

        `flow`: a label of 16 bits for what may wait without the rest having to; 0 for none. While
        the neighbour has no room for a flow (`is_busy`), its bodies wait here, and the others go.

        Raises:
            LocalMisuseError: the session has ended; or kind, prefix or flow is beyond what travels.
        """

    def send_body(
        self,
        kind: BodyKind,
        body: Body,
        token: object,
        prefix: bytes = b"",
        *,
        flow: int = 0,
        background: bool = False,
    ) -> None:
        """Queue prefix ‖ a received body, without copying where both hops use the same segment
        size and there is no prefix. The body must not be patched or sent elsewhere until settled.
        """

    def cancel(self, token: object) -> None:
        """Give up a queued or partly sent body; settles CANCELLED while the neighbour cannot have
        it whole, else LOST, or ACCEPTED if that is known already."""

    def is_busy(self, flow: int) -> bool:
        """Tell whether the neighbour said that it has no room for `flow` now."""

    def decide(self, body: Body, refusal: Refusal | None = None) -> None:
        """Take custody of a body that was `Deferral.PENDING`, or refuse it, which releases it.

        Too late, with no effect on what the sender is told, once the session has ended or the
        sender has given the body up: to him it is lost or cancelled, so he may send it again.
        """

    def close(self, reason: str = "") -> None: ...


class HopReceiver(Protocol):
    """The layer above a hop node."""

    def neighbour_up(self, neighbour: Neighbour) -> None:
        """A session is established, inbound or outbound."""

    def neighbour_down(self, neighbour: Neighbour, reason: str) -> None:
        """A session ended. Every unsettled body was settled LOST just before."""

    def body_received(
        self, neighbour: Neighbour, kind: BodyKind, body: Body
    ) -> Refusal | Deferral | None:
        """A whole body arrived. None: custody is ours from now on. Refusal: it is not, and the
        body is released by the caller. Deferral: `neighbour.decide` will tell; pending bodies use
        up the session's window of open transfers, so decide within a second or so."""

    def body_settled(
        self, neighbour: Neighbour, token: object, settlement: Settlement, reason: int
    ) -> None:
        """A body given to `send*` ended; `reason` is a Reason number when REFUSED, else 0."""


@dataclass(frozen=True, slots=True)
class HopConfig:
    """Settings of a hop node; every number has a unit in its name."""

    max_body_bytes: int = (1 << 20) + 2048
    """Largest body accepted: 1 MiB of payload and its headers; a larger one is refused unread."""
    max_datagram_bytes: int = 0
    """Largest datagram sent; 0 = from the MTU of the route. Both sides agree on the smaller."""
    receive_buffer_bytes: int = 8 << 20
    """Kernel socket buffer to ask for, each direction; what is granted bounds the window."""
    credit_bytes: int = 24 << 20
    """Bytes of bodies that one neighbour may have unsettled or unreleased here."""
    flow_credit_bytes: int = 16 << 20
    """The same for one flow of a neighbour: two thirds, so that one flow that stops leaves room for
    others, and 10 Gbit/s times 13 ms for one that does not. Less while little of the neighbour's
    credit is free (`flow_credit`)."""
    max_held_bytes: int = 1 << 30
    """The same for all neighbours together; beyond it bodies are refused `store_full`, unread."""
    max_neighbours_count: int = 1024
    idle_timeout_s: float = 15.0
    """A neighbour that answers nothing for so long is down."""
    keepalive_s: float = 3.0
    private_links: tuple[str, ...] = ()
    """Networks (`192.0.2.0/24`) whose links are private: nobody else can read or write there.
    Towards a neighbour in one of them, and that says the same, a session is open: neither sealed
    nor checked."""
    rekey_after_s: float = REKEY_AFTER_S
    """A sealed session gets new keys after so long,"""
    rekey_after_bytes: int = REKEY_AFTER_BYTES
    """or after so many bytes in one direction."""
    instance: int = 0
    """Which of several bearers of one key this node is (32 bit). A new session of the same GUID and
    instance replaces the old one, so a restarted VI takes its predecessor's place at once."""

    def __post_init__(self) -> None:
        """Raises: LocalMisuseError when a body may be larger than a header can say, or a private
        link is no network."""
        if not 1 <= self.max_body_bytes <= MAX_BODY_BYTES:
            raise LocalMisuseError(
                f"max_body_bytes = {self.max_body_bytes}; allowed: 1 to {MAX_BODY_BYTES}"
            )
        try:
            parse_networks(self.private_links)
        except ValueError as error:
            raise LocalMisuseError(f"private_links: {error}") from None


AdmitNeighbour = Callable[[GUID, Role, int], str | None]
"""Asked before an inbound neighbour of this instance is up: None admits it, a text refuses it."""
