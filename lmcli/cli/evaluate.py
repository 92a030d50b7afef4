"""``lmcli eval``: how likely a text is under a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.evaluation.score import ScoredText
    from lmcli.report.progress import OnProgress
    from lmcli.run import Run


def evaluate(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    texts: o.Texts = None,
    split: Annotated[
        str | None, o.option("--split", about="Score the recorded train, valid or test part.")
    ] = None,
    level: Annotated[str, o.option("--level", about="summary, line or token.")] = "summary",
    reset: Annotated[
        str, o.option("--reset", about="Forget at each: never, line or document.")
    ] = "document",
    rows: Annotated[
        int, o.option("--batch", about="Places read side by side; changes no number.", min=1)
    ] = 32,
    documents: Annotated[
        str | None,
        o.option("--documents", about="file, line or paragraph.", default="as in training"),
    ] = None,
    newlines: o.Newlines = "keep",
    encoding: o.Encoding = "utf-8",
    errors: o.Errors = "strict",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Score a text: perplexity, bits per character, every token exactly once.

    [bold]Examples[/]

      lmcli eval runs/mine other.txt

      lmcli eval runs/mine --split test --json

      echo "To be or not to be" | lmcli eval runs/mine - --level token
    """
    from lmcli.cli.console import emit, warn_uncounted
    from lmcli.cli.progress import preparation_bar
    from lmcli.data.split import Split
    from lmcli.evaluation.log_likelihood import score_documents
    from lmcli.evaluation.perplexity import SEGMENT, score_long
    from lmcli.evaluation.score import Score
    from lmcli.report.progress import ProgressCounter
    from lmcli.run import Run
    from lmcli.system import pick_device

    o.one_of("level", level, ("summary", "line", "token"))
    o.one_of("reset", reset, ("never", "line", "document"))
    run = Run.open(run_path)
    model = run.model(pick_device(device))
    how = (encoding, errors, newlines)
    with preparation_bar(not quiet and not as_json) as on_progress:
        names, pieces = _pieces(run, texts or [], split, documents, how, on_progress)
        began = time.perf_counter()
        scored: list[ScoredText] = []
        asked: Any = {"reset": reset, "rows": rows, "meter": ProgressCounter(on_progress)}
        if level == "summary" and Split(pieces).chars > SEGMENT:  # no need to keep every token
            score = score_long(model, run.tokenizer, pieces, **asked)
        else:
            scored = score_documents(model, run.tokenizer, pieces, **asked)
            score = Score.of(scored)
    warn_uncounted(score, run_path)
    values: dict[str, Any] = {"run": str(run_path), "texts": names}
    values |= score.to_json()
    values |= {"tokenizer": run.record.tokenizer, "arch": run.record.arch, "reset": reset}
    values["seconds"] = time.perf_counter() - began
    if level != "summary":
        values["items"] = _items(scored, level, run)
    emit(_result(run, values, level), as_json, quiet)


def _pieces(
    run: Run,
    texts: list[str],
    split: str | None,
    documents: str | None,
    reading: tuple[str, ...],
    on_progress: OnProgress,
) -> tuple[list[str], Sequence[str]]:
    """Names and pieces of what is to be scored."""
    from lmcli.errors import TextError, UsageError

    if split is None:
        if not texts:
            raise UsageError("no text to score", "give a file, - for standard input, or --split")
        from lmcli.data.corpus import find_documents

        encoding, errors, newlines = reading
        documents = documents or run.record.corpus["options"]["documents"]
        options = o.text_options(encoding, errors, newlines, documents)
        names, pieces = find_documents(texts, options, on_progress)
        return list(islice(names, 100)), pieces
    o.one_of("split", split, ("train", "valid", "test"))
    from lmcli.data.corpus import reopen_corpus

    corpus = reopen_corpus(run.record.corpus, run.path, texts, on_progress)
    part = corpus.parts().get(split)
    if part is None or not part.documents:
        raise TextError(
            f"'{run.path}' was trained without a {split} part", "--split valid, or give a text"
        )
    return list(corpus.names), part.documents


def _items(scored: list[ScoredText], level: str, run: Run) -> list[dict[str, Any]]:
    """One entry a line or token; their nats add up to the total."""
    import math

    if level == "line":
        lines = [line for text in scored for line in text.lines()]
        items = []
        for line in lines:
            s = line.score()
            item = {"text": line.text.rstrip("\r\n"), "nats": s.nats, "unknown": s.unknown_tokens}
            item |= {"tokens": s.tokens, "chars": s.chars, "bits_per_char": s.bits_per_char}
            items.append(item)
        return items
    unknown = run.tokenizer.unknown
    tokens = []
    for text in scored:
        spans = zip(text.ids.tolist(), text.spans(), text.nats.tolist(), strict=True)
        for token, (begin, end), nats in spans:
            shown = text.text[begin:end]
            tokens.append(
                {
                    "text": shown,
                    "nats": nats,
                    "unknown": token == unknown,
                    "bits": nats / math.log(2),
                }
            )
    return tokens


def _result(run: Run, values: dict[str, Any], level: str) -> Any:
    from lmcli.report.result import (
        BITS_PER_CHAR,
        COUNT,
        PERPLEXITY,
        Block,
        Column,
        Facts,
        Metric,
        Passages,
        Result,
        Table,
        text,
    )

    columns = [
        Column("tokens", COUNT, "tokens"),
        Column("chars", COUNT, "characters"),
        Column("words", COUNT, "words"),
        Column("nats", Metric("nats", 2)),
        Column("perplexity", PERPLEXITY),
        Column("perplexity_without_unknown", PERPLEXITY, "without unknown"),
        Column("unknown_tokens", COUNT, "unknown tokens"),
        Column("word_perplexity", PERPLEXITY, "word perplexity"),
        Column("bits_per_byte", Metric("bits/byte", 4)),
        Column("bits_per_char", BITS_PER_CHAR),
    ]
    blocks: list[Block] = [Facts(columns, values)]
    if level == "line":
        shown = [Column("nats", Metric("nats", 2)), Column("bits_per_char", Metric("bits/char", 3))]
        shown += [Column("unknown", COUNT, "unknown"), Column("text", text("line"))]
        blocks.insert(0, Table("", shown, values["items"]))
    if level == "token":
        parts = [(i["text"], min(1.0, i["bits"] / 12)) for i in values["items"]]
        blocks.insert(0, Passages("", parts, "yellow 5, red 7, bold red 10 bits or more a token"))
    return Result("eval", values, blocks)
