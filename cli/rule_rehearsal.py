"""`packetcloud rule check --config`: what the router of a config would say to a document."""

from __future__ import annotations

from pathlib import Path

from packetcloud.cli.output import ExitCode, Output, Table
from packetcloud.cli.rule_router import (
    MAX_SHOWN_COUNT,
    installation_facts,
    refused_tables,
    show_refusal,
)


def rehearse(output: Output, file: Path, config: Path, now_s: float) -> ExitCode:
    """Judge FILE as the router of `config` would, and show the answer."""
    from packetcloud.router.config import RouterConfig
    from packetcloud.router.errors import RouterConfigError
    from packetcloud.router.rules import rehearsal
    from packetcloud.router.rules.policy import policy_of
    from packetcloud.router.rules.schemas import Refusal

    loaded = RouterConfig.load(config)
    settings = loaded.settings
    if loaded.rules_folder is None:
        raise RouterConfigError(f"{config}: it has no [rules], so this router takes none; add it")
    listed = None
    if settings.unlisted_services is None:
        listed = frozenset(one.sid.value for one in settings.services)
    found = rehearsal.rehearse(file, policy_of(settings, loaded.rules), listed, now_s)
    answer = found.answer
    if isinstance(answer, Refusal):
        return show_refusal(output, answer)
    unlisted = [(sid.hex(), count) for sid, count in found.unlisted.most_common()]
    tables = [Table(("", ""), [("router", settings.name), *installation_facts(answer)])]
    tables += refused_tables(answer)
    if unlisted:
        title = "Service that the config does not list"
        tables.append(Table((title, "Rules that lead there"), unlisted[:MAX_SHOWN_COUNT]))
    document = answer.model_dump(exclude={"is_dry_run", "version", "duration_s"})
    services = [{"service": sid, "rules": count} for sid, count in unlisted]
    output.report(document | {"router": settings.guid.hex, "unlisted_services": services}, tables)
    return ExitCode.NEGATIVE if answer.refused else ExitCode.FINE
