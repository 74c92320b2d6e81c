"""Path throughput with many rules against without, in `bench rules`.

Source: docs/reference/bench.md, "rules".
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

from packetcloud.chunk.identity import Identity
from packetcloud.testbed.bench.ours import Load
from packetcloud.testbed.bench.path import OurPath, router_on_centre
from packetcloud.testbed.bench.report import Document, failures_of, runs_of
from packetcloud.testbed.bench.rounds import Progress, Timing, ratio, run_rounds
from packetcloud.testbed.bench.rule_install import SET_NAME, post_rules, rules_entry
from packetcloud.testbed.bench.scene import Scene, path_scene
from packetcloud.testbed.daemons import RulesEntry
from packetcloud.testbed.errors import ChildError
from packetcloud.testbed.links import LinkMode
from packetcloud.testbed.processes import Children
from packetcloud.testbed.traffic.rule_documents import header_rules, pattern_rules, write_document
from packetcloud.testbed.traffic.rule_patterns import make_patterns
from packetcloud.testbed.traffic.rule_traffic import make_names

PATTERNS = 1000
WITHOUT = "without"
HEADER_RULES = "header_rules"
WITH_PATTERNS = "header_rules_and_patterns"


def measure_path(
    rules: int, patterns: int, mode: LinkMode | None, timing: Timing, progress: Progress
) -> tuple[Document, list[str]]:
    """Send chunks of 1 MiB through a router without rules, with header rules, with patterns too.

    The rules are installed once; each run starts a router that finds them in its folder.

    Returns:
        Figures, and what failed.
    """
    with path_scene(mode) as scene, Children() as children:
        identity = Identity.generate()
        names = make_names(rules)
        header = children.directory / "header"
        write_document(header, identity, SET_NAME, 1, header_rules(names))
        pattern = children.directory / "patterns"
        write_document(pattern, identity, "patterns", 1, pattern_rules(make_patterns(patterns)))
        few = rules_entry(children.directory / HEADER_RULES, identity)
        all_of_them = rules_entry(children.directory / WITH_PATTERNS, identity)
        progress(f"{rules} header rules are installed")
        _install(scene, few, header)
        progress(f"{patterns} patterns are installed beside them")
        shutil.copytree(few.folder, all_of_them.folder)
        _install(scene, all_of_them, pattern)
        load = Load(is_open=True)
        contenders = [
            OurPath(scene, load, WITHOUT),
            OurPath(scene, load, HEADER_RULES, few),
            OurPath(scene, load, WITH_PATTERNS, all_of_them),
        ]
        records = run_rounds(contenders, timing, progress)
        goodput = {name: record.goodput_gbps for name, record in records.items()}
        figures = {
            "rules": rules,
            "patterns": patterns,
            **{f"{name}_gbps": gbps for name, gbps in goodput.items()},
            "ratio_header_rules": ratio(goodput[HEADER_RULES], goodput[WITHOUT]),
            "ratio_with_rules": ratio(goodput[WITH_PATTERNS], goodput[WITHOUT]),
            **runs_of(records),
            "links": scene.settings_in_force(),
        }
        failures = failures_of(records)
        for name, is_scanned in ((HEADER_RULES, False), (WITH_PATTERNS, True)):
            for trial in records[name].trials:
                details = cast(dict[str, int], trial.details)
                scanned, chunks = details["payloads_scanned"], details["chunks"]
                if (scanned >= chunks) != is_scanned:
                    failures.append(f"{name}: {scanned} payloads scanned of {chunks} that counted")
        return figures, [f"path: {text}" for text in failures]


def _install(scene: Scene, rules: RulesEntry, file: Path) -> None:
    """Have a router put rules into its folder, where the next one finds them.

    Raises:
        ChildError: it does not take all of them.
    """
    with Children() as children:
        router = router_on_centre(children, scene, rules=rules)
        answer = post_rules(router, file)
        if answer["refused"]:
            raise ChildError(f"{answer['refused']} rules are refused: {answer['reasons']}")
