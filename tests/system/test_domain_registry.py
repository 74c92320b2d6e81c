"""Who there is and what was published: owners see their own, caps hold, a nonce counts once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from packetcloud.chunk.names import SID
from packetcloud.domain_controller.core.cloudlets import Cloudlet, CloudletReport, NodeReport
from packetcloud.domain_controller.core.installations import RefusedRule, RulesState, SetState
from packetcloud.domain_controller.core.money import Currency
from packetcloud.domain_controller.core.principals import Key, Principal, Role, Service
from packetcloud.domain_controller.state import (
    answers,
    catalogue,
    nonces,
    ownership,
    registry,
    reports,
    rule_outbox,
)
from packetcloud.domain_controller.state.answers import Answer, Asked
from packetcloud.domain_controller.state.catalogue import RuleSet
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.errors import ConflictError, ReplayedError, StaleOwnerError
from packetcloud.domain_controller.state.nonces import Nonce
from packetcloud.domain_controller.state.reports import Reports
from packetcloud.domain_controller.state.transaction import Transaction
from packetcloud.domain_controller.state.writer import Writer
from tests.system.domain_databases import url
from tests.system.domain_world import NOW_MS, PRICES, SMALL, register

__all__ = ["url"]


class Office:
    """A controller that registers."""

    def __init__(self, url: str) -> None:
        self.now_ms = NOW_MS
        self.database = Database(url)
        self.writer = Writer(self.database, lambda: self.now_ms)
        self.do = self.writer.do_blocking

    def close(self) -> None:
        self.writer.close()
        self.database.close()


@pytest.fixture
def office(url: str) -> Iterator[Office]:
    made = Office(url)
    made.do(register)
    yield made
    made.close()


def key(number: int, principal: str = "acme") -> Key:
    return Key(f"k{number}", principal, bytes([number % 256]) * 32, NOW_MS, NOW_MS + 1000)


def service(number: int, owner: str = "acme") -> Service:
    return Service(f"s{number}", owner, SID(number.to_bytes(20, "big")), "image")


def rule_set(serial: int, owner: str = "acme", name: str = "filters") -> RuleSet:
    id_ = f"{owner}-{name}"
    return RuleSet(id_, owner, "ab" * 20, name, serial, 3, ("c1",), bytes(32), NOW_MS)


def test_a_key_signs_for_its_principal_within_its_time_until_it_is_revoked(office: Office) -> None:
    """Not before, not after, and never again under the same id."""
    office.do(lambda work: registry.add_key(work, key(1)))
    with office.database.reading() as connection:
        (found,) = registry.signers(connection, ["k1", "k2"], NOW_MS)
        assert found == (Principal("acme", Role.TENANT), key(1))
        assert registry.signers(connection, ["k1"], NOW_MS - 1) == []
        assert registry.signers(connection, ["k1"], NOW_MS + 1000) == []
        assert registry.signers(connection, ["k2"], NOW_MS) == []
    assert not office.do(lambda work: registry.revoke_key(work, "other", "k1"))
    assert office.do(lambda work: registry.revoke_key(work, "acme", "k1"))
    with office.database.reading() as connection:
        assert registry.signers(connection, ["k1"], NOW_MS) == []
        assert registry.keys(connection, "acme") == []
    with pytest.raises(ConflictError, match="known already"):
        office.do(lambda work: registry.add_key(work, key(1)))


def test_so_many_keys_and_no_more(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the cap one is taken, one more is refused; a revoked one makes room."""
    monkeypatch.setattr(registry, "MAX_KEYS_COUNT", 2)
    for number in (1, 2):
        office.do(lambda work, n=number: registry.add_key(work, key(n)))
    with pytest.raises(ConflictError, match="2 keys"):
        office.do(lambda work: registry.add_key(work, key(3)))
    office.do(lambda work: registry.revoke_key(work, "acme", "k1"))
    office.do(lambda work: registry.add_key(work, key(3)))


def test_services_belong_to_their_owners(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's service is not there, its SID cannot be taken, its name can; and a cap holds."""
    office.do(lambda work: registry.put_service(work, service(1), NOW_MS + 5))
    office.do(
        lambda work: registry.put_service(work, replace(service(1), image="newer"), NOW_MS + 9)
    )
    with office.database.reading() as connection:
        sid = service(1).sid
        found = registry.find_service(connection, sid, "acme")
        assert found is not None and found.image == "newer"
        assert registry.find_service(connection, sid, "other") is None
        assert registry.services(connection, "other") == []
        assert registry.services(connection) == [found]
    with pytest.raises(ConflictError, match="registered already"):
        stolen = replace(service(1), owner="other")
        office.do(lambda work: registry.put_service(work, stolen, NOW_MS))
    with pytest.raises(ConflictError, match="another service"):
        doubled = replace(service(2), name="s1")
        office.do(lambda work: registry.put_service(work, doubled, NOW_MS))
    monkeypatch.setattr(registry, "MAX_SERVICES_COUNT", 1)
    with pytest.raises(ConflictError, match="1 services"):
        office.do(lambda work: registry.put_service(work, service(2), NOW_MS))
    assert not office.do(lambda work: registry.remove_service(work, sid, "other"))
    assert office.do(lambda work: registry.remove_service(work, sid, "acme"))


def test_names_are_taken_once(office: Office) -> None:
    """A principal, a cloudlet; what is changed must be there, and keeps its role."""
    with pytest.raises(ConflictError, match="taken"):
        office.do(lambda work: registry.add_principal(work, Principal("acme", Role.ISP)))
    with pytest.raises(ConflictError, match="there already"):
        office.do(lambda work: registry.add_cloudlet(work, Cloudlet("c1", "south")))
    closed = Principal("acme", Role.TENANT, "Acme", is_open=False)
    assert office.do(lambda work: registry.change_principal(work, closed))
    assert not office.do(lambda work: registry.change_principal(work, Principal("acme", Role.ISP)))
    assert office.do(lambda work: registry.change_cloudlet(work, Cloudlet("c1", "south", 100)))
    assert not office.do(lambda work: registry.change_cloudlet(work, Cloudlet("c9", "south")))
    office.do(lambda work: registry.put_vi_type(work, SMALL))
    with office.database.reading() as connection:
        assert registry.find_principal(connection, "acme") == closed
        names = [one.name for one in registry.principals(connection, Role.TENANT)]
        assert names == ["acme", "other"]
        assert (
            registry.principals(connection, Role.TENANT, after="acme", limit=1)[0].name == names[1]
        )
        assert [one.region for one in registry.cloudlets(connection)] == ["south", "north"]
        assert registry.vi_types(connection) == {"small": SMALL}


def test_a_set_of_rules_is_replaced_by_a_newer_one_of_its_signer(office: Office) -> None:
    """An old serial is refused, also after the set was withdrawn; others do not see it."""
    office.do(lambda work: catalogue.put_rule_set(work, rule_set(2), "two"))
    for serial in (1, 2):
        with pytest.raises(ConflictError, match="serial 2 already"):
            office.do(lambda work, s=serial: catalogue.put_rule_set(work, rule_set(s), "old"))
    with pytest.raises(ConflictError, match="another tenant"):
        office.do(lambda work: catalogue.put_rule_set(work, rule_set(3, "other"), "theirs"))
    office.now_ms += 1
    office.do(lambda work: catalogue.put_rule_set(work, rule_set(1, name="more"), "more"))
    with office.database.reading() as connection:
        assert [one.name for one in catalogue.rule_sets(connection, "acme")] == ["more", "filters"]
        older = catalogue.rule_sets(connection, before=(NOW_MS + 1, "acme-more"))
        assert [one.name for one in older] == ["filters"]
        found = catalogue.find_rule_set(connection, "acme-filters", "acme")
        assert found is not None and found[1] == "two"
        assert catalogue.find_rule_set(connection, "acme-filters", "other") is None
    gone = replace(rule_set(3), id="another", rules_count=0)
    gone = office.do(lambda work: catalogue.put_rule_set(work, gone, "gone"))
    assert gone.id == "acme-filters", "a set keeps its id"
    assert gone.until_ms == NOW_MS + 1 + catalogue.WITHDRAWAL_MS
    with office.database.reading() as connection:
        assert [one.name for one in catalogue.rule_sets(connection, "acme")] == ["more"]
    for serial in (2, 3):
        with pytest.raises(ConflictError, match="serial 3 already"):
            office.do(lambda work, s=serial: catalogue.put_rule_set(work, rule_set(s), "again"))
    nothing = replace(rule_set(1, name="never"), rules_count=0)
    with pytest.raises(ConflictError, match="no set 'never'"):
        office.do(lambda work: catalogue.put_rule_set(work, nothing, "nothing"))


def test_what_cloudlets_say_of_rules_is_kept_under_the_owners_epoch(office: Office) -> None:
    """Sent until it is answered; what a cloudlet lacks is sent again; nobody else may write it."""
    owner = office.do(lambda work: ownership.take(work, ownership.cloudlet_channel("c1"), "one"))
    office.do(lambda work: catalogue.put_rule_set(work, rule_set(2), "two"))
    office.do(lambda work: rule_outbox.want(work, "acme-filters", 2, ["c1"]))

    def send(now_ms: int = NOW_MS + 1) -> list[str]:
        sent = office.do(lambda work: rule_outbox.send(work, owner, "c1", now_ms))
        return [one.text for one in sent]

    def hear(*said: SetState, is_whole: bool = False) -> dict[RulesState, int]:
        return office.do(lambda work: rule_outbox.hear(work, owner, "c1", said, is_whole=is_whole))

    assert send() == ["two"]
    assert send(NOW_MS) == [], "it is on its way"
    assert send() == ["two"], "it was not answered in time"
    installed = SetState("acme-filters", 2, RulesState.INSTALLED, 3)
    assert hear(installed, SetState("unknown", 9, RulesState.INSTALLED)) == {
        RulesState.INSTALLED: 1
    }
    assert send() == []
    assert hear(is_whole=True) == {RulesState.PENDING: 1}
    assert send() == ["two"], "the cloudlet has lost it"
    refusing = replace(installed, state=RulesState.PARTLY, refused_count=1)
    hear(replace(refusing, refusals=(RefusedRule("r", "crowded", "no"),)))
    hear(refusing, is_whole=True)
    with office.database.reading() as connection:
        (at,) = rule_outbox.states(connection, "acme-filters")
        assert at.told.said is not None and at.told.said.refusals[0].reason == "crowded"
        assert rule_outbox.counts(connection, ["acme-filters"]) == {"acme-filters": {"partly": 1}}
    assert hear(replace(installed, serial=7)) == {RulesState.DIFFERENT: 1}
    office.do(lambda work: ownership.take(work, owner.name, "two"))
    with pytest.raises(StaleOwnerError):
        hear(installed)
    office.do(lambda work: rule_outbox.want(work, "acme-filters", 2, ["c1"]))
    with pytest.raises(StaleOwnerError):
        send()
    ended = replace(rule_set(3), until_ms=NOW_MS)
    office.do(lambda work: catalogue.put_rule_set(work, replace(ended, rules_count=0), "ended"))
    office.now_ms += catalogue.WITHDRAWAL_MS + rule_outbox.KEPT_MS + 1
    assert office.do(rule_outbox.forget_ended) == 1


def test_a_published_price_list_does_not_change(office: Office) -> None:
    """The same again is nothing new; other prices need a higher version; the newest counts."""
    put = catalogue.put_price_list
    assert office.do(lambda work: put(work, PRICES, NOW_MS))
    assert not office.do(lambda work: put(work, PRICES, NOW_MS + 5))
    with pytest.raises(ConflictError, match="as version 2"):
        office.do(lambda work: put(work, replace(PRICES, chunk_price=PRICES.byte_price), NOW_MS))
    dollars = replace(PRICES, version=2, currency=Currency("USD"))
    for other in (dollars, replace(dollars, name="other", version=1)):
        with pytest.raises(ConflictError, match="is in USD, and 'standard' is in EUR"):
            office.do(lambda work, other=other: put(work, other, NOW_MS))  # type: ignore[misc]
    second = replace(PRICES, version=2, chunk_price=PRICES.byte_price)
    assert office.do(lambda work: put(work, second, NOW_MS + 10))
    with office.database.reading() as connection:
        assert catalogue.price_list_at(connection, NOW_MS - 1) == PRICES, "the first one"
        assert catalogue.price_list_at(connection, NOW_MS + 9) == PRICES
        assert catalogue.price_list_at(connection, NOW_MS + 10) == second
        assert catalogue.find_price_list(connection, PRICES.name, 1) == PRICES


def test_a_nonce_counts_once_and_a_key_of_a_request_is_known_for_its_time(office: Office) -> None:
    """A replay is refused until it has expired anyway; answers are forgotten after a week."""
    first, other = Nonce("k1", "n", NOW_MS + 5), Nonce("k2", "n", NOW_MS + 5)
    office.do(lambda _: None, nonce=first)
    with pytest.raises(ReplayedError, match="used already"):
        office.do(lambda _: None, nonce=first)
    office.do(lambda _: None, nonce=other)
    asked = Asked("acme", "key", bytes(32))
    office.do(lambda work: answers.once(work, asked, lambda: Answer(201, "made")))
    office.now_ms += 6
    assert office.do(nonces.forget_expired) == 2
    office.now_ms = NOW_MS + answers.KEPT_MS
    assert office.do(answers.forget_old) == 0
    office.now_ms += 1
    assert office.do(answers.forget_old) == 1


def test_reports_are_kept_in_memory_and_written_together(office: Office) -> None:
    """Only what is newer counts; what was written is known to the next start, and to others."""

    def report(cloudlet: str, at_ms: int) -> CloudletReport:
        return CloudletReport(cloudlet, at_ms, at_ms, (NodeReport("n1", SMALL.resources),))

    with office.database.reading() as connection:
        known, others = Reports(connection), Reports(connection)
    assert known.put(report("c1", 10)) and known.put(report("c2", 10))
    assert known.put(report("c1", 20)) and not known.put(report("c1", 15))
    some = known.some_unwritten()
    assert known.put(report("c2", 30)), "while c1 and the older one of c2 are written"

    def write(work: Transaction) -> None:
        reports.write(work, some)

    office.do(write)
    known.written(some)
    assert known.unwritten_count == 1 and known.some_unwritten() == [report("c2", 30)]
    with office.database.reading() as connection:
        others.read_others(connection)
        assert others.all() == Reports(connection).all()
    assert others.get("c1") == report("c1", 20) and others.get("c2") == report("c2", 10)
    others.forget("c1")
    assert others.get("c1") is None


def test_a_clock_that_is_set_back_does_not_freeze_reports(office: Office) -> None:
    """What comes an hour "before" the last report is the news; what overtook another one is not."""
    with office.database.reading() as connection:
        known = Reports(connection)
    hour_ms = 3_600_000

    def put(at_ms: int) -> bool:
        return known.put(CloudletReport("c1", 1, at_ms, (NodeReport("n1", SMALL.resources),)))

    assert put(2 * hour_ms) and not put(2 * hour_ms - 1)
    assert put(hour_ms) and put(hour_ms + 5000)
    report = known.get("c1")
    assert report is not None and report.received_at_ms == hour_ms + 5000
