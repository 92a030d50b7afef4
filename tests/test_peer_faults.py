"""Faults that other tools' numbers have, and the test that shows each is not made here.

================================================================  =================================
fault                                                             test_...
================================================================  =================================
the test split is never evaluated                                 the_test_split_is_evaluated
vocabulary from training + validation + test text                 the_vocabulary_comes_from_training_text_alone
the last len % batch tokens are dropped                           no_token_is_dropped_when_the_length_is_no_multiple_of_the_batch
streams of an evaluation start cold                               no_stream_of_an_evaluation_starts_cold
divides by N though N - 1 predictions were made                   mean_divides_by_the_number_of_predictions_made
a cache keyed by path serves the old text                         edited_file_is_not_read_from_a_stale_cache
a sentence with one unknown word is left out of the total         a_sentence_with_an_unknown_word_counts_in_the_total
unknown targets are left out of the average, silently             unknown_targets_are_not_left_out_silently
random crops: another number every time                           evaluation_is_the_same_number_every_time
average of batch averages                                         a_short_last_batch_does_not_weigh_as_much_as_a_full_one
validation windows overlap the training windows                   validation_text_does_not_overlap_training_text
perplexity changes with the batch size                            perplexity_does_not_change_with_the_batch_size
resuming overwrites forget biases, restarts optimiser and data    resuming_keeps_forget_biases_optimiser_and_data_order
the sampling script never applies the decoder                     sampling_applies_the_output_layer
================================================================  =================================
"""  # noqa: E501

import math
import re
import sys
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from lmcli.data.batches import ContiguousBatches
from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.data.dataset import load_dataset
from lmcli.data.text import TextOptions
from lmcli.data.token_cache import tokenize_corpus
from lmcli.evaluation import log_likelihood
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score
from lmcli.generation.sampling import SamplingSettings, sample_batch
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer
from lmcli.training.checkpoint import resume, train_into
from lmcli.training.job import prepare_job
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings
from lmcli.training.trials import Trial, run_trial

V = 7


def test_every_fault_of_the_table_has_its_test():
    named = re.findall(r"  ([a-z_]+)$", __doc__, re.MULTILINE)
    tests = {n for n in vars(sys.modules[__name__]) if n.startswith("test_")}
    assert len(named) == 14
    assert tests == {f"test_{n}" for n in named} | {"test_every_fault_of_the_table_has_its_test"}


@torch.no_grad()
def naive(model, ids, rate=None):
    """-ln p of every id but the first, one at a time; the unknown id 0 has the chance `rate`."""
    state, nats = model.initial_state(1), []
    for token, target in pairwise(ids):
        logits, state = model(torch.tensor([[int(token)]]), state)
        p = logits[0, 0].double().softmax(0)
        if rate is not None:
            p = torch.cat([torch.tensor([rate]), (1 - rate) * p[1:] / p[1:].sum()])
        nats.append(-p[int(target)].log().item())
    return nats


def numbered_lines(count, begin=0):
    return "".join(f"line {n} of the text\n" for n in range(begin, begin + count))


def test_the_test_split_is_evaluated(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(numbered_lines(900))
    dataset = load_dataset(CorpusSpec((str(file),)), "char")
    job = prepare_job(dataset, "ngram", {"order": 3}, Budget(steps=1), 0, "cpu")
    trial = Trial("ngram", job, tmp_path / "run", search=False)
    found = run_trial(trial, lambda event: None)
    model, tokenizer = job.model(), dataset.tokenized.tokenizer
    model.fit_counts(dataset.tokenized.train)
    nats = []
    for piece in dataset.corpus.test.documents:
        ids = [tokenizer.start, *tokenizer.encode(piece)]
        nats += naive(model, ids, tokenizer.unknown_rate)
    assert found.held_out is found.test
    assert found.test.tokens == len(nats) == dataset.corpus.test.chars
    assert found.test.nats == pytest.approx(sum(nats), rel=1e-5)
    assert found.test.nats != pytest.approx(found.valid.nats, rel=1e-3)


@pytest.mark.parametrize("name", TOKENIZERS.names())
def test_the_vocabulary_comes_from_training_text_alone(tmp_path, name):
    settings = TOKENIZERS.load(name).Settings()
    files = {part: tmp_path / f"{part}.txt" for part in ("train", "valid", "test")}
    files["train"].write_text(numbered_lines(50))
    found = []
    for held_out in ("line of text\n", "Ωmega ψ Ωmega\n"):
        files["valid"].write_text("valid " + held_out)
        files["test"].write_text("test " + held_out)
        given = {part: (str(files[part]),) for part in ("valid", "test")}
        corpus = load_corpus(CorpusSpec((str(files["train"]),), **given))
        found.append(tokenize_corpus(corpus, name, settings, None))
    assert found[0].tokenizer.to_json() == found[1].tokenizer.to_json()
    unknown = found[1].tokenizer.unknown
    if unknown is not None:
        assert (found[1].valid == unknown).sum() >= 3
        assert (found[1].train == unknown).sum() == 0


@pytest.mark.parametrize("length", [96, 97, 101, 102])
def test_no_token_is_dropped_when_the_length_is_no_multiple_of_the_batch(build, length):
    streams = ContiguousBatches(np.arange(length, dtype=np.uint16), 1000, batch=6, truncation=5)
    read = set()
    for step in range(streams.steps_per_epoch):
        read |= set(streams[step].inputs.flatten().tolist())
    assert read == set(range(length))
    ids = np.append(V, np.arange(length) % V).astype(np.uint16)
    nats = stream_nats(build("gru"), ids, 6)
    assert len(nats) == length
    assert (nats > 0).all()


def test_no_stream_of_an_evaluation_starts_cold(build, stream, monkeypatch):
    monkeypatch.setattr(log_likelihood, "CHUNK", 8)
    model, ids = build("gru"), stream(400, V)
    warm = np.array(naive(model, ids))
    assert stream_nats(model, ids, 12) == pytest.approx(warm, abs=1e-5)
    cold = naive(model, [V, *ids[201:]])  # as if the second half began a stream
    assert abs(cold[1] - warm[201]) > 1e-3


@pytest.mark.parametrize("length", [1, 2, 10, 1000])
def test_mean_divides_by_the_number_of_predictions_made(build, length):
    model = build("ngram")
    model.fit_counts(np.empty(0, np.int32))  # every token has probability 1 / V
    ids = np.append(V, np.arange(length) % V).astype(np.uint16)
    trainer = Trainer(build("gru"), ids, ids, TrainingSettings(), Budget(steps=1))
    trainer.model = model
    assert math.exp(trainer.validate()) == pytest.approx(V, rel=1e-6)
    tokenizer = CharTokenizer.train(["abcdef"], CharTokenizer.Settings())
    score = Score.of(score_documents(model, tokenizer, ["a" * length]))
    known = 1 - tokenizer.unknown_rate  # of which each of the others has its share
    assert score.perplexity == pytest.approx((V - 1) / known, rel=1e-6)


def test_edited_file_is_not_read_from_a_stale_cache(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(numbered_lines(100))
    choice = CorpusSpec((str(file),))
    before = load_dataset(choice, "word")
    file.write_text(numbered_lines(100).replace("text", "tale"))
    after = load_dataset(choice, "word")
    ids = after.tokenized.train
    shown = after.tokenized.tokenizer.decode(ids[ids != after.tokenized.tokenizer.start])
    assert "tale" in shown
    assert "text" not in shown
    assert before.corpus.spec.sha256 != after.corpus.spec.sha256


def words_with_unknown(build):
    known = "the cat saw the dog\nthe dog saw\n"
    tokenizer = WordTokenizer.train([known], WordTokenizer.Settings(min_count=1))
    model = build("gru", tokenizer.size)
    return model, tokenizer, ["the cat saw\n", "the zebra saw the dog\n", "the dog\n"]


def test_a_sentence_with_an_unknown_word_counts_in_the_total(build):
    model, tokenizer, sentences = words_with_unknown(build)
    each = [Score.of(score_documents(model, tokenizer, [s])) for s in sentences]
    total = Score.of(score_documents(model, tokenizer, sentences))
    assert [s.unknown_tokens for s in each] == [0, 1, 0]
    assert total.tokens == sum(s.tokens for s in each) == 4 + 6 + 3
    assert total.nats == pytest.approx(sum(s.nats for s in each), rel=1e-6)


def test_unknown_targets_are_not_left_out_silently(build):
    model, tokenizer, sentences = words_with_unknown(build)
    score = Score.of(score_documents(model, tokenizer, sentences))
    nats, unknown = [], []
    for sentence in sentences:
        ids = tokenizer.encode(sentence).tolist()
        nats += naive(model, [tokenizer.start, *ids], tokenizer.unknown_rate)
        unknown += [token == tokenizer.unknown for token in ids]
    known = [n for n, u in zip(nats, unknown, strict=True) if not u]
    assert score.perplexity == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-5)
    without = math.exp(sum(known) / len(known)) * (1 - tokenizer.unknown_rate)  # given it is known
    assert score.perplexity_without_unknown == pytest.approx(without, rel=1e-5)
    assert score.perplexity_without_unknown != pytest.approx(score.perplexity, rel=1e-3)
    assert score.to_json()["unknown_tokens"] == 1


def test_evaluation_is_the_same_number_every_time(build, france_documents):
    tokenizer = CharTokenizer.train(iter(france_documents), CharTokenizer.Settings())
    model = build("lstm", tokenizer.size, dropout=0.5).train()
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        np.random.seed(seed)
        pieces = score_documents(model, tokenizer, [d + "\n" for d in france_documents[:20]])
        found.append(Score.of(pieces).to_json())
    assert found[0] == found[1] == found[2]


def test_a_short_last_batch_does_not_weigh_as_much_as_a_full_one(build, monkeypatch):
    monkeypatch.setattr(log_likelihood, "CHUNK", 8)
    model = build("ngram", V, order=2)
    easy = [0, 1] * 40
    model.fit_counts(np.array([V, *easy], np.uint16))
    ids = np.array([V, *easy, 5, 6], np.uint16)  # two surprises in a chunk of their own
    right = naive(model, ids)
    nats = stream_nats(model, ids, 2)
    assert nats.mean(dtype=np.float64) == pytest.approx(sum(right) / len(right), rel=1e-6)
    averages = [np.mean(right[i : i + 8]) for i in range(0, len(right), 8)]
    assert np.mean(averages) > 2 * nats.mean()  # what the average of averages would have said
    trainer = Trainer(build("gru"), ids, ids, TrainingSettings(batch=2), Budget(steps=1))
    trainer.model = model
    assert trainer.validate() == pytest.approx(sum(right) / len(right), rel=1e-6)


@pytest.mark.parametrize("split", ["interleaved", "tail"])
@pytest.mark.parametrize("documents", ["file", "line"])
def test_validation_text_does_not_overlap_training_text(tmp_path, split, documents):
    file = tmp_path / "a.txt"
    file.write_text(numbered_lines(2000))
    corpus = load_corpus(CorpusSpec((str(file),), TextOptions(documents=documents), split))
    parts = [
        "".join(part.documents).splitlines() for part in (corpus.train, corpus.valid, corpus.test)
    ]
    assert all(parts)
    lines = list(chain(*parts))  # each in one part, and none cut in two
    assert sorted(lines) == sorted(numbered_lines(2000).splitlines())
    assert len(set(lines)) == 2000


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "window", "ngram"])
def test_perplexity_does_not_change_with_the_batch_size(build, stream, name):
    model, ids = build(name), stream(9000, V, start_every=700)
    nats = [stream_nats(model, ids, rows).sum(dtype=np.float64) for rows in (1, 3, 16)]
    assert nats[1:] == pytest.approx([nats[0]] * 2, rel=1e-6)
    trained = "gru" if model.is_count_based else name
    losses = []
    for batch in (1, 4, 32):
        settings = TrainingSettings(batch=batch)
        trainer = Trainer(build(trained), ids, ids[:2000], settings, Budget(steps=1))
        losses.append(trainer.validate())
    assert losses[0] == losses[1] == losses[2]


def test_resuming_keeps_forget_biases_optimiser_and_data_order(build, stream, make_run, tmp_path):
    def trainer():
        settings = TrainingSettings(batch=3, truncation=6, learning_rate=0.05, patience=0)
        return Trainer(build("lstm"), stream(200, V), stream(30, V), settings, Budget(steps=40))

    run, one = make_run(tmp_path / "run", "lstm"), trainer()
    loop = train_into(run, one)
    while next(loop).step < 10:
        pass
    loop.close()
    other = trainer()
    resume(run, other)
    biases = [t.model.layers[0].bias[12:24] for t in (one, other)]
    assert torch.equal(*biases)
    assert (biases[0] != 1).all()  # not what they began as
    mine, theirs = one.optimizer.tensors(), other.optimizer.tensors()
    assert {k: v.tolist() for k, v in mine.items()} == {k: v.tolist() for k, v in theirs.items()}
    for name, tensor in mine.items():
        assert tensor == 10 if name.endswith("step") else tensor.abs().sum() > 0
    assert (one.step, one.tokens) == (other.step, other.tokens)
    assert torch.equal(one.streams[one.step].inputs, other.streams[other.step].inputs)
    assert not torch.equal(one.streams[0].inputs, other.streams[other.step].inputs)
    for part, again in zip(one.state, other.state, strict=True):
        assert torch.equal(part, again)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "window"])
def test_sampling_applies_the_output_layer(build, name):
    tokenizer = CharTokenizer.train(["abcdef"], CharTokenizer.Settings())
    model = build(name, tokenizer.size)
    for symbol in "ace":
        with torch.no_grad():
            model.output.bias.zero_()
            model.output.bias[tokenizer.encode(symbol)[0]] = 100
        chunks = sample_batch(model, tokenizer, "bd", 5, SamplingSettings(1.0), [0])
        text = "".join(chunk for _, chunk, _ in chunks)
        assert text == symbol * 5
