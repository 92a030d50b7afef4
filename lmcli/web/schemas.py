"""What requests may hold, and what answers hold: the OpenAPI description comes from here.

**In:** JSON bodies.
**Out:** checked values; what is longer, larger or of another kind is answered with 422.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_CHARACTERS = 20_000
"""of a text"""
MOST_TOKENS = 4096
"""that are made for one text"""
MOST_TEXTS = 16
"""that are made for one request"""
LONGEST_GAP, MOST_GAPS = 2000, 12

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Name = Annotated[str, Field(max_length=200)]
Names = Annotated[list[Name], Field(min_length=1, max_length=64)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Request(BaseModel):
    """A body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def with_whole_numbers(cls, body: Any) -> Any:
        """The body with 17 in the place of 17.0, which JSON holds to be the same."""
        return _whole_numbers(body)


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class OfModels(Request):
    """A body that names runs."""

    models: Names | None = Field(None, description="Names of runs; all that are shown if left out.")


class NextRequest(OfModels):
    """A text to continue by one token."""

    prompt: Text
    top: int = Field(10, ge=1, le=100, description="How many of the likeliest tokens.")
    score: bool = Field(False, description="Also the tokens of the prompt with their surprisal.")
    typing: bool = Field(
        False, description="The prompt is being typed: its last word may not be whole yet."
    )


class ScoreRequest(OfModels):
    """A text to score."""

    text: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


class SampleRequest(OfModels):
    """Texts to make, one a run."""

    prompt: Text = ""
    length: int = Field(200, ge=1, le=MOST_TOKENS, description="In tokens.")
    temperature: Temperature = 0.8
    top_k: int | None = Field(None, ge=1, le=10**6)
    top_p: Share | None = None
    min_p: Share | None = None
    stop: list[Stop] = Field(default_factory=list, max_length=8)
    seed: Seed | None = None


class ClozeRequest(OfModels):
    """A text with a blank, and filler for a gap before it."""

    text: Annotated[str, Field(max_length=2000, pattern="^[^_]*___[^_]*$")]
    candidates: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(
        None, min_length=2, max_length=64
    )
    swap: str | None = Field(None, max_length=200, pattern="^[^=]+=[^=]+$")
    gaps: list[Annotated[int, Field(ge=0, le=LONGEST_GAP)]] | None = Field(
        None, min_length=1, max_length=MOST_GAPS
    )
    filler: Name | None = Field(None, description="The name of a text, as /v1/models gives it.")
    top: int = Field(5, ge=1, le=20)


class InspectRequest(Request):
    """A text to look at inside a run."""

    model: Name
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    gate: Name | None = None
    unit: int | None = Field(None, ge=0, le=10**6)


# ------------------------------------------------------------------ answers


class TokenScore(BaseModel):
    """A token of a text."""

    text: str
    nats: float
    bits: float
    unknown: bool


class NextToken(BaseModel):
    """A token that may come next."""

    text: str = Field(description="What it adds to the prompt; empty if nothing that fits.")
    symbol: str = Field(description="A printable name.")
    probability: float
    log_probability: float
    unknown: bool


class ModelNext(BaseModel):
    """What one run expects."""

    model: str
    next: list[NextToken]
    entropy_bits: float
    tokens: list[TokenScore] | None = None
    unknown: list[str] = Field(description="Words of the prompt that the run has never seen.")


class NextResponse(BaseModel):
    """What each run expects after the prompt."""

    models: list[ModelNext]


class ModelScore(BaseModel):
    """A text under one run."""

    model: str
    tokens: list[TokenScore]
    nats: float
    perplexity: float | None
    bits_per_char: float | None
    unknown_tokens: int


class ScoreResponse(BaseModel):
    """A text under each run."""

    models: list[ModelScore]


class Candidate(BaseModel):
    """A word in the blank."""

    model_config = ConfigDict(extra="allow")
    text: str
    probability: float


class ClozeRow(BaseModel):
    """What one run says at one gap."""

    model: str
    arch: str
    gap: int | None
    count: int
    candidates: list[Candidate]
    verdict: str | None
    sentence: str | None


class ClozeResponse(BaseModel):
    """The rows of ``lmcli cloze --json``, with names in the place of paths."""

    rows: list[ClozeRow]
    example: dict[str, Any] | None
    command: str = Field(description="The command line that gives the same numbers.")
    warnings: list[str]


class Gate(BaseModel):
    """Values that can be looked at."""

    name: str
    units: int


class InspectToken(BaseModel):
    """A token, and the unit while it was read."""

    text: str
    nats: float
    value: float
    mean: float


class InspectResponse(BaseModel):
    """One unit of one gate along a text."""

    model: str
    gates: list[Gate] = Field(description="None for a run that has neither gates nor units.")
    gate: str | None = None
    unit: int | None = None
    low: float = 0.0
    high: float = 1.0
    most_varying: list[int] = Field(default_factory=list)
    tokens: list[InspectToken] = Field(default_factory=list)


class ModelCard(BaseModel):
    """A run, with the keys that clients of OpenAI's interface expect."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lmcli"] = "lmcli"
    arch: str
    color: str
    tokenizer: str
    vocabulary: int
    parameters: int | None
    test_perplexity: float | None
    text: str
    seed: int
    shown: bool


class ModelList(BaseModel):
    """All runs."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    fillers: list[str] = Field(description="Texts that /v1/cloze can take filler from.")


class ErrorBody(BaseModel):
    """What is wrong, in the shape of OpenAI's errors."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    hint: str | None = None


class Error(BaseModel):
    """Every answer that is no result."""

    error: ErrorBody
