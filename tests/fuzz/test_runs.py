"""A run from a stranger: whatever its files say, it opens and speaks, or two lines say why not.

The checksums and the run id are made again after every change, as a stranger would.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.errors import RunError
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.generation.sampling import SamplingSettings, sample_batch
from lmcli.registry import TOKENIZERS
from lmcli.run import LOG, RECORD, RESULTS, TOKENIZER, TRAINING, WEIGHTS, Run
from lmcli.run_list import describe
from lmcli.run_record import Record
from lmcli.storage import read_json, write_json
from lmcli.tensor_files import read_tensors, write_tensors
from lmcli.training.checkpoint import load_checkpoint

SCALE = settings().max_examples // 100
ARCHS = ("lstm", "gru", "rnn", "minlstm", "mingru", "window", "ngram", "attention")
TEXTS = ["a cab faded. a bee, a bead.\n", "fed bee\n\n  a cafe\n"]


@pytest.fixture(scope="module")
def runs(make_run, build, tmp_path_factory):
    """A small run of every architecture, by name."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for name in ARCHS:
        run = make_run(folder / name, name, layers=1) if name in ARCHS[:5] else None
        run = run or make_run(folder / name, name)
        run.save_weights(build(name, run.record.vocabulary).tensors(), 3)
        run.append_log({"step": 3, "tokens": 9, "loss": 1.5, "valid": 1.25})
        run.save_result("train", {"parameters": 9, "valid": {"bits_per_char": 2.5}, "race": []})
        made[name] = run.path
    return made


@pytest.fixture(scope="module")
def tokenizer_files():
    """The JSON of every tokenizer, by name."""
    members = {name: TOKENIZERS.load(name) for name in ("char", "word", "byte", "bpe")}
    return {n: m.train(TEXTS, m.Settings()).to_json() for n, m in members.items()}


@pytest.fixture(scope="module")
def copy(runs, tmp_path_factory):
    """``copy("gru")``: its path in a folder of its own, whose files are those of the run again."""
    folder = tmp_path_factory.mktemp("copies")

    def make(name):
        shutil.rmtree(folder / name, ignore_errors=True)
        return Path(shutil.copytree(runs[name], folder / name))

    return make


def rewrite(path, record, tokenizer):
    """The two JSON files, with a new id where there can be one."""
    try:
        record = {**record, "id": Record(**record).identity(tokenizer)}
        about = {"step": 3, "run": record["id"]}
        write_tensors(path / WEIGHTS, read_tensors(path / WEIGHTS)[0], about)
    except (TypeError, AttributeError, ValueError):
        pass  # a record that has no identity
    for name, content in ((RECORD, record), (TOKENIZER, tokenizer)):
        write_json(path / name, content if isinstance(content, dict) else {"it": content})


def use(path, torch_too=True):
    """Open, load both ways, speak, list."""
    describe(path)
    run = Run.open(path)
    run.log(), run.result("train")
    models = [open_numpy_model(run), run.model() if torch_too else None]
    for model in filter(None, models):
        texts = sample_batch(model, run.tokenizer, "a cab", 5, SamplingSettings(), [1, 2])
        assert all(isinstance(text, str) for _, text, _ in texts)


@pytest.mark.parametrize("name", ARCHS)
def test_any_field_of_the_record(copy, runs, mutations, refused, name):
    record, tokenizer = read_json(runs[name] / RECORD), read_json(runs[name] / TOKENIZER)
    path = copy(name)

    @settings(max_examples=12 * SCALE, deadline=None)
    @given(mutations(record))
    def look(mutant):
        rewrite(path, mutant, tokenizer)
        refused(lambda: use(path))

    look()


def test_any_record_alone(runs, mutations, refused):
    @settings(max_examples=200 * SCALE, deadline=None)
    @given(mutations(read_json(runs["lstm"] / RECORD)))
    def look(mutant):
        def read():
            with suppress(ValueError):  # which `Run.open` tells
                Record.from_json(mutant)

        refused(read)

    look()


@pytest.mark.parametrize("name", ["char", "word", "byte", "bpe"])
def test_any_tokenizer(mutations, tokenizer_files, name):
    member = TOKENIZERS.load(name)

    @settings(max_examples=30 * SCALE, deadline=None)
    @given(mutations(tokenizer_files[name]))
    def look(mutant):
        try:
            tokenizer = member.from_json(mutant)
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # which `Run.open` tells
        for text in (*TEXTS, "\ud800 \N{GRINNING FACE}\0"):
            ids = tokenizer.encode(text)
            assert len(ids) == 0 or 0 <= ids.min() <= ids.max() < tokenizer.size
            tokenizer.decode(ids).encode("utf-8", "surrogatepass")
            assert len(tokenizer.encode_with_ends(text).ids) == len(ids)
        for token in range(min(tokenizer.size, 20)):
            tokenizer.symbol(token).encode("utf-8", "replace")

    look()


VALUES = st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists)
SIZES = st.lists(st.integers(0, 40), max_size=3)
KINDS = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32,
                         torch.int64, torch.bool, torch.complex64, torch.uint8])  # fmt: skip
NUMBERS = st.sampled_from([0.0, 1.0, -1e30, 3e38, float("nan"), float("inf"), -1.0, 1e-40])


@pytest.mark.parametrize("name", ARCHS)
def test_any_tensors(copy, refused, name):
    path = copy(name)
    tensors, about = read_tensors(path / WEIGHTS)

    @settings(max_examples=12 * SCALE, deadline=None)
    @given(st.sampled_from(sorted(tensors)), st.sampled_from(range(6)), SIZES, KINDS, NUMBERS)
    def look(which, how, sizes, kind, number):
        mutant = dict(tensors)
        if how == 0:
            del mutant[which]
        elif how == 1:
            mutant[which] = torch.full(sizes, 1, dtype=torch.float32).mul(number).to(kind)
        elif how == 2:
            mutant[which] = mutant[which].to(kind)
        elif how == 3:
            mutant[which] = mutant[which].clone()
            mutant[which].view(-1)[:1] = 2**31 - 1 if how and number != number else number
        elif how == 4:
            mutant["strange." + which] = mutant[which].clone()
        else:
            mutant[which] = mutant[which].flip(0)
        write_tensors(path / WEIGHTS, mutant, about)
        refused(lambda: use(path))

    look()


def test_any_header(copy, refused, mutations):
    path = copy("gru")
    tensors, about = read_tensors(path / WEIGHTS)

    @settings(max_examples=40 * SCALE, deadline=None)
    @given(mutations(about))
    def look(mutant):
        write_tensors(path / WEIGHTS, tensors, mutant)
        refused(lambda: use(path, torch_too=False))
        refused(lambda: Run.open(path).weights_step())

    look()


@pytest.mark.parametrize("name", [RECORD, WEIGHTS])
def test_any_bytes(copy, refused, name):
    path = copy("rnn")
    data = (path / name).read_bytes()

    @settings(max_examples=60 * SCALE, deadline=None)
    @given(st.integers(0, len(data)), st.integers(0, len(data)), st.binary(max_size=20))
    def look(begin, end, new):
        (path / name).write_bytes(data[:begin] + new + data[end:])
        refused(lambda: use(path, torch_too=False))

    look()


def test_any_checkpoint(copy, refused, mutations):
    path = copy("gru")
    run = Run.open(path)
    values = {"step": 3, "tokens": 9, "validated": 0.5, "validated_step": 3, "loss_sum": 1.5}
    values |= {"loss_steps": 1, "best": None, "best_step": 3, "bad_validations": 0, "log_lines": 1}
    tensors = {f"model.{name}": tensor for name, tensor in run.new_model().tensors().items()}

    @settings(max_examples=40 * SCALE, deadline=None)
    @given(mutations(values))
    def look(mutant):
        about = mutant if isinstance(mutant, dict) else {"it": mutant}
        write_tensors(path / TRAINING, tensors, {**about, "run": run.record.id})
        if not refused(lambda: load_checkpoint(run)):
            assert isinstance(load_checkpoint(run)[1]["step"], int)

    look()


@given(st.lists(st.binary(max_size=30) | VALUES))
@settings(max_examples=50 * SCALE, deadline=None)
def test_any_log(runs, lines):
    run = Run.open(runs["gru"])
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (run.path / LOG).write_bytes(b"\n".join([b'{"step": 1, "tokens": 2, "valid": 0.5}', *lines]))
    entries = run.log()
    assert entries[:1] == [{"step": 1, "tokens": 2, "valid": 0.5}]
    assert all(isinstance(entry["step"], int) for entry in entries)


def test_any_result(copy, refused, mutations):
    path = copy("gru")
    whole = {"parameters": 9, "valid": {"bits_per_char": 2.5, "perplexity": 4.5}, "test": None}
    whole |= {"seconds": 1.5, "stopped": "budget", "race": [{"rate": 0.1, "loss": 2.5}], "steps": 3}

    @settings(max_examples=100 * SCALE, deadline=None)
    @given(mutations(whole))
    def look(mutant):
        write_json(path / RESULTS / "train.json", mutant if isinstance(mutant, dict) else {})
        row = describe(path)
        assert row["state"] == "damaged" or isinstance(row["bits_per_char"], float | None)
        refused(lambda: Run.open(path).result("train"))

    look()


# ------------------------------------------------------------------ what is no file, what is huge


@pytest.mark.parametrize("name", [RECORD, TOKENIZER, WEIGHTS, f"{RESULTS}/train.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_read(copy, name, kind):
    path = copy("gru")
    (path / name).unlink()
    if kind == "pipe":
        os.mkfifo(path / name)
    elif kind == "device":
        (path / name).symlink_to("/dev/zero")
    else:
        (path / name).mkdir()
    with pytest.raises(RunError, match=r"no regular file|not a run|unfinished|cannot read"):
        use_all(path)


def use_all(path):
    """Everything that reads a file of the run; a result that is no file counts as none."""
    run = Run.open(path)
    run.model()
    if run.result("train") is None:
        raise RunError("no regular file", "as there is none")


def test_a_log_that_is_a_link_is_neither_copied_nor_written(copy, tmp_path):
    path, secret = copy("gru"), tmp_path / "secret"
    secret.write_text("mine\n")
    (path / LOG).unlink()
    (path / LOG).symlink_to(secret)
    run = Run.open(path)
    for touch in (lambda: run.cut_log(1), lambda: run.append_log({"step": 1})):
        with pytest.raises(RunError, match="no regular file"):
            touch()
    assert secret.read_text() == "mine\n"
    assert run.log() == []


def test_sizes_are_compared_before_a_model_is_made(copy):
    path = copy("lstm")
    record, tokenizer = read_json(path / RECORD), read_json(path / TOKENIZER)
    record["settings"]["hidden"] = 1 << 24  # 4 TB of weights
    rewrite(path, record, tokenizer)
    with pytest.raises(RunError, match=r"is damaged: tensor .* has the shape"):
        Run.open(path).model()


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["gru", "attention"])
def test_weights_that_are_not_finite_are_damage(copy, name, number):
    path = copy(name)
    tensors, about = read_tensors(path / WEIGHTS)
    next(iter(tensors.values())).view(-1)[0] = number
    write_tensors(path / WEIGHTS, tensors, about)
    with pytest.raises(RunError, match=r"is damaged: tensor .* not finite"):
        use(path)
