"""The OpenAPI description holds for whatever is sent: schemathesis makes requests from it."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

PATHS = ("next", "score", "sample", "cloze", "inspect", "completions")


@pytest.fixture(scope="module")
def schema(address):
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_the_description_names_every_way_to_ask_and_every_refusal(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {f"/v1/{name}" for name in ("models", *PATHS)}
    for name in PATHS:
        post = described["paths"][f"/v1/{name}"]["post"]
        assert post["summary"]
        assert {"200", "400", "403", "404", "409", "413", "422", "503"} == set(post["responses"])
    refs = json.dumps(described).count("#/components/schemas/Error")
    assert refs > 40
    assert "Error" in described["components"]["schemas"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_as_described(schema, name, mode):
    strategy = schema[f"/v1/{name}"]["POST"].as_strategy(
        generation_mode=getattr(schemathesis.GenerationMode, mode.upper())
    )

    @given(case=strategy)
    @settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=HealthCheck)
    def check(case):
        case.call_and_validate()

    check()
