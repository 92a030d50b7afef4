"""A folder is a registry: a file in it with a line `Member = ...` is a member, nothing else is."""

import importlib
import subprocess
import sys

import pytest

from lmcli.errors import UnknownNameError
from lmcli.registry import GRAMMARS, MODELS, NUMPY_MODELS, TOKENIZERS, Family

FAMILIES = pytest.mark.parametrize(
    "family", [MODELS, NUMPY_MODELS, TOKENIZERS, GRAMMARS], ids=lambda f: f.noun
)


@pytest.fixture
def animals(tmp_path, monkeypatch):
    """A family of two, and files that are no members."""
    folder = tmp_path / "zoo_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text('"""What all share."""\n')
    (folder / "lion.py").write_text('"""A cat.\n\nMore."""\nclass Lion: ...\nMember = Lion\n')
    (folder / "ant.py").write_text('raise RuntimeError("imported")\nMember = 1\n')
    (folder / "bear").mkdir()
    (folder / "bear" / "__init__.py").write_text('"""A bear."""\nMember = "brown:Brown"\n')
    (folder / "bear" / "brown.py").write_text("class Brown: ...\n")
    (folder / "bear" / "fur.py").write_text("")
    (folder / "not_one.py").write_text('"""Says  Member = x  in passing."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield Family("zoo_of_tests", "animal")
    for name in [n for n in sys.modules if n.startswith("zoo_of_tests")]:
        del sys.modules[name]


def test_names_are_those_of_files_with_a_member_sorted(animals):
    assert animals.names() == ["ant", "bear", "lion"]


def test_naming_and_summing_up_import_no_member(animals):
    assert animals.summary("lion") == "A cat."
    assert animals.summary("ant") == ""
    with pytest.raises(RuntimeError, match="imported"):
        animals.load("ant")


def test_loading_gives_the_member(animals):
    assert animals.load("lion").__name__ == "Lion"


def test_a_member_with_parts_is_a_folder_whose_other_files_load_without_it(animals):
    assert animals.summary("bear") == "A bear."
    importlib.import_module("zoo_of_tests.bear.fur")
    assert "zoo_of_tests.bear.brown" not in sys.modules
    assert animals.load("bear").__name__ == "Brown"


def test_an_unknown_name_is_an_error_with_the_nearest_one(animals):
    with pytest.raises(UnknownNameError, match="no animal named 'lino'") as caught:
        animals.load("lino")
    assert caught.value.hint == "did you mean 'lion'?"
    with pytest.raises(UnknownNameError) as caught:
        animals.check("elephant")
    assert caught.value.hint == "known: ant, bear, lion"


@FAMILIES
def test_every_member_knows_its_name_and_says_what_it_is(family):
    assert family.names()
    for name in family.names():
        assert family.load(name).name == name
        assert family.summary(name)


def test_listing_the_architectures_does_not_import_torch():
    code = (
        "import sys; from lmcli.registry import MODELS; MODELS.names(); MODELS.summary('lstm');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
