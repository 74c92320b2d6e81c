"""Signed documents: what is opened, how often it is read, and where its caps are."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from packetcloud.router.rules import signed as signed_module
from packetcloud.router.rules import trial as trial_module
from packetcloud.router.rules.document import MAX_LINE_BYTES, ItemError, Withdrawal
from packetcloud.router.rules.errors import RuleDocumentError, RulesRefusedError
from packetcloud.router.rules.refusals import Refusal
from packetcloud.router.rules.rule import Rule
from packetcloud.router.rules.signed import MAX_ENVELOPE_BYTES, open_signed
from packetcloud.router.rules.trial import try_document
from tests.unit.router.rules.rule_documents import (
    HEAD,
    ISP,
    NOW_S,
    TENANT,
    TRUST,
    body_of,
    grant,
    opened,
    rule_record,
    signed,
    takes_any_pattern,
)

BODY = body_of(rule_record(name="a"), {"withdraw": "b"}, b"nonsense\n")


def test_what_is_signed_is_what_is_read() -> None:
    """Head, signer, grants and items arrive; a bad item costs itself; items can be read again."""
    found = opened(signed(BODY, TENANT, [grant()]))
    assert (found.head, found.signer, found.grants) == (HEAD, TENANT.public_key, (grant(),))
    assert found.signer_guid == TENANT.guid.value
    for _ in range(2):
        items = list(found.items(takes_any_pattern))
        assert [type(item) for item in items] == [Rule, Withdrawal, ItemError]
    assert found.item_count == 3


def test_the_digest_tells_documents_apart() -> None:
    """The same bytes have the same digest, whoever signs them; other grants or items another."""
    digest = opened(signed(BODY, TENANT)).digest
    assert opened(signed(BODY, ISP)).digest == digest
    others = {
        opened(signed(BODY, TENANT, [grant()])).digest,
        opened(signed(BODY + b"\n", TENANT)).digest,
    }
    assert digest not in others
    assert len(others) == 2


def test_items_take_the_memory_of_one() -> None:
    """A document is read as it comes: what is kept of it does not grow with its items."""
    lines = [rule_record(name=f"rule-{number}") for number in range(5000)]
    found = opened(signed(body_of(*lines)))
    items = found.items(takes_any_pattern)
    next(items)
    tracemalloc.start()
    try:
        count = sum(isinstance(item, Rule) for item in items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4999
    assert peak < 100_000


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_last_line_may_have_no_end(end: bytes) -> None:
    """It counts as a line all the same."""
    found = opened(signed(BODY.rstrip(b"\n") + end))
    assert found.item_count == len(list(found.items(takes_any_pattern))) == 3


def test_a_line_that_is_too_long_is_signed_like_others() -> None:
    """It is one refused item; what follows is read, and the signature still covers all of it."""
    body = body_of(b" " * (2 * MAX_LINE_BYTES + 5) + b"\n", rule_record())
    kinds = [type(item) for item in opened(signed(body)).items(takes_any_pattern)]
    assert kinds == [ItemError, Rule]


def test_a_file_that_changes_while_it_is_read_is_refused() -> None:
    """After its last item at the latest: what was verified is what was read."""
    stream = io.BytesIO(signed(BODY))
    found = open_signed(stream)
    data = stream.getbuffer()
    data[bytes(data).index(b'"name":"a"') + 8] = ord("z")
    items = found.items(takes_any_pattern)
    with pytest.raises(RulesRefusedError) as caught:
        list(items)
    assert caught.value.refused.reason is Refusal.FORGED


@pytest.mark.parametrize("body", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n"])
def test_a_signature_makes_no_document(body: bytes) -> None:
    """What has no head is no document, whoever signed it."""
    with pytest.raises(RuleDocumentError, match="head"):
        opened(signed(body))


def test_the_cap_of_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap a document is signed and opened, beyond it neither."""
    grants = [grant(nonce=bytes([number]) * 16) for number in range(4)]
    four = signed(BODY, TENANT, grants)
    monkeypatch.setattr(signed_module, "MAX_GRANTS_COUNT", 3)
    assert opened(signed(BODY, TENANT, grants[:3])).grants == tuple(grants[:3])
    with pytest.raises(RuleDocumentError, match="allowed: 3 grants"):
        signed(BODY, TENANT, grants)
    with pytest.raises(RuleDocumentError, match="a list of at most 3 grants"):
        opened(four)


def test_the_cap_of_an_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer first line is not read to its end."""
    document = signed(BODY, TENANT, [grant()])
    size = document.index(b"\n") + 1
    monkeypatch.setattr(signed_module, "MAX_ENVELOPE_BYTES", size)
    assert opened(signed(BODY, TENANT, [grant()])).head == HEAD
    monkeypatch.setattr(signed_module, "MAX_ENVELOPE_BYTES", size - 1)
    with pytest.raises(RuleDocumentError, match="bytes, so write several documents"):
        signed(BODY, TENANT, [grant()])
    with pytest.raises(RuleDocumentError, match=f"over {size - 1} bytes"):
        opened(document)
    assert size < MAX_ENVELOPE_BYTES


def test_a_trial_lists_so_many_errors_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of nothing but errors takes no memory."""
    monkeypatch.setattr(trial_module, "MAX_LISTED_COUNT", 2)
    body = body_of(b"x\n", b"x\n", b"x\n", rule_record(), {"withdraw": "a"})
    trial = try_document(io.BytesIO(body), takes_any_pattern, NOW_S)
    assert (len(trial.refused), trial.refused_count) == (2, 3)
    assert (trial.rule_count, trial.withdrawal_count) == (1, 1)


def test_a_trial_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, so that somebody who waits for a million rules sees them go by."""
    monkeypatch.setattr(trial_module, "_TELL_EACH_COUNT", 2)
    told: list[int] = []
    body = body_of(*[rule_record()] * 5)
    try_document(io.BytesIO(body), takes_any_pattern, NOW_S, tell=told.append)
    assert told == [2, 4]


def test_a_trial_asks_for_proof_item_by_item() -> None:
    """One rule without proof costs itself."""
    body = body_of(rule_record(), rule_record(name="other", destination="aa" * 20))
    document = signed(body, TENANT, [grant()])
    trial = try_document(io.BytesIO(document), takes_any_pattern, NOW_S, TRUST)
    assert (trial.rule_count, trial.refused_count, trial.is_own) == (1, 1, False)
    assert trial.refused[0].text.startswith(f'item 2 "other": no proof: destination {"aa" * 20}')
