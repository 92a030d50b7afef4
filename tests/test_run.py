"""A run on disk: what was written comes back, and whatever was damaged says so."""

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli import run, storage, tensor_files
from lmcli.errors import RunError, StorageError, UnknownNameError
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.registry import NUMPY_MODELS
from lmcli.run import (
    LOG,
    RECORD,
    RESULTS,
    TOKENIZER,
    TRAINING,
    TRAINING_COPY,
    WEIGHTS,
    Run,
    check_free,
)
from lmcli.storage import read_json, write_json
from lmcli.tensor_files import read_tensors, write_tensors

JSON_FILES, TENSOR_FILES = (RECORD, TOKENIZER), (WEIGHTS, TRAINING)


@pytest.fixture(scope="module")
def whole(make_run, tmp_path_factory):
    """A complete small run."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run", hidden=2, embedding=2)
    model = run.new_model()
    run.save_weights(model.tensors(), 7)
    run.save_training({"model.bias": torch.tensor([1.5, -2])}, {"step": 7, "best": 1.25})
    run.append_log({"step": 7})
    run.save_result("train", {"steps": 7})
    return run


def everything(path):
    """All that can be read of a run."""
    run = Run.open(path)
    tensors, state = run.load_training()
    plain = {k: v.tolist() for k, v in (tensors | run.model().tensors()).items()}
    return vars(run.record), run.tokenizer.to_json(), plain, state


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it to damage."""
    for name in (*JSON_FILES, *TENSOR_FILES):
        (tmp_path / name).write_bytes((whole.path / name).read_bytes())
    return tmp_path


# ------------------------------------------------------------------ there and back


def test_what_was_written_comes_back(whole):
    record, tokenizer, _, state = everything(whole.path)
    assert record == vars(whole.record)
    assert tokenizer == whole.tokenizer.to_json()
    assert state == {"step": 7, "best": 1.25}
    assert whole.result("train") == {"steps": 7}
    assert whole.result("eval") is None
    assert read_json(whole.path / TRAINING_COPY) == state
    assert whole.name == "run"


def test_runs_with_equal_tokenizers_share_one(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "second")
    tokenizer = Run.open(whole.path).tokenizer
    assert Run.open(tmp_path / "second").tokenizer is tokenizer
    changed = tokenizer.to_json() | {"unknown_rate": 0.25}
    assert run._tokenizer(type(tokenizer), json.dumps(changed)).unknown_rate == 0.25


def test_every_file_has_a_format_number(whole):
    for name in (*JSON_FILES, TRAINING_COPY, f"{RESULTS}/train.json"):
        assert json.loads((whole.path / name).read_text())["format"] == 1


def test_the_log_grows_by_lines_and_is_cut_to_lines(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    for step in range(5):
        run.append_log({"step": step})
    with (run.path / LOG).open("a") as log:
        log.write('{"step": ')  # the last word of a process that was killed
    run.cut_log(3)
    run.append_log({"step": 9})
    steps = [json.loads(line)["step"] for line in (run.path / LOG).read_text().splitlines()]
    assert steps == [0, 1, 2, 9]


def test_slimmed_it_still_opens_and_cannot_be_resumed(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    run.save_weights(run.new_model().tensors(), 1)
    run.save_training({}, {"step": 1})
    run.drop_checkpoint()
    assert not (run.path / TRAINING).exists()
    assert not (run.path / TRAINING_COPY).exists()
    Run.open(run.path).model()
    with pytest.raises(RunError, match="cannot be resumed"):
        run.load_training()


@pytest.mark.parametrize("name", NUMPY_MODELS.names())
def test_a_numpy_model_has_the_weights_of_the_model(make_run, build, tmp_path, name):
    run = make_run(tmp_path / "run", name)
    run.save_weights(build(name, run.record.vocabulary).tensors(), 1)
    numpy_model, model = open_numpy_model(run), run.model()
    tokens = [[run.record.vocabulary, 1, 2, 5]]
    numpy_model.reset(1)
    numpy_model.read_all(tokens[0])
    with torch.no_grad():
        logits = model(torch.tensor(tokens), model.initial_state(1))[0][0, -1]
    np.testing.assert_allclose(numpy_model.logits()[0], logits.numpy(), atol=1e-5)


def test_where_a_numpy_model_cannot_be_there_is_none(make_run, tmp_path):
    assert open_numpy_model(make_run(tmp_path / "a", "attention")) is None
    run = make_run(tmp_path / "b", "lstm")
    del run.record.settings["peepholes"]  # a run from before there were any
    assert open_numpy_model(run) is None
    with pytest.raises(RunError, match="unfinished"):
        open_numpy_model(make_run(tmp_path / "c", "lstm"))


@pytest.mark.parametrize("harm", ["missing", "misshapen"])
def test_a_numpy_model_refuses_weights_that_are_not_the_models(make_run, tmp_path, harm):
    run = make_run(tmp_path / "run", "gru")
    tensors = run.new_model().tensors()
    if harm == "missing":
        del tensors["output.bias"]
    else:
        tensors["output.bias"] = torch.zeros(3)
    run.save_weights(tensors, 1)
    with pytest.raises(RunError, match=r"is damaged: tensor output\.bias"):
        open_numpy_model(run)


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_cut_short_anywhere_is_a_run_error(copy, name):
    data = (copy / name).read_bytes()
    for length in range(len(data)):
        (copy / name).write_bytes(data[:length])
        with pytest.raises(RunError, match=r"damaged|unfinished|checksum"):
            everything(copy)


@pytest.mark.parametrize("name", TENSOR_FILES)
def test_tensors_cut_short_anywhere_are_a_run_error(copy, name):
    data = (copy / name).read_bytes()
    for length in range(0, len(data), 3):
        (copy / name).write_bytes(data[:length])
        with pytest.raises(RunError):
            everything(copy)


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES])
def test_a_flipped_bit_is_a_run_error_or_changes_nothing(whole, tmp_path_factory, name):
    copy = tmp_path_factory.mktemp("copy")
    for other in (*JSON_FILES, *TENSOR_FILES):
        (copy / other).write_bytes((whole.path / other).read_bytes())
    data, right, harmless = (copy / name).read_bytes(), everything(copy), []

    @given(st.integers(0, 8 * len(data) - 1))
    @settings(max_examples=150)
    def flip(bit):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (copy / name).write_bytes(damaged)
        try:
            assert everything(copy) == right
        except RunError:
            return
        harmless.append(bit)

    flip()
    assert len(harmless) < 5  # 1e-05 and 1E-05 are one number; much else there cannot be


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES])
def test_other_bytes_are_a_run_error(whole, tmp_path_factory, name):
    copy = tmp_path_factory.mktemp("copy")
    for other in (*JSON_FILES, *TENSOR_FILES):
        (copy / other).write_bytes((whole.path / other).read_bytes())

    @given(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b"null", b"1", b"[" * 10**5]))
    @settings(max_examples=40)
    def replace(data):
        (copy / name).write_bytes(data)
        with pytest.raises(RunError):
            everything(copy)

    replace()


@pytest.mark.parametrize(
    "change",
    [{"vocabulary": 9}, {"extra": 1}, {"settings": {"hiden": 4}}, {"settings": None}],
)
def test_a_record_that_does_not_fit_is_a_run_error(copy, change):
    write_json(copy / RECORD, read_json(copy / RECORD) | change)
    with pytest.raises(RunError):
        everything(copy)


@pytest.mark.parametrize("change", [{"arch": "grru"}, {"tokenizer": "chars"}])
def test_a_record_with_a_name_nobody_knows_says_which_is_meant(copy, change):
    write_json(copy / RECORD, read_json(copy / RECORD) | {"id": ""} | change)
    with pytest.raises(UnknownNameError) as caught:
        everything(copy)
    assert caught.value.hint in ("did you mean 'gru'?", "did you mean 'char'?")


def test_weights_of_another_model_are_a_run_error(copy, build):
    about = {"step": 1, "run": read_json(copy / RECORD)["id"]}
    write_tensors(copy / WEIGHTS, build("lstm").tensors(), about)
    with pytest.raises(RunError, match=r"weights.safetensors' is damaged"):
        Run.open(copy).model()


@pytest.mark.parametrize("name", [RECORD, "tokenizer.json", WEIGHTS, TRAINING])
def test_a_run_put_together_from_two_is_an_error_that_names_the_file(whole, copy, tmp_path, name):
    record = dataclasses.replace(whole.record, seed=7)
    other = Run.create(tmp_path / "other", record, whole.tokenizer)
    other.save_weights(whole.model().tensors(), 1)
    other.save_training(*whole.load_training())
    if name == "tokenizer.json":
        same_size = whole.tokenizer.to_json()
        same_size["characters"] = same_size["characters"][::-1]
        write_json(other.path / name, same_size)
    (copy / name).write_bytes((other.path / name).read_bytes())
    with pytest.raises(RunError, match="put together from two runs"):
        everything(copy)


def test_equal_trainings_have_equal_ids_wherever_they_are_made(whole, tmp_path):
    made = dataclasses.replace(
        whole.record,
        versions={"torch": "9"},
        command="lmcli train other.txt",
        corpus=whole.record.corpus | {"texts": ["other.txt"], "folders": {"absolute": "/"}},
    )
    assert Run.create(tmp_path / "a", made, whole.tokenizer).record.id == whole.record.id
    made = dataclasses.replace(made, seed=7)
    assert Run.create(tmp_path / "b", made, whole.tokenizer).record.id != whole.record.id
    assert Run.open(tmp_path / "b").record.id != ""


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES])
def test_a_file_of_a_newer_format_says_to_upgrade(copy, name, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT", 2)
    monkeypatch.setattr(tensor_files, "FORMAT", 2)
    if name in JSON_FILES:
        write_json(copy / name, read_json(copy / name))
    else:
        write_tensors(copy / name, *read_tensors(copy / name))
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"format 2, this lmcli reads up to 1") as caught:
        everything(copy)
    assert caught.value.hint == "upgrade lmcli"


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES])
def test_a_missing_file_is_a_run_error(copy, name):
    (copy / name).unlink()
    with pytest.raises(RunError):
        everything(copy)


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(RunError, match="no run at"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(RunError, match="is not a run"):
        Run.open(tmp_path)
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(RunError, match="is not a run"):
        Run.open(file)


def test_a_run_without_weights_is_unfinished_and_says_how_to_go_on(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match="unfinished") as caught:
        Run.open(run.path).model()
    assert "--resume" in caught.value.hint


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize("name", [*JSON_FILES, *TENSOR_FILES])
def test_opening_a_run_executes_no_code(copy, name):
    (copy / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RunError):
        everything(copy)
    with (copy / name).open("wb") as file:
        torch.save({"weights": Bomb()}, file)
    with pytest.raises(RunError):
        everything(copy)


# ------------------------------------------------------------------ in the way


def test_a_run_is_replaced_by_force_alone_and_leaves_nothing_behind(make_run, tmp_path):
    path = tmp_path / "run"
    old = make_run(path)
    old.save_weights(old.new_model().tensors(), 1)
    old.save_training({}, {})
    old.append_log({})
    old.save_result("train", {})
    (path / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match="exists") as caught:
        make_run(path)
    assert "--force" in caught.value.hint
    assert (path / WEIGHTS).exists()
    new = make_run(path, force=True)
    new.save_weights(new.new_model().tensors(), 1)
    assert {f.name for f in path.iterdir()} == {RECORD, TOKENIZER, WEIGHTS, RESULTS, "mine.txt"}
    assert not any((path / RESULTS).iterdir())
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_can_be_used_until_something_of_the_one_that_replaces_it_is_saved(
    whole, make_run, tmp_path
):
    path = Path(shutil.copytree(whole.path, tmp_path / "run"))
    new = make_run(path, "lstm", force=True)
    assert everything(path) == everything(whole.path)
    new.save_training({"x": torch.zeros(2)}, {"step": 0})
    assert Run.open(path).record.arch == "lstm"
    assert Run.open(path).load_training()[1] == {"step": 0}
    assert not (path / WEIGHTS).exists()


def test_what_is_named_by_a_link_is_replaced(make_run, tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "link").symlink_to("run")
    make_run(tmp_path / "link", "lstm", force=True).save_training({}, {})
    assert (tmp_path / "link").is_symlink()
    assert Run.open(tmp_path / "run").record.arch == "lstm"


def test_the_working_folder_is_not_replaced(make_run, tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    (tmp_path / "run" / "plots").mkdir()
    for place, path in (("run", Path()), ("run/plots", tmp_path / "run")):
        monkeypatch.chdir(tmp_path / place)
        with pytest.raises(RunError, match="working folder"):
            make_run(path, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_run_is_never_replaced(make_run, tmp_path, force):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(RunError, match="exists"):
            make_run(tmp_path / name, force=force)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_new_and_empty_folders_are_free(make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty", tmp_path / "deep" / "er"):
        check_free(path, force=False)
        assert Run.open(make_run(path).path).name == path.name


# ------------------------------------------------------------------ disks that fail


def test_a_folder_that_cannot_be_made_is_a_storage_error(make_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        make_run(tmp_path / "file" / "run")


def test_a_folder_whose_making_was_cut_short_can_be_replaced(make_run, tmp_path):
    make_run(tmp_path / "cut")
    for file in sorted((tmp_path / "cut").rglob("*"), reverse=True):
        if file.name != RECORD:
            file.rmdir() if file.is_dir() else file.unlink()
    with pytest.raises(RunError, match="has no tokenizer"):
        Run.open(tmp_path / "cut")
    check_free(tmp_path / "cut", force=True)


def test_what_a_process_killed_at_the_beginning_of_a_run_leaves_is_in_nobodys_way(
    make_run, tmp_path
):
    for name in ("begun", "used"):
        (tmp_path / name / RESULTS).mkdir(parents=True)
        (tmp_path / name / f".{RECORD}.0123abcd.tmp").touch()
    assert Run.open(make_run(tmp_path / "begun").path).name == "begun"
    (tmp_path / "used" / RESULTS / "mine.json").touch()
    with pytest.raises(RunError, match="is not a run"):
        make_run(tmp_path / "used", force=True)


def save_weights(run):
    run.save_weights(run.new_model().tensors(), 1)


def save_training(run):
    run.save_training({"x": torch.zeros(9)}, {"step": 0})


SAVES = pytest.mark.parametrize("save", [save_weights, save_training])


@SAVES
def test_a_run_stays_as_it_was_whichever_call_finds_the_disk_full(
    whole, make_run, tmp_path, snapshot, full_disks, save
):
    path = Path(shutil.copytree(whole.path, tmp_path / "run"))
    (path / "notes.md").write_text("mine")
    before = snapshot()
    for disk in full_disks():
        with disk:
            save(make_run(path, "lstm", force=True))
        assert snapshot() == before or not disk.failed, disk.number
    assert disk.number > 10
    assert Run.open(path).record.arch == "lstm"
    assert (path / "notes.md").read_text() == "mine"


@SAVES
def test_a_run_whose_replacing_is_killed_is_the_old_one_or_the_new_one(
    whole, make_run, tmp_path, full_disks, save
):
    found = set()
    for disk in full_disks(killed=True):
        path = Path(shutil.copytree(whole.path, tmp_path / str(disk.number) / "run"))
        (path / "notes.md").write_text("mine")
        with disk:
            save(make_run(path, "lstm", force=True))
        run = Run.open(path)
        found.add(run.record.arch)
        if run.record.arch == whole.record.arch:
            assert everything(path) == everything(whole.path), disk.number
        elif save is save_weights:
            run.model()
        else:
            assert run.load_training()[1] == {"step": 0}
        save_weights(make_run(path, force=True))
        assert list(path.parent.iterdir()) == [path], disk.number
        assert (path / "notes.md").read_text() == "mine", disk.number
    assert disk.number > 15
    assert found == {whole.record.arch, "lstm"}


def test_a_run_that_finds_the_disk_full_at_its_beginning_leaves_nothing(
    make_run, tmp_path, snapshot, full_disks
):
    (tmp_path / "empty").mkdir()
    before = snapshot()
    for name in ("runs/deep/run", "empty"):
        for disk in full_disks():
            with disk:
                make_run(tmp_path / name)
            assert snapshot() == before or not disk.failed, disk.number
        assert disk.number > 6
        before = snapshot()


def test_a_run_that_fails_leaves_what_others_have_begun_beside_it_or_in_it(
    make_run, tmp_path, monkeypatch
):
    mkdir = os.mkdir

    def begin_others(path, *mode):
        mkdir(path, *mode)
        if Path(path).name == "run":  # two processes choose the same name, a third one another
            monkeypatch.setattr(os, "mkdir", mkdir)
            make_run(tmp_path / "runs" / "run", "lstm")
            make_run(tmp_path / "runs" / "other")

    monkeypatch.setattr(os, "mkdir", begin_others)
    with pytest.raises(StorageError):
        make_run(tmp_path / "runs" / "run")
    assert Run.open(tmp_path / "runs" / "run").record.arch == "lstm"
    Run.open(tmp_path / "runs" / "other")
