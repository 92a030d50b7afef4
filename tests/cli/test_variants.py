"""``--arch`` of a comparison: variants beside their plain members."""

import pytest


@pytest.fixture
def compared(lmcli, my_text):
    """A finished comparison of my.txt, of one update a member."""

    def compare(*arguments):
        tiny = ("--steps", "1", "--workers", "1", "-o", "out")
        return lmcli("compare", "my.txt", *arguments, *tiny, "--json")

    return compare


def test_a_variant_has_a_row_and_a_run_of_its_own(compared, tmp_path):
    arch = "lstm,lstm:coupled=true:hidden=9"
    done = compared("--arch", arch, "--set", "hidden=8")
    rows = {row["name"]: row for row in done.json["rows"]}
    assert set(rows) == set(arch.split(","))
    assert {row["arch"] for row in rows.values()} == {"lstm"}
    record = (tmp_path / "out" / "lstm-coupled-true-hidden-9" / "run.json").read_text()
    assert '"coupled": true' in record
    assert '"hidden": 9' in record


def test_a_width_for_all_is_the_lstms_and_the_others_are_matched(compared):
    rows = compared("--arch", "lstm,gru,rnn", "--set", "hidden=32").json["rows"]
    sizes = [row["body_parameters"] for row in rows]
    assert max(sizes) / min(sizes) < 1.05


def test_with_match_state_rows_carry_as_many_floats(compared):
    archs = ("--arch", "ngram:order=6,window,lstm,gru,rnn", "--match", "state")
    rows = compared(*archs, "--set", "hidden=32", "--set", "embedding=16").json["rows"]
    assert {row["name"]: (row["state"], row["context"]) for row in rows} == {
        "ngram:order=6": (0, 5),
        "window": (64, 5),  # 4 embeddings of 16, and the present token
        "lstm": (64, None),
        "gru": (64, None),
        "rnn": (64, None),
    }


def test_seeds_of_a_variant_are_one_row(compared):
    rows = compared("--arch", "rnn:hidden=4", "--seeds", "2").json["rows"]
    assert [row["name"] for row in rows] == ["rnn:hidden=4"]
    assert [seed["seed"] for seed in rows[0]["seeds"]] == [0, 1]


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("lstn:coupled=true", "did you mean 'lstm'"),
        ("lstm:coupld=true", "did you mean 'coupled'"),
        ("gru:coupled=true", "no setting named 'coupled'"),
        ("lstm:coupled", "no '=' in it"),
        ("lstm:coupled=maybe", "not true or false"),
    ],
)
def test_a_mistake_in_a_variant_is_told_before_anything_is_trained(compared, tmp_path, arch, says):
    done = compared("--arch", arch)
    assert done.code == (1 if arch.startswith("lstn") else 2)
    assert says in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_member_that_explodes_is_told_of_and_the_others_go_on(lmcli, my_text, workers):
    wild = "lstm:learning_rate=1e9:clip=0:precision=float32"
    tiny = ("--steps", "12", "--set", "hidden=8", "--workers", workers)
    done = lmcli("compare", "my.txt", "--arch", f"ngram,{wild},gru", *tiny, "--json")
    assert done.code == 0, done.err
    assert {row["name"] for row in done.json["rows"]} == {"ngram", "gru"}
    assert f"{wild}: the loss" in done.err


def test_a_comparison_of_nothing_but_explosions_is_an_error(lmcli, my_text):
    wild = "lstm:learning_rate=1e9:clip=0:precision=float32"
    done = lmcli("compare", "my.txt", "--arch", wild, "--steps", "12", "--set", "hidden=8")
    assert done.code == 1
    assert "no training came to an end" in done.err
