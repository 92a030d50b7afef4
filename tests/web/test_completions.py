"""An unmodified client of OpenAI's interface, against a real server."""

import openai
import pytest

import lmcli

PROMPT = "Zoe grew up in"


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def create(client, **more):
    given = {"model": "lstm", "prompt": PROMPT, "max_tokens": 12, "seed": 3}
    return client.completions.create(**given | more)


def test_a_completion_is_the_sample_with_the_same_seed(client, folder):
    for name in ("lstm", "chars"):
        found = create(client, model=name)
        wanted = "".join(lmcli.sample(folder / name, PROMPT, length=12, temperature=1, seed=3))
        (choice,) = found.choices
        assert choice.text == wanted
        assert choice.finish_reason == "length"
        tokens = len(lmcli.load(folder / name).tokenizer.encode(PROMPT))
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (tokens, 12)
        assert found.usage.total_tokens == tokens + 12


def test_log_probabilities_are_those_of_the_text(client, folder, tmp_path):
    (choice,) = create(client, logprobs=3).choices
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset[0] == 0
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert choice.text[offset : offset + len(token)] == token
    path = tmp_path / "text.txt"
    path.write_text(PROMPT + choice.text, encoding="utf-8")
    items = lmcli.evaluate(folder / "lstm", path, level="token").to_json()["items"][4:16]
    assert logprobs.token_logprobs == pytest.approx([-i["nats"] for i in items], abs=1e-4)
    for token, log, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert len(top) == 3
        assert top.get(token, log) == log
        assert max(top.values()) >= log


def test_a_stream_is_the_whole_in_pieces(client):
    whole = create(client, n=2, logprobs=2)
    texts, tokens, reasons, usage = ["", ""], [[], []], [None, None], None
    for part in create(
        client, n=2, logprobs=2, stream=True, stream_options={"include_usage": True}
    ):
        usage = part.usage or usage
        for choice in part.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert reasons == ["length", "length"]
    assert usage == whole.usage


def test_texts_end_before_a_stop_string_and_have_no_tokens_after_it(client):
    full = create(client, max_tokens=40, temperature=0).choices[0].text
    stop = full.split()[3]
    (choice,) = create(client, max_tokens=40, temperature=0, stop=[stop], logprobs=1).choices
    assert choice.text == full[: full.index(stop)]
    assert choice.finish_reason == "stop"
    assert "".join(choice.logprobs.tokens) == choice.text.rstrip()


def test_a_stop_string_in_the_last_token_is_a_stop(client):
    full = create(client, max_tokens=5, temperature=0).choices[0].text
    (choice,) = create(client, max_tokens=5, temperature=0, stop=full.split()[-1]).choices
    assert choice.finish_reason == "stop"


def test_prompts_and_choices_are_numbered_prompt_by_prompt(client):
    found = create(client, prompt=["Zoe", "Ben grew"], n=2)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    alone = [create(client, prompt=p, n=2).choices for p in ("Zoe", "Ben grew")]
    assert [c.text for c in found.choices] == [c.text for two in alone for c in two]


def test_an_echo_scores_the_prompt(client, folder, tmp_path):
    (choice,) = create(client, max_tokens=0, echo=True, logprobs=0).choices
    assert choice.text == PROMPT
    path = tmp_path / "text.txt"
    path.write_text(PROMPT, encoding="utf-8")
    items = lmcli.evaluate(folder / "lstm", path, level="token").to_json()["items"][:4]
    assert choice.logprobs.token_logprobs == pytest.approx([-i["nats"] for i in items], abs=1e-4)
    (longer,) = create(client, echo=True, logprobs=1).choices
    assert longer.text.startswith(PROMPT)
    assert "".join(longer.logprobs.tokens) == longer.text
    assert longer.logprobs.text_offset == sorted(longer.logprobs.text_offset)


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as missing:
        create(client, model="gpt")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        create(client, max_tokens=-1)
    assert wrong.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError):
        create(client, frequency_penalty=1)


def test_the_runs_are_the_models(client):
    assert [model.id for model in client.models.list()][:2] == ["lstm", "ngram"]
