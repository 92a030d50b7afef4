"""A training ends when the memory is there: judged on items that no table reports, twice."""

import pytest

from lmcli.data.corpus import TextOptions
from lmcli.data.dataset import CorpusSpec, load_dataset
from lmcli.evaluation.forced_choice import ITEMS_PER_GAP, group_items
from lmcli.grammars.base import read_items, write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.training.stopping_criterion import RecallCriterion
from lmcli.training.trials import Trial, run_trial


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "asked.txt"
    write_grammar(France(France.Settings(size="small", level=0)), path, force=False)
    return load_dataset(CorpusSpec((str(path),), TextOptions(documents="line")), "word")


def test_the_items_that_are_asked_are_not_those_that_are_reported(dataset, tmp_path):
    reported = group_items(read_items(tmp_path / "asked.items.jsonl"))
    asked = RecallCriterion.of(dataset).groups
    assert {item.gap for items in asked for item in items} == {3, 5, 10, 20, 30, 50, 100, 200}
    assert {item.kind for items in asked for item in items} == {"country"}
    assert {len(items) for items in asked} == {40}
    known = {item.text for items in reported.values() for item in items}
    assert len(reported["country", 3]) == ITEMS_PER_GAP
    assert not known & {item.text for items in asked for item in items}


def test_a_text_without_items_has_no_such_end(words):
    assert RecallCriterion.of(words) is None


def test_it_must_be_right_twice_in_a_row(dataset, country_reader):
    tokenizer = dataset.tokenized.tokenizer
    french = int(tokenizer.encode("French")[0])
    knows, guesses = country_reader(tokenizer), country_reader(tokenizer, favourite=french)
    stopping = RecallCriterion.of(dataset)
    asked = [stopping(model) for model in (knows, guesses, knows, knows, guesses)]
    assert asked == [False, False, False, True, False]


def test_it_asks_a_copy_on_the_cpu_and_leaves_the_model_where_it_trains(dataset, country_reader):
    class OnAnotherDevice(country_reader):
        here = False

        def cpu(self):
            self.here = True
            return self

        def forward(self, tokens, state, tap=None):
            assert self.here
            return super().forward(tokens, state, tap)

    model = OnAnotherDevice(dataset.tokenized.tokenizer).train()
    RecallCriterion(RecallCriterion.of(dataset).groups[:1], dataset.tokenized.tokenizer)(model)
    assert model.training
    assert not model.here


class Always(RecallCriterion):
    """Holds every model to have the memory."""

    def __call__(self, model):
        return True


def test_a_training_ends_at_the_first_best_validation_that_reaches_the_goal(
    job_of, tmp_path, monkeypatch
):
    job, events = job_of("gru", 300), []
    ended = Trial("gru", job, tmp_path / "gru", False, stop_when_recalled=True)
    monkeypatch.setattr(RecallCriterion, "of", lambda dataset: Always((), None))
    run_trial(ended, events.append)
    saved = ended.path / "results" / "train.json"
    assert '"stopped": "memory"' in saved.read_text()
    assert events[-1].fraction < 0.5
    run_trial(Trial("gru", job, tmp_path / "whole", False), events.append)
    assert events[-1].fraction == 1.0
