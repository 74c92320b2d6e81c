"""`packetcloud rule install|list|show|withdraw`: the rules of a running router."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packetcloud.chunk.names import GUID, SID
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, ROUTER, TIMEOUT, NameType, group

if TYPE_CHECKING:
    from packetcloud.chunk.identity import Identity
    from packetcloud.router.rules.client import RuleClient
    from packetcloud.router.rules.schemas import Installation, Refusal, RuleEntry, RuleSetInfo

MAX_SHOWN_COUNT = 20
"""Refused items in the table; JSON has those that the router lists."""
MAX_LISTED_COUNT = 100
"""Rules in the table unless more are asked for."""
MAX_TRIES_COUNT = 5
"""Of a withdrawal, while others change the same set."""
_DAY_S = 86_400
url_options = group(
    ROUTER,
    TIMEOUT,
)


@click.command()
@click.argument("file", type=FILE)
@url_options
@click.option("--dry-run", is_flag=True, help="Say what would become of it; change nothing.")
@pass_output
def install(output: Output, file: Path, url: str, timeout: float, dry_run: bool) -> ExitCode:
    """Install the signed document of rules in FILE at a running router.

    Returns when what was accepted is in force and lasts. Exit code 1 says that the document, or an
    item of it, was refused.
    """
    return _show(output, _bring(output, file, url, timeout, is_dry_run=dry_run))


@click.command(name="list")
@url_options
@click.option("--set", "set_name", help="Rules of this set.")
@click.option("--signer", type=NameType(GUID), help="Rules that this key signed.")
@click.option("--service", type=NameType(SID), help="Rules that lead to this service.")
@click.option("--destination", type=NameType(GUID), help="Rules that name this destination.")
@click.option("--name", help="Rules whose names begin so.")
@click.option("--sets", is_flag=True, help="List the sets instead of the rules.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=MAX_LISTED_COUNT,
    show_default=True,
    help="Rules at most.",
)
@pass_output
def list_rules(
    output: Output,
    url: str,
    timeout: float,
    set_name: str | None,
    signer: GUID | None,
    service: SID | None,
    destination: GUID | None,
    name: str | None,
    sets: bool,
    limit: int,
) -> None:
    """List the rules that are installed at a running router, with their hits."""
    from itertools import islice

    from packetcloud.router.rules.client import RuleClient

    with RuleClient(url, timeout) as client:
        if sets:
            _show_sets(output, client)
            return
        given = {
            "set": set_name,
            "signer": signer.hex if signer is not None else None,
            "service": service.hex if service is not None else None,
            "destination": destination.hex if destination is not None else None,
            "name": name,
        }
        filters = {key: value for key, value in given.items() if value is not None}
        found = list(islice(client.rules(filters), limit + 1))
    if len(found) > limit:
        output.warn(f"there are more than {limit}; see them all with a larger --limit")
    shown = found[:limit]
    output.report(
        [one.model_dump() for one in shown],
        [
            Table(
                ("Set", "Name", "Service", "Mode", "State", "By", "Hits"),
                [
                    (
                        one.set,
                        one.name,
                        one.service[:8],
                        one.mode,
                        one.state,
                        _author(one),
                        _hits(one),
                    )
                    for one in shown
                ],
            )
        ],
    )


@click.command()
@click.argument("set_name", metavar="SET")
@click.argument("name")
@url_options
@click.option("--signer", type=NameType(GUID), help="Where several signers have such a set.")
@pass_output
def show(
    output: Output, set_name: str, name: str, url: str, timeout: float, signer: GUID | None
) -> None:
    """Show the rule NAME of SET: what it says, what it did, and the document that it came with."""
    from packetcloud.router.rules.client import RuleClient

    with RuleClient(url, timeout) as client:
        found = client.rule(set_name, name, signer.hex if signer is not None else None)
    one = found.rule
    facts: list[tuple[str, object]] = [
        ("set", one.set),
        ("name", one.name),
        ("number", one.number),
        ("signer", one.signer),
        ("by the ISP", one.is_own),
        ("mode", one.mode),
        ("state", one.state),
        *([("revoked grant", one.revoked_grant)] if one.revoked_grant is not None else []),
        ("valid from", _time(one.valid_from_s)),
        ("valid until", _time(one.valid_until_s)),
        ("hits", one.hits),
        ("shadow hits", one.shadow_hits),
        ("serial of the set", found.serial),
        ("document", found.evidence.document),
        ("kept as", found.evidence.path),
    ]
    fields = [(key, _text(value)) for key, value in one.item.items() if key != "name"]
    if one.left_out:
        fields.append(("and besides", f"{one.left_out} names; the document has them"))
    output.report(found.model_dump(), [Table(("", ""), facts), Table(("Field", "Value"), fields)])


@click.command()
@click.argument("set_name", metavar="SET")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--key", "key_file", type=FILE, required=True, help="Key file of the set's signer.")
@url_options
@pass_output
def withdraw(
    output: Output,
    set_name: str,
    names: tuple[str, ...],
    key_file: Path,
    url: str,
    timeout: float,
) -> ExitCode:
    """Withdraw rules of SET from a running router: those named, or all of them.

    Makes the change, signs it for this router with the serial that comes next, and installs it.
    Exit code 1: it was refused, or a rule that was named is not there.
    """
    from packetcloud.chunk.identity import load_identity_file
    from packetcloud.router.rules.client import RuleClient
    from packetcloud.router.rules.schemas import Refusal

    identity = load_identity_file(key_file)
    for _ in range(MAX_TRIES_COUNT):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "withdrawal"
            with RuleClient(url, timeout) as client:
                _write_withdrawal(path, client, identity, set_name, names, url, timeout)
            answer = _bring(output, path, url, timeout)
        # Somebody else may have changed the set in the meantime.
        if not isinstance(answer, Refusal) or answer.reason != "replayed":
            break
    code = _show(output, answer)
    if isinstance(answer, Refusal) or not answer.unchanged:
        return code
    absent = ", ".join(one.name for one in answer.items if one.result == "unchanged")
    output.warn(
        f"{answer.unchanged} of these rules are not in the set{absent and ': '}{absent}; see: "
        f"packetcloud rule list --set {set_name}"
    )
    return ExitCode.NEGATIVE


def _write_withdrawal(
    path: Path,
    client: RuleClient,
    identity: Identity,
    set_name: str,
    names: tuple[str, ...],
    url: str,
    timeout: float,
) -> None:
    """Write a signed document that withdraws rules of a set, with the serial that comes next."""
    import io

    from packetcloud.router.errors import RuleNotFoundError
    from packetcloud.router.rules.document import Head, line_of
    from packetcloud.router.rules.signed import sign_document
    from packetcloud.router.status import fetch_status

    _, sets = client.sets()
    serials = [one.serial for one in sets if (one.set, one.signer) == (set_name, identity.guid.hex)]
    if not serials:
        raise RuleNotFoundError(
            f"{url} has no set {set_name!r} by {identity.guid.hex}; see: packetcloud rule list "
            "--sets"
        )
    router = GUID.from_hex(fetch_status(url, timeout).info.guid)
    head = Head(
        set_name,
        serials[0] + 1,
        frozenset({router.value}),
        valid_until_s=float(int(time.time()) + _DAY_S),
        replaces=not names,
    )
    body = head.to_bytes() + b"".join(line_of({"withdraw": name}) for name in names)
    with path.open("wb") as target:
        sign_document(io.BytesIO(body), identity, (), target)


def _bring(
    output: Output, file: Path, url: str, timeout: float, *, is_dry_run: bool = False
) -> Installation | Refusal:
    from packetcloud.router.rules.client import RuleClient

    size = file.stat().st_size
    with RuleClient(url, timeout) as client, output.progress() as progress:
        task = progress.add_task("sent", total=size)

        def moved(count: int) -> None:
            words = "sent" if count < size else "being installed"
            progress.update(task, completed=count, description=words)

        return client.install(file, moved, is_dry_run=is_dry_run)


def _show(output: Output, answer: Installation | Refusal) -> ExitCode:
    from packetcloud.router.rules.schemas import Refusal

    if isinstance(answer, Refusal):
        return show_refusal(output, answer)
    return _show_installation(output, answer)


def show_refusal(output: Output, refusal: Refusal) -> ExitCode:
    """Show why a document is refused as a whole."""
    facts: list[tuple[str, object]] = [
        ("refused", "the whole document"),
        ("reason", refusal.reason),
        ("detail", refusal.detail),
    ]
    output.report({"refused": refusal.model_dump()}, [Table(("", ""), facts)])
    return ExitCode.NEGATIVE


def _show_installation(output: Output, done: Installation) -> ExitCode:
    facts = installation_facts(done)
    facts += [("version in force", done.version), ("took", f"{done.duration_s:.2f} s")]
    if done.is_dry_run:
        facts.insert(0, ("dry run", "nothing was changed"))
    tables = [Table(("", ""), facts), *refused_tables(done)]
    output.report(done.model_dump(), tables)
    return ExitCode.NEGATIVE if done.refused else ExitCode.FINE


def installation_facts(done: Installation) -> list[tuple[str, object]]:
    """Return what became of a document, as rows."""
    return [
        ("set", done.set),
        ("signer", done.signer),
        ("by the ISP", done.is_own),
        ("accepted", done.accepted),
        ("unchanged", done.unchanged),
        ("withdrawn", done.withdrawn),
        ("refused", done.refused),
    ]


def refused_tables(done: Installation) -> list[Table]:
    """Return the items that were refused, and how many for each reason if they are many."""
    refused = [one for one in done.items if one.result == "refused"]
    if not refused:
        return []
    rows = [(one.item, one.name, one.reason, one.detail) for one in refused[:MAX_SHOWN_COUNT]]
    tables = [Table(("Item", "Name", "Refused", "Why"), rows)]
    if done.refused > len(rows):
        counts = [(reason, count) for reason, count in sorted(done.reasons.items())]
        tables.append(Table(("Refused in all", "Items"), counts))
    return tables


def _show_sets(output: Output, client: Any) -> None:
    sums, sets = client.sets()
    output.report(
        {
            "version": sums.version,
            "active": sums.active,
            "shadow": sums.shadow,
            "suspended": sums.suspended,
            "revoked": sums.revoked,
            "sets": [one.model_dump() for one in sets],
        },
        [
            Table(
                ("Set", "Signer", "By", "Serial", "Active", "Shadow", "State"),
                [
                    (
                        one.set,
                        one.signer,
                        "ISP" if one.is_own else "third party",
                        one.serial,
                        one.active,
                        one.shadow,
                        _state_of_set(one),
                    )
                    for one in sets
                ],
            )
        ],
    )


def _state_of_set(one: RuleSetInfo) -> str:
    if one.is_suspended:
        return "suspended"
    return f"in force, {one.revoked} revoked" if one.revoked else "in force"


def _time(time_s: float | None) -> str | None:
    from packetcloud.chunk.timestamps import time_text

    return time_text(time_s) if time_s is not None else None


def _author(one: RuleEntry) -> str:
    return "ISP" if one.is_own else one.signer[:8]


def _hits(one: RuleEntry) -> int:
    return one.shadow_hits if one.mode == "shadow" else one.hits


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
