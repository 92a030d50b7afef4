"""Wheel and source archive: every file that the package reads, the manual page, the command."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""


@pytest.fixture(scope="module")
def built(project, tmp_path_factory):
    """The folder of wheel and source archive, which are built from a copy."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    copy = tmp_path_factory.mktemp("copy")
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project / "lmcli", copy / "lmcli", ignore=unwanted)
    shutil.copytree(project / "docs", copy / "docs")
    shutil.copytree(project / "tests", copy / "tests", ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(project / name, copy)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(copy / "dist")], cwd=copy, check=True, capture_output=True
    )
    return copy / "dist"


@pytest.fixture(scope="module")
def names(built):
    """What lies in the wheel."""
    (wheel,) = built.glob("lmcli-*.whl")
    with zipfile.ZipFile(wheel) as file:
        points = next(n for n in file.namelist() if n.endswith("entry_points.txt"))
        return {*file.namelist(), file.read(points).decode()}


def test_every_file_of_the_package_is_in_it(project, names):
    files = (p for p in (project / "lmcli").rglob("*") if p.is_file())
    wanted = {str(p.relative_to(project)) for p in files if "__pycache__" not in p.parts}
    assert wanted <= names
    assert {"lmcli/py.typed", "lmcli/report/templates/page.html.j2"} <= wanted


def test_it_installs_the_manual_page_and_the_command(names):
    assert any(name.endswith("/share/man/man1/lmcli.1") for name in names)
    assert any("lmcli = lmcli.__main__:main" in name for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_the_source_archive_has_no_tests_without_what_they_need(built):
    (archive,) = built.glob("lmcli-*.tar.gz")
    with tarfile.open(archive) as file:
        names = [name.partition("/")[2] for name in file.getnames()]
    assert "lmcli/report/templates/page.html.j2" in names
    assert "docs/lmcli.1" in names
    assert not any(name.startswith("tests") for name in names)
