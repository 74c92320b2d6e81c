"""`service ids check`: what of a rule file is taken, has no effect, and is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from packetcloud.services.ids.errors import EngineError, RuleFileError
from packetcloud.services.ids.guid_sets import parse_lists
from packetcloud.services.ids.reader import Note, Refusal, read_rules
from packetcloud.services.ids.ruleset import RuleSet, compile_rules
from packetcloud.services.ids.versions import read_file


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A rule file, read and compiled as the service would."""

    rules: RuleSet
    refusals: tuple[Refusal, ...]
    """By line."""
    notes: tuple[Note, ...]

    @property
    def actions(self) -> Counter[str]:
        """How many rules of each action there are."""
        return Counter(entry.rule.action.value for entry in self.rules.entries)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON values."""
        scanner = self.rules.scanner
        return {
            "taken": len(self.rules.entries),
            "actions": dict(self.actions),
            "asked_of_every_chunk": len(self.rules.unseen),
            "engine": scanner.engine if scanner is not None else None,
            "compiled_bytes": scanner.size_bytes if scanner is not None else 0,
            "refused": [
                {"line": one.line, "column": one.column, "reason": one.reason}
                for one in self.refusals
            ],
            "notes": [{"line": note.line, "text": note.text} for note in self.notes],
        }


def check_file(path: Path, lists: str = "", *, widens: bool = False) -> CheckedFile:
    """Read and compile a file.

    Raises:
        ServiceConfigError: it cannot be read, the lists are wrong, or the engine takes nothing.
    """
    file = read_rules(read_file(path), parse_lists(lists), widens=widens)
    try:
        ruleset, refused = compile_rules(file)
    except EngineError as error:
        raise RuleFileError(f"{path}: {error}") from None
    refusals = sorted((*file.refusals, *refused), key=lambda one: (one.line, one.column))
    return CheckedFile(ruleset, tuple(refusals), file.notes)
