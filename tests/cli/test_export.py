"""``lmcli export``: what is written works where there is no torch."""

import subprocess
import sys
import textwrap

import pytest

NO_TORCH = "import sys; sys.modules['torch'] = None\n"  # importing it raises an ImportError
SAMPLE = """
from lmcli.__main__ import main
sys.argv = ["lmcli", "sample", "out", "--length", "12", "--seed", "5", "--prompt", "the "]
main()
"""
EVAL = """
from lmcli.__main__ import main
sys.argv = ["lmcli", "eval", "out", "text.txt"]
main()
"""


def without_torch(code, cwd, *flags):
    """A process of its own in which torch cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", NO_TORCH + code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_is_really_away(tmp_path):
    with pytest.raises(AssertionError, match="torch"):
        without_torch("import torch", tmp_path)


@pytest.mark.parametrize("run", ["char", "gru", "ngram", "word"])
def test_an_exported_run_samples_without_torch(lmcli, trained, tmp_path, run):
    done = lmcli("export", trained / run, "--to", "numpy", "-o", "out", "--json")
    assert done.json["output"] == "out"
    assert done.json["bytes"] > 1000
    expected = lmcli("sample", "out", "--length", "12", "--seed", "5", "--prompt", "the ").out
    assert without_torch(SAMPLE, tmp_path) == expected


def test_what_needs_torch_says_so_where_there_is_none(lmcli, trained, tmp_path):
    lmcli("export", trained / "char", "-o", "out")
    (tmp_path / "text.txt").write_bytes((trained / "text.txt").read_bytes())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_TORCH + EVAL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: this needs torch, which is not installed",
        "hint: pip install torch",
    ]


def test_the_lines_of_the_readme_run_without_torch(lmcli, trained, tmp_path):
    lmcli("export", trained / "char", "-o", "out")
    page = (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
    lines = textwrap.dedent(page[page.index("    import lmcli") :])
    assert len(lines.splitlines()) == 2
    expected = lmcli("sample", "out", "--length", "200", "--seed", "0", "--prompt", "The ").out
    unknown = ("-W", "ignore:the model has never seen 'T'")
    assert "The " + without_torch(lines, tmp_path / "out", *unknown) == expected


def test_other_commands_take_an_exported_run(lmcli, trained):
    lmcli("export", trained / "char", "-o", "out")
    text = trained / "text.txt"
    mine = lmcli("eval", trained / "char", text, "--json").json
    assert lmcli("eval", "out", text, "--json").json["nats"] == mine["nats"]


def test_it_says_what_to_do_next(lmcli, trained):
    done = lmcli("export", trained / "char", "-o", "to go")
    assert "to go" in done.out
    assert "next: lmcli sample 'to go'" in done.err


def test_what_stands_in_the_way_is_two_lines(lmcli, trained, my_text, copied):
    run = copied("char")
    assert lmcli("export", run).code == 0
    lmcli("export", run).failed("char-numpy", "--force")
    assert lmcli("export", run, "--force").code == 0
    lmcli("export", run, "-o", run).failed("itself", "-o")
    lmcli("export", run, "-o", "my.txt").failed("not a folder")
    lmcli("export", "nothing").failed("no run at 'nothing'")
    lmcli("export", run, "--to", "numpi").failed("did you mean 'numpy'?", code=2)
    (run / "weights.safetensors").write_bytes(b"no weights")
    lmcli("export", run, "-o", "new").failed("is damaged")
    assert not (my_text.parent / "new").exists()


def test_an_architecture_without_a_numpy_model_is_refused(lmcli, my_text, tmp_path):
    made = ("train", "my.txt", "--steps", "2", "--quiet", "--set", "hidden=8", "-o", "run")
    assert lmcli(*made, "--arch", "attention").code == 0
    lmcli("export", "run", "-o", "out").failed("attention", "lstm")
    assert not (tmp_path / "out").exists()
