"""``lmcli list``: all members, and the settings of one."""

import dataclasses
import re

import pytest

from lmcli.registry import GRAMMARS, MODELS, TOKENIZERS

FAMILIES = {"architectures": MODELS, "tokenizers": TOKENIZERS, "grammars": GRAMMARS}


@pytest.mark.parametrize("heading", FAMILIES)
def test_every_member_is_listed_with_what_it_is(lmcli, heading):
    listed = lmcli("list", "--json").json[heading]
    assert [row["name"] for row in listed] == FAMILIES[heading].names()
    assert all(row["about"] for row in listed)
    shown = lmcli("list").out
    assert all(row["name"] in shown for row in listed)


@pytest.mark.parametrize(
    ("heading", "name"), [(h, n) for h, family in FAMILIES.items() for n in family.names()]
)
def test_every_setting_of_a_member_is_shown(lmcli, heading, name):
    fields = [field.name for field in dataclasses.fields(FAMILIES[heading].load(name).Settings)]
    values = lmcli("list", name, "--json").json
    assert [row["name"] for row in values["settings"]] == fields
    shown = lmcli("list", name).out
    assert all(field in shown for field in fields)


def test_an_architecture_also_shows_how_it_may_be_trained(lmcli):
    training = lmcli("list", "lstm", "--json").json["training"]
    assert {"learning_rate", "clip", "batch"} <= {row["name"] for row in training}


@pytest.mark.parametrize(
    ("name", "field"), [("lstm", "chrono"), ("gru", "chrono"), ("word", "max_vocabulary")]
)
def test_what_nobody_chooses_is_none(lmcli, name, field):
    (line,) = [x for x in lmcli("list", name).out.splitlines() if x.split()[:1] == [field]]
    assert line.split()[2] == "none"


def test_every_column_has_a_heading_that_says_what_it_is(lmcli):
    (heading,) = [x for x in lmcli("list", "gru").out.splitlines() if "default" in x][:1]
    assert re.split(r"\s{2,}", heading.strip()) == ["setting", "type", "default", "what it does"]
    assert "chosen: from the text" in lmcli("list", "gru").out


def test_what_is_chosen_from_the_text_says_so(lmcli):
    hidden = next(line for line in lmcli("list", "lstm").out.splitlines() if "hidden" in line)
    assert "chosen" in hidden
