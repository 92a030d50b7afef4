"""The page of a demo, a comparison, a run: its parts, and numbers that are those of the JSON."""

import json
import re
import shutil
from html import unescape

import pytest

from lmcli import api
from lmcli.errors import RunError, StorageError
from lmcli.evaluation.ranking_table import ranking_table
from lmcli.pages.report import page_sections
from lmcli.pages.subject import Subject
from lmcli.report.result import BITS_PER_CHAR, PERPLEXITY, WHOLE_PERCENT, Figure, Strips, Table
from lmcli.run import Run
from lmcli.storage import read_json, write_json


def quiet(event):
    """Drops what is said."""


def tables(page):
    """Every table by its caption, as lists of cells."""
    found = {}
    for one in re.findall(r"<table>(.*?)</table>", page, re.DOTALL):
        caption = re.search(r"<caption>(.*?)</caption>", one)
        lines = re.findall(r"<tr>.*?</tr>", one, re.DOTALL)
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in lines]
        cells = [[unescape(cell).strip() for cell in row] for row in rows]
        found.setdefault(unescape(caption[1]) if caption else "", []).append(cells)
    return found


def headings(page):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def test_a_demo_ends_with_its_page_and_names_it(made, printed):
    assert printed["paths"]["page"] == str(made.demo.page) == str(made.page)
    assert made.page.stat().st_size < 3_000_000
    assert headings(made.text) == [
        "Who still knows the country?", "Which one predicts the text best", "How they learnt",
        "Who remembered what", "Inside the lstm", "What they write", "How this was made",
    ]  # fmt: skip


def test_right_answers_in_the_page_are_those_of_the_json(made):
    (first, *_) = tables(made.text)["right answers by words between cue and blank"]
    names, rows = first[0][1:], {row[0]: row[1:] for row in first[1:]}
    assert names == ["ngram", "rnn", "gru", "lstm", "order-free reader"]
    for row in made.values["rows"]:
        for one in (one for one in row["recall"] if one["kind"] == "country"):
            low, high = (WHOLE_PERCENT.show(one[end]) for end in ("low", "high"))
            shown = f"{WHOLE_PERCENT.show(one['value'])} ({low.removesuffix(' %')} to {high})"
            assert rows[str(one["gap"])][names.index(row["name"])] == shown


def test_scores_and_verdicts_in_the_page_are_those_of_the_json(made):
    ((head, *rows),) = tables(made.text)["held-out text, best first"]
    assert head[:4] == ["model", "against best", "perplexity", "bits/char"]
    assert [row[0] for row in rows] == [row["name"] for row in made.values["rows"]]
    verdicts = [row["verdict"] for row in ranking_table(made.values).rows]
    for cells, row, verdict in zip(rows, made.values["rows"], verdicts, strict=True):
        test = row["test"]
        assert cells[1] == verdict
        assert cells[2] == PERPLEXITY.show(test["perplexity"])
        assert cells[3] == BITS_PER_CHAR.show(test["bits_per_char"], test["standard_error"])


def test_three_sentences_and_an_example_with_three_words_a_model_are_at_the_top(made, printed):
    text = unescape(re.sub(r"<[^>]+>", "", made.text))
    for sentence in printed["sentences"]:
        assert sentence in text
    name = next(name for name in tables(made.text) if name.startswith("what each model expects"))
    ((_, *rows),) = tables(made.text)[name]
    assert [row[0] for row in rows] == ["ngram", "rnn", "gru", "lstm"]
    assert all(re.fullmatch(r"\S+ 0\.\d{4}( ✓)?", cell) for row in rows for cell in row[1:])
    assert "One of the texts: " in text


def test_every_figure_says_how_to_read_it_and_what_not_to_conclude(subject):
    blocks = [b for s in page_sections(subject, False, "", quiet) for b in s.blocks]
    figures = [block for block in blocks if isinstance(block, Figure)]
    assert len(figures) == 2
    assert all(figure.read and figure.caution for figure in figures)


def test_checksum_versions_and_the_command_are_told(made):
    record = Run.open(made.folder / "lstm").record
    text = unescape(made.text)
    for said in (record.corpus["sha256"], record.versions["torch"], record.command):
        assert said in text
    assert f"lmcli report {made.folder} -o {made.page}" in text


def test_a_wicked_name_is_text(made):
    assert "onerror" in made.text
    assert "<img" not in made.text
    assert "<script" not in made.text


def test_learning_curves_are_those_of_the_log_and_a_model_that_counts_has_none(subject):
    sections = {s.heading: s for s in page_sections(subject, False, "", quiet)}
    (figure,) = sections["How they learnt"].blocks
    assert [series.name for series in figure.series] == ["rnn", "gru", "lstm"]
    for series in figure.series:
        entries = [e for e in subject.firsts[series.name].log() if e["valid"] is not None]
        assert [point.value for point in series.points] == [entry["valid"] for entry in entries]
        assert list(series.x) == [entry["tokens"] / 1e6 for entry in entries]


def test_png_and_csv_are_a_file_each_and_csv_is_not_rounded(made, tmp_path):
    found = api.report(
        made.folder, tmp_path / "p.html", png=tmp_path / "png", csv=tmp_path / "csv",
        probes=False, on_progress=quiet,
    )  # fmt: skip
    assert {path.name[:2] for path in found.png} < {path.name[:2] for path in found.csv}
    assert (len(found.png), len(found.csv)) == (found.figures, found.figures + found.tables)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found.png)
    lines = found.csv[0].read_text().splitlines()
    assert lines[0] == "series,words between cue and blank,value,low,high"
    row = next(row for row in made.values["rows"] if row["name"] == "rnn")
    one = next(o for o in row["recall"] if o["kind"] == "country" and o["gap"] == 10)
    assert f"rnn,10,{one['value']},{one['low']},{one['high']}" in lines


def test_the_page_of_one_run_has_its_answers_its_surprise_and_its_gates(made, tmp_path):
    found = api.report(made.folder / "gru", tmp_path / "gru.html", probes=False, on_progress=quiet)
    page = found.page.read_text()
    assert headings(page) == [
        "Who still knows the country?", "The training", "How they learnt",
        "How surprising the text was", "Inside the gru", "What they write", "How this was made",
    ]  # fmt: skip
    assert found.to_json()["figures"] == 2


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("other", "missing"):
        with pytest.raises(RunError):
            api.report(tmp_path / name, tmp_path / "page.html", on_progress=quiet)
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_exists_is_replaced_only_by_force(made, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(StorageError, match="exists"):
        api.report(made.folder, page, probes=False, on_progress=quiet)
    assert page.read_text() == "mine"
    api.report(made.folder, page, probes=False, force=True, on_progress=quiet)
    assert page.read_text().startswith("<!doctype html>")


def test_a_folder_that_was_moved_shows_its_own_runs(made, tmp_path):
    moved = shutil.copytree(made.folder, tmp_path / "moved")
    subject = Subject.open(moved, quiet)
    assert [run.path for run in subject.firsts.values()] == [
        moved / name for name in ("ngram", "rnn", "gru", "lstm")
    ]


def test_a_run_that_is_gone_is_told_and_left_out(made, tmp_path):
    folder, said = shutil.copytree(made.folder, tmp_path / "folder"), []
    values = read_json(folder / "comparison.json")
    row = next(row for row in values["rows"] if row["name"] == "rnn")
    row["seeds"][0]["run"] = "elsewhere/rnn-7"
    write_json(folder / "comparison.json", values)
    found = api.report(folder, tmp_path / "page.html", probes=False, on_progress=said.append)
    assert any("'elsewhere/rnn-7' is gone" in getattr(event, "text", "") for event in said)
    ((_, *rows),) = tables(found.page.read_text())["settings of each training"]
    assert [row[0] for row in rows] == ["ngram", "gru", "lstm"]


def test_equal_folders_give_equal_pages(made, tmp_path):
    pages = [tmp_path / "page.html"] * 2
    texts = []
    for page in pages:
        api.report(made.folder, page, probes=False, force=True, on_progress=quiet)
        texts.append(page.read_bytes())
    assert texts[0] == texts[1]


def test_tables_and_strips_say_how_to_read_them(subject):
    blocks = [b for s in page_sections(subject, False, "", quiet) for b in s.blocks]
    strips = [block for block in blocks if isinstance(block, Strips)]
    assert strips[-1].read
    assert any(block.read for block in blocks if isinstance(block, Table))


def test_the_result_is_plain_json(made, tmp_path):
    found = api.report(made.folder, tmp_path / "a.html", probes=False, on_progress=quiet)
    values = json.loads(json.dumps(found.to_json()))
    assert values["command"] == "report"
    assert values["bytes"] == found.page.stat().st_size
