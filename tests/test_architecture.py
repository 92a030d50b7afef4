"""The rules of the house: who imports whom, what is public, how large a file may become."""

import ast
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import lmcli
from lmcli.registry import GRAMMARS, MODELS, NUMPY_MODELS, TOKENIZERS

PACKAGE = Path(lmcli.__file__).parent
FILES = sorted(f for f in PACKAGE.rglob("*.py"))
MOST_LINES = 450
LONGER = {"api.py": 500}
"""one subject each: every command as a function; files that a crash leaves whole"""
every_file = pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def run(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


def test_imports_go_down_only(project):
    done = run(str(Path(sys.executable).parent / "lint-imports"), cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_public_names_are_these_and_no_more():
    public = {
        name
        for name, value in vars(lmcli).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public <= {"annotations", "Any", "TYPE_CHECKING"}
    assert sorted(lmcli.__all__) == lmcli.__all__
    assert len(lmcli.__all__) <= 14
    commands = ["cloze", "compare", "demo", "export", "inspect", "make", "probe", "sample", "train"]
    assert {*commands, "evaluate", "load", "resume", "Run", "LmcliError"} == {*lmcli.__all__}
    assert lmcli.__version__.count(".") == 2


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["train", "--help"], ["compare", "--help"], ["demo", "--help"]],
)
def test_help_imports_neither_torch_nor_numpy(arguments):
    code = f"""
import sys
from lmcli.__main__ import main
sys.argv = {["lmcli", *arguments]!r}
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
found = {{"torch", "numpy", "tokenizers", "safetensors"}} & set(sys.modules)
assert not found, found
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "lmcli" in done.stdout


@every_file
def test_nothing_is_printed_and_nothing_is_unpickled(file):
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "torch.load", "torch.save", "eval", "exec"), node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None)]
            assert not {"pickle", "dill", "joblib", "click"} & set(names), node.lineno


@every_file
def test_a_file_says_what_it_is_and_is_not_too_long(file):
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGER.get(file.name, MOST_LINES)
    assert file.stem not in ("utils", "common", "helpers", "misc", "manager")


@every_file
def test_only_the_command_line_knows_typer_and_only_it_and_reports_know_rich(file):
    allowed = {"cli": {"typer", "rich"}, "report": {"rich"}}.get(file.parent.name, set())
    for node in ast.walk(parsed(file)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        roots = {name.partition(".")[0] for name in names}
        assert not roots & {"typer", "rich"} - allowed


@pytest.mark.parametrize(
    "family", [MODELS, NUMPY_MODELS, TOKENIZERS, GRAMMARS], ids=lambda f: f.noun
)
def test_a_member_is_one_file_that_ends_by_naming_it(family):
    for name in family.names():
        member = family.load(name)
        place = PACKAGE.parent / Path(*family.package.split("."), name)
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        last = file.read_text(encoding="utf-8").rstrip().splitlines()[-1]
        assert last.startswith("Member = ")
        assert re.search(r"\w+(?=\"?$)", last)[0] == member.__name__
        assert member.__module__.startswith(f"{family.package}.{name}")


@pytest.mark.parametrize(
    "module",
    [
        "run",
        "data/batches",
        "training/trainer",
        "training/checkpoint",
        "evaluation/log_likelihood",
        "evaluation/cloze",
        "generation/sampling",
    ],
)
def test_what_works_on_models_knows_none_of_them_by_name(module):
    literals = {
        node.value
        for node in ast.walk(parsed(PACKAGE / f"{module}.py"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not literals & set(MODELS.names())
