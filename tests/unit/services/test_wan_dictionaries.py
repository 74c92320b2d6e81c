"""wan-optimizer, small payloads: with a trained dictionary they become small, and never others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packetcloud.chunk.header import PayloadType
from packetcloud.chunk.messages import VerdictCode
from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.testing import ServiceHarness
from packetcloud.services.wan_optimizer import dictionaries
from packetcloud.services.wan_optimizer.dictionaries import (
    load_dictionary,
    read_samples,
    train_dictionary,
)


def message(number: int) -> bytes:
    return json.dumps(
        {"device": f"sensor-{number:04d}", "value": number * number % 977, "unit": "celsius",
         "location": {"building": "north", "room": number % 40}, "status": "nominal"}
    ).encode()  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a dictionary for such messages."""
    path = tmp_path_factory.mktemp("dictionary") / "messages.dict"
    path.write_bytes(train_dictionary([message(number) for number in range(300)], 4096))
    return path


def pair(**settings: str) -> tuple[ServiceHarness, ServiceHarness]:
    return (
        ServiceHarness("wan-optimizer", settings | {"direction": "compress"}),
        ServiceHarness("wan-optimizer", settings | {"direction": "decompress"}),
    )


def restored(behind: ServiceHarness, framed: bytes) -> bytes:
    return behind.process(framed, payload_type=PayloadType.COMPRESSED).payload


def test_small_messages_become_smaller_with_a_dictionary(trained: Path) -> None:
    """To less than half of what each makes alone, and come back as they were."""
    sizes = []
    for settings in ({}, {"dictionary": str(trained)}):
        ahead, behind = pair(**settings)
        with ahead, behind:
            total = 0
            for number in range(300, 350):
                framed = ahead.process(message(number)).payload
                assert restored(behind, framed) == message(number)
                total += len(framed)
            sizes.append(total)
    assert sizes[1] < sizes[0] / 2


def test_payloads_that_the_dictionary_does_not_suit(trained: Path) -> None:
    """Empty, noise, large: they pass all the same."""
    ahead, behind = pair(dictionary=str(trained))
    with ahead, behind:
        for payload in (b"", b"x", bytes(range(256)), message(1) * 400):
            assert restored(behind, ahead.process(payload).payload) == payload


def test_a_dictionary_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    """Its id stands in the reason; another one is never taken for it."""
    other = tmp_path / "other"
    other.write_bytes(train_dictionary([message(n) * 2 + b"!" for n in range(300)], 2048))
    ahead, _ = pair(dictionary=str(trained))
    with ahead:
        framed = ahead.process(message(1)).payload
    trained_id = load_dictionary(trained).dictionary_id
    for settings, text in (({}, "nor any other"), ({"dictionary": str(other)}, "only ")):
        _, behind = pair(**settings)
        with behind:
            result = behind.process(framed, payload_type=PayloadType.COMPRESSED)
        assert result.code is VerdictCode.DROP and not result.again
        assert f"dictionary {trained_id:08x} is not here, {text}" in result.reason


def test_what_is_no_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the file."""
    path = tmp_path / "d"
    with pytest.raises(ServiceConfigError, match="cannot read dictionary"):
        load_dictionary(path)
    for content in (b"", b"no dictionary at all", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ServiceConfigError, match="is no trained dictionary"):
            load_dictionary(path)
    monkeypatch.setattr(dictionaries, "MAX_DICTIONARY_BYTES", 999)
    with pytest.raises(ServiceConfigError, match="has over 999 bytes"):
        load_dictionary(path)


def test_samples_are_files_or_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones teach nothing; too many bytes are refused."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\ntwo\n")
    assert read_samples([path], lines=True) == [b"one", b"two"]
    assert read_samples([path, path], lines=False) == [b"one\n\ntwo\n"] * 2
    with pytest.raises(
        ServiceConfigError, match="2 samples of 6 bytes; a dictionary needs 8 or more"
    ):
        train_dictionary(read_samples([path], lines=True))
    with pytest.raises(ServiceConfigError, match="cannot train on these 8 samples"):
        train_dictionary([bytes(512)] * 8, 10)
    with pytest.raises(ServiceConfigError, match="cannot read"):
        read_samples([tmp_path / "none"], lines=True)
    monkeypatch.setattr(dictionaries, "MAX_SAMPLES_BYTES", 10)
    with pytest.raises(ServiceConfigError, match="give fewer"):
        read_samples([path, path], lines=True)
