"""A misspelt variable is met with the nearest one; those that some command reads are silent."""

import pytest


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("LMCLI_TEMPRATURE", "LMCLI_TEMPERATURE"), ("LMCLI_TRAIN_MINUTS", "LMCLI_TRAIN_MINUTES")],
)
def test_a_misspelt_variable_is_warned_of(lmcli, monkeypatch, variable, nearest):
    monkeypatch.setenv(variable, "1")
    done = lmcli("list")
    assert done.code == 0
    assert done.err.startswith(f"warning: no option reads the variable {variable}; ")
    assert f"did you mean '{nearest}'?" in done.err


def test_variables_of_other_commands_and_of_the_cache_are_silent(lmcli, monkeypatch, tmp_path):
    monkeypatch.setenv("LMCLI_CACHE", str(tmp_path))
    monkeypatch.setenv("LMCLI_SAMPLE_TOP_K", "3")
    monkeypatch.setenv("LMCLI_JOBS", "1")
    assert lmcli("list", "lstm", "--quiet").err == ""
