"""Every bad input: exit code 1, error and hint, nothing written and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmcli.run import RECORD, Run
from lmcli.run_record import Record
from lmcli.storage import read_json, write_json

TINY = ("--steps", "2", "--set", "hidden=4", "--quiet")


@pytest.fixture
def refused(lmcli, snapshot):
    """``refused("train", "no.txt", says=[...])``: an error, and a disk that is as it was."""

    def check(*args, says=(), code=1):
        before = snapshot()
        done = lmcli(*args).failed(*says, code=code)
        assert snapshot() == before
        assert done.out == ""
        return done

    return check


# ------------------------------------------------------------------ texts


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ["no file named 'a.txt'"]),
        (b"", ["'a.txt' is empty"]),
        (b" \n\t\r\n  ", ["'a.txt' holds nothing but blanks and line ends"]),
        (b"too short", ["too short: 9 characters", "400"]),
        (b"good words " * 60 + b"\xff\xfe bad", ["'a.txt'", "0xff", "offset 660"]),
    ],
)
def test_a_text_that_is_none_is_refused(refused, tmp_path, command, content, says):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    refused(command, "a.txt", says=says)


def test_a_misspelt_text_is_recognised(refused, my_text):
    refused("train", "mi.txt", says=["no file named 'mi.txt'", "did you mean 'my.txt'?"])


def test_a_folder_without_texts_is_refused(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "picture.png").write_bytes(b"x")
    refused("train", "folder", says=["no texts in folder 'folder'", "*.txt"])


def test_a_folder_of_code_says_which_pattern_takes_it(refused, tmp_path):
    for name in ("code/a.py", "code/in/b.py", "code/in/c.py", "code/read.me", "code/.git/x.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    refused("train", "code", says=["no texts in folder 'code'", "'code/**/*.py'"])


def test_an_empty_file_of_a_folder_is_left_out_with_a_warning(lmcli, tmp_path, sentences):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(sentences(400), encoding="utf-8")
    (tmp_path / "texts" / "b.txt").write_text(" \n", encoding="utf-8")
    alone = lmcli("train", "texts/a.txt", *TINY, "--json", "-o", "alone").json
    done = lmcli("train", "texts", *TINY, "--json", "-o", "both")
    assert done.err == "warning: 'texts/b.txt' is empty and left out\n"
    assert done.json["valid"] == alone["valid"]
    lmcli("train", "texts/a.txt", "texts/b.txt", *TINY).failed("'texts/b.txt' holds nothing")
    lmcli("train", "texts/b*", *TINY).failed("'texts/b.txt' holds nothing")


def test_bytes_of_windows_are_met_with_the_encoding_that_reads_its_quotes(lmcli, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"He said \x93hello\x94 to Ren\xe9.\n" * 60)
    lmcli("train", "a.txt", *TINY).failed("byte 0x93", "--encoding cp1252")
    assert lmcli("train", "a.txt", *TINY, "-o", "run", "--encoding", "cp1252").code == 0


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_folder_of_runs_names_the_runs_inside(refused, copied, tmp_path, command):
    copied("char"), copied("gru")
    refused(command, ".", says=["'.' is not a run", "name one of the runs in it: char, gru"])


def test_an_empty_working_folder_is_refused_as_a_text(refused):
    refused("train", ".", says=["no texts in folder '.'"])


def test_the_working_folder_may_be_the_text(lmcli, my_text):
    assert lmcli("train", ".", *TINY, "-o", "run").code == 0


@pytest.mark.parametrize(
    "way_out", [("--errors", "replace"), ("--errors", "ignore"), ("--encoding", "cp1252")]
)
def test_bytes_that_are_no_utf8_have_a_way_out(lmcli, tmp_path, sentences, way_out):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \x80 \n" + sentences(60).encode())
    lmcli("train", "a.txt", *TINY).failed("0xe9", "offset 3", "--encoding", "--errors replace")
    assert lmcli("train", "a.txt", *TINY, "-o", "run", *way_out).code == 0


def test_an_unknown_encoding_is_refused(refused, my_text):
    refused("train", "my.txt", "--encoding", "utf-9", says=["utf-9", "did you mean 'utf-8'?"])


def test_eval_refuses_a_missing_text(refused, trained):
    refused("eval", trained / "char", "no.txt", says=["no file named 'no.txt'"])


def test_cloze_refuses_a_missing_filler(refused, trained):
    text = ("--text", "the ... cat ___", "--gaps", "2")
    refused("cloze", trained / "char", *text, "--filler", "no.txt", says=["no.txt"])


# ------------------------------------------------------------------ runs


def _missing(run):
    shutil.rmtree(run)


def _no_run(run):
    (run / "run.json").unlink()


def _half_written(run):
    (run / "weights.safetensors").unlink()
    (run / "training.safetensors").unlink()


def _truncated(run):
    for name in ("weights.safetensors", "training.safetensors"):
        file = run / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flipped(run):
    for name in ("weights.safetensors", "training.safetensors"):
        content = bytearray((run / name).read_bytes())
        content[-3] ^= 64
        (run / name).write_bytes(content)


def _flipped_record(run):
    file = run / "run.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))


def _truncated_record(run):
    file = run / "run.json"
    file.write_bytes(file.read_bytes()[:100])


def _newer(run):
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


DAMAGES = {
    _missing: "no run at",
    _no_run: "is not a run",
    _half_written: "",
    _truncated: "is damaged",
    _flipped: "is damaged",
    _flipped_record: "is damaged",
    _truncated_record: "is damaged",
    _newer: "format 99",
}
COMMANDS = {
    "sample": ("sample", "char"),
    "eval": ("eval", "char", "my.txt"),
    "cloze": ("cloze", "char", "--text", "the ___"),
    "compare": ("compare", "my.txt", "--run", "char", "--arch", "ngram"),
    "resume": ("train", "--resume", "-o", "char"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__.strip("_"))
def test_a_run_that_is_no_whole_run_is_refused(refused, copied, my_text, command, harm):
    harm(copied("char"))
    refused(*COMMANDS[command], says=["char", DAMAGES[harm]])


def test_an_unfinished_run_says_how_to_go_on(lmcli, copied):
    run = copied("char")
    (run / "weights.safetensors").unlink()
    lmcli("sample", "char").failed("unfinished", "lmcli train --resume -o char")


def test_a_run_without_a_checkpoint_cannot_be_resumed(refused, copied):
    run = copied("char")
    (run / "training.safetensors").unlink()
    refused("train", "--resume", "-o", "char", says=["cannot be resumed", "--force"])


# ------------------------------------------------------------------ outputs


def test_train_keeps_what_exists(refused, copied, my_text):
    copied("char")
    refused("train", "my.txt", *TINY, "-o", "char", says=["'char' exists", "--force", "--resume"])


def test_train_keeps_a_folder_that_is_no_run_even_with_force(refused, my_text, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("work of years")
    refused("train", "my.txt", *TINY, "-o", "thesis", "--force", says=["'thesis' exists"])


def test_train_keeps_a_file_in_its_way(refused, my_text):
    refused("train", "my.txt", *TINY, "-o", "my.txt", "--force", says=["'my.txt' exists"])


def test_a_bad_text_leaves_the_run_that_force_would_replace(refused, copied):
    copied("char")
    refused("train", "no.txt", *TINY, "-o", "char", "--force", says=["no.txt"])


def test_compare_keeps_what_exists(refused, my_text, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "comparison.json").write_text("{}")
    refused("compare", "my.txt", *TINY, "-o", "old", says=["'old' exists", "--force"])


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("name", ["ngram", "thesis"])
def test_compare_keeps_a_folder_of_runs_that_no_comparison_made(
    refused, copied, my_text, tmp_path, name, force
):
    (tmp_path / "runs").mkdir()
    copied("ngram").rename(tmp_path / "runs" / name)
    more = ("--arch", "ngram", "-o", "runs", *force)
    done = refused("compare", "my.txt", *more, says=["'runs' exists and is not a comparison"])
    assert "--force" not in done.err


@pytest.mark.parametrize("output", ["char", "my.txt"])
def test_compare_keeps_a_run_and_a_file_in_its_way(refused, copied, my_text, output):
    copied("char")
    done = refused("compare", "my.txt", *TINY, "-o", output, "--force", says=[f"'{output}' exists"])
    assert "--force" not in done.err


def test_train_keeps_a_run_until_the_first_checkpoint_of_the_new_one_is_on_the_disk(
    lmcli, copied, my_text, snapshot, full_disks
):
    run = copied("char")
    (run / "notes.md").write_text("mine")
    words = ("train", "my.txt", *TINY, "-o", "char")
    lmcli(*words[:-1], "other")  # whose token ids are from now on in the cache
    before = snapshot()
    for disk in full_disks():
        with disk:
            done = lmcli(*words, "--force")
        if (run / "run.json").read_bytes() != before[str(run / "run.json")]:
            break
        done.failed("no space left")
        assert snapshot() == before, disk.number
    assert disk.number > 12
    assert (run / "notes.md").read_text() == "mine"
    assert lmcli("train", "--resume", "-o", "char", "--quiet").code == 0


def test_make_keeps_what_exists(refused, my_text):
    refused("make", "france", "-o", "my.txt", says=["'my.txt' exists", "--force"])


def _can(*command):
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _mount(folder, options):
    """A command that runs the rest in a world where `folder` is a file system of its own."""
    script = f'mount -t tmpfs -o {options} none "{folder}" && "$@"; code=$?; ls -A "{folder}"; '
    script += "exit $code"
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        wrap = [*unshare, "sh", "-c", script, "sh"]
        if shutil.which("unshare") and _can(*wrap, "true"):
            return wrap
    pytest.skip("file systems cannot be mounted here")


@pytest.mark.parametrize("command", ["train", "make", "compare"])
def test_a_full_disk_is_said_to_be_full(process, my_text, tmp_path, command):
    (tmp_path / "full").mkdir()
    arguments = {
        "train": ("my.txt", *TINY, "-o", "full/run"),
        "make": ("france", "--size", "small", "-o", "full/france.txt"),
        "compare": ("my.txt", "--arch", "ngram", "--quiet", "-o", "full/run"),
    }[command]
    wrap = _mount(tmp_path / "full", "size=4k")
    done = process(command, *arguments, wrap=wrap).failed("no space left")
    assert done.out == "", "something was left behind"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_result_that_finds_no_space_is_an_error(trained, start):
    with Path("/dev/full").open("wb") as full:
        run = start("sample", trained / "char", stdout=full, stderr=subprocess.PIPE)
        err = run.communicate()[1].decode()
    assert run.returncode == 1
    assert err.startswith("error: no space left")
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("command", ["train", "make", "compare"])
def test_a_read_only_folder_is_said_to_be_one(process, my_text, tmp_path, command):
    (tmp_path / "fixed").mkdir()
    arguments = {
        "train": ("my.txt", *TINY, "-o", "fixed/run"),
        "make": ("france", "--size", "small", "-o", "fixed/france.txt"),
        "compare": ("my.txt", "--arch", "ngram", "--quiet", "-o", "fixed/run"),
    }[command]
    wrap = _mount(tmp_path / "fixed", "ro")
    process(command, *arguments, wrap=wrap).failed("fixed", "read-only")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_text_without_permission_is_refused(refused, my_text):
    my_text.chmod(0)
    refused("train", "my.txt", says=["permission"])


# ------------------------------------------------------------------ names and words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "my.txt", "--arch", "gruu"), ["no architecture named 'gruu'", "'gru'?"]),
        (("compare", "my.txt", "--arch", "lstm,rn"), ["no architecture named 'rn'", "'rnn'?"]),
        (("train", "my.txt", "--tokenizer", "wrd"), ["no tokenizer named 'wrd'", "'word'?"]),
        (("compare", "my.txt", "--tokenizer", "chr"), ["no tokenizer named 'chr'", "'char'?"]),
        (("make", "frence"), ["no grammar named 'frence'", "'france'?"]),
        (("list", "lstn"), ["nothing named 'lstn'", "'lstm'?"]),
        (("train", "my.txt", "--device", "cuda:99"), ["cuda:99", "--device cpu"]),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest_known_one(refused, my_text, arguments, says):
    if "cuda:99" in arguments and "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    refused(*arguments, says=says)


@pytest.mark.parametrize("run", ["char", "word", "ngram"])
def test_a_prompt_with_unseen_symbols_is_a_warning(lmcli, trained, run):
    done = lmcli("sample", trained / run, "--prompt", "the 犬 sees", "--length", "5")
    assert done.code == 0
    assert done.out.startswith("the 犬 sees")
    assert "warning: the model has never seen '犬'" in done.err


def test_cloze_warns_of_unseen_words_and_goes_on(lmcli, trained):
    done = lmcli("cloze", trained / "word", "--text", "the zebra sees the ___")
    assert done.code == 0
    assert "never seen 'zebra'" in done.err


@pytest.mark.parametrize(("run", "word"), [("word", "zebra"), ("char", "犬")])
def test_a_candidate_that_is_not_in_the_vocabulary_is_refused(refused, trained, run, word):
    arguments = ("--text", "the old ___", "--candidates", f"cat,{word}")
    refused("cloze", trained / run, *arguments, says=[f"'{word}' is not in the vocabulary"])


# ------------------------------------------------------------------ resume with other settings


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--arch", "gru"), ["--arch gru", "arch lstm"]),
        (("--tokenizer", "word"), ["--tokenizer word", "tokenizer char"]),
        (("--seed", "3"), ["--seed 3", "seed 0"]),
        (("--steps", "40"), ["--steps 40", "--steps 30"]),
        (("--minutes", "1"), ["--minutes 1", "--steps 30"]),
        (("--set", "hidden=32"), ["--set hidden=32", "hidden 16"]),
        (("--set", "clip=2"), ["--set clip=2", "clip 1"]),
        (("--split", "tail"), ["--split tail", "split interleaved"]),
        (("--documents", "line"), ["--documents line", "documents file"]),
        (("--newlines", "lf"), ["--newlines lf", "newlines keep"]),
        (("--encoding", "cp1252"), ["--encoding cp1252", "encoding utf-8"]),
        (("--valid", "my.txt"), ["--valid", "my.txt"]),
    ],
)
def test_resume_names_the_setting_that_differs(refused, copied, option, says):
    copied("char")
    refused("train", "--resume", "-o", "char", *option, says=[*says, "differs"])


def test_resume_may_repeat_what_the_run_was_made_with(lmcli, copied):
    copied("char")
    same = ("--arch", "lstm", "--steps", "30", "--set", "hidden=16", "--split", "interleaved")
    assert lmcli("train", "--resume", "-o", "char", *same, "--quiet").code == 0


def test_resume_refuses_a_text_that_has_changed(refused, copied, my_text):
    copied("char")
    my_text.write_text(my_text.read_text() + "more", encoding="utf-8")
    refused("train", "my.txt", "--resume", "-o", "char", says=["changed"])


def test_resume_asks_for_a_text_that_came_through_a_pipe(lmcli, my_text):
    text = my_text.read_bytes()
    assert lmcli("train", "-", *TINY, "-o", "run", stdin=text).code == 0
    lmcli("train", "--resume", "-o", "run").failed("standard input")
    lmcli("eval", "run", "--split", "test").failed("standard input")
    assert lmcli("train", "my.txt", "--resume", "-o", "run", "--quiet").code == 0
    assert lmcli("eval", "run", "-", "--split", "test", stdin=text).code == 0


# ------------------------------------------------------------------ explosions

WILD = ("--set", "learning_rate=1000", "clip=0", "hidden=16", "warmup=0", "validations=1000")


def _wild(*more):
    pairs = [x for pair in WILD[1:] for x in ("--set", pair)]
    return ("train", "my.txt", "--steps", "400", *pairs, "--quiet", *more)


def test_a_loss_that_explodes_stops_and_says_what_to_lower(lmcli, my_text):
    done = lmcli(*_wild("-o", "run")).failed("--set learning_rate=250", "at step")
    assert "exploded" in done.err or "NaN" in done.err


def test_the_best_weights_survive_an_explosion(lmcli, my_text):
    done = lmcli(*_wild("-o", "run", "--set", "learning_rate=8", "--set", "patience=0"))
    if done.code == 0:
        pytest.skip("it held")
    done.failed("learning_rate=2")
    if "best weights" in done.err:
        assert lmcli("sample", "run", "--length", "5").code == 0


# --- what the system refuses


def test_a_model_too_large_for_the_memory_is_said_and_leaves_nothing(lmcli, my_text, snapshot):
    before = snapshot()
    lmcli("train", "my.txt", "--steps", "2", "--set", "hidden=20000000", "-o", "big", "-q").failed(
        "out of memory", "hidden"
    )
    assert snapshot() == before


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "x" * 300),
        ("train", "my.txt", "--steps", "2", "-q", "-o", "x" * 300),
        ("make", "france", "--size", "small", "-o", "x" * 300 + ".txt"),
        ("eval", "x" * 300, "my.txt"),
    ],
)
def test_a_name_that_is_too_long_is_two_lines(lmcli, my_text, words):
    lmcli(*words).failed("too long")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")  # noqa: PTH110
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_on_a_full_disk_is_two_lines(process, option):
    done = process(option, wrap=("sh", "-c", 'exec "$0" "$@" > /dev/full'))
    done.failed("no space left")


def test_a_config_that_no_parser_takes_is_two_lines(lmcli, my_text, tmp_path):
    for content in ("[" * 5000, "a = " + "9" * 5000, "a = " + "[" * 5000, "\0"):
        (tmp_path / "c.toml").write_text(content)
        lmcli("train", "my.txt", "--config", "c.toml").failed("config 'c.toml'", code=2)


def test_control_characters_are_shown_and_not_obeyed(lmcli):
    done = lmcli("sample", "\x1b[2Jx").failed("no run at")
    assert "\x1b" not in done.err
    assert "\N{SYMBOL FOR ESCAPE}[2Jx" in done.err


def test_options_that_contradict_each_other_are_refused(lmcli, copied):
    copied("char")
    lmcli("train", "--resume", "--force", "-o", "char").failed("--resume", "--force", code=2)
    for option in ("--encoding=latin-1", "--errors=replace", "--newlines=lf", "--documents=line"):
        lmcli("eval", "char", "--split", "test", option).failed(option.partition("=")[0], code=2)
    lmcli("sample", "char", "--length", "0", "--json").failed("--length 0", code=2)


def test_a_variable_of_another_commands_option_is_not_read(lmcli, my_text, copied, monkeypatch):
    copied("char")
    monkeypatch.setenv("LMCLI_SPLIT", "tail")  # which train reads
    assert lmcli("eval", "char", "my.txt", "-q").code == 0
    monkeypatch.setenv("LMCLI_EVAL_SPLIT", "nonsense")
    lmcli("eval", "char", "-q").failed("--split nonsense", code=2)


def test_a_working_folder_that_is_gone_is_said(start, tmp_path):
    (tmp_path / "gone").mkdir()
    began = start("list", cwd=tmp_path / "gone", stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                  preexec_fn=lambda: (tmp_path / "gone").rmdir())  # fmt: skip
    _, err = began.communicate()
    assert began.returncode == 1
    assert err.decode().splitlines() == [
        "error: the working folder has been deleted",
        "hint: change to another one: cd ~",
    ]


def test_what_a_link_names_is_replaced_with_a_warning(lmcli, my_text, copied, tmp_path):
    run = copied("char")
    (tmp_path / "link").symlink_to(run)
    done = lmcli("train", "my.txt", *TINY, "--steps", "1", "-o", "link", "--force")
    assert done.err.startswith(f"warning: 'link' is a link: the run at '{run}' is replaced\n")
    assert Run.open(run).record.budget["steps"] == 1


def test_empty_lines_are_counted_and_said(lmcli, tmp_path):
    lines = [f"line {n} has words\n" for n in range(600)]
    (tmp_path / "a.txt").write_text("\n" + "".join(lines) + " \n\n" + "".join(lines) + "\t")
    arguments = ("--documents", "line", *TINY[:-1], "--steps", "1", "-o")
    done = lmcli("train", "a.txt", *arguments, "a", "--json")
    assert done.json["skipped"] == 4
    assert (
        "4 empty lines are left out: they are no documents"
        in lmcli(
            "train", "a.txt", *arguments[:2], "--steps", "1", "--set", "hidden=8", "-o", "b"
        ).err
    )
    done = lmcli("train", "a.txt", "--set", "hidden=8", "--steps", "1", "-o", "c", "--json")
    assert done.json["skipped"] == 0


def test_a_run_of_many_processes_is_not_started_unasked(lmcli, copied):
    path = copied("char")
    record = read_json(path / RECORD)
    run = Run.open(path)
    record["workers"] = 4000
    record["id"] = Record(**record).identity(run.tokenizer.to_json())
    write_json(path / RECORD, record)
    lmcli("train", "--resume", "-o", path).failed("4000 processes", "--workers 4000 starts")
