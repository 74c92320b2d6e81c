"""From frames of the channel to events of the core, and from its commands to frames."""

from __future__ import annotations

from packetcloud.chunk.identity import Identity
from packetcloud.cloudlet.core.commands import SayAnswer, SayComplete, SayRules, SayUsage
from packetcloud.cloudlet.core.events import (
    CompleteTaken,
    Directed,
    DomainEvent,
    DomainUp,
    OrphanSaid,
    RulesSaid,
    UsageTaken,
)
from packetcloud.cloudlet.core.values import Resources
from packetcloud.domain_controller.channel.frames import (
    MAX_LINE_CHARS,
    AnswerFrame,
    CompletePart,
    CompleteTakenFrame,
    DirectiveFrame,
    DownFrame,
    OrphanFrame,
    RecordPart,
    RefusedPart,
    RulesFrame,
    RulesPart,
    RulesStateFrame,
    TakenFrame,
    UsageCompleteFrame,
    UsageFrame,
    WelcomeFrame,
)
from packetcloud.domain_controller.core.usage import RECORD_SIGNING


def event_of(frame: DownFrame, at_ms: int) -> DomainEvent | RulesSaid:
    """Return what a frame of the domain controller is to the core.

    Args:
        at_ms: now, by this machine's clock.
    """
    match frame:
        case WelcomeFrame():
            return DomainUp(frame.epoch, at_ms)
        case TakenFrame():
            parts = ((one.meter, one.number, one.outcome.value) for one in frame.records)
            return UsageTaken(frame.epoch, tuple(parts))
        case CompleteTakenFrame():
            ended = ((one.reservation, one.number) for one in frame.reservations)
            return CompleteTaken(frame.epoch, tuple(ended))
        case OrphanFrame():
            return OrphanSaid(frame.epoch, frame.reservation, frame.text)
        case RulesFrame():
            return RulesSaid(
                frame.epoch,
                frame.rule_set,
                frame.signer,
                frame.set_name,
                frame.serial,
                frame.until_ms,
                frame.document,
            )
        case DirectiveFrame():
            return Directed(
                epoch=frame.epoch,
                reservation=frame.reservation,
                number=frame.number,
                is_gone=frame.wanted.value == "gone",
                is_running=frame.wanted.value == "running",
                tenant=frame.tenant,
                vi_type=frame.vi_type,
                resources=Resources(
                    frame.resources.milli_cpus / 1000,
                    frame.resources.memory_bytes,
                    frame.resources.disk_bytes,
                    frame.resources.io_per_s,
                ),
                count=frame.count,
                service=frame.service,
                sid=frame.sid,
                terms=frame.terms,
                occurrences=frame.occurrences,
                at_ms=at_ms,
            )


def answer_frame(command: SayAnswer) -> AnswerFrame:
    """Return an answer as it is sent."""
    return AnswerFrame(
        epoch=command.epoch,
        reservation=command.reservation,
        number=command.number,
        is_accepted=command.is_accepted,
        text=command.text[:MAX_LINE_CHARS],
        seen=command.seen,
    )


def rules_frame(command: SayRules) -> RulesStateFrame:
    """Return what became of sets of rules as it is sent."""
    return RulesStateFrame(
        epoch=command.epoch,
        sequence=command.sequence,
        is_whole=command.is_whole,
        sets=tuple(
            RulesPart(
                rule_set=one.rule_set,
                serial=one.serial,
                state=one.state,
                accepted=one.accepted_count,
                refused=one.refused_count,
                revoked=one.revoked_count,
                text=one.text,
                refusals=tuple(
                    RefusedPart(name=rule.name, reason=rule.reason, text=rule.text)
                    for rule in one.refusals
                ),
            )
            for one in command.sets
        ),
    )


def complete_frame(command: SayComplete) -> UsageCompleteFrame:
    """Return of which reservations there is no more usage, as it is sent."""
    return UsageCompleteFrame(
        epoch=command.epoch,
        reservations=tuple(
            CompletePart(reservation=name, number=number) for name, number in command.reservations
        ),
    )


def usage_frame(command: SayUsage, identity: Identity) -> UsageFrame:
    """Return usage records as they are sent, each signed."""
    return UsageFrame(
        records=tuple(
            RecordPart(
                meter=record.meter,
                number=record.number,
                previous=record.previous.hex(),
                reservation=record.reservation,
                terms=record.terms,
                kind=record.kind,
                begin_ms=record.begin_ms,
                end_ms=record.end_ms,
                quantity=record.quantity,
                signature=identity.sign(RECORD_SIGNING, record.to_bytes()).hex(),
            )
            for record in command.records
        ),
    )
