"""Fillers of the caps of the keeper of rules. Source: router/caps.py."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from packetcloud.chunk.identity import Identity
from packetcloud.chunk.revocations import revoke_grant
from packetcloud.router.errors import RulesUnavailableError, RuleUploadError
from packetcloud.router.rules.crowding import (
    MAX_RULES_PER_KEY_COUNT,
    MAX_SIGNER_RULES_PER_KEY_COUNT,
    MAX_THIRD_PARTY_RULES_PER_KEY_COUNT,
    MAX_UNNAMED_COUNT,
)
from packetcloud.router.rules.installer import MAX_SETS_COUNT, MAX_SIGNER_SETS_COUNT
from packetcloud.router.rules.keeper_link import MAX_REQUESTS_COUNT, KeeperLink
from packetcloud.router.rules.pattern_book import pattern_of as read_pattern
from packetcloud.router.rules.patterns import demand_of
from packetcloud.router.rules.revoker import (
    MAX_ISSUER_REVOCATIONS_COUNT,
    MAX_REVOCATIONS_COUNT,
)
from packetcloud.router.rules.scan_cost import TEXT_NS
from packetcloud.router.rules.scanner_share import (
    MAX_SIGNER_STARTS_COUNT,
    MAX_SIGNER_WORDLESS_COUNT,
    MAX_THIRD_PARTY_STARTS_COUNT,
    MAX_THIRD_PARTY_WORDLESS_COUNT,
    Good,
    ScannerLoad,
)
from packetcloud.router.rules.uploads import MAX_UPLOADS_COUNT, Uploads
from packetcloud.router.settings import RuleSettings
from tests.unit.caps.filled import Filled, fills
from tests.unit.router.rules.keeping import POLICY, Kept, head
from tests.unit.router.rules.rule_documents import (
    DAY_S,
    ISP,
    NOW_S,
    STRANGER,
    TENANT,
    grant,
    rule_record,
)

FEW = 6
OTHER = Identity(bytes(31) + b"\x55")


@contextlib.contextmanager
def _kept(**limits: int) -> Iterator[Kept]:
    with tempfile.TemporaryDirectory() as folder:
        settings = RuleSettings(frozenset({ISP.guid}), **limits)
        kept = Kept(Path(folder), replace(POLICY, settings=settings))
        yield kept
        kept.close()


def _refused(answers: list[dict[str, Any]], reason: str) -> int:
    return sum(one["outcome"]["reasons"].get(reason, 0) for one in answers)


def _of_rules(limit: str, signer: Identity, others: Identity) -> Filled:
    """One rule a document until there are too many; then a document of another signer."""
    with _kept(**{limit: FEW}) as kept:

        def install(number: int) -> dict[str, Any]:
            return kept.install(
                rule_record(name=f"r{number}"),
                head=head(serial=number + 1),
                signer=signer,
                grants=[grant()],
            )

        first = [install(number) for number in range(FEW)]
        at_cap = kept.keeper.store.totals().entries
        more = [install(number) for number in range(FEW, 2 * FEW)]
        beyond = kept.keeper.store.totals().entries
        if others is signer:
            other = kept.install({"withdraw": "r0"}, head=head(serial=98), signer=signer)
            goes_on = other["outcome"]["withdrawn"] == 1
        else:
            other = kept.install(
                rule_record(name="x", destination=others.guid.hex), head=head("x"), signer=others
            )
            goes_on = other["outcome"]["accepted"] == 1
        for name, one in (("test", signer), ("x", others)):
            kept.install(head=head(name, 99, replaces=True), signer=one)
        return Filled(
            FEW,
            at_cap,
            _refused(first, "too many rules"),
            beyond,
            _refused(more, "too many rules"),
            goes_on,
            kept.keeper.store.totals().entries,
        )


@fills("router", "rules")
def rules() -> Filled:
    """The ISP's own; what is withdrawn still is."""
    return _of_rules("max_rules", ISP, ISP)


@fills("router", "rules of third parties")
def third_party_rules() -> Filled:
    """The ISP still finds room."""
    return _of_rules("max_third_party_rules", TENANT, ISP)


@fills("router", "rules of one third party")
def signer_rules() -> Filled:
    """Another third party still finds room."""
    return _of_rules("max_signer_rules", TENANT, OTHER)


def _of_patterns(limit: str, signer: Identity) -> Filled:
    with _kept(**{limit: FEW}) as kept:

        def install(number: int, **more: Any) -> dict[str, Any]:
            return kept.install(
                rule_record(name=f"r{number}", **more),
                head=head(serial=number + 1),
                signer=signer,
                grants=[grant()],
            )

        first = [install(number, patterns={"text": f"word{number}"}) for number in range(FEW)]
        at_cap = len(kept.keeper.store.used_patterns())
        numbers = range(FEW, 2 * FEW)
        more = [install(number, patterns={"text": f"word{number}"}) for number in numbers]
        beyond = len(kept.keeper.store.used_patterns())
        other = install(50, patterns={"text": "word1"})
        kept.install(head=head(serial=99, replaces=True), signer=signer)
        return Filled(
            FEW,
            at_cap,
            _refused(first, "too many patterns"),
            beyond,
            _refused(more, "too many patterns"),
            other["outcome"]["accepted"] == 1,
            len(kept.keeper.store.used_patterns()),
        )


@fills("router", "payload patterns")
def patterns() -> Filled:
    """Of the ISP; a rule with a pattern that is there already is taken."""
    return _of_patterns("max_patterns", ISP)


@fills("router", "payload patterns of one third party")
def signer_patterns() -> Filled:
    return _of_patterns("max_signer_patterns", TENANT)


@fills("router", "payload patterns of third parties")
def third_party_patterns() -> Filled:
    return _of_patterns("max_third_party_patterns", TENANT)


def _of_share(
    good: Good, cap: int, step: int, tenants: int, limits: dict[str, int],
    pattern_of: Callable[[int], dict[str, Any]],
) -> Filled:  # fmt: skip
    """One pattern a document, of so many third parties in turn; the ISP goes on.

    Args:
        step: how much of the good each takes.
    """
    with _kept(**limits) as kept:
        signers = [Identity(bytes(31) + bytes([0x60 + number])) for number in range(tenants)]

        def install(number: int, signer: Identity | None = None) -> dict[str, Any]:
            own = signer or signers[number % tenants]
            record = rule_record(
                name=f"r{number}", destination=own.guid.hex, patterns=pattern_of(number)
            )
            return kept.install(record, head=head(serial=number + 1), signer=own)

        def used() -> int:
            store = kept.keeper.store
            by_number = dict(store.patterns())
            return sum(
                ScannerLoad(demand_of(read_pattern(by_number[one])) for one in numbers).with_more(
                    good
                )
                for numbers in store.third_party_patterns().values()
            )

        count = cap // step
        first = [install(number) for number in range(count)]
        at_cap = used()
        more = [install(number) for number in range(count, count + 3)]
        beyond = used()
        other = install(90, ISP)
        for signer in signers:
            kept.install(head=head(serial=99, replaces=True), signer=signer)
        return Filled(
            cap,
            at_cap,
            _refused(first, "too many patterns"),
            beyond,
            _refused(more, "too many patterns"),
            other["outcome"]["accepted"] == 1,
            used(),
        )


_MANY = {"max_signer_scan_ns": 10_000, "max_third_party_scan_ns": 10_000}


def _wordless(number: int) -> dict[str, Any]:
    return {"regex": f"[a-{chr(ord('c') + number % 20)}]x"}


def _late(number: int) -> dict[str, Any]:
    return {"regex": "word.*x", "from": number + 1}


def _text(number: int) -> dict[str, Any]:
    """Return texts that end alike, so that each costs as much as the first."""
    return {"text": "abcdefgh"[number % 8 :] + "nopqrstu"}


@fills("router", "patterns of third parties without fixed bytes")
def third_party_wordless() -> Filled:
    cap = MAX_THIRD_PARTY_WORDLESS_COUNT
    return _of_share(Good.WORDLESS, cap, 1, 8, _MANY, _wordless)


@fills("router", "patterns of one third party without fixed bytes")
def signer_wordless() -> Filled:
    return _of_share(Good.WORDLESS, MAX_SIGNER_WORDLESS_COUNT, 1, 1, _MANY, _wordless)


@fills("router", "starts of patterns of third parties")
def third_party_starts() -> Filled:
    return _of_share(Good.STARTS, MAX_THIRD_PARTY_STARTS_COUNT, 1, 8, _MANY, _late)


@fills("router", "starts of patterns of one third party")
def signer_starts() -> Filled:
    return _of_share(Good.STARTS, MAX_SIGNER_STARTS_COUNT, 1, 1, _MANY, _late)


@fills("router", "cost of a scan for patterns of third parties")
def third_party_scan() -> Filled:
    limits = {"max_third_party_scan_ns": 4 * TEXT_NS}
    return _of_share(Good.SCAN, 4 * TEXT_NS, TEXT_NS, 20, limits, _text)


@fills("router", "cost of a scan for patterns of one third party")
def signer_scan() -> Filled:
    limits = {"max_signer_scan_ns": 4 * TEXT_NS}
    return _of_share(Good.SCAN, 4 * TEXT_NS, TEXT_NS, 1, limits, _text)


def _of_sets(cap: int, signer: Identity, others: Identity) -> Filled:
    """All sets but the last stand in the store already: to sign so many takes minutes."""
    with _kept() as kept:
        store = kept.keeper.store
        with store.change():
            document = store.put_document(b"d" * 32, 1, 0.0, head().to_bytes())
            for number in range(cap - 1):
                store.put_set(signer.guid.value, f"s{number}", 1, signer is ISP, document)

        def install(name: str, serial: int = 1) -> dict[str, Any]:
            return kept.install(
                rule_record(name="r"), head=head(name, serial), signer=signer, grants=[grant()]
            )

        last = install("last")
        at_cap = store.sets_count()
        more = [install(f"more{number}") for number in range(3)]
        beyond = store.sets_count()
        if others is signer:
            other = install("s0", 2)
        else:
            other = kept.install(rule_record(name="r"), head=head("theirs"), signer=others)
        too_many = [one.get("refusal", {}).get("reason") == "too many sets" for one in more]
        return Filled(
            cap, at_cap, "refusal" in last, beyond, sum(too_many),
            other["outcome"]["accepted"] == 1, 0,
        )  # fmt: skip


@fills("router", "sets of rules")
def sets() -> Filled:
    """A set that is known is changed still."""
    return _of_sets(MAX_SETS_COUNT, ISP, ISP)


@fills("router", "sets of rules of one third party")
def signer_sets() -> Filled:
    """The ISP still makes sets."""
    return _of_sets(MAX_SIGNER_SETS_COUNT, TENANT, ISP)


def _of_one_key(cap: int, signer: Identity, **named: Any) -> Filled:
    """All at once; then one more, and one that names another."""
    with _kept() as kept:

        def install(name: str, numbers: range, serial: int, **more: Any) -> dict[str, Any]:
            records = [rule_record(name=f"r{one}", **named, **more) for one in numbers]
            return kept.install(*records, head=head(name, serial), signer=signer, grants=[grant()])

        def count() -> int:
            return kept.keeper.store.totals().entries

        first = install("full", range(cap), 1)
        at_cap = count()
        refused = [
            install(name, numbers, 2)["outcome"]["reasons"] == {"crowded": 1}
            for name, numbers in (("full", range(cap + 1)), ("more", range(1)))
        ]
        beyond = count()
        other = install("other", range(1), 1, ingress=OTHER.guid.hex)["outcome"]["accepted"] == 1
        for name in ("full", "other"):
            kept.install(head=head(name, 9, replaces=True), signer=signer)
        return Filled(cap, at_cap, "refusal" in first, beyond, sum(refused), other, count())


@fills("router", "rules that name the same")
def rules_of_one_key() -> Filled:
    return _of_one_key(MAX_RULES_PER_KEY_COUNT, ISP)


@fills("router", "rules of one third party that name the same")
def signer_rules_of_one_key() -> Filled:
    """Of a destination that was granted to it."""
    return _of_one_key(MAX_SIGNER_RULES_PER_KEY_COUNT, TENANT)


@fills("router", "rules of third parties that name the same")
def third_party_rules_of_one_key() -> Filled:
    """Two have all that they may, a third one comes; the ISP goes on."""
    cap, each = MAX_THIRD_PARTY_RULES_PER_KEY_COUNT, MAX_SIGNER_RULES_PER_KEY_COUNT
    with _kept() as kept:

        def install(name: str, count: int, signer: Identity, serial: int = 1) -> int:
            records = [rule_record(name=f"r{one}") for one in range(count)]
            more = {"serial": serial, "replaces": not count}
            grants = [grant(to=signer)]
            answer = kept.install(*records, head=head(name, **more), signer=signer, grants=grants)
            accepted: int = answer["outcome"]["accepted"]
            return accepted

        def count() -> int:
            return kept.keeper.store.totals().third_party

        taken = [install("full", each, one) for one in (TENANT, OTHER)]
        at_cap = count()
        more = install("more", 2, STRANGER)
        beyond = count()
        other = install("own", 2, ISP) == 2
        for one in (TENANT, OTHER):
            install("full", 0, one, 9)
        return Filled(cap, at_cap, cap - sum(taken), beyond, 2 - more, other, count())


@fills("router", "rules that name nothing")
def rules_of_no_key() -> Filled:
    return _of_one_key(MAX_UNNAMED_COUNT, ISP, destination=None)


def _of_revocations(cap: int, issuer: Identity, rests_on: bool) -> Filled:
    """All but the last stand in the store already: to sign so many takes minutes."""
    with _kept() as kept:
        store = kept.keeper.store
        with store.change():
            for number in range(cap - 1):
                digest = number.to_bytes(32, "big")
                store.revocations.put(digest, issuer.public_key, NOW_S + DAY_S, bytes(64))

        def revoke(number: int, owner: Identity = issuer) -> bool:
            given = grant(owner, TENANT, [owner.guid.value], nonce=bytes([number]) * 16)
            if rests_on or owner is not issuer:
                record = rule_record(name="r", destination=owner.guid.hex)
                kept.install(record, head=head(f"s{number}"), signer=TENANT, grants=[given])
            path = kept.folder / "revocation"
            path.write_bytes(revoke_grant(owner, given).to_bytes())
            return "refusal" in kept.keeper.revoke(path, in_force=kept.version)

        def count() -> int:
            return store.revocations.counts(b"")[0]

        first = revoke(1)
        at_cap = count()
        more = [revoke(number) for number in range(2, 5)]
        beyond = count()
        kept.now_s = NOW_S + 3 * DAY_S
        kept.keeper.tidy(kept.version)
        left = count()
        kept.now_s = float(NOW_S)
        goes_on = not revoke(9, OTHER)
        return Filled(cap, at_cap, int(first), beyond, sum(more), goes_on, left)


@fills("router", "revocations of grants")
def revocations() -> Filled:
    """Of grants that rules rest on; they are forgotten when the grants end."""
    return _of_revocations(MAX_REVOCATIONS_COUNT, ISP, True)


@fills("router", "revocations of grants that no rule needs, of one issuer")
def issuer_revocations() -> Filled:
    return _of_revocations(MAX_ISSUER_REVOCATIONS_COUNT, STRANGER, False)


async def _until_told(first: bytes, told: asyncio.Event) -> AsyncIterator[bytes]:
    yield first
    await told.wait()


@fills("router", "documents of rules on their way in")
def documents() -> Filled:
    """Clients that do not come to an end; when one does, the next is taken."""

    async def fill(folder: Path) -> Filled:
        uploads, told = Uploads(folder, 1 << 20), asyncio.Event()

        async def bring() -> bool:
            try:
                async with uploads.receive(_until_told(b"x", told)):
                    return True
            except RuleUploadError:
                return False

        running = [asyncio.create_task(bring()) for _ in range(MAX_UPLOADS_COUNT)]
        async with asyncio.timeout(10):
            while uploads.open_count < MAX_UPLOADS_COUNT:
                await asyncio.sleep(0)
        at_cap, counted = uploads.open_count, uploads.refused_count
        more = [await bring() for _ in range(3)]
        beyond = uploads.open_count
        told.set()
        whole = await asyncio.gather(*running)
        goes_on = all(whole) and await bring() and not any(more)
        return Filled(
            MAX_UPLOADS_COUNT, at_cap, counted, beyond, uploads.refused_count, goes_on,
            uploads.open_count,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(fill(Path(folder)))


@fills("router", "bytes of a document of rules")
def document_bytes() -> Filled:
    """A document of full size is taken; of a larger one nothing stays."""
    cap = 3 << 20

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1 << 16):
            yield bytes(min(1 << 16, size - start))

    async def fill(folder: Path) -> Filled:
        uploads = Uploads(folder, cap)

        async def bring(size: int) -> int:
            try:
                async with uploads.receive(pieces(size)) as path:
                    return path.stat().st_size
            except RuleUploadError:
                return 0

        at_cap = await bring(cap)
        counted = uploads.refused_count
        beyond = await bring(cap + 1)
        left = sum(path.stat().st_size for path in (folder / "uploads").iterdir())
        return Filled(
            cap, at_cap, counted, beyond, uploads.refused_count, await bring(1) == 1, left
        )

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(fill(Path(folder)))


class _SilentWriter:
    """The way to a keeper that answers nothing."""

    def write(self, data: bytes) -> None:
        pass


@fills("router", "requests to the keeper of rules")
def requests() -> Filled:
    """A keeper that answers nothing until it ends."""

    async def fill() -> Filled:
        link = KeeperLink(Path("absent"), lambda: 0.0, dict, lambda state: None)
        link._writer = _SilentWriter()  # type: ignore[assignment]  # it plays a stream's
        asked = [
            asyncio.create_task(link.request({"do": "ask"})) for _ in range(MAX_REQUESTS_COUNT)
        ]
        await asyncio.sleep(0)
        at_cap, counted = len(link._waiting), link.refused_count
        more = await asyncio.gather(
            *(link.request({"do": "ask"}) for _ in range(3)), return_exceptions=True
        )
        beyond = len(link._waiting)
        link.kill()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        told = all(isinstance(end, RulesUnavailableError) for end in [*ends, *more])
        return Filled(
            MAX_REQUESTS_COUNT, at_cap, counted, beyond, link.refused_count, told,
            len(link._waiting),
        )  # fmt: skip

    return asyncio.run(fill())
