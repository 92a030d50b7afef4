"""What tests of reading and splitting share."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
