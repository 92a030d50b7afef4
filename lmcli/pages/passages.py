"""Who remembered what: passages of the user's own text, coloured token by token.

**In:** a `Subject`: two of its models, or its only one, and its held-out part.
**Out:** a `Section`: the passages where the two differ most, or how surprising a text was to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lmcli.data.corpus import reopen_corpus
from lmcli.errors import LmcliError
from lmcli.evaluation.activations import TokenSpan, loss_difference, read_only
from lmcli.evaluation.inspection import DECIDED, SURPRISE
from lmcli.evaluation.memory_curves import skill
from lmcli.pages.subject import Row, Subject
from lmcli.registry import MODELS
from lmcli.report.progress import OnProgress
from lmcli.report.result import BITS, Block, Section, Strips
from lmcli.run import Run

READ_CHARACTERS = 20_000
"""of the held-out part"""
PASSAGES, LENGTH, LEAST_TEXT = 3, 300, 40
"""how many are shown, how long in characters, and what is too short to show"""
CAUTION = (
    "Colour shows where two models differ, not why: a name that came before may be remembered, or "
    "only be frequent."
)


def passages_section(subject: Subject, on_progress: OnProgress) -> Section | None:
    """None where the held-out part is not at hand."""
    documents = held_out(subject, on_progress)
    if not documents:
        return None
    names = contrasted(subject)
    if len(names) < 2:
        return Section("How surprising the text was", [_surprise(subject.first, documents)])
    blocks = _contrasted(subject, names, documents)
    return Section("Who remembered what", blocks) if blocks else None


def held_out(subject: Subject, on_progress: OnProgress) -> list[str]:
    """The first documents of the test part, or of the validation part where there is no other."""
    run = subject.first
    try:
        corpus = reopen_corpus(run.record.corpus, run.path, (), on_progress)
    except LmcliError:
        return []
    found, room = list[str](), READ_CHARACTERS
    for document in (corpus.test or corpus.valid).documents:
        found.append(document[:room])
        room -= len(document)
        if room <= 0:
            break
    return [document for document in found if document.strip()]


def contrasted(subject: Subject) -> list[str]:
    """The trained model that remembers most and the one that remembers least."""
    rows = [r for r in subject.rows if r["name"] in subject.runs]
    nets = [r for r in rows if not MODELS.load(r["arch"]).is_count_based]
    some = nets if len(nets) > 1 else rows
    if len(some) < 2:
        return []
    *_, best = ordered = sorted(some, key=_memory)
    return [best["name"], ordered[0]["name"]]


def _memory(row: Row) -> float:
    """Right answers over all gaps where they are known, else how well the text is predicted."""
    if recall := row.get("recall"):
        return sum(map(skill, recall)) / len(recall)
    return -float((row["test"] or row["valid"])["bits_per_char"])


def _contrasted(subject: Subject, names: Sequence[str], documents: Sequence[str]) -> list[Block]:
    """The passages in which the first model gains most on the second, token by token."""
    first, second = (subject.firsts[name] for name in names)
    models = [(run.model(), run.tokenizer) for run in (first, second)]
    by_document = [
        loss_difference(*(read_only(*model, [document]) for model in models))
        for document in documents
    ]
    spans = [span for some in by_document for span in some]
    best, other = names
    title = f"blue: {best} expected it more; red: {other} did"
    blocks: list[Block] = []
    for passage in telling_passages(by_document):
        bits = -sum(span.difference for span in passage) / math.log(2)
        tint = [max(-1.0, min(1.0, s.difference / math.log(2) / DECIDED)) for s in passage]
        note = f"here {best} needs {BITS.show(bits)} bits less than {other}"
        blocks.append(Strips(title, [s.text for s in passage], (), tint, note))
        title = ""
    if blocks and isinstance(last := blocks[-1], Strips):
        mean = -sum(s.difference for s in spans) / math.log(2) / max(1, len(spans))
        read = (
            f"The deeper the blue, the more probable {best} found the token than {other} did; full "
            f"colour is {DECIDED:g} bits, which is a factor of {2**DECIDED:g}. These are the "
            f"passages where {best} gains most; over all {len(spans):,} tokens that were read it "
            f"gains {BITS.show(mean)} bits a token."
        )
        blocks[-1] = Strips(last.title, last.parts, (), last.tint, last.note, read, CAUTION)
    return blocks


def telling_passages(documents: Sequence[Sequence[TokenSpan]]) -> list[Sequence[TokenSpan]]:
    """Stretches of about equal length, those with the largest gains, in the order of the text."""
    stretches = [stretch for spans in documents for stretch in _stretches(spans)]
    long = [s for s in stretches if sum(len(span.text) for span in s) >= LEAST_TEXT]
    gains = [sum(span.difference for span in s) for s in long]
    ahead = [place for place, gain in enumerate(gains) if gain < 0]  # fewer nats than the second
    chosen = sorted(ahead, key=lambda place: gains[place])[:PASSAGES]
    return [long[place] for place in sorted(chosen)]


def _stretches(spans: Sequence[TokenSpan]) -> list[Sequence[TokenSpan]]:
    """A document in stretches of some lines of text, cut between words."""
    found: list[list[TokenSpan]] = [[]]
    used = 0
    for span in spans:
        if used > LENGTH and span.text[:1].isspace():
            found.append([])
            used = 0
        found[-1].append(span)
        used += len(span.text)
    return list(found)


def _surprise(run: Run, documents: Sequence[str]) -> Block:
    """The beginning of the held-out part, coloured by what each token cost."""
    read = read_only(run.model(), run.tokenizer, ["".join(documents)[: 3 * LENGTH]])
    bits = (read.nats / math.log(2)).tolist()
    tint = [min(1.0, b / SURPRISE) for b in bits]
    return Strips(
        "the held-out text as the model reads it: red is surprising", read.tokens, (), tint, "",
        f"The deeper the red, the less the model expected the token; full colour is {SURPRISE:g} "
        f"bits, which is a probability of 1 in {2**SURPRISE:,.0f}.",
        "A token may surprise because the model forgot something, or because nobody could know it.",
    )  # fmt: skip
