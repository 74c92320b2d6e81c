"""What a router would say to a document if it had no rules yet: asked without that router.

The judge is the one of an installation: a keeper, in a folder that is thrown away afterwards.
Source: docs/reference/rules.md.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from packetcloud.router.rules.document import ItemError, Withdrawal
from packetcloud.router.rules.keeper import Keeper
from packetcloud.router.rules.policy import RulePolicy
from packetcloud.router.rules.rule import Action
from packetcloud.router.rules.schemas import Installation, Refusal
from packetcloud.router.rules.signed import open_signed
from packetcloud.router.rules.uploads import too_long


@dataclass(slots=True)
class Rehearsal:
    """What the router would say."""

    answer: Installation | Refusal
    """Of no version, and in no time."""
    unlisted: Counter[bytes] = field(default_factory=Counter)
    """Rules that lead to a service which the router does not list, by its SID."""


def rehearse(
    path: Path, policy: RulePolicy, listed: Collection[bytes] | None, now_s: float
) -> Rehearsal:
    """Judge a signed document as a router with this policy would.

    Args:
        listed: SIDs of the router's services; None: any service may be there.
        now_s: seconds since 1970.

    Raises:
        RuleUploadError: it is longer than the router takes.
        RuleStoreError: there is no room for a folder.
    """
    if path.stat().st_size > policy.settings.max_document_bytes:
        raise too_long(policy.settings.max_document_bytes)
    with tempfile.TemporaryDirectory(prefix="packetcloud-rules-") as folder:
        keeper = Keeper(Path(folder), lambda: now_s)
        try:
            keeper.open(policy, 0)
            answer = keeper.install(path, is_dry_run=True, in_force=0)
        finally:
            keeper.close()
    if "refusal" in answer:
        return Rehearsal(Refusal(**answer["refusal"]))
    done = Installation(**answer["outcome"], version=0, duration_s=0.0)
    return Rehearsal(done, _unlisted(path, listed) if listed is not None else Counter())


def _unlisted(path: Path, listed: Collection[bytes]) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    with path.open("rb") as stream:
        for item in open_signed(stream).items(lambda pattern: None):
            if isinstance(item, Withdrawal | ItemError) or item.action is not Action.VISIT:
                continue
            if item.service.value not in listed:
                found[item.service.value] += 1
    return found
