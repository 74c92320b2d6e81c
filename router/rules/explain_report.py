"""An explanation of rules as values of JSON: the same from files and from a keeper."""

from __future__ import annotations

from packetcloud.router.rules.explain import Finding, Outcome, RulesExplained
from packetcloud.router.rules.explain_schemas import MAX_FINDINGS_COUNT, RuleFinding, RulesReport
from packetcloud.router.rules.rule import InstalledRule


def report_of(
    explained: RulesExplained, *, has_payload: bool, is_complete: bool = True
) -> RulesReport:
    """Return the report; of too many findings those that miss are left out first, by rank."""
    findings = explained.findings
    matching = [one for one in findings if one.outcome is not Outcome.MISSED]
    room = max(MAX_FINDINGS_COUNT - len(matching), 0)
    missed = [one for one in findings if one.outcome is Outcome.MISSED]
    left_out = {id(one) for one in missed[room:]} | {
        id(one) for one in matching[MAX_FINDINGS_COUNT:]
    }
    return RulesReport(
        rules=explained.rules_count,
        others=explained.others_count,
        is_complete=is_complete,
        has_payload=has_payload,
        findings=[_finding(one) for one in findings if id(one) not in left_out],
        left_out=len(left_out),
    )


def title(installed: InstalledRule) -> str:
    """Return set and name of a rule."""
    return f"{installed.set_name}/{installed.rule.name}"


def _finding(found: Finding) -> RuleFinding:
    installed, rule = found.installed, found.installed.rule
    by = found.by or found.would_be_by
    return RuleFinding(
        number=installed.number,
        set=installed.set_name,
        name=rule.name,
        signer=installed.signer.hex(),
        is_own=installed.is_own,
        priority=rule.priority,
        action=rule.action.value,
        mode=rule.mode.value,
        service=rule.service.hex,
        if_absent=rule.if_absent.value,
        outcome=found.outcome.value,
        missed=found.miss.value if found.miss is not None else None,
        by=title(by) if by is not None else None,
    )
