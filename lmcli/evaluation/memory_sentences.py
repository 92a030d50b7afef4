"""Three sentences on what the items beside a text showed.

**In:** the rows of a comparison (`recall`, and `learning` where it is known), a `MemoryTask`.
**Out:** what was seen; what it cost, or who has not learnt the task yet; what not to conclude.

They say only what the rows say: no outcome is assumed. A model has *lost* an answer where it does
not still know it (see `memory_curves`) and the interval reaches down to chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmcli.evaluation.memory_curves import HALF, Answers, Curve, MemoryTask, curves, skill


def memory_sentences(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> list[str]:
    """What was seen; what it cost, or who has not learnt the task yet; what not to conclude."""
    found = curves(rows, task)
    learnt = [curve for curve in found if curve.has_learnt and curve.known]
    best = max(learnt, key=lambda c: (len(c.known), c.known[-1]["value"]), default=None)
    unable = [c for c in found if not c.has_learnt and (c.learning or not c.sees_little)]
    return [
        _seen(found, best, task) if best else _nothing_seen(found, task),
        _not_learnt(unable, task) if unable else _cost(found, task),
        _not_to_conclude(best, task) if best else _not_concluded_from_nothing(found, task),
    ]


def _seen(found: Sequence[Curve], best: Curve, task: MemoryTask) -> str:
    """Who still knows the answer at the longest gap; where each of the others has lost it."""
    with_best = [c for c in found if c.has_learnt and len(c.known) == len(best.known)]
    others = [c for c in found if c.has_learnt and not c.sees_little and c not in with_best]
    gap = best.known[-1]["gap"]
    right = _listed([_of_100(c.known[-1]) for c in with_best])
    all_of_them = "all " if len(with_best) > 2 and not others else ""
    said = f"On {task.text} {_names(with_best)} {all_of_them}still knew the {task.asked} after "
    said += f"{gap:,} {task.unit} in {right} of 100 texts"
    if len(best.known) == len(best.by_gap):
        said += ", the longest gap asked"
    if others:
        said += "; " + ", ".join(_lost(c, task) for c in others)
    elif len(with_best) > 1:
        said += ": none of them had forgotten it"
    return said + "."


def _lost(curve: Curve, task: MemoryTask) -> str:
    one = curve.next_gap
    after = f"after {one['gap']:,} {task.unit}"
    if one["low"] <= one["chance"]:
        return f"{_names([curve])} had lost it {after}"
    return f"{_names([curve])} knew it {after} in only {_of_100(one)} of 100"


def _nothing_seen(found: Sequence[Curve], task: MemoryTask) -> str:
    """No model knows the answer at any gap."""
    best = max(found, key=lambda curve: skill(curve.nearest))
    near = best.nearest
    right = f"was right in {_of_100(near)} of 100 texts"
    if any(curve.has_learnt and skill(curve.nearest) >= HALF for curve in found):
        gap = found[0].by_gap[0]["gap"]
        return (
            f"On {task.text} no model still knew the {task.asked} after {gap:,} {task.unit}, "
            f"though right after the cue {_names([best])} {right}."
        )
    return (
        f"On {task.text} no model had learnt it in {_minutes(task.minutes)}: even right after the "
        f"cue the best of them, {_names([best])}, {right} (guessing: {_percent(near['chance'])})."
    )


def _not_learnt(some: Sequence[Curve], task: MemoryTask) -> str:
    """Models whose answers do not show forgetting, and what to try."""
    falling = [curve.learning.get("still_falling") for curve in some]
    right = _listed([_of_100(curve.nearest) for curve in some])
    said = f"{_names(some)} had not learnt the task in {_minutes(task.minutes)} (right after the "
    said += f"cue: {right} of 100), so the other figures show no forgetting"
    said = said[:1].upper() + said[1:]
    if all(curve.learning.get("by_heart") for curve in some):
        return (
            f"{said}: known by heart on training documents, so that more text may help, not time."
        )
    if False in falling and True not in falling:
        return f"{said}; the loss had stopped falling, so that more minutes alone may not help."
    still = ", and the loss was still falling" if all(falling) else ""
    return f"{said}{still}: try --minutes {math.ceil(2 * task.minutes)}."


def _cost(found: Sequence[Curve], task: MemoryTask) -> str:
    """Seconds and parameters of what was trained; what cannot see far back."""
    trained = [c for c in found if c.seconds and not c.sees_little] or list(found)
    seconds = _range([round(c.seconds) for c in trained])
    parameters = _range([c.parameters for c in trained])
    said = f"It took {seconds} seconds of training and {parameters} parameters"
    said += " each" if len(trained) > 1 else ""
    blind = [c for c in found if c.sees_little and len(c.known) < len(c.by_gap)]
    if blind and len(trained) < len(found):
        gap = max(c.next_gap["gap"] for c in blind)
        said += f"; {_names(blind)} see" + "s" * (len(blind) == 1)
        said += f" only the last words and did not know it after {gap:,} {task.unit}"
    return said + "."


def _not_to_conclude(best: Curve, task: MemoryTask) -> str:
    """One seed, few texts, sentences that were put there, a reader who needs no order."""
    one = best.known[-1]
    made = "planted into your text" if task.planted else "made by rule"
    seeds = one["seeds"]
    said = "this is one seed" if seeds == 1 else f"these are medians of {seeds} seeds"
    if seeds > 1:
        said += f" ({_names([best])} at worst: {_percent(one['least'])} of 100)"
    said = f"Do not conclude too much: {said} and {one['count']} texts a gap, with sentences {made}"
    free = task.order_free.get(one["gap"])
    if free is not None and skill({**one, "value": free}) >= HALF:
        said += (
            f", and a reader who takes the {task.asked} named most often is right in "
            f"{_percent(free)} of 100, so it shows a word kept, not a text understood"
        )
    return said + ("; --seeds 3 shows how much is luck." if seeds == 1 else ".")


def _not_concluded_from_nothing(found: Sequence[Curve], task: MemoryTask) -> str:
    seeds = found[0].by_gap[0]["seeds"]
    said = "one seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"Do not conclude that none of them can: this is {said} and {_minutes(task.minutes)} a "
        "model, and a longer training or a longer text may show it."
    )


def _names(some: Sequence[Curve]) -> str:
    return _listed([f"the {curve.label}" for curve in some])


def _listed(parts: Sequence[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _of_100(one: Answers) -> str:
    return _percent(one["value"])


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute" + "s" * (minutes != 1)
