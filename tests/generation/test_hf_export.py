"""The layout of the Hub: complete, read back without transformers, and honest about the model."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lmcli import api
from lmcli.data.text import TextOptions
from lmcli.errors import RunError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.generation.export import export_hf, export_numpy, load_hf
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.registry import MODELS, NUMPY_MODELS
from lmcli.storage import write_json

TEXT = "abcfedabdfeedabadcab" * 20


@pytest.mark.parametrize("name", MODELS.names())
def test_what_is_read_back_is_the_model(trained, tmp_path, name):
    run = trained(name)
    export_hf(run, tmp_path / "out")
    again = load_hf(tmp_path / "out")
    assert again.record.arch == name
    mine, theirs = run.model().tensors(), again.model().tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", [n for n in MODELS.names() if n in NUMPY_MODELS.names()])
def test_the_numpy_and_the_hub_export_score_a_text_alike(trained, tmp_path, name):
    run = trained(name)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    run.record.corpus["options"] = asdict(TextOptions())
    export_numpy(run, tmp_path / "numpy")
    export_hf(run, tmp_path / "hf")
    exported = (api.load(tmp_path / "numpy"), load_hf(tmp_path / "hf"))
    scores = [api.evaluate(r, tmp_path / "text.txt").score for r in (run, *exported)]
    assert {score.tokens for score in scores} == {len(TEXT)}
    bits = [score.bits_per_char for score in scores]
    assert max(bits) - min(bits) <= 1e-5
    ids = [run.record.vocabulary, *run.tokenizer.encode(TEXT).tolist()]
    nats = stream_nats(exported[1].model(), np.array(ids)).sum(dtype=np.float64)
    assert abs(without_torch(exported[0], ids) - nats) / len(TEXT) <= 1e-5


def without_torch(run, ids):
    """The nats of all ids but the first, by the NumPy model of a run."""
    model, total = open_numpy_model(run), 0.0
    model.reset(1)
    for before, token in itertools.pairwise(ids):
        model.read([before])
        logits = model.logits()[0].astype(np.float64)
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[token]
    return total


def test_a_model_that_was_read_back_can_be_sampled(trained, tmp_path):
    run = trained("gru")
    run.record.corpus["options"] = asdict(TextOptions())
    export_hf(run, tmp_path / "out")
    texts = [
        "".join(api.sample(r, "ab", length=30, seed=1)) for r in (run, load_hf(tmp_path / "out"))
    ]
    assert texts[0] == texts[1] != ""


def test_the_card_states_text_checksum_scores_and_memory(trained, tmp_path):
    run = trained("lstm")
    score = {"perplexity": 3.25, "bits_per_char": 1.7, "standard_error": 0.01}
    run.save_result("train", {"valid": score, "test": {**score, "perplexity": 3.5}})
    export_hf(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: lmcli\n")
    for said in ("a.txt", "0" * 64, "| test | 3.500 | 1.7000 ± 0.0100 |", "no limit", "24 steps"):
        assert said in card, said
    assert "was not measured" in card
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == run.record.vocabulary
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "output.weight" in file.keys()  # noqa: SIM118


def test_the_card_of_a_run_of_a_comparison_states_its_reach(trained, tmp_path):
    run = trained("rnn")
    row = {"run": "elsewhere/rnn", "reach": {"tokens": 64, "at_least": True}, "seeds": []}
    write_json(tmp_path / "comparison.json", {"rows": [row]})
    export_hf(run, tmp_path / "out")
    assert "helped at least 64 tokens on" in (tmp_path / "out" / "README.md").read_text()


def test_weights_of_another_model_are_not_read(trained, tmp_path):
    for name in ("rnn", "gru"):
        export_hf(trained(name), tmp_path / f"{name}-hf")
    weights = (tmp_path / "gru-hf" / "model.safetensors").read_bytes()
    (tmp_path / "rnn-hf" / "model.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match=r"put together from two runs|is damaged: tensor"):
        load_hf(tmp_path / "rnn-hf").model()


def test_what_is_no_export_is_said_to_be_none(trained, tmp_path):
    with pytest.raises(RunError, match=r"has no config.json"):
        load_hf(tmp_path)
    export_hf(trained("rnn"), tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        load_hf(tmp_path / "out")
