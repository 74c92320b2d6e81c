"""Files over chunks: `FileTransfers` sends files and receives them into a folder, on one endpoint.

A file of any size goes out as an offer, data chunks of about 1 MiB and a digest; the receiver says
what it misses, so that either side may be restarted in between. Layers: `file_format` (messages),
`file_sender` and `incoming` (what to do, without I/O), `source_file`, `part_file` and
`inbox_folder` (disk), `outgoing_file` and `file_receiver` (shells).
Source: docs/protocol/file-transfer.md; docs/reference/host.md, "Files".
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

from packetcloud.chunk.errors import LocalMisuseError, ProtocolError
from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.names import GUID, SID
from packetcloud.host.endpoint import Endpoint
from packetcloud.host.endpoint_core import DEFAULT_LIFETIME_S
from packetcloud.host.file_format import (
    DATA_HEADER_BYTES,
    TRANSFER_ID_BYTES,
    Answer,
    decode_message,
)
from packetcloud.host.file_receiver import (
    FileReceiver,
    ReceivedFile,
    ReceiveProgress,
    ReceiveRules,
)
from packetcloud.host.file_sender import (
    DEFAULT_CHUNK_BYTES,
    DEFAULT_STALL_S,
    DEFAULT_WINDOW_BYTES,
    SendPlan,
)
from packetcloud.host.header_template import SendOptions
from packetcloud.host.inbox_folder import InboxFolder
from packetcloud.host.outgoing_file import OutgoingFile, SendProgress, SentFile
from packetcloud.host.promise import Promise
from packetcloud.host.reactor import Reactor
from packetcloud.host.received import ReceivedChunk
from packetcloud.host.source_file import SourceFile

MIN_CHUNK_BYTES = 1024
"""Smaller pieces would be mostly headers."""
MAX_CHUNK_BYTES = (1 << 20) - DATA_HEADER_BYTES
"""The routers' limit of 1 MiB less the message header; leaves no room for services that add."""
MAX_WINDOW_COUNT = 1024

__all__ = [
    "DEFAULT_CHUNK_BYTES",
    "FileReceiver",
    "FileTransfers",
    "ReceiveProgress",
    "ReceiveRules",
    "ReceivedFile",
    "SendProgress",
    "SentFile",
]


class FileTransfers:
    """All file transfers of one endpoint; takes its chunks of payload type FILE."""

    def __init__(self, reactor: Reactor, endpoint: Endpoint) -> None:
        self.counters: Counter[str] = Counter()
        self._reactor = reactor
        self._endpoint = endpoint
        self._outgoing: dict[tuple[bytes, bytes], OutgoingFile] = {}
        self._receiver: FileReceiver | None = None
        self._early: list[ReceivedChunk] | None = None
        """What arrives while the folder is being opened: a running sender does not wait."""
        endpoint.on_chunks(self._take, PayloadType.FILE)

    def send(
        self,
        path: Path,
        destination: GUID,
        *,
        name: str | None = None,
        services: Sequence[SID] = (),
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        stall_s: float = DEFAULT_STALL_S,
        resume: bool = False,
        on_progress: Callable[[SendProgress], None] | None = None,
    ) -> Promise[SentFile]:
        """Send the file at `path`; the promise is kept when the receiver has it, checked.

        `services`: every chunk of the file goes through them, in this order. `resume`: go on with
        what the receiver kept of the same file (same name, size and change time). `stall_s`: give
        up when nothing moves for so long. Cancelling the promise stops the transfer.

        Raises (at once):
            LocalMisuseError: `chunk_bytes` out of range.
            TransferError: the file cannot be read.
        When awaited: TransferError, with the reason; `resumable` says whether a later try with
        `resume` goes on where this one ended.
        """
        if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
            raise LocalMisuseError(
                f"chunk_bytes {chunk_bytes}: allowed {MIN_CHUNK_BYTES}..{MAX_CHUNK_BYTES}"
            )
        source = SourceFile(path)
        offered = path.name if name is None else name
        plan = SendPlan(
            transfer_id=secrets.token_bytes(TRANSFER_ID_BYTES),
            file_key=source.key(offered),
            name=offered,
            size_bytes=source.size_bytes,
            chunk_bytes=chunk_bytes,
            window_count=max(2, min(MAX_WINDOW_COUNT, DEFAULT_WINDOW_BYTES // chunk_bytes)),
            stall_s=stall_s,
            resume=resume,
        )
        options = SendOptions(
            destination=destination, services=tuple(services), payload_type=PayloadType.FILE
        )
        outgoing = OutgoingFile(
            self._reactor, self._endpoint, source, plan, options, lifetime_s, on_progress
        )
        key = (destination.value, plan.transfer_id)
        self._outgoing[key] = outgoing
        outgoing.done.addBoth(self._sent, key)
        outgoing.start()
        return outgoing.done

    def receive(
        self,
        folder: Path,
        *,
        allowed: Iterable[GUID] | None = None,
        max_bytes: int | None = None,
        overwrite: bool = False,
        sync_disk: bool = True,
        on_file: Callable[[ReceivedFile], None] | None = None,
        on_progress: Callable[[ReceiveProgress], None] | None = None,
    ) -> Promise[FileReceiver]:
        """Receive files into `folder` from now on, until the receiver is closed.

        Raises (when awaited):
            HostError: the folder cannot be used, or another receiver uses it.
        """
        if self._receiver is not None or self._early is not None:
            raise LocalMisuseError("these transfers have a receiver already")
        sources = None if allowed is None else frozenset(allowed)
        rules = ReceiveRules(sources, max_bytes, overwrite, sync_disk)
        inbox = InboxFolder(folder, sync_disk=sync_disk)
        self._early = []
        return Promise.from_coroutine(self._receive(inbox, rules, on_file, on_progress))

    async def _receive(
        self,
        inbox: InboxFolder,
        rules: ReceiveRules,
        on_file: Callable[[ReceivedFile], None] | None,
        on_progress: Callable[[ReceiveProgress], None] | None,
    ) -> FileReceiver:
        reactor: Any = self._reactor
        try:
            await deferToThreadPool(reactor, reactor.getThreadPool(), inbox.open)
            receiver = FileReceiver(
                self._reactor, self._endpoint, inbox, rules, on_file, on_progress
            )
            self._receiver = receiver
        finally:
            early, self._early = self._early or [], None
            self._take(early)
        return receiver

    def _take(self, batch: list[ReceivedChunk]) -> None:
        for chunk in batch:
            try:
                message = decode_message(chunk.payload)
            except ProtocolError as error:
                self.counters[f"malformed_{error.reason}_total"] += 1
                chunk.refuse(
                    f"{error.reason}: this is no file-transfer message; did a service change it "
                    "(encrypt, compress) without its counterpart at the end of the sequence?"
                )
                chunk.release()
                continue
            if isinstance(message, Answer):
                self._take_answer(chunk, message)
            elif self._early is not None:
                chunk.defer()
                self._early.append(chunk)
            elif self._receiver is None:
                chunk.refuse("no_receiver: this host receives no files")
                chunk.release()
            else:
                self._receiver.take(chunk, message)

    def _take_answer(self, chunk: ReceivedChunk, answer: Answer) -> None:
        outgoing = self._outgoing.get((chunk.header.source.value, answer.transfer_id))
        chunk.release()
        if outgoing is None:
            self.counters["answers_unsolicited_total"] += 1
        else:
            outgoing.answered(answer)

    def _sent(self, result: Any, key: tuple[bytes, bytes]) -> Any:
        self._outgoing.pop(key, None)
        return result
