"""`packetcloud rule`: write, sign and check demultiplexing rules, grant and install them.

What asks a running router, and what explains, is in modules of its own that add to this group.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from packetcloud.chunk.names import GUID, GUID_ZERO, SID
from packetcloud.cli.explain import explain
from packetcloud.cli.out_files import refuse_to_overwrite, replacing
from packetcloud.cli.output import ExitCode, Output, Table, pass_output
from packetcloud.cli.params import FILE, NameType, PublicKeyType, TimeType
from packetcloud.cli.rule_rehearsal import rehearse
from packetcloud.cli.rule_revoke import revoke
from packetcloud.cli.rule_router import install, list_rules, show, withdraw

if TYPE_CHECKING:
    from packetcloud.chunk.grants import Grant
    from packetcloud.router.rules.trial import Trial

MAX_SHOWN_COUNT = 20
"""Refused items in the table; JSON has more of them."""
_key = click.option("--key", "key_file", type=FILE, required=True, help="Key file of who signs.")
_out = click.option("-o", "--out", type=FILE, required=True, help="File to write.")


@click.group()
def rule() -> None:
    """Write, sign and check demultiplexing rules, grant and install them."""


for _command in (install, list_rules, show, withdraw, revoke):
    rule.add_command(_command)


rule.add_command(explain)


@rule.command()
@click.argument("file", type=FILE)
@_key
@click.option(
    "--grant", "grant_files", type=FILE, multiple=True, help="A grant; once for each of a chain."
)
@_out
@pass_output
@click.pass_context
def sign(
    context: click.Context,
    output: Output,
    file: Path,
    key_file: Path,
    grant_files: tuple[Path, ...],
    out: Path,
) -> None:
    """Check the document of rules in FILE, sign it and write it to OUT.

    FILE is TOML, JSON or JSON Lines. Nothing is written if an item of it is refused.
    """
    from packetcloud.chunk.identity import load_identity_file
    from packetcloud.router.rules.errors import RuleDocumentError
    from packetcloud.router.rules.patterns import check_pattern
    from packetcloud.router.rules.signed import sign_document
    from packetcloud.router.rules.trial import try_document
    from packetcloud.router.rules.written import is_signed, open_written

    refuse_to_overwrite(out, file, key_file, *grant_files)
    identity = load_identity_file(key_file)
    grants = [_read_grant(path) for path in grant_files]
    with _naming(file), file.open("rb") as stream:
        if is_signed(stream):
            raise RuleDocumentError("signed already; sign what it was made of")
        with _bar(output, file, stream) as tell:
            trial = try_document(stream, check_pattern, time.time(), tell=tell)
        if trial.refused_count:
            _show(output, file, trial)
            context.exit(ExitCode.NEGATIVE)
        stream.seek(0)
        with replacing(out) as target:
            sign_document(open_written(stream), identity, grants, target)
    output.record(_facts(out, trial) | {"signer": identity.guid.hex, "grants": len(grants)})


@rule.command()
@click.argument("file", type=FILE)
@click.option("--router", type=NameType(GUID), help="Ask as the router of this GUID would.")
@click.option(
    "--router-key",
    "own_keys",
    type=PublicKeyType(),
    multiple=True,
    help="A key of the ISP, which may say every rule.",
)
@click.option(
    "--open-service",
    "open_services",
    type=NameType(SID),
    multiple=True,
    help="A service that the router offers to everybody.",
)
@click.option("--at", "at_s", type=TimeType(), help="Ask as if it were then; default: now.")
@click.option(
    "--config", type=FILE, help="Ask as the router of this config would at the installation."
)
@pass_output
@click.pass_context
def check(
    context: click.Context,
    output: Output,
    file: Path,
    router: GUID | None,
    own_keys: tuple[bytes, ...],
    open_services: tuple[SID, ...],
    at_s: float | None,
    config: Path | None,
) -> None:
    """Check the document of rules in FILE, signed or not.

    With any of the options a signed one is also asked for its proof, as a router does that believes
    these keys. With --config the answer is that of `rule install` at that router if it had no rules
    yet: its signers, its services and its limits count, and no router is asked. Exit code 1 says
    that the document, or an item of it, is refused.
    """
    from packetcloud.router.rules.errors import RulesRefusedError
    from packetcloud.router.rules.patterns import check_pattern
    from packetcloud.router.rules.proof import Trust
    from packetcloud.router.rules.trial import try_document

    if config is not None:
        if router is not None or own_keys or open_services:
            raise click.UsageError(
                "--config says what --router, --router-key and --open-service would: leave them out"
            )
        context.exit(rehearse(output, file, config, time.time() if at_s is None else at_s))
    is_proof_asked = router is not None or own_keys or open_services or at_s is not None
    trust = None
    if is_proof_asked:
        trust = Trust(
            (GUID_ZERO if router is None else router).value,
            frozenset(own_keys),
            frozenset(sid.value for sid in open_services),
        )
    now_s = time.time() if at_s is None else at_s
    try:
        with _naming(file), file.open("rb") as stream, _bar(output, file, stream) as tell:
            trial = try_document(
                stream,
                check_pattern,
                now_s,
                trust,
                is_at_its_audience=router is None,
                tell=tell,
            )
    except RulesRefusedError as error:
        output.record({"file": str(file), "refused": str(error)})
        context.exit(ExitCode.NEGATIVE)
    _show(output, file, trial)
    if trial.refused_count:
        context.exit(ExitCode.NEGATIVE)


@rule.command()
@_key
@click.option(
    "--to", type=PublicKeyType(), required=True, help="Who gets it: public key, or key file."
)
@click.option(
    "--name",
    "names",
    type=NameType(GUID),
    multiple=True,
    help="A GUID or SID that it is about; default: that of the key.",
)
@click.option(
    "--service",
    "services",
    type=NameType(SID),
    multiple=True,
    help="A service that rules may lead to.",
)
@click.option("--any-service", is_flag=True, help="Rules may lead to every service.")
@click.option("--from", "from_s", type=TimeType(), help="When it begins; default: now.")
@click.option("--until", "until_s", type=TimeType(), required=True, help="When it ends.")
@click.option("--may-delegate", is_flag=True, help="Who gets it may grant it on.")
@_out
@pass_output
def grant(
    output: Output,
    key_file: Path,
    to: bytes,
    names: tuple[GUID, ...],
    services: tuple[SID, ...],
    any_service: bool,
    from_s: float | None,
    until_s: float,
    may_delegate: bool,
    out: Path,
) -> None:
    """Let another key write rules about names of yours, and write that to OUT.

    Times are cut to whole seconds.
    """
    from packetcloud.chunk.grants import NONCE_BYTES, issue_grant
    from packetcloud.chunk.identity import load_identity_file

    if any_service == bool(services):
        raise click.UsageError("one of --service and --any-service is needed, and not both.")
    refuse_to_overwrite(out, key_file)
    identity = load_identity_file(key_file)
    made = issue_grant(
        identity,
        to,
        frozenset(name.value for name in names) or frozenset({identity.guid.value}),
        None if any_service else frozenset(sid.value for sid in services),
        int(time.time() if from_s is None else from_s),
        int(until_s),
        nonce=secrets.token_bytes(NONCE_BYTES),
        may_delegate=may_delegate,
    )
    out.write_bytes(made.to_bytes() + b"\n")
    facts = made.to_json()
    del facts["nonce"], facts["signature"], facts["format"]
    facts["file"] = str(out)
    rows = [
        (key, ", ".join(value) if isinstance(value, list) else value)
        for key, value in facts.items()
    ]
    output.report(facts, [Table(("", ""), rows)])


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Let errors about a document say which it is."""
    from packetcloud.router.rules.errors import RuleDocumentError

    try:
        yield
    except RuleDocumentError as error:
        raise RuleDocumentError(f"{file}: {error}") from None


def _read_grant(path: Path) -> Grant:
    from packetcloud.chunk.errors import GrantError
    from packetcloud.chunk.grants import MAX_GRANT_BYTES, Grant

    with path.open("rb") as stream:
        text = stream.read(MAX_GRANT_BYTES + 1)
    try:
        found = Grant.from_text(text)
    except GrantError as error:
        raise GrantError(f"{path}: {error}") from None
    if not found.is_genuine:
        raise GrantError(f"{path}: the signature does not fit; get the grant anew")
    return found


@contextmanager
def _bar(output: Output, file: Path, stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show how far a large document was read."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    with output.progress(words, BarColumn(), TimeRemainingColumn()) as shown:
        task = shown.add_task(str(file), total=file.stat().st_size)

        def tell(items: int) -> None:
            shown.update(task, completed=stream.tell(), description=f"{file}: {items} items")

        yield tell


def _facts(file: Path, trial: Trial) -> dict[str, object]:
    return {
        "file": str(file),
        "set": trial.head.set_name,
        "serial": trial.head.serial,
        "rules": trial.rule_count,
        "withdrawals": trial.withdrawal_count,
    }


def _show(output: Output, file: Path, trial: Trial) -> None:
    facts = _facts(file, trial) | {"refused": trial.refused_count}
    if trial.signer is not None:
        facts["signer"] = GUID.from_public_key(trial.signer).hex
    if trial.is_own is not None:
        facts["by the ISP"] = trial.is_own
    tables = [Table(("", ""), list(facts.items()))]
    if trial.refused:
        rows = [[one.text] for one in trial.refused[:MAX_SHOWN_COUNT]]
        left = trial.refused_count - len(rows)
        tables.append(Table(("refused",), [*rows, *([[f"and {left} more"]] if left else [])]))
    document = {key.replace(" ", "_"): value for key, value in facts.items()} | {
        "items": [
            {"number": one.number, "name": one.name, "field": one.field, "text": one.text}
            for one in trial.refused
        ]
    }
    output.report(document, tables)
