"""The size of full datagrams in a session, agreed on by STRIDE frames, each way by itself.

The path is asked by padded probes, which the neighbour answers in small datagrams; a change is told
until the neighbour has confirmed it and what was under way in the old size is settled or taken
back.

Source: docs/protocol/hop.md, "Size of datagrams".
"""

from __future__ import annotations

from collections.abc import Iterator

from packetcloud.chunk.hop import wire
from packetcloud.chunk.hop.envelope import Envelope
from packetcloud.chunk.hop.path_mtu import PathMtu
from packetcloud.chunk.hop.receiver import Receiver
from packetcloud.chunk.hop.rtt import RttEstimator
from packetcloud.chunk.hop.sender import Sender


class StrideNegotiation:
    """Both directions of one sealed session.

    Args:
        stride: what both sides and their routes take.
        envelope: is made to let probes of that size in.
    """

    def __init__(
        self,
        stride: int,
        envelope: Envelope,
        sender: Sender,
        receiver: Receiver,
        rtt: RttEstimator,
        now: float,
    ) -> None:
        self._envelope = envelope
        self._sender = sender
        self._receiver = receiver
        self._rtt = rtt
        self._mtu = PathMtu(stride, now)
        self._arrived_bytes: int | None = None
        """The size of a probe that arrived, to be said."""
        self._changed: tuple[int, int] | None = None
        """The size of datagrams that the neighbour changed to, and its number, to be confirmed."""
        envelope.max_probe_bytes = max(stride, wire.MAX_CONTROL_BYTES)

    @property
    def fallbacks(self) -> int:
        """How often the path turned out not to take what its routes promise."""
        return self._mtu.fallbacks

    def restart(self, now: float) -> None:
        """The path is another one now."""
        self._mtu.restart(now)

    def note_heard(self) -> None:
        """The neighbour acknowledged something small."""
        self._mtu.note_heard()

    def receive(self, frame: wire.StrideFrame) -> None:
        """Take in what the neighbour says. Raises: ProtocolError."""
        match frame.step:
            case wire.StrideStep.PROBE:
                self._arrived_bytes = frame.stride_bytes
            case wire.StrideStep.ARRIVED:
                self._mtu.note_arrived(frame.stride_bytes)
                self._sender.departures.large_since = None
            case wire.StrideStep.CHANGE:
                self._receiver.change_stride(frame)
                self._changed = frame.stride_bytes, frame.burst
            case wire.StrideStep.CHANGED:
                self._sender.stride_changed(frame.stride_bytes, frame.burst)

    def datagrams(self, now: float) -> Iterator[bytes]:
        """Yield what is to be said about the size of datagrams."""
        control = self._envelope.control
        mtu, sender, silence = self._mtu, self._sender, self._sender.silence
        patience_s = self._rtt.probe_timeout_s(0)
        if self._arrived_bytes is not None:
            arrived = wire.StrideFrame(wire.StrideStep.ARRIVED, self._arrived_bytes)
            yield control([arrived.to_bytes()])
        if self._changed is not None:
            changed = wire.StrideFrame(wire.StrideStep.CHANGED, *self._changed)
            yield control([changed.to_bytes()])
        self._arrived_bytes = self._changed = None
        if silence.may_ask(now):
            mtu.suspect(sender.departures.large_since, patience_s, now)
            if mtu.must_ask(patience_s, now):
                if sender.flight.unanswered_since is None:
                    silence.asked(now)
                    yield control([sender.flight.probe(now)])
            elif (probe_bytes := mtu.probe_bytes(patience_s, now)) is not None:
                silence.asked(now)
                yield self._envelope.probe(probe_bytes)
        sender.change_stride(mtu.stride_bytes)
        for frame in sender.stride_frames(patience_s, now):
            yield control([frame])

    def next_timeout(self) -> float:
        """Return when `datagrams` has something to say at the latest."""
        mtu, sender = self._mtu, self._sender
        patience_s = self._rtt.probe_timeout_s(0)
        deadline = mtu.next_timeout()
        change_at = sender.stride_at(patience_s)
        if change_at is not None:
            deadline = min(deadline, change_at)
        suspect_at = mtu.suspect_at(sender.departures.large_since, patience_s)
        if suspect_at is not None:
            deadline = min(deadline, suspect_at)
        return max(deadline, sender.silence.until)
