"""Rules in the world of the channel: a router that keeps sets by their serials, and who asks."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import select

from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.commands import InstallRules
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.core.installations import RefusedRule, RulesState
from packetcloud.domain_controller.state.database import Database
from packetcloud.domain_controller.state.tables import RULE_DIRECTIVES, RULE_SETS

SIGNER = "5" * 40
BAD = "bad"
"""How the name of a rule begins that the router refuses."""


@dataclass
class RuleRouter:
    """What a router makes of documents: by itself, whoever brings them."""

    sets: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """(serial, names of rules) of each set, by signer and name."""
    is_up: bool = True
    installs_count: int = 0
    wrong: list[str] = field(default_factory=list)

    def install(self, command: InstallRules) -> saw.RulesEvent:
        key = command.rule_set, command.serial
        if not self.is_up:
            return saw.RulesUnanswered(*key, "nobody listens")
        said = json.loads(command.document.splitlines()[1])
        rules = [json.loads(line)["name"] for line in command.document.splitlines()[2:]]
        named = said["signer"], said["set"]
        serial, _ = self.sets.get(named, (0, ()))
        if said["serial"] <= serial:
            return saw.RulesAnswered(*key, None, is_replayed=True, text="replayed: an old one")
        self.installs_count += 1
        good = tuple(one for one in rules if not one.startswith(BAD))
        self.sets[named] = said["serial"], good
        refused = [RefusedRule(one, "crowded", "no") for one in rules if one.startswith(BAD)]
        return saw.RulesAnswered(
            *key, (*named, said["serial"]), len(good), len(refused), tuple(refused)
        )

    def look(self, answers_count: int) -> saw.RulesSeen:
        return saw.RulesSeen(
            answers_count,
            {
                name: saw.SetAtRouter(serial, len(rules), 0)
                for name, (serial, rules) in self.sets.items()
            },
        )


class Author:
    """Somebody who signs ever newer documents of a few sets, by chance."""

    def __init__(self, random: Random, owner: str) -> None:
        self._random = random
        self._owner = owner
        self._serials = itertools.count(1)

    def change(self, now_ms: int) -> to.AddRules:
        """Return a document: some rules, or none; some that no router takes; some that end."""
        count = self._random.choice((0, 1, 1, 2, 3))
        names = [self._random.choice(("a", "b", BAD)) + str(number) for number in range(count)]
        until_ms = now_ms + self._random.choice((20_000, 86_400_000))
        return document(
            self._owner, f"set-{self._random.randrange(3)}", next(self._serials), names, until_ms
        )


def document(
    owner: str, name: str, serial: int, rules: list[str], until_ms: int | None
) -> to.AddRules:
    """Return a change that gives a set to all cloudlets."""
    lines = [{"format": "signed"}, {"signer": SIGNER, "set": name, "serial": serial}]
    lines += [{"name": rule} for rule in rules]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return to.AddRules(
        owner=owner,
        set_name=name,
        serial=serial,
        signer=SIGNER,
        items_count=len(rules),
        sid="",
        document=text,
        digest=bytes(32),
        cloudlets=(),
        regions=(),
        rules_count=len(rules),
        until_ms=until_ms,
    )


def wrongs(database: Database, router: RuleRouter, now_ms: int) -> list[str]:
    """Return where the router, and what the domain says of it, is not what is wanted."""
    found = list(router.wrong)
    query = select(RULE_DIRECTIVES, RULE_SETS).join(RULE_SETS)
    with database.reading() as connection:
        rows: list[Any] = list(connection.execute(query))
    for row in rows:
        if row.until_ms is not None and row.until_ms <= now_ms:
            continue
        names = [json.loads(line)["name"] for line in row.text.splitlines()[2:]]
        good = tuple(one for one in names if not one.startswith(BAD))
        there = router.sets.get((row.signer, row.name))
        if there != (row.serial, good):
            found.append(f"rules {row.name}: the router has {there}, not {row.serial} {good}")
        state = RulesState.INSTALLED if len(good) == len(names) else RulesState.PARTLY
        if row.state != state.value:
            found.append(f"rules {row.name}: {row.state} is said, {state.value} is so")
        said = json.loads(row.document or '{"refusals":[]}')
        refused = [one["name"] for one in said["refusals"]]
        # A cloudlet that ended before it heard them knows only how many they are.
        if refused and refused != [one for one in names if one not in good]:
            found.append(f"rules {row.name}: of refusals is said {said['refusals']}")
    return found
