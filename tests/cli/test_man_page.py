"""The manual page: made from the help, complete, and without a complaint of groff."""

import shutil
import subprocess

import pytest
import typer

from lmcli.cli import app


def test_the_page_of_the_wheel_is_the_one_that_is_printed(lmcli, project):
    page = (project / "docs" / "lmcli.1").read_text(encoding="utf-8")
    assert page == lmcli("--man").out, "lmcli --man > docs/lmcli.1"


def test_every_command_and_option_is_in_it(lmcli):
    page = lmcli("--man").out.replace("\\-", "-")
    commands = typer.main.get_command(app).commands
    for name, command in zip(commands, commands.values(), strict=True):
        assert f'.SS "lmcli {name} ' in page
        for param in command.params:
            if param.param_type_name == "option":
                assert f"\\fB{param.opts[0]}\\fR" in page, param.opts
    assert "[bold]" not in page
    assert "[dim]" not in page


def test_groff_reads_it(lmcli, project):
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", str(project / "docs" / "lmcli.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "Draw from the K most likely tokens." in " ".join(done.stdout.split())
