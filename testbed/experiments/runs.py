"""Runs experiments one after the other and keeps what they found, also when it ends early.

One that fails does not stop the others. Everything goes into one folder: `result.json` (all of it),
a folder for each experiment, and the report. Source: docs/reference/testbed.md.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packetcloud.chunk.errors import PacketCloudError
from packetcloud.testbed.errors import TestbedError
from packetcloud.testbed.experiments import EXPERIMENTS, PAPER
from packetcloud.testbed.experiments.experiment import (
    Experiment,
    ExperimentPlan,
    ExperimentResult,
    NeedsMaking,
)
from packetcloud.testbed.experiments.files import write_plots, write_tables
from packetcloud.testbed.held_folder import hold_folder
from packetcloud.testbed.machine import changes_of_tree, describe_machine, describe_software
from packetcloud.testbed.others import MAX_LOAD_BEFORE, MAX_OTHERS_CORES, OthersWatch

FORMAT = "packetcloud-run-1"
PART_FORMAT = "packetcloud-run-part-1"
RESULT = "result.json"
RAW = "raw"
_LOCK = ".lock"
_TRACEBACK = "traceback.txt"

Document = dict[str, Any]
Tell = Callable[[str, float, float], None]
"""Told what comes now, how many seconds of estimates are through, and how many there are."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to run, and where to."""

    out: Path
    is_quick: bool = False
    seed: int = 1
    back_ends: tuple[str, ...] = ("process",)
    is_resumed: bool = False
    """What an interrupted run of the same kind found already is not measured again."""


def find_experiments(name: str, only: Sequence[str] = ()) -> list[Experiment]:
    """Return the experiments that a name means: one, or for `paper` all of the paper.

    Raises:
        TestbedError: no such experiment.
    """
    names = list(PAPER) if name == "paper" and PAPER else [name]
    unknown = [one for one in (*names, *only) if one not in EXPERIMENTS]
    if unknown:
        known = ", ".join((*EXPERIMENTS, *(["paper"] if PAPER else [])))
        raise TestbedError(
            f"no experiment {unknown[0]!r}; experiments: {known or 'none'}; the load of a topology "
            "is run by its file"
        )
    chosen = [one for one in names if not only or one in only]
    if not chosen:
        raise TestbedError(f"--only {only[0]}: {name} has no such part; parts: {', '.join(names)}")
    return [_load(one) for one in chosen]


def run_experiments(
    title: str, experiments: Sequence[Experiment], plan: RunPlan, tell: Tell
) -> Document:
    """Run all; return what is in `result.json`, which is written after each of them.

    Raises:
        TestbedError: the folder cannot be used, or holds what is not a run's.
        KeyboardInterrupt: Ctrl-C; what was found until then is written.
    """
    with _own_folder(plan.out, experiments):
        document = _begin(title, plan)
        times = [one.quick_seconds if plan.is_quick else one.seconds for one in experiments]
        total_s, through_s = float(sum(times)), 0.0
        try:
            _make_all(experiments, plan, lambda text: tell(text, 0.0, total_s))
            for experiment, about_s in zip(experiments, times, strict=True):
                done_s = through_s

                def tell_step(text: str, name: str = experiment.name, at_s: float = done_s) -> None:
                    tell(f"{name}: {text}", at_s, total_s)

                document["experiments"].append(_run_one(experiment, plan, document, tell_step))
                through_s += about_s
                _write(document, plan.out)
            document["is_complete"] = True
        finally:
            _finish(document)
            _write(document, plan.out)
        tell("the report", total_s, total_s)
    return document


def read_result(folder: Path) -> Document:
    """Return what a run found.

    Raises:
        TestbedError: there is none in this folder.
    """
    path = folder / RESULT
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TestbedError(
            f"cannot read {path}: {error.strerror}; a run writes it: packetcloud testbed run"
        ) from None
    except ValueError as error:
        raise TestbedError(f"{path}: not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TestbedError(f"{path}: no result of packetcloud testbed run (format {FORMAT})")
    if "title" not in document or "figures" not in document:
        raise TestbedError(f"{path}: the run ended before anything was measured")
    return document


def nested(figures: dict[str, float | None]) -> Document:
    """Return figures by the parts of their keys: `goodput.cubic_mbps` becomes two levels."""
    found: Document = {}
    for key, value in figures.items():
        *parents, last = key.split(".")
        place = found
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place.setdefault(last, value)
    return found


def _load(name: str) -> Experiment:
    module, _, attribute = EXPERIMENTS[name].partition(":")
    experiment: Experiment = getattr(importlib.import_module(module), attribute)
    return experiment


def _begin(title: str, plan: RunPlan) -> Document:
    return {
        "format": FORMAT,
        "title": title,
        **describe_software(),
        "changes": changes_of_tree(),
        "machine": describe_machine(),
        "seed": plan.seed,
        "is_quick": plan.is_quick,
        "back_ends": list(plan.back_ends),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_complete": False,
        "experiments": [],
    }


def _make_all(
    experiments: Sequence[Experiment], plan: RunPlan, tell: Callable[[str], None]
) -> None:
    """Have what experiments need, so that making it is in nobody's time."""
    for one in experiments:
        if isinstance(one, NeedsMaking):
            # Where it cannot be made, the experiment fails over it too, and says so in the report.
            with contextlib.suppress(PacketCloudError, OSError):
                one.make(plan.back_ends, tell)


def _run_one(
    experiment: Experiment, plan: RunPlan, document: Document, tell: Callable[[str], None]
) -> Document:
    folder = plan.out / experiment.name
    if plan.is_resumed and (kept := _kept(folder, document, experiment)) is not None:
        tell("kept from the run before")
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    (folder / RAW).mkdir(parents=True)
    # It is known as ours also when it ends early.
    _write_part({}, experiment, folder)
    began_s = time.monotonic()
    others = OthersWatch()
    tell("starting")
    try:
        wish = ExperimentPlan(
            (folder / RAW).absolute(), plan.is_quick, plan.seed, plan.back_ends, tell
        )
        found = _to_document(experiment.run(wish))
    except PacketCloudError as error:
        found = _failed(experiment, str(error))
    except Exception as error:  # a mistake in one must not cost what the others found
        (folder / _TRACEBACK).write_text(traceback.format_exc())
        text = f"internal error, please report it: {type(error).__name__}: {error}"
        found = _failed(experiment, f"{text} ({folder / _TRACEBACK})")
    found["seconds"] = round(time.monotonic() - began_s, 1)
    found["others_cores"] = round(others.cores(), 3)
    found["kind"] = _kind(document, experiment)
    _write_files(found, folder)
    _write_part(found, experiment, folder)
    return found


def _write_files(found: Document, folder: Path) -> None:
    """Write tables and plots; what cannot be drawn is a failure, and left out of the report."""
    drawn = []
    for plot in found["plots"]:
        try:
            write_plots(folder, [plot])
        except Exception as error:  # a mistake in a plot must not cost the figures
            (folder / _TRACEBACK).write_text(traceback.format_exc())
            found["failures"].append(f"plot {plot['name']}: {type(error).__name__}: {error}")
        else:
            drawn.append(plot)
    found["plots"] = drawn
    try:
        write_tables(folder, found["tables"])
    except Exception as error:  # nor a mistake in a table
        (folder / _TRACEBACK).write_text(traceback.format_exc())
        found["failures"].append(f"tables: {type(error).__name__}: {error}")


def _to_document(result: ExperimentResult) -> Document:
    found = asdict(result)
    # Lists, as they are when the file is read again.
    plain: Document = json.loads(json.dumps(found, default=str))
    return plain


def _failed(experiment: Experiment, text: str) -> Document:
    figures = dict.fromkeys(experiment.keys)
    missing = dict.fromkeys(experiment.keys, text)
    empty = ExperimentResult(
        experiment.name, experiment.title, figures, missing, [], {}, [], [], [], [], [text]
    )
    return _to_document(empty)


def _kind(document: Document, experiment: Experiment) -> Document:
    """What must be the same, so that a figure of an earlier run may stand in this one."""
    keys = ("commit", "changes", "seed", "is_quick", "back_ends", "kernel")
    return {key: document[key] for key in keys} | {"fingerprint": experiment.fingerprint}


def _kept(folder: Path, document: Document, experiment: Experiment) -> Document | None:
    """Return what an earlier run found, if it was of the same kind and nothing failed."""
    try:
        found: Document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found.pop("format", None)
    is_same = found.get("kind") == _kind(document, experiment) and document["commit"] is not None
    return found if is_same and not found["failures"] else None


def _finish(document: Document) -> None:
    """Put together what all experiments found."""
    figures: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    failures = []
    for one in document["experiments"]:
        figures |= one["figures"]
        missing |= one["missing"]
        failures += [f"{one['name']}: {text}" for text in one["failures"]]
    if not document["is_complete"]:
        failures.append("the run was interrupted: what comes after is missing")
    document |= {"figures": figures, "missing": missing, "failures": failures}
    document["warnings"] = [] if document["is_quick"] else _disturbed(document)
    for key, value in nested(figures).items():
        document.setdefault(key, value)


def _disturbed(document: Document) -> list[str]:
    """Return where this machine had something else to do: such figures are others' too."""
    machine = document["machine"]
    cores, load = machine["usable_cores"], machine["load_before"][0]
    said = []
    if load > MAX_LOAD_BEFORE:
        said.append(f"in the minute before the run the load of the machine was {load:g}")
    said += [
        f"{one['name']}: others used {one['others_cores']:.2f} of {cores} processors meanwhile, so "
        "its figures are those of a busy machine"
        for one in document["experiments"]
        if one.get("others_cores", 0.0) > MAX_OTHERS_CORES
    ]
    return said


def _write(document: Document, out: Path) -> None:
    new = out / f".{RESULT}"
    new.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    new.replace(out / RESULT)


def _write_part(found: Document, experiment: Experiment, folder: Path) -> None:
    document = {"format": PART_FORMAT, "name": experiment.name, **found}
    (folder / RESULT).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _own_folder(out: Path, experiments: Sequence[Experiment]) -> Iterator[None]:
    """Hold the folder of a run for ourselves.

    Raises:
        TestbedError: another run writes there, or it holds something else.
    """
    try:
        _check_folder(out, experiments)
    except OSError as error:
        raise TestbedError(f"cannot use {out}: {error.strerror}") from None
    in_use = f"another run writes into {out}; wait for it, or choose another with --out"
    with hold_folder(out, _LOCK, in_use):
        if not (out / RESULT).exists():
            # Whatever happens from now on, the folder is known as ours.
            _write({"format": FORMAT, "is_complete": False, "experiments": []}, out)
        yield


def _check_folder(out: Path, experiments: Sequence[Experiment]) -> None:
    """Refuse a folder in which something else would be written over.

    Raises:
        TestbedError: says what is there.
        OSError: it cannot be read.
    """
    there = out.iterdir() if out.is_dir() else ()
    strange = [path.name for path in there if path.name != _LOCK]
    if strange and not _has_format(out / RESULT, FORMAT):
        raise TestbedError(
            f"{out} holds {sorted(strange)[0]} and no {RESULT} of ours: not the folder of a "
            "run; choose another with --out"
        )
    for one in experiments:
        if not _may_be_replaced(out / one.name):
            raise TestbedError(
                f"{out / one.name} is no part of a run, and {one.name} would write there; "
                "move it away, or choose another folder with --out"
            )


def _may_be_replaced(folder: Path) -> bool:
    """Tell whether a part's folder is not there, is empty, or holds a part of a run."""
    if folder.is_symlink() or not folder.exists():
        return not folder.is_symlink()
    is_ours = folder.is_dir() and _has_format(folder / RESULT, PART_FORMAT)
    return is_ours or (folder.is_dir() and not any(folder.iterdir()))


def _has_format(path: Path, wanted: str) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == wanted
