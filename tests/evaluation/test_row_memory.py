"""How far back a row of a comparison remembers, over its seeds."""

import random

import pytest

from lmcli import api
from lmcli.evaluation.probes.data import ProbeData
from lmcli.evaluation.row_memory import measure_memory

SYLLABLES = [c + v for c in "bdfgklmnp" for v in "aeou"]


def made_text(words, seed):
    draw = random.Random(seed)
    one = (draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(words))
    return "".join(word + ("\n" if i % 9 == 8 else " ") for i, word in enumerate(one))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of two n-grams, one of two seeds, on a text."""
    folder = tmp_path_factory.mktemp("rows")
    text = folder / "text.txt"
    text.write_text(made_text(1000, 0), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        runs = {}
        for name, order, seed in (("a", 3, 0), ("a", 3, 1), ("b", 2, 0)):
            out = folder / f"{name}{seed}"
            api.train(text, arch="ngram", seed=seed, settings={"order": order}, output=out)
            runs.setdefault(name, []).append({"seed": seed, "rotation": seed, "run": str(out)})
    return [{"name": name, "arch": "ngram", "seeds": seeds} for name, seeds in runs.items()]


def test_every_seed_is_probed_on_its_own_text_and_a_text_is_measured_once(rows):
    train = (made_text(1500, 3),)
    first, other = (ProbeData((made_text(n, 7),), train) for n in (300, 600))
    results, _ = measure_memory(rows, {0: first, 1: other}, 0, every=True)
    found = {r.probe: r for r in results}
    runs = [one["run"] for row in rows for one in row["seeds"]]
    context = found["context"]
    assert {row["run"] for row in context.rows} == {row["run"] for row in context.summary}
    assert {row["run"] for row in context.rows} == {*runs}
    counts = {row["run"]: row["count"] for row in context.rows}
    assert counts[runs[0]] == counts[runs[2]] < counts[runs[1]]
    assert [series.name for series in context.figures[0].series] == ["a", "b"]
    assert "(median of 2 seeds); b makes use of" in context.verdict
    assert [row["model"] for row in context.middle] == ["a", "b"]
    assert {row["run"] for row in found["ceiling"].summary} == {runs[0], runs[2]}
