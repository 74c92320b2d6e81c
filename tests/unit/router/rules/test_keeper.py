"""The keeper's logic without its process: what is installed is in force, across restarts too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packetcloud.chunk.identity import Identity
from packetcloud.router.errors import RuleStoreError
from packetcloud.router.rules import table_files
from packetcloud.router.rules.api import MAX_PAGE_COUNT
from packetcloud.router.rules.catalogue import Catalogue
from packetcloud.router.rules.document import line_of
from packetcloud.router.rules.keeper_link import MAX_LINE_BYTES
from packetcloud.router.settings import RuleSettings
from tests.unit.router.rules.keeping import POLICY, Kept, head
from tests.unit.router.rules.rule_documents import (
    DAY_S,
    ISP,
    NOW_S,
    OWNER,
    SERVICE,
    STRANGER,
    TENANT,
    body_of,
    grant,
    rule_record,
    signed,
)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    keeper = Kept(tmp_path)
    yield keeper
    keeper.close()


def test_a_set_is_in_force_and_stays(kept: Kept) -> None:
    """What was answered as accepted decides about chunks, and does after a restart."""
    answer = kept.install(rule_record(name="a"), rule_record(name="b", priority=7))
    assert answer["outcome"]["accepted"] == 2
    assert kept.names_for() == {"b"}
    version = kept.version
    kept.close()
    kept.open()
    assert kept.version == version
    assert kept.names_for() == {"b"}


def test_a_set_joins_item_by_item(kept: Kept) -> None:
    """A namesake is replaced, a rule that says the same stays as it is, others are left alone."""
    kept.install(rule_record(name="a"), rule_record(name="b"))
    numbers = {one.rule.name: one.number for one in kept.installed()}
    answer = kept.install(
        rule_record(name="a", priority=3),
        rule_record(name="b"),
        {"withdraw": "c"},
        head=head(serial=2),
    )
    outcome = answer["outcome"]
    assert (outcome["accepted"], outcome["unchanged"], outcome["withdrawn"]) == (1, 2, 0)
    after = {one.rule.name: one.number for one in kept.installed()}
    assert after["b"] == numbers["b"] and after["a"] > max(numbers.values())
    assert kept.names_for() == {"a"}
    kept.install({"withdraw": "a"}, head=head(serial=3))
    assert kept.names_for() == {"b"}


@pytest.mark.parametrize("fault", [sqlite3.OperationalError("disk is full"), OSError(28, "full")])
def test_a_change_that_failed_leaves_no_files(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Neither tables nor the document: on a full disk the next change needs the room. What was in
    force stays, and the same document is taken when there is room."""
    kept.install(rule_record(name="a"))
    files = sorted(kept.folder.rglob("*.*"))

    def put_files(_files: object) -> None:
        raise fault

    def keep(document: Path, digest: bytes) -> None:
        really_keep(document, digest)
        raise fault

    really_keep = kept.keeper._evidence.keep
    document = signed(body_of(rule_record(name="b", priority=1), head=head(serial=2)))
    for object_, name, failing in (
        (kept.keeper.store, "put_files", put_files),
        (kept.keeper._evidence, "keep", keep),
    ):
        monkeypatch.setattr(object_, name, failing)
        with pytest.raises(type(fault)):
            kept.install_file(document)
        monkeypatch.undo()
        kept.folder.joinpath(f"upload-{kept.uploads}").unlink()
        assert sorted(kept.folder.rglob("*.*")) == files
        assert kept.names_for() == {"a"}
    assert kept.install_file(document)["outcome"]["accepted"] == 1
    assert kept.names_for() == {"b"}


def test_words_that_mean_something_else_are_a_change(kept: Kept) -> None:
    """The same line under another head is another rule."""
    kept.install(rule_record(name="a"))
    answer = kept.install(
        rule_record(name="a"), head=head(serial=2, valid_until_s=NOW_S + 2 * DAY_S)
    )
    assert answer["outcome"]["accepted"] == 1
    (rule,) = kept.installed()
    assert rule.rule.valid_until_s == NOW_S + 2 * DAY_S


def test_a_set_that_replaces_is_exactly_its_document(kept: Kept) -> None:
    """Rules that it does not name leave; the namesake of an item that is refused stays."""
    kept.install(rule_record(name="a"), rule_record(name="b"), rule_record(name="c"))
    answer = kept.install(
        rule_record(name="a", priority=1),
        rule_record(name="b", priority="high"),
        head=head(serial=2, replaces=True),
    )
    outcome = answer["outcome"]
    assert (outcome["accepted"], outcome["withdrawn"], outcome["refused"]) == (1, 1, 1)
    assert {one.rule.name for one in kept.installed()} == {"a", "b"}


def test_each_item_is_answered_by_itself(kept: Kept) -> None:
    """One bad item costs only itself, and the answer says which and why."""
    answer = kept.install(
        rule_record(name="a"), rule_record(name="b", size_min=-1), b"{\n", rule_record(name="a")
    )
    assert [(one["item"], one["name"], one["result"], one["reason"])
            for one in answer["outcome"]["items"]] == [
        (1, "a", "accepted", ""),
        (2, "b", "refused", "wrong field"),
        (3, "", "refused", "wrong field"),
        (4, "a", "refused", "repeated"),
    ]  # fmt: skip
    assert answer["outcome"]["reasons"] == {"wrong field": 2, "repeated": 1}
    assert kept.names_for() == {"a"}


def test_an_old_document_is_refused_also_when_its_set_is_gone(kept: Kept) -> None:
    """Serials outlive the rules of a set, and restarts."""
    first = signed(body_of(rule_record(name="a"), head=head(serial=1)))
    kept.install_file(first)
    assert kept.install_file(first)["refusal"]["reason"] == "replayed"
    kept.install({"withdraw": "a"}, head=head(serial=5))
    kept.close()
    kept.open()
    again = signed(body_of(rule_record(name="a"), head=head(serial=5)))
    for document in (first, again):
        assert kept.install_file(document)["refusal"]["reason"] == "replayed"
    assert kept.names_for() == set()


def test_sets_of_the_same_name_are_their_signers(kept: Kept) -> None:
    """A third party can neither take nor change the set of another by its name."""
    kept.install(rule_record(name="a"))
    theirs = kept.install(
        rule_record(name="a", destination=TENANT.guid.hex, priority=9), signer=TENANT
    )
    assert theirs["outcome"]["accepted"] == 1
    assert kept.names_for() == {"a"} == kept.names_for(TENANT.guid.value)
    kept.install({"withdraw": "a"}, head=head(serial=2), signer=TENANT)
    assert kept.names_for() == {"a"} and kept.names_for(TENANT.guid.value) == set()


def test_what_is_refused_leaves_nothing_behind(kept: Kept) -> None:
    """A set of which nothing is accepted takes no room: a stranger cannot fill the store."""
    answer = kept.install(rule_record(name="a"), signer=STRANGER)
    assert answer["outcome"]["reasons"] == {"no proof": 1}
    assert kept.keeper.store.sets() == [] and kept.version == 0
    assert [*(kept.folder / "documents").iterdir()] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(b'"priority":1', b'"priority":2'), "forged"),
        (lambda text: text.split(b"\n", 1)[1], "unsigned"),
        (lambda _text: b"", "unsigned"),
        (lambda text: text.replace(b'"grants"', b'"grant"', 1), "unreadable"),
    ],
)
def test_a_document_that_is_not_the_signers_changes_nothing(
    kept: Kept, change: Callable[[bytes], bytes], reason: str
) -> None:
    """Forged, unsigned, none at all: refused as a whole."""
    document = signed(body_of(rule_record(name="a", priority=1), head=head()))
    answer = kept.install_file(change(document))
    assert answer["refusal"]["reason"] == reason
    assert kept.version == 0 and kept.names_for() == set()


def test_a_dry_run_says_the_same_and_changes_nothing(kept: Kept) -> None:
    """Its answer is that of the installation that follows."""
    records = (rule_record(name="a"), rule_record(name="b", size_min=-1))
    tried = kept.install(*records, is_dry_run=True)["outcome"]
    assert kept.version == 0 and kept.keeper.store.sets() == []
    done = kept.install(*records)["outcome"]
    assert tried == done | {"is_dry_run": True}


def test_a_proven_rule_of_a_tenant_holds(kept: Kept) -> None:
    """A grant of the destination's key is enough for a service that is open to everybody."""
    answer = kept.install(rule_record(name="t"), signer=TENANT, grants=[grant()])
    assert answer["outcome"]["accepted"] == 1
    assert kept.names_for() == {"t"}


def test_rules_that_lead_to_a_service_no_longer_open_are_proven_again(kept: Kept) -> None:
    """Also when the config changed while the router was down; the service's own grant counts."""
    service_grant = grant(SERVICE, names=(SERVICE.sid.value,))
    kept.install(rule_record(name="open"), signer=TENANT, grants=[grant()])
    granted = head("granted")
    kept.install(
        rule_record(name="granted"), head=granted, signer=TENANT, grants=[grant(), service_grant]
    )
    kept.close()
    kept.policy = replace(POLICY, open_services=frozenset())
    kept.open()
    assert {one.rule.name for one in kept.installed()} == {"granted"}
    assert kept.names_for() == {"granted"}


def test_without_its_document_a_rule_is_not_proven_again(kept: Kept) -> None:
    """Nothing shows any more that its signer may say it, so it is removed; the router starts."""
    service_grant = grant(SERVICE, names=(SERVICE.sid.value,))
    kept.install(rule_record(name="lost"), signer=TENANT, grants=[grant(), service_grant])
    kept.install(rule_record(name="own"), head=head("own"))
    kept.close()
    for path in (kept.folder / "documents").iterdir():
        path.unlink()
    kept.policy = replace(POLICY, open_services=frozenset())
    kept.open()
    assert {one.rule.name for one in kept.installed()} == {"own"}
    assert kept.names_for() == {"own"}


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A folder with something else in it is refused, and untouched; what comes into one of the
    rules later stays, whatever is removed beside it. A file system may begin with one folder."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RuleStoreError, match=r"other files in it, such as 'letter\.txt'; allowed"):
        Kept(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"documents", "letter.txt"}
    folder = tmp_path / "disk"
    (folder / "lost+found").mkdir(parents=True)
    kept = Kept(folder)
    others = [folder / place / "letter.txt" for place in ("documents", "tables")]
    for path in others:
        path.write_text("dear")
    kept.install(rule_record(name="a"))
    kept.install({"withdraw": "a"}, head=head(serial=2))
    kept.keeper.tidy(kept.version)
    kept.close()
    kept.open()
    assert [path.read_text() for path in others] == ["dear", "dear"]
    kept.close()
    (folder / "rules.sqlite").unlink()
    kept.open()
    assert kept.version == 0
    kept.close()


def test_rules_of_a_withdrawn_isp_key_are_out_of_force_until_it_is_back(kept: Kept) -> None:
    """They are kept, count towards the limits, and come back without being installed again."""
    kept.install(rule_record(name="a"))
    withdrawn = replace(POLICY, settings=RuleSettings())
    kept.configure(withdrawn)
    assert kept.names_for() == set()
    assert kept.keeper.store.totals().suspended == 1
    answer = kept.install(rule_record(name="a"), head=head(serial=2))
    assert answer["refusal"]["reason"] == "other owner"
    kept.configure(POLICY)
    assert kept.names_for() == {"a"}


def test_patterns_are_found(kept: Kept) -> None:
    """Rules with patterns of several documents share one scanner; it grows with them."""
    kept.install(rule_record(name="a", patterns={"text": "one"}))
    kept.install(rule_record(name="b", patterns={"text": "two"}, priority=1), head=head("other"))
    assert kept.names_for(payload=b"one") == {"a"}
    assert kept.names_for(payload=b"one two") == {"b"}
    assert kept.names_for(payload=b"three") == set()


def test_patterns_of_rules_that_went_are_numbered_anew(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places in the scanner come free again, and rules find their patterns afterwards."""
    monkeypatch.setattr("packetcloud.router.rules.pattern_book.FEW_DEAD_COUNT", 2)
    for serial, words in enumerate((["one", "two", "three", "four"], ["four"]), 1):
        kept.install(
            rule_record(name="a", patterns=[{"text": word} for word in words]),
            rule_record(name="b", patterns={"text": "stays"}, priority=-1),
            head=head(serial=serial),
        )
    assert len(kept.keeper.store.patterns()) == 5
    kept.load(kept.keeper.tidy(kept.version))
    assert len(kept.keeper.store.patterns()) == 2
    assert kept.names_for(payload=b"four") == {"a"}
    assert kept.names_for(payload=b"three stays") == {"b"}


def test_ended_rules_are_removed_in_time(kept: Kept) -> None:
    """They match no more at their end, can be looked at for an hour, and then are gone."""
    kept.install(rule_record(name="a"))
    kept.now_s = NOW_S + DAY_S + 1
    assert kept.names_for() == set()
    kept.load(kept.keeper.tidy(kept.version))
    assert len(kept.installed()) == 1
    kept.now_s += 3600
    kept.load(kept.keeper.tidy(kept.version))
    assert kept.installed() == [] and kept.keeper.store.totals().entries == 0


def test_small_changes_are_merged(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many changes there were, few files are asked, and no others lie about."""
    monkeypatch.setattr(table_files, "MAX_WITHDRAWN_COUNT", 8)
    for serial in range(1, 41):
        kept.install(
            rule_record(name=f"r{serial % 13}", priority=serial),
            *([{"withdraw": f"r{(serial + 5) % 13}"}] if serial % 3 == 0 else []),
            head=head(serial=serial),
        )
        kept.names_for()
    files = kept.keeper.store.files()
    assert len([one for one in files if one.kind == "segment"]) <= 3
    kept.keeper.tidy(kept.version)
    assert {path.name for path in (kept.folder / "tables").iterdir()} == {one.name for one in files}


@pytest.mark.parametrize("harm", ["cut", "bit", "gone"])
@pytest.mark.parametrize("kind", ["segment", "scanner", "withdrawn"])
def test_a_damaged_file_is_made_anew(
    kept: Kept, caplog: pytest.LogCaptureFixture, kind: str, harm: str
) -> None:
    """At the start, with a warning; never without the rules."""
    for number in range(20):
        kept.install(
            rule_record(name=f"r{number}", patterns={"text": "x"}), head=head(serial=number + 1)
        )
    kept.install({"withdraw": "r19"}, head=head(serial=21))
    names = kept.names_for(payload=b"x")
    (path,) = sorted((kept.folder / "tables").glob(f"*.{kind}"))[:1]
    kept.close()
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        at = len(data) // 2
        path.write_bytes(
            data[:at] if harm == "cut" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        )
    kept.open()
    assert "compiled anew" in caplog.text
    assert kept.names_for(payload=b"x") == names == {"r0"}


def test_files_that_the_router_may_still_load_stay(kept: Kept) -> None:
    """Until the router has a later version in force."""
    first = kept.install(rule_record(name="a"))["state"]
    path = kept.folder / "upload"
    for serial in range(2, 6):
        path.write_bytes(signed(body_of(rule_record(name="a", priority=serial),
                                        head=head(serial=serial))))  # fmt: skip
        last = kept.keeper.install(path, is_dry_run=False, in_force=first["version"])["state"]
    kept.load(first)
    kept.load(last)
    kept.keeper.tidy(kept.version)
    names = {path.name for path in (kept.folder / "tables").iterdir()}
    assert names == {one["name"] for one in last["files"]}


def test_evidence_is_kept_as_long_as_rules_go_back_to_it(kept: Kept) -> None:
    """The signed document lies in the folder, byte for byte, until nothing refers to it."""
    document = signed(body_of(rule_record(name="a"), head=head()))
    kept.install_file(document)
    (path,) = (kept.folder / "documents").iterdir()
    assert path.read_bytes() == document
    kept.install(rule_record(name="a", priority=1), head=head(serial=2))
    kept.now_s += 2 * DAY_S
    kept.keeper.tidy(kept.version)
    (left,) = (kept.folder / "documents").iterdir()
    assert left != path


@pytest.mark.parametrize(
    ("limits", "signer", "allowed"),
    [
        ({"max_rules": 5}, ISP, 5),
        ({"max_third_party_rules": 4}, TENANT, 4),
        ({"max_signer_rules": 6}, TENANT, 6),
    ],
)
def test_no_more_rules_than_allowed(
    tmp_path: Path, limits: dict[str, int], signer: Identity, allowed: int
) -> None:
    """At the cap all are accepted, one more is refused, and withdrawing makes room."""
    settings = RuleSettings(frozenset({ISP.guid}), **limits)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))
    for number in range(allowed + 1):
        answer = kept.install(
            rule_record(name=f"r{number}"),
            head=head(serial=number + 1),
            signer=signer,
            grants=[grant()],
        )
        is_over = number == allowed
        assert answer["outcome"]["accepted"] == (not is_over)
    assert answer["outcome"]["reasons"] == {"too many rules": 1}
    answer = kept.install(
        {"withdraw": "r0"},
        rule_record(name="new"),
        head=head(serial=99),
        signer=signer,
        grants=[grant()],
    )
    assert (answer["outcome"]["withdrawn"], answer["outcome"]["accepted"]) == (1, 1)
    kept.close()


def test_a_set_that_is_replaced_makes_room_for_what_replaces_it(tmp_path: Path) -> None:
    """At the limit a set becomes wholly another one; beyond it items are refused. What stays for an
    item that is refused takes room as well, and goes where there is none."""
    settings = RuleSettings(frozenset({ISP.guid}), max_rules=4)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))

    def becomes(serial: int, *records: dict[str, Any]) -> dict[str, Any]:
        its_head = head(serial=serial, replaces=True)
        outcome: dict[str, Any] = kept.install(*records, head=its_head)["outcome"]
        assert kept.keeper.store.totals().entries <= 4
        return outcome

    kept.install(rule_record(name="other"), head=head("other"))
    kept.install(*(rule_record(name=name) for name in "abc"))
    done = becomes(2, *(rule_record(name=name) for name in "def"))
    assert (done["accepted"], done["refused"], done["withdrawn"]) == (3, 0, 3)
    done = becomes(3, *(rule_record(name=name) for name in "eghi"))
    assert (done["accepted"], done["unchanged"], done["reasons"]) == (2, 1, {"too many rules": 1})
    wrong = [rule_record(name=name, size_min=-1) for name in "egg"]
    done = becomes(4, rule_record(name="j"), rule_record(name="k"), *wrong)
    assert (done["accepted"], done["refused"], done["withdrawn"]) == (2, 3, 2)
    assert {one.rule.name for one in kept.installed()} == {"other", "j", "k", "e"}
    done = becomes(5, {"withdraw": "j"}, *(rule_record(name=name) for name in "klm"))
    assert (done["accepted"], done["unchanged"], done["withdrawn"]) == (2, 1, 2)
    kept.close()
    kept.open()
    assert {one.rule.name for one in kept.installed()} == {"other", "k", "l", "m"}
    kept.close()


@pytest.mark.parametrize(
    ("limits", "signer"), [({"max_patterns": 3}, ISP), ({"max_signer_patterns": 3}, TENANT)]
)
def test_the_patterns_of_a_set_that_is_replaced_make_room(
    tmp_path: Path, limits: dict[str, int], signer: Identity
) -> None:
    """At the limit a set takes wholly other patterns; those of a rule that stays count."""
    settings = RuleSettings(frozenset({ISP.guid}), **limits)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))

    def becomes(serial: int, name: str, *words: str, **more: Any) -> dict[str, Any]:
        records = [
            rule_record(name=word, patterns={"text": word}, destination=signer.guid.hex, **more)
            for word in words
        ]
        its_head = head(name, serial=serial, replaces=True)
        outcome: dict[str, Any] = kept.install(*records, head=its_head, signer=signer)["outcome"]
        assert len(kept.keeper.store.used_patterns()) <= 3
        return outcome

    becomes(1, "other", "one")
    becomes(1, "test", "two", "three")
    assert becomes(2, "test", "four", "five")["accepted"] == 2
    assert becomes(3, "test", "five", "one", "six", "seven")["refused"] == 1
    done = becomes(4, "test", "five", "six", size_min=-1)
    assert (done["refused"], done["withdrawn"]) == (2, 1)
    assert becomes(5, "test", "eight", "nine")["accepted"] == 2
    names = [kept.names_for(signer.guid.value, word.encode()) for word in ("five", "eight", "nine")]
    assert names == [set(), {"eight"}, {"nine"}]
    kept.close()


def test_a_rule_counts_as_its_entries(tmp_path: Path) -> None:
    """One rule of many names takes as much room as many rules of one."""
    settings = RuleSettings(frozenset({ISP.guid}), max_rules=10)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))
    names = [f"{number:040x}" for number in range(1, 12)]
    assert kept.install(rule_record(destination=names))["outcome"]["refused"] == 1
    answer = kept.install(rule_record(destination=names[:10]), head=head(serial=2))
    assert answer["outcome"]["accepted"] == 1
    kept.close()


@pytest.mark.parametrize(
    ("limits", "signer"), [({"max_patterns": 3}, ISP), ({"max_signer_patterns": 3}, TENANT)]
)
def test_no_more_patterns_than_allowed(
    tmp_path: Path, limits: dict[str, int], signer: Identity
) -> None:
    """At the cap all are accepted, one more is refused; the same pattern again is no more."""
    settings = RuleSettings(frozenset({ISP.guid}), **limits)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))
    texts = ["one", "two", "three", "two", "four"]
    results = [
        kept.install(
            rule_record(name=f"r{number}", patterns={"text": text}),
            head=head(serial=number + 1),
            signer=signer,
            grants=[grant()],
        )["outcome"]
        for number, text in enumerate(texts)
    ]
    assert [one["accepted"] for one in results] == [1, 1, 1, 1, 0]
    assert results[-1]["reasons"] == {"too many patterns": 1}
    kept.close()


def test_a_document_cannot_have_patterns_checked_without_end(tmp_path: Path) -> None:
    """Beyond what its signer may have none is looked at: each takes a millisecond."""
    settings = RuleSettings(frozenset({ISP.guid}), max_signer_patterns=3)
    kept = Kept(tmp_path, replace(POLICY, settings=settings))
    records = [
        rule_record(name=f"r{number}", patterns={"text": f"word{number}"}) for number in range(9)
    ]
    outcome = kept.install(*records, signer=TENANT, grants=[grant()])["outcome"]
    assert (outcome["accepted"], outcome["refused"]) == (3, 6)
    assert "different patterns in one document" in outcome["items"][-1]["detail"]
    kept.close()


def test_sets_of_a_third_party_are_few(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their serials are kept for ever, so there is a cap; known sets go on."""
    monkeypatch.setattr("packetcloud.router.rules.installer.MAX_SIGNER_SETS_COUNT", 2)
    for name, expected in (("a", None), ("b", None), ("c", "too many sets")):
        answer = kept.install(
            rule_record(name="r"), head=head(name), signer=TENANT, grants=[grant()]
        )
        assert answer.get("refusal", {}).get("reason") == expected
    again = kept.install(rule_record(name="s"), head=head("a", 2), signer=TENANT, grants=[grant()])
    assert again["outcome"]["accepted"] == 1


def test_numbers_are_never_used_again(kept: Kept) -> None:
    """Also those of rules that went, over restarts."""
    seen: set[int] = set()
    for serial in range(1, 6):
        kept.install(rule_record(name="a", priority=serial), head=head(serial=serial))
        (rule,) = kept.installed()
        assert rule.number not in seen
        seen.add(rule.number)
        kept.close()
        kept.open()


def test_a_long_document_lists_what_was_refused(kept: Kept) -> None:
    """Of more than two hundred items only those refused are listed, the rest is counted."""
    records = [
        line_of(rule_record(name=f"r{number}", priority=0 if number % 2 else "x"))
        for number in range(400)
    ]
    outcome = kept.install(*records)["outcome"]
    assert outcome["listed"] == "refused"
    assert len(outcome["items"]) == outcome["refused"] == outcome["accepted"] == 200
    assert OWNER.guid.value and kept.names_for() == {"r1"}


def test_rules_that_crowd_one_key_are_refused(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow looks at each rule of its key: at the cap all are taken, beyond it none that comes."""
    monkeypatch.setattr("packetcloud.router.rules.crowding.MAX_RULES_PER_KEY_COUNT", 4)
    kept.install(*(rule_record(name=f"r{number}", priority=number) for number in range(4)))
    outcome = kept.install(
        rule_record(name="r4", priority=4),
        rule_record(name="elsewhere", destination=TENANT.guid.hex),
        head=head(serial=2),
    )["outcome"]
    assert (outcome["accepted"], outcome["refused"]) == (1, 1)
    assert outcome["reasons"] == {"crowded": 1}
    assert [one["name"] for one in outcome["items"] if one["result"] == "refused"] == ["r4"]
    assert kept.names_for() == {"r3"} and kept.names_for(TENANT.guid.value) == {"elsewhere"}
    assert kept.keeper.store.totals().entries == 5
    answer = kept.install(
        {"withdraw": "r0"}, rule_record(name="r4", priority=4), head=head(serial=3)
    )
    assert answer["outcome"]["accepted"] == 1 and kept.names_for() == {"r4"}


def test_third_parties_leave_the_isp_places_of_a_key(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rules they have about a name, the ISP's about it are taken."""
    crowding = "packetcloud.router.rules.crowding."
    monkeypatch.setattr(crowding + "MAX_SIGNER_RULES_PER_KEY_COUNT", 2)
    monkeypatch.setattr(crowding + "MAX_THIRD_PARTY_RULES_PER_KEY_COUNT", 3)
    monkeypatch.setattr(crowding + "MAX_RULES_PER_KEY_COUNT", 5)

    def install(signer: Identity, name: str, count: int) -> tuple[int, str]:
        outcome = kept.install(
            *(rule_record(name=f"{name}{number}") for number in range(count)),
            head=head(name),
            signer=signer,
            grants=[grant(to=signer)],
        )["outcome"]
        return outcome["accepted"], outcome["items"][-1]["detail"]

    assert install(TENANT, "a", 2) == (2, "")
    accepted, why = install(TENANT, "b", 1)
    assert accepted == 0 and why.startswith(
        "3 rules of this signer would name the same; allowed: 2"
    )
    assert install(STRANGER, "c", 1) == (1, "")
    accepted, why = install(STRANGER, "d", 1)
    assert accepted == 0 and why.startswith("4 rules of third parties would name the same")
    assert install(ISP, "e", 2) == (2, "")
    accepted, why = install(ISP, "f", 1)
    assert accepted == 0 and why.startswith("6 rules would name the same; allowed: 5")
    kept.install({"withdraw": "a0"}, head=head("a", 2), signer=TENANT)
    assert install(STRANGER, "g", 1) == (1, "")


def test_all_rules_can_be_withdrawn_at_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many that the segments are written without them, down to none."""
    monkeypatch.setattr(table_files, "MAX_WITHDRAWN_COUNT", 8)
    names = [f"{number:040x}" for number in range(1, 31)]
    kept.install(*(rule_record(name=name, destination=name) for name in names))
    outcome = kept.install(head=head(serial=2, replaces=True))["outcome"]
    assert outcome["withdrawn"] == 30
    assert kept.names_for(bytes.fromhex(names[3])) == set()
    kept.install(rule_record(name="new", destination=names[3]), head=head(serial=3))
    assert kept.names_for(bytes.fromhex(names[3])) == {"new"}


def test_nothing_that_the_router_reads_on_its_loop_grows_with_the_rules(kept: Kept) -> None:
    """Each answer fits the line that is allowed, with the most and the longest rules."""
    names = [f"{number:040x}" for number in range(1, 60_001)]
    long = [rule_record(name=f"long{n}" + "x" * 100, destination=names) for n in range(3)]
    answers = [kept.install(*long)]
    wrong = [rule_record(name=f"r{n}" + "y" * 100, size_min="z" * 4000) for n in range(1000)]
    answers.append(kept.install(*wrong, head=head(serial=2)))
    many = [rule_record(name=f"r{n}" + "y" * 100, destination=names[n]) for n in range(1000)]
    answers.append(kept.install(*many, head=head(serial=3)))
    catalogue = Catalogue(kept.folder)
    answers.append(catalogue.rules({}, None, MAX_PAGE_COUNT))
    answers.append(catalogue.rule("test", long[0]["name"], None))
    with kept.keeper.store.change():
        for number in range(MAX_PAGE_COUNT):
            kept.keeper.store.put_set(b"s" * 20, f"{number}" + "x" * 100, 1, False, 1)
    answers.append(catalogue.sets(None, MAX_PAGE_COUNT))
    assert all(len(json.dumps(answer)) < MAX_LINE_BYTES for answer in answers)
    assert answers[4]["rule"]["left_out"] == 60_000 - 20


def test_pages_have_all_rules_once(kept: Kept) -> None:
    """However they are cut and filtered."""
    kept.install(*(rule_record(name=f"r{n:02}", priority=n) for n in range(25)))
    kept.install(
        *(rule_record(name=f"r{n:02}", destination=TENANT.guid.hex) for n in range(12)),
        head=head("other"),
    )
    catalogue = Catalogue(kept.folder)

    def found(limit: int, **filters: str) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = catalogue.rules(filters, cursor, limit)
            names += [f"{one['set']}/{one['name']}" for one in page["rules"]]
            cursor = page["cursor"]
            if cursor is None:
                return names

    everything = [f"test/r{n:02}" for n in range(25)] + [f"other/r{n:02}" for n in range(12)]
    for limit in (1, 7, 25, 100):
        assert found(limit) == everything
    assert found(5, set="other") == everything[25:]
    assert found(5, destination=TENANT.guid.hex.upper()) == everything[25:]
    assert found(5, name="r1") == [f"test/r{n}" for n in range(10, 20)] + [
        "other/r10", "other/r11",
    ]  # fmt: skip
    assert found(5, service="11" * 20) == [] == found(5, signer=TENANT.guid.hex)
    assert "missing" in catalogue.rule("test", "absent", None)


def test_a_small_change_loads_little(kept: Kept) -> None:
    """Large segments and compiled patterns of the version before are shared, not read again."""
    many = [rule_record(name=f"r{n}", destination=f"{n + 1:040x}") for n in range(100)]
    kept.install(*many, rule_record(name="p", patterns={"text": "word"}))
    before = kept.loaded
    kept.install(rule_record(name="one"), {"withdraw": "r5"}, head=head(serial=2))
    after = kept.loaded
    assert before is not None and after is not None and after.scanner is not None
    (name,) = before.segments
    assert after.segments[name] is before.segments[name] and len(after.segments) == 2
    assert after.scanner == before.scanner
    assert before.unused_by(after) == []


def test_the_log_of_changes_does_not_grow_for_ever(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is emptied when it is long, after memory was given back, and what was committed lasts
    before and after; while it is short nothing is done."""
    log = kept.folder / "rules.sqlite-wal"
    given_back: list[int] = []
    monkeypatch.setattr(
        "packetcloud.router.rules.keeper.give_memory_back",
        lambda: given_back.append(log.stat().st_size),
    )
    kept.install(rule_record(name="a"))
    kept.keeper.rest()
    assert log.stat().st_size > 0 and not given_back
    monkeypatch.setattr("packetcloud.router.rules.store.MAX_LOG_BYTES", 1)
    kept.keeper.rest()
    assert log.stat().st_size == 0
    assert len(given_back) == 1 and given_back[0] > 0
    kept.install(rule_record(name="b", priority=1), head=head(serial=2))
    kept.close()
    kept.open()
    assert kept.names_for() == {"b"} and len(kept.installed()) == 2
