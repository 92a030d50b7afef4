"""A run for others: complete, weights only, and enough to sample from."""

import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmcli.errors import LmcliError, RunError, StorageError
from lmcli.generation.export import README, START_RULES, export_numpy
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.registry import MODELS, NUMPY_MODELS
from lmcli.run import RECORD, RESULTS, TOKENIZER, TRAINING, WEIGHTS, Run
from lmcli.storage import write_json
from lmcli.tensor_files import read_tensors


@pytest.mark.parametrize("name", NUMPY_MODELS.names())
def test_an_exported_run_is_the_same_model_with_and_without_torch(trained, tmp_path, name):
    run = trained(name)
    exported = export_numpy(run, tmp_path / "out")
    again = Run.open(tmp_path / "out")
    assert again.record == run.record.for_others() == exported.record
    mine, theirs = run.model().tensors(), again.model().tensors()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine | theirs)
    logits = []
    for numpy_model in (open_numpy_model(run), open_numpy_model(again)):
        numpy_model.reset(1)
        numpy_model.read_all([again.record.vocabulary, 1, 2])
        logits.append(numpy_model.logits().copy())
    assert np.array_equal(*logits)
    assert read_tensors(tmp_path / "out" / WEIGHTS)[1]["step"] == 7


def test_weights_only_are_exported(trained, tmp_path):
    run = trained("gru")
    run.save_training({"x": torch.zeros(3)}, {"step": 1})
    export_numpy(run, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *(RECORD, TOKENIZER, WEIGHTS, README, RESULTS)
    }
    assert (run.path / TRAINING).exists()


def test_nothing_that_concerns_its_maker_alone_is_exported(trained, tmp_path):
    secret = "https://ann:pass@example.org/b.txt?token=abc"
    run = trained("gru")
    corpus = run.record.corpus | {"texts": ["/home/ann/my.txt", "a.txt"], "valid": [secret]}
    corpus |= {"folders": {"absolute": "/home/ann", "from_run": "../ann"}}
    record = replace(run.record, corpus=corpus, command=f"lmcli train --valid {secret}")
    export_numpy(Run(run.path, record, run.tokenizer), tmp_path / "out")
    exported = Run.open(tmp_path / "out").record
    assert exported.corpus["texts"] == ["my.txt", "a.txt"]
    assert exported.corpus["valid"] == ["https://example.org/b.txt"]
    everything = b"".join(f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file())
    assert not any(word in everything for word in (b"/home", b"pass@", b"token=", b"lmcli train"))


def test_settings_that_an_older_run_lacks_are_written_down(trained, tmp_path):
    run = trained("lstm")
    settings = {k: v for k, v in run.record.settings.items() if k != "attend"}
    write_json(run.path / RECORD, vars(replace(run.record, settings=settings, id="")))
    older = Run.open(run.path)
    assert open_numpy_model(older) is None
    assert export_numpy(older, tmp_path / "out").record.settings["attend"] == 0
    assert open_numpy_model(Run.open(tmp_path / "out")) is not None


@pytest.mark.parametrize("name", sorted(set(MODELS.names()) - set(NUMPY_MODELS.names())))
def test_what_cannot_run_without_torch_is_not_exported(trained, tmp_path, name):
    run = trained(name)
    with pytest.raises(LmcliError, match="cannot run without torch") as caught:
        export_numpy(run, tmp_path / "out")
    assert "lstm" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_half_an_export_is_not_left_behind(trained, tmp_path):
    run, soft = trained("gru"), resource.getrlimit(resource.RLIMIT_FSIZE)
    least = max((run.path / name).stat().st_size for name in (RECORD, TOKENIZER))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (least + 100, soft[1]))  # the weights are larger
    try:
        with pytest.raises(StorageError, match="weights"):
            export_numpy(run, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, before)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_without_force_and_never_the_run_itself(trained, tmp_path):
    run = trained("rnn")
    export_numpy(run, tmp_path / "out")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="exists") as caught:
        export_numpy(run, tmp_path / "out")
    assert "--force" in caught.value.hint
    export_numpy(trained("gru"), tmp_path / "out", force=True)
    assert Run.open(tmp_path / "out").record.arch == "gru"
    for force in (False, True):
        with pytest.raises(RunError, match="the run itself"):
            export_numpy(run, run.path, force)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not a run"):
        export_numpy(run, tmp_path / "mine", force=True)
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def test_an_old_run_stays_as_it_was_whichever_call_finds_the_disk_full(
    trained, tmp_path, snapshot, full_disks
):
    run, path = trained("gru"), trained("rnn").path
    (path / "notes.md").write_text("mine")
    (path / "plots").mkdir()
    (path / "plots" / "a.png").write_text("mine")
    before = snapshot()
    for disk in full_disks():
        with disk:
            export_numpy(run, path, force=True)
        assert snapshot() == before or not disk.failed, disk.number
    assert disk.number > 12
    assert Run.open(path).record.arch == "gru"
    assert (path / "notes.md").read_text() == "mine"
    assert (path / "plots" / "a.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["runs/out", "empty"])
def test_an_export_to_a_full_disk_leaves_nothing(trained, tmp_path, snapshot, full_disks, name):
    run = trained("gru")
    (tmp_path / "empty").mkdir()
    before = snapshot()
    for disk in full_disks():
        with disk:
            export_numpy(run, tmp_path / name)
        assert snapshot() == before or not disk.failed, disk.number
    assert disk.number > 10


def test_a_page_of_an_earlier_export_is_replaced_and_one_of_the_users_is_kept(trained, tmp_path):
    export_numpy(trained("rnn"), tmp_path / "out")
    run = trained("gru")
    export_numpy(run, tmp_path / "out", force=True)
    assert "gru" in (tmp_path / "out" / README).read_text()
    (tmp_path / "out" / README).write_text("mine")
    export_numpy(run, tmp_path / "out", force=True)
    assert (tmp_path / "out" / README).read_text() == "mine"


@pytest.mark.parametrize("name", NUMPY_MODELS.names())
def test_the_card_says_how_a_document_begins(trained, tmp_path, name):
    run = trained(name)
    export_numpy(run, tmp_path / "out")
    card = (tmp_path / "out" / README).read_text()
    assert f"A document begins with the token {run.tokenizer.start}, which is read" in card
    assert START_RULES[name] in card
