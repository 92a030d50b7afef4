"""Which part of a text probes read."""

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.evaluation.probes.data import ProbeData


def corpus(tmp_path, *parts, lines=200):
    """Files of the given names, each of lines of its own."""
    paths = {}
    for name in ("text", *parts):
        paths[name] = tmp_path / f"{name}.txt"
        own = [f"line {k} of the {name} file\n" for k in range(lines)]
        paths[name].write_text("".join(own), encoding="utf-8")
    named = {name: (str(paths[name]),) for name in parts}
    return load_corpus(CorpusSpec((str(paths["text"]),), **named))


def test_probes_read_the_test_part_alone_as_validation_chose_the_weights(tmp_path):
    split = corpus(tmp_path)
    assert ProbeData.of_corpus(split).held_out == tuple(split.test.documents)


def test_probes_read_the_validation_part_where_there_is_no_test_part(tmp_path):
    split = corpus(tmp_path, "valid")
    assert split.test is None
    assert ProbeData.of_corpus(split).held_out == tuple(split.valid.documents)


def test_of_a_large_test_part_a_sample_is_read_that_is_spread_over_all_of_it(tmp_path):
    split = corpus(tmp_path, "valid", "test", lines=100_000)
    held_out = ProbeData.of_corpus(split).held_out
    assert sum(map(len, held_out)) <= 1 << 21 < split.test.chars
    assert "line 1 " in held_out[0]
    assert "line 98" in held_out[-1]
