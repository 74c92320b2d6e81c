"""Identities: signatures bound to a purpose, and key files nobody else can read or replace."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from packetcloud.chunk.errors import IdentityError, LocalMisuseError
from packetcloud.chunk.identity import (
    MAX_KEY_FILE_BYTES,
    Identity,
    create_identity_file,
    load_identity_file,
    verify,
)
from packetcloud.chunk.names import GUID, SID

ALICE = Identity(bytes(32))
MALLORY = Identity(bytes([1]) * 32)


def test_a_signature_verifies_only_as_made() -> None:
    """Another key, domain, message or signature does not verify."""
    signature = ALICE.sign(b"hello", b"message")
    assert len(signature) == 64
    assert verify(ALICE.public_key, b"hello", b"message", signature)
    assert not verify(MALLORY.public_key, b"hello", b"message", signature)
    assert not verify(ALICE.public_key, b"hellp", b"message", signature)
    assert not verify(ALICE.public_key, b"hello", b"massage", signature)
    for index in range(64):
        damaged = bytearray(signature)
        damaged[index] ^= 1
        assert not verify(ALICE.public_key, b"hello", b"message", bytes(damaged))


def test_domain_and_message_do_not_run_together() -> None:
    """Bytes moved from the domain to the message make another signature (T-03)."""
    signature = ALICE.sign(b"ab", b"c")
    assert not verify(ALICE.public_key, b"a", b"bc", signature)
    assert not verify(ALICE.public_key, b"abc", b"", signature)


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65])
def test_verify_says_no_to_wrong_lengths(length: int) -> None:
    """A peer's key or signature of any other length is a "no", not an exception."""
    signature = ALICE.sign(b"d", b"m")
    assert not verify(bytes(length), b"d", b"m", signature)
    assert not verify(ALICE.public_key, b"d", b"m", bytes(length))


def test_verify_says_no_to_points_off_the_curve() -> None:
    """A public key that is no point, or of low order, verifies nothing."""
    for key in (b"\xff" * 32, bytes(32), b"\x01" + bytes(31)):
        assert not verify(key, b"d", b"m", bytes(64))


def test_a_domain_has_at_most_255_bytes() -> None:
    """255 bytes sign; 256 would need a second length byte and are our own mistake."""
    assert verify(ALICE.public_key, b"d" * 255, b"m", ALICE.sign(b"d" * 255, b"m"))
    with pytest.raises(LocalMisuseError):
        ALICE.sign(b"d" * 256, b"m")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_has_32_bytes(length: int) -> None:
    """Any other seed is refused when the identity is made, not when it is used."""
    with pytest.raises(LocalMisuseError):
        Identity(bytes(length))


def test_the_seed_does_not_show() -> None:
    """Logs and tracebacks print the repr; the secret is not in it."""
    secret = Identity(bytes(range(32)))
    assert secret.seed.hex() not in repr(secret) and repr(secret.seed) not in repr(secret)


def test_an_identity_owns_its_names() -> None:
    """GUID and SID are the same 20 bytes, derived from the public key."""
    assert ALICE.guid == GUID.from_public_key(ALICE.public_key)
    assert ALICE.sid == SID(ALICE.guid.value)
    assert Identity(bytes(32)) == ALICE != MALLORY


def test_generated_identities_differ() -> None:
    """Two identities never share a key."""
    assert Identity.generate() != Identity.generate()


def test_a_key_file_round_trips(tmp_path: Path) -> None:
    """What was created is what is loaded; mode 0600 whatever the umask; no other file remains."""
    path = tmp_path / "host.key"
    umask = os.umask(0)
    try:
        created = create_identity_file(path)
    finally:
        os.umask(umask)
    assert load_identity_file(path) == created
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", ["file", "folder", "dangling link"])
def test_an_existing_file_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    """Whatever has the name stays as it is, and nothing is left beside it."""
    path = tmp_path / "host.key"
    match existing:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityError, match="exists already"):
        create_identity_file(path)
    assert list(tmp_path.iterdir()) == [path]
    assert existing != "file" or path.read_text() == "precious"


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    """Creators at the same moment: one key is written whole, everyone else is told so."""
    path = tmp_path / "host.key"
    made: list[Identity] = []
    refused: list[IdentityError] = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait()
        try:
            made.append(create_identity_file(path))
        except IdentityError as error:
            refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7
    assert all("exists already" in str(error) for error in refused)
    assert load_identity_file(path) == made[0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_before_the_end_leaves_no_key_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the content is on the disk the name does not exist; what was begun is put away."""
    path = tmp_path / "host.key"

    def fail(descriptor: int) -> None:
        assert not path.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IdentityError, match=r"cannot write .*No space left"):
        create_identity_file(path)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_do_not_disturb(tmp_path: Path) -> None:
    """In a container every process may have the same pid: stale temporary files do no harm.

    Regression: the temporary name held only the pid, and a stale one read as "exists already".
    """
    path = tmp_path / "host.key"
    stale = tmp_path / f".host.key.{os.getpid()}.new"
    stale.write_text("half a key")
    create_identity_file(path)
    assert stale.read_text() == "half a key"


def test_create_names_a_missing_folder(tmp_path: Path) -> None:
    """A folder that does not exist is an IdentityError naming the file."""
    path = tmp_path / "no" / "host.key"
    with pytest.raises(IdentityError, match="No such file"):
        create_identity_file(path)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o666, 0o610, 0o601, 0o602])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is too much; the text says how to mend it."""
    path = tmp_path / "host.key"
    create_identity_file(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}.*chmod 600"):
        load_identity_file(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_private_file_loads(tmp_path: Path, mode: int) -> None:
    """What only the owner can read is fine, also read-only."""
    path = tmp_path / "host.key"
    created = create_identity_file(path)
    path.chmod(mode)
    assert load_identity_file(path) == created


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    """The text holds the command that makes one."""
    path = tmp_path / "host.key"
    with pytest.raises(IdentityError, match=f"packetcloud identity create {path}"):
        load_identity_file(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Half a key file is a damaged key file, never another key. A missing newline is harmless."""
    path = tmp_path / "host.key"
    create_identity_file(path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(IdentityError, match=r"host\.key"):
            load_identity_file(path)


def test_every_changed_digit_is_noticed(tmp_path: Path) -> None:
    """One wrong hex digit in seed, public key or GUID: damaged, not another identity."""
    path = tmp_path / "host.key"
    create_identity_file(path)
    record = json.loads(path.read_text())
    for name in ("seed", "public_key", "guid"):
        for index, digit in enumerate(record[name]):
            other = "0" if digit != "0" else "1"
            changed = record[name][:index] + other + record[name][index + 1 :]
            path.write_text(json.dumps(record | {name: changed}))
            with pytest.raises(IdentityError, match="damaged"):
                load_identity_file(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '"text"',
        "7",
        "{" * 4000,
        "[" * 4000,
        '{"format": "packetcloud-identity-1"}',
        '{"format": "packetcloud-identity-2", "suite": 1, "seed": ""}',
        '{"format": ["packetcloud-identity-1"]}',
        '{"format": "packetcloud-identity-1", "suite": 2}',
        '{"format": "packetcloud-identity-1", "suite": 1, "seed": 7}',
        '{"format": "packetcloud-identity-1", "suite": 1, "seed": "00"}',
        '{"format": "packetcloud-identity-1", "suite": 1, "seed": "zz"}',
        "x" * (MAX_KEY_FILE_BYTES + 1),
    ],
)
def test_other_files_are_no_key_files(tmp_path: Path, text: str) -> None:
    """Any other text is an IdentityError that names the file."""
    path = tmp_path / "host.key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(IdentityError, match=r"host\.key"):
        load_identity_file(path)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("format", "packetcloud-identity-2", "format 'packetcloud-identity-2', expected"),
        ("suite", 2, "suite 2, known: 1"),
        ("suite", "1", "suite '1', known: 1"),
    ],
)
def test_a_newer_file_is_told_as_such(tmp_path: Path, field: str, value: object, text: str) -> None:
    """A file that is whole but of another format or suite: what it is and what is known."""
    path = tmp_path / "host.key"
    create_identity_file(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(IdentityError, match=text):
        load_identity_file(path)


def test_other_things_are_no_key_files(tmp_path: Path) -> None:
    """Bytes that are no text, a folder, a pipe without a writer: refused at once, no waiting."""
    data, folder, pipe = tmp_path / "data.key", tmp_path / "folder.key", tmp_path / "pipe.key"
    data.touch(0o600)
    data.write_bytes(b"\xff\xfe")
    folder.mkdir(0o700)
    os.mkfifo(pipe, 0o600)
    for path, text in (
        (data, "not text"),
        (folder, "not a plain file"),
        (pipe, "not a plain file"),
    ):
        with pytest.raises(IdentityError, match=f"{path.name}.*{text}"):
            load_identity_file(path)


def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path) -> None:
    """4096 bytes are read, 4097 are not a key file, even if blanks are what is too much."""
    path = tmp_path / "host.key"
    created = create_identity_file(path)
    path.write_bytes(path.read_bytes().ljust(MAX_KEY_FILE_BYTES))
    assert load_identity_file(path) == created
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IdentityError, match=f"over {MAX_KEY_FILE_BYTES} bytes"):
        load_identity_file(path)
