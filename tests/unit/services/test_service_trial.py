"""Services without a network: trials, the authors' harness, and the scaffold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from packetcloud.chunk.messages import VerdictCode
from packetcloud.chunk.names import NA
from packetcloud.services.catalogue import find_service
from packetcloud.services.errors import ServiceConfigError, ServiceMisuseError
from packetcloud.services.scaffold import create_service
from packetcloud.services.testing import HARNESS_DESTINATION, ServiceHarness
from packetcloud.services.trial import (
    GeneratedKind,
    file_payloads,
    generated_payloads,
    run_pair,
    run_trial,
)

MANIFEST = """\
manifest = 1
[service]
name = "odd"
version = "0.0.1"
entry_point = "odd_service:{name}"
[behaviour]
fail_policy = "open"
"""
MODULE = '''\
import asyncio
from packetcloud.services.sdk import EmittedChunk, NetworkService, Verdict


class Deciding(NetworkService):
    """Does what the payload says."""

    def process(self, chunk, context):
        word = bytes(chunk.payload).decode()
        if word == "emit":
            return Verdict.emit([EmittedChunk(chunk.header.source, b"one")], keep=True)
        if word == "redirect":
            return Verdict.redirect(chunk.header.source)
        if word == "fail":
            raise RuntimeError("as told")
        if word == "echo":
            return Verdict.update(context.chunk_parameters)
        return Verdict.forward() if word else Verdict.drop("no word")


class Waiting(NetworkService):
    async def process(self, chunk, context):
        await asyncio.sleep(0)
        return Verdict.update(b"waited for " + bytes(chunk.payload))
'''


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return the manifest of a service that does what it is told."""
    (tmp_path / "odd_service.py").write_text(MODULE)
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(MANIFEST.format(name="Deciding"))
    return manifest


@pytest.fixture(autouse=True)
def _forget_module() -> None:
    sys.modules.pop("odd_service", None)


def test_the_harness_reads_every_kind_of_verdict(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the router would, from its wire form."""
    monkeypatch.syspath_prepend(str(odd.parent))
    with ServiceHarness(odd) as harness:
        emitted = harness.process(b"emit")
        assert (emitted.code, emitted.keep) == (VerdictCode.EMIT, True)
        assert [chunk.payload for chunk in emitted.emitted] == [b"one"]
        assert emitted.emitted[0].header.source.is_zero
        assert harness.process(b"redirect").redirect is not None
        failed = harness.process(b"fail")
        assert (failed.code, failed.reason) == (VerdictCode.FAILED, "RuntimeError: as told")
        assert harness.process(b"").reason == "no word"
        assert harness.process(b"echo", parameters=b"for you").payload == b"for you"
        forwarded = harness.process(b"go", destination=HARNESS_DESTINATION)
        assert (forwarded.code, forwarded.payload) == (VerdictCode.FORWARD, b"")
        assert forwarded.redirect is None
        target = harness.process(b"redirect").redirect
        assert target is not None
        assert target[1] == NA(0)


def test_the_harness_awaits_a_coroutine(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`async def process` works the same without the author's own event loop."""
    monkeypatch.syspath_prepend(str(odd.parent))
    odd.write_text(MANIFEST.format(name="Waiting"))
    with ServiceHarness(odd) as harness:
        assert harness.process(b"you").payload == b"waited for you"
        assert harness.process(b"me").payload == b"waited for me"


def test_the_harness_refuses_what_the_runtime_would_refuse() -> None:
    """A chunk over the limit never reaches `process`."""
    with (
        ServiceHarness("wan-optimizer", {"direction": "compress"}, max_payload_bytes=10) as harness,
        pytest.raises(ServiceMisuseError, match="payload_too_large"),
    ):
        harness.process(bytes(2000))


@pytest.mark.parametrize("kind", list(GeneratedKind))
def test_a_pair_gives_back_what_went_in(kind: GeneratedKind) -> None:
    """compress -> decompress on every kind of made-up data, the same for the same seed."""
    payloads = list(generated_payloads(kind, 3, 10_000, seed=7))
    assert payloads == list(generated_payloads(kind, 3, 10_000, seed=7))
    result = run_pair(find_service("wan-optimizer"), {}, payloads)
    assert result.differing_count == 0
    assert result.first.chunks_count == result.second.chunks_count == 3
    assert result.first.input_bytes == result.second.output_bytes == 30_000
    assert (result.first.ratio < 0.5) == (kind in (GeneratedKind.TEXT, GeneratedKind.ZEROS))


def test_a_pair_notices_what_does_not_come_back() -> None:
    """Here because the second direction refuses the first one's ratio."""
    found = find_service("wan-optimizer")
    payloads = [memoryview(bytes(5000))]
    assert run_pair(found, {"max_original_bytes": "4000"}, payloads).differing_count == 1


def test_a_service_without_a_pair_says_so(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--pair` needs the manifest's word for it."""
    with pytest.raises(ServiceConfigError, match=r"no \[pair\]"):
        run_pair(find_service(str(odd)), {}, [])


def test_a_trial_counts_verdicts_reasons_and_times(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chunk is in one count, every reason is told."""
    monkeypatch.syspath_prepend(str(odd.parent))
    words = [b"go", b"", b"fail", b"emit", b"", b"redirect"]
    report = run_trial(find_service(str(odd)), {}, [memoryview(word) for word in words])
    assert dict(report.verdicts) == {"forward": 1, "drop": 2, "failed": 1, "emit": 1, "redirect": 1}
    assert dict(report.reasons) == {"no word": 2, "RuntimeError: as told": 1}
    document = report.to_dict()
    assert document["chunks"] == 6
    assert document["output_bytes"] == len("go") + len("emit") + len("one") + len("redirect")
    assert 0 < report.percentile_ms(0.5) <= report.percentile_ms(0.99) <= report.percentile_ms(1)
    assert report.throughput_mib_s > 0


def test_a_file_is_cut_into_chunks(tmp_path: Path) -> None:
    """The last one may be shorter; an empty file is one empty chunk."""
    path = tmp_path / "data"
    path.write_bytes(b"0123456789")
    assert [bytes(piece) for piece in file_payloads(path, 4)] == [b"0123", b"4567", b"89"]
    path.write_bytes(b"")
    assert [bytes(piece) for piece in file_payloads(path, 4)] == [b""]


# `service new`


def test_the_scaffold_runs(tmp_path: Path) -> None:
    """What an author starts from works as it is."""
    files = create_service("hello-world", tmp_path)
    with ServiceHarness(files[0]) as harness:
        assert harness.process(b"you").payload == b"hello you"


@pytest.mark.parametrize("name", ["", "Hello", "hello_world", "../x", "a" * 64, "a--b"])
def test_the_scaffold_takes_service_names_only(tmp_path: Path, name: str) -> None:
    """The folder has the service's name, so nothing else may get there."""
    with pytest.raises(ServiceConfigError, match="not a service name"):
        create_service(name, tmp_path)


def test_the_scaffold_overwrites_nothing(tmp_path: Path) -> None:
    """A second time is an error."""
    create_service("hello", tmp_path)
    with pytest.raises(ServiceConfigError, match="exists already"):
        create_service("hello", tmp_path)
