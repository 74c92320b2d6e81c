"""Documents on their way in: bounded in number, size and time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from packetcloud.router.errors import RuleUploadError
from packetcloud.router.rules import uploads as module
from packetcloud.router.rules.uploads import MAX_UPLOADS_COUNT, Uploads


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _endless(first: bytes) -> AsyncIterator[bytes]:
    yield first
    await asyncio.Event().wait()


@pytest.mark.parametrize("sizes", [(), (1,), (100_000,) * 30, (3 << 20,)])
def test_a_document_comes_whole(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Byte for byte, however it is cut, and the file is gone afterwards."""
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    async def run() -> None:
        uploads = Uploads(tmp_path, 1 << 30)
        async with uploads.receive(_pieces(*pieces)) as path:
            assert path.read_bytes() == b"".join(pieces)
        assert not path.exists() and uploads.open_count == 0

    asyncio.run(run())


@pytest.mark.parametrize(("size", "is_taken"), [(1000, True), (1001, False)])
def test_a_document_is_no_longer_than_allowed(tmp_path: Path, size: int, is_taken: bool) -> None:
    """At the cap it is taken, one byte more is refused, counted, and leaves nothing."""

    async def run() -> None:
        uploads = Uploads(tmp_path, 1000)
        try:
            async with uploads.receive(_pieces(bytes(size - 1), b"x")) as path:
                assert is_taken and path.stat().st_size == size
        except RuleUploadError as error:
            assert not is_taken and error.status == 413
        assert uploads.refused_count == (not is_taken) and uploads.open_count == 0
        assert [*(tmp_path / "uploads").iterdir()] == []

    asyncio.run(run())


def test_no_more_documents_at_a_time_than_allowed(tmp_path: Path) -> None:
    """At the cap all are written; one more is told to try again, until a place is free."""

    async def run() -> None:
        uploads = Uploads(tmp_path, 1000)
        waiting = [asyncio.Event() for _ in range(MAX_UPLOADS_COUNT)]

        async def take(done: asyncio.Event) -> None:
            async with uploads.receive(_pieces(b"x")):
                await done.wait()

        tasks = [asyncio.create_task(take(done)) for done in waiting]
        while uploads.open_count < MAX_UPLOADS_COUNT:
            await asyncio.sleep(0)
        with pytest.raises(RuleUploadError) as refused:
            async with uploads.receive(_pieces(b"x")):
                raise AssertionError("it must not be lent")
        assert refused.value.status == 429 and uploads.refused_count == 1
        waiting[0].set()
        await tasks[0]
        async with uploads.receive(_pieces(b"x")) as path:
            assert path.exists()
        for done in waiting:
            done.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_document_that_does_not_go_on_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that says nothing more keeps no place."""
    monkeypatch.setattr(module, "PIECE_LIMIT_S", 0.01)

    async def run() -> None:
        uploads = Uploads(tmp_path, 1000)
        with pytest.raises(RuleUploadError) as refused:
            async with uploads.receive(_endless(b"x")):
                raise AssertionError("it must not be lent")
        assert refused.value.status == 408 and uploads.open_count == 0

    asyncio.run(run())


def test_what_a_killed_process_left_is_never_written_over(tmp_path: Path) -> None:
    """It may be kept as evidence under another name; it is removed before the first document."""
    evidence = tmp_path / "evidence"
    evidence.write_bytes(b"signed")
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "1").hardlink_to(evidence)

    async def run() -> None:
        uploads = Uploads(tmp_path, 1000)
        with pytest.raises(RuleUploadError, match="File exists") as refused:
            async with uploads.receive(_pieces(b"other")):
                raise AssertionError("it must not be lent")
        assert refused.value.status == 503
        uploads = Uploads(tmp_path, 1000)
        letter = tmp_path / "uploads" / "letter.txt"
        letter.write_text("of somebody else")
        uploads.clear()
        assert list(letter.parent.iterdir()) == [letter]
        async with uploads.receive(_pieces(b"other")) as path:
            assert path.read_bytes() == b"other"
        assert evidence.read_bytes() == b"signed"

    asyncio.run(run())


def test_the_loop_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are made, written and removed in other threads than the loop's."""
    threads: list[tuple[str, bool]] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **more: Any) -> Any:
            threads.append((name, threading.current_thread() is threading.main_thread()))
            return call(*args, **more)

        return noting

    for name in ("_new_file", "_write_all"):
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    for name in ("mkdir", "unlink"):
        monkeypatch.setattr(Path, name, noted(name, getattr(Path, name)))

    async def run() -> None:
        async with Uploads(tmp_path, 1 << 30).receive(_pieces(b"document")) as path:
            assert path.read_bytes() == b"document"

    asyncio.run(run())
    assert {name for name, _ in threads} == {"_new_file", "_write_all", "mkdir", "unlink"}
    assert not any(is_on_loop for _, is_on_loop in threads)
