"""Writes segments: from rules, or from segments that are written already.

Both take a second or more for a million rules, and belong in the keeper's process.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from packetcloud.chunk.errors import LocalMisuseError
from packetcloud.router.rules.rule import InstalledRule
from packetcloud.router.rules.segment import Segment
from packetcloud.router.rules.segment_entries import Entries, PatternIds
from packetcloud.router.rules.segment_file import Kind, Part, write_parts
from packetcloud.router.rules.segment_layout import Numbers, Rows, laid_out, packed
from packetcloud.router.rules.segment_policy import Policy


def write_segment(
    path: Path, rules: Iterable[InstalledRule], pattern_ids: PatternIds, secret: bytes
) -> None:
    """Write the segment of some rules; it is whole and on the disk when this returns.

    Args:
        pattern_ids: the id of each pattern in the scanner, the same in all segments of a table.
        secret: 32 random bytes, the same in all segments of a table (see `segment_hash`).

    Raises:
        OSError: the folder cannot be written.
        LocalMisuseError: a rule has a value that no chunk can have.
    """
    entries = Entries(secret, pattern_ids)
    entries.add_all(rules)
    tuples = {mask: (one.rows(), one.has_both) for mask, one in entries.tuples.items()}
    _write(path, secret, tuples, entries.members.rows(), entries.policies)


def merge_segments(path: Path, segments: Sequence[Segment], withdrawn: Collection[int]) -> None:
    """Write the segment of all rules of some segments but those withdrawn.

    About 0.3 s for a million entries: they are sorted as arrays, and nothing is hashed again.

    Raises:
        OSError: the folder cannot be written.
        LocalMisuseError: the segments have different secrets.
    """
    if len({one.secret for one in segments}) != 1:
        raise LocalMisuseError("segments of different secrets cannot be merged")
    gone = np.fromiter(withdrawn, np.uint32, len(withdrawn))
    policies: dict[Policy, int] = {}
    parts: dict[int, list[Rows]] = {}
    both: dict[int, bool] = {}
    members = []
    for segment in segments:
        new_index = np.fromiter(
            (policies.setdefault(one, len(policies)) for one in segment.all_policies()),
            np.uint32,
            segment.policy_count,
        )
        for mask, has_both, rows in segment.all_rows():
            kept = rows.picked(~np.isin(rows.numbers, gone)) if len(gone) else rows
            kept = Rows(kept.hashes, kept.extras, kept.numbers, new_index[kept.policies])
            parts.setdefault(mask, []).append(kept)
            both[mask] = both.get(mask, False) or has_both
        members.append(segment.all_members())
    tuples = {mask: (Rows.joined(rows), both[mask]) for mask, rows in parts.items()}
    _write(path, segments[0].secret, tuples, Rows.joined(members), policies)


def _write(
    path: Path,
    secret: bytes,
    tuples: dict[int, tuple[Rows, bool]],
    members: Rows,
    policies: Iterable[Policy],
) -> None:
    parts: list[Part] = []
    runs: list[Numbers] = [np.empty(0, np.uint32)]
    long_runs = [np.empty(0, np.uint32)]
    run_count = 0
    for mask, (rows, has_both) in sorted(tuples.items()):
        if not len(rows.hashes):
            continue
        hashes, words, new_runs, long = packed(rows.sorted(), run_count)
        homes, slots = laid_out(hashes, words)
        parts.append(Part(Kind.TUPLE, slots, mask, has_both, homes))
        runs.append(new_runs)
        long_runs.append(long)
        run_count += len(new_runs)
    if len(members.hashes):
        members = members.sorted()
        members = members.picked(members.starts())
        hashes, words, _, _ = packed(members, 0)
        homes, slots = laid_out(hashes, words)
        parts.append(Part(Kind.MEMBERS, slots, homes=homes))
    parts.append(Part(Kind.RUNS, np.concatenate(runs)))
    parts.append(Part(Kind.LONG_RUNS, np.concatenate(long_runs)))
    records, patterns = bytearray(), array("I")
    for policy in policies:
        records += policy.to_bytes(len(patterns))
        patterns.extend(policy.patterns)
    parts += [Part(Kind.POLICIES, records), Part(Kind.PATTERNS, patterns)]
    write_parts(path, secret, parts)
