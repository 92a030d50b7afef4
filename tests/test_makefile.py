"""What `make install` says when it is done."""

import subprocess


def test_make_install_ends_by_saying_how_to_call_lmcli(project, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", "installed"):  # as if everything were installed
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "install", f"VENV={tmp_path}"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{tmp_path}/bin/lmcli --help" in done.stdout
    assert f". {tmp_path}/bin/activate" in done.stdout
