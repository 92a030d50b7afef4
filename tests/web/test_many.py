"""200 requests at once: each is answered as it would be alone, or told to come back."""

import asyncio
import json

import httpx

COUNT = 200


def bodies(names):
    models = ["lstm", "ngram", names.script, "chars"]
    return [
        {
            "model": models[i % 4],
            "prompt": f"Zoe {'grew up ' * (i % 5)}",
            "max_tokens": 8,
            "seed": i,
        }
        for i in range(COUNT)
    ]


async def ask_all(address, bodies):
    limits = httpx.Limits(max_connections=COUNT)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        posts = [client.post(f"{address}/v1/completions", json=body) for body in bodies]
        return await asyncio.gather(*posts)


def test_no_answer_is_mixed_up_with_another(address, names):
    asked = bodies(names)
    answers = asyncio.run(ask_all(address, asked))
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= 100
    with httpx.Client() as client:
        for body, answer in zip(asked, answers, strict=True):
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                assert answer.json()["error"]["type"] == "server_error"
                continue
            alone = client.post(f"{address}/v1/completions", json=body).json()
            assert answer.json()["choices"] == alone["choices"]


def test_readers_and_writers_at_once_do_not_disturb_each_other(address):
    texts = [f"Zoe grew up in {country} . now she" for country in ("France", "Spain", "Italy")]

    async def both():
        async with httpx.AsyncClient(timeout=60) as client:
            write = {"models": ["lstm"], "length": 300, "seed": 1}
            reads = [client.post(f"{address}/v1/score", json={"text": t}) for t in texts * 5]
            writes = [client.post(f"{address}/v1/sample", json=write) for _ in range(4)]
            return await asyncio.gather(*reads, *writes)

    found = asyncio.run(both())
    reads, writes = found[:15], found[15:]
    assert len({answer.text for answer in reads}) == 3
    texts_made = set()
    for answer in writes:
        parts = [json.loads(e[6:])["text"] for e in answer.text.split("\n\n") if '"text"' in e]
        texts_made.add("".join(parts))
    assert len(texts_made) == 1
