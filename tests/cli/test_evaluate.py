"""``lmcli eval RUN`` alone: the held-out part, and a word about it."""


def test_a_run_alone_is_scored_on_its_held_out_test_part(lmcli, trained):
    done = lmcli("eval", trained / "char", "--json")
    assert done.code == 0
    assert (
        done.json["nats"]
        == lmcli("eval", trained / "char", "--split", "test", "--json").json["nats"]
    )
    shown = lmcli("eval", trained / "char")
    assert shown.err == (
        "no text given: scoring the held-out test part of the run's own text (--split test)\n"
    )
    assert lmcli("eval", trained / "char", "--quiet").err == ""


def test_a_run_without_a_test_part_is_scored_on_its_validation_part(
    lmcli, my_text, tmp_path, sentences
):
    (tmp_path / "valid.txt").write_text(sentences(40, 7), encoding="utf-8")
    tiny = ("--steps", "2", "--set", "hidden=4", "--quiet", "-o", "run")
    assert lmcli("train", my_text, "--valid", "valid.txt", *tiny).code == 0
    done = lmcli("eval", "run")
    assert "scoring the validation part" in done.err
    assert done.out == lmcli("eval", "run", "--split", "valid").out
