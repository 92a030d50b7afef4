"""Memory curves: what the probes measure, from what was saved where it was saved.

**In:** a `Subject`.
**Out:** a `Section` of figures. What has to be measured takes about a minute a model, and is saved
for the next page: in ``probes.json`` of a comparison's folder, in ``results/probes.json`` of a run.
It holds for the weights that it was measured with, and for no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.report import load_probes, run_probes
from lmcli.pages.subject import Subject
from lmcli.report.progress import Message, OnProgress, Stage, without_notes
from lmcli.report.result import Block, Passage, Section, figure_from_json
from lmcli.run import RESULTS
from lmcli.storage import read_json, write_json

SHOWN = ("recall", "context", "influence", "gradient", "halflife", "ceiling")
SAVED = "probes.json"
INTRODUCTION = (
    "Each figure asks in another way how far back a model remembers, on text that it was not "
    "trained on."
)

Probed = Mapping[str, Any]


def memory_section(subject: Subject, measure: bool, on_progress: OnProgress) -> Section | None:
    """The figures of the probes; without `measure` only those that were saved."""
    found = saved_probes(subject)
    shown = SHOWN[1:] if subject.recalled else SHOWN  # the page begins with what items say
    missing = [name for name in shown if name not in found]
    if missing and measure:
        found = {**found, **_measured(subject, missing, on_progress)}
        _save(subject, found)
    blocks: list[Block] = []
    for name in shown:
        if (result := found.get(name)) and result["figures"]:
            blocks += [figure_from_json(figure) for figure in result["figures"]]
            blocks.append(Passage(f"{name}: {result['verdict']}"))
    return Section("How far back they remember", blocks, INTRODUCTION) if blocks else None


def saved_probes(subject: Subject) -> dict[str, Probed]:
    """Results of these very weights, by the names of their probes."""
    found: list[Probed] = []
    if subject.values:
        found += [r for r in subject.values.get("probes") or () if "figures" in r]
    if (file := _file(subject)).is_file():
        saved = read_json(file)
        if saved["weights"] == _weights(subject):
            found += saved["probes"]
    return {result["probe"]: result for result in found}


def _measured(subject: Subject, names: Sequence[str], on_progress: OnProgress) -> dict[str, Probed]:
    """The results of some probes; those that do not apply to any run are left out."""
    runs = [run for seeds in subject.runs.values() for run in seeds[:1]]
    try:
        data = ProbeData.of_runs(runs, (), on_progress)
    except LmcliError as error:
        on_progress(Message(f"no memory curves: {error.problem}", "warning"))
        return {}
    subjects = [ProbedModel.of(run, name) for name, run in subject.firsts.items()]
    found: dict[str, Probed] = {}
    for place, (name, probe) in enumerate(load_probes(names, {}).items()):
        on_progress(Stage(f"measuring memory: {name}", place, len(names), "probes"))
        member, settings = probe
        if all(member.applies(s, data, settings) for s in subjects):
            continue
        (result,) = run_probes({name: probe}, subjects, data, 0, without_notes(on_progress))
        found[name] = result.to_json()
    return found


def _file(subject: Subject) -> Path:
    return subject.path / (SAVED if subject.values else f"{RESULTS}/{SAVED}")


def _save(subject: Subject, found: Mapping[str, Probed]) -> None:
    write_json(_file(subject), {"weights": _weights(subject), "probes": list(found.values())})


def _weights(subject: Subject) -> str:
    """A checksum of all weights."""
    digest = hashlib.sha256()
    for run in subject.firsts.values():
        digest.update(run.weights_file().read_bytes())
    return digest.hexdigest()
