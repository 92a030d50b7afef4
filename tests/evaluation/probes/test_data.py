"""Which part of a text probes read."""

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.evaluation.probes.data import ProbeData


def corpus(tmp_path, *parts):
    """Files of the given names, each of lines of its own."""
    paths = {}
    for name in ("text", *parts):
        paths[name] = tmp_path / f"{name}.txt"
        lines = [f"line {k} of the {name} file\n" for k in range(200)]
        paths[name].write_text("".join(lines), encoding="utf-8")
    named = {name: (str(paths[name]),) for name in parts}
    return load_corpus(CorpusSpec((str(paths["text"]),), **named))


def test_probes_read_the_test_part_alone_as_validation_chose_the_weights(tmp_path):
    split = corpus(tmp_path)
    assert ProbeData.of_corpus(split).held_out == tuple(split.test.documents)


def test_probes_read_the_validation_part_where_there_is_no_test_part(tmp_path):
    split = corpus(tmp_path, "valid")
    assert split.test is None
    assert ProbeData.of_corpus(split).held_out == tuple(split.valid.documents)
