"""lmcli from Python: each command as a function.

**In:** paths or addresses of texts, runs or their paths, options with the commands' names.
**Out:** runs, streams of text, results with ``to_json()``. Nothing is printed; progress goes to
`on_progress` (see `lmcli.report.progress`). Errors are `LmcliError`s with a problem and a hint.

Importing this file loads neither torch nor numpy; each function imports the stage that it calls.

>>> from tempfile import mkdtemp
>>> folder = Path(mkdtemp())
>>> text = folder / "my.txt"
>>> _ = text.write_text("the old cat sees a dog .\\nthe dog hears the old cat .\\n" * 40)
>>> run = train(text, arch="ngram", tokenizer="word", output=folder / "ngram")
>>> run.result("train")["vocabulary"]
10
>>> "".join(sample(run, "the dog hears", length=4, temperature=0, seed=0))
' the old cat .'
>>> found = evaluate(run, split="test")
>>> found.score.tokens, found.to_json()["unknown_tokens"]
(32, 0)
>>> answer, *_ = cloze(run, text="the old cat sees a ___").to_json()["rows"][0]["candidates"]
>>> answer["text"]
'dog'
>>> net = train(text, arch="gru", tokenizer="word", steps=2, output=folder / "gru")
>>> both = compare(text, run=[run, net], tokenizer="word", output=folder / "both")
>>> [row["arch"] for row in both.to_json()["rows"]]
['ngram', 'gru']
>>> probe(net, name="halflife").to_json()["probe"], inspect(net, "a dog").to_json()["tokens"]
('halflife', 2)
>>> make("addition", folder / "sums.txt", size="small").text.name, load(net.path).name
('sums.txt', 'gru')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.arguments import (
    ARCHS,
    RunLike,
    Settings,
    Texts,
    open_runs,
    plain_options,
)
from lmcli.errors import UsageError
from lmcli.report.progress import OnProgress, Stage, warnings_only
from lmcli.run import Run, free_name
from lmcli.settings import check_known, text_names, update
from lmcli.storage import check_output
from lmcli.system import preloaded_context

if TYPE_CHECKING:
    from lmcli.evaluation.cloze import ClozeResult
    from lmcli.evaluation.comparison import Comparison
    from lmcli.evaluation.inspection import Inspection
    from lmcli.evaluation.item_answers import ItemAnswers
    from lmcli.evaluation.perplexity import Evaluation
    from lmcli.evaluation.probes.report import ProbeReport
    from lmcli.generation.export import Export
    from lmcli.generation.generate import Samples
    from lmcli.grammars.base import MadeText
    from lmcli.pages.report import Report
    from lmcli.run_list import RunList
    from lmcli.training.demo import Demo
    from lmcli.training.plan import Plan

IF_TIME = "rnn:activation=relu"
"""what `demo` trains by default where there is time for it"""


def load(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return open_runs(path)[0]


def list_runs(folder: str | Path = "runs") -> RunList:
    """All runs of a folder with their scores, finished or not; nothing but JSON is read."""
    from lmcli.run_list import list_runs

    return list_runs(Path(folder))


# ------------------------------------------------------------------ training


def train(
    texts: Texts,
    *,
    arch: str = "lstm",
    tokenizer: str = "char",
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    settings: Settings = None,
    seed: int = 0,
    output: str | Path | None = None,
    valid: Texts | None = None,
    test: Texts | None = None,
    split: str = "interleaved",
    rotation: int = 0,
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    slim: bool = False,
    samples: bool = False,
    tensorboard: str | Path | None = None,
    verbose: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Run:
    """Train one model on texts, for 3 minutes if no budget is given.

    The result is ``run.result("train")``. If `on_progress` stops the training there is none, and
    `resume` continues it. `output` is runs/ARCH if not given, or the first such name that is free.
    With `samples` a `SampleText` follows each validation; `tensorboard` is a folder for its files.
    """
    options = plain_options(locals())
    from lmcli.training.launch import train

    options["output"] = Path(output) if output else free_name(Path("runs"), arch)
    return train(options | {"resume": False}, on_progress)


def resume(
    run: RunLike,
    texts: Texts | None = None,
    *,
    on_progress: OnProgress = warnings_only,
    **options: Any,
) -> Run:
    """Continue a training where it stopped, with the texts at their places, or at new ones.

    Of the options of `train`, `device`, `workers`, `slim`, `samples`, `tensorboard` and `verbose`
    may be given, and those
    that the run was made with: a value that differs is a RunError.
    """
    from lmcli.training.launch import train

    path = run.path if isinstance(run, Run) else Path(run)
    given = plain_options({"texts": texts, **options})
    return train(given | {"output": path, "resume": True}, on_progress)


def compare(
    texts: Texts,
    *,
    arch: str = ARCHS,
    tokenizer: str = "char",
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seeds: int = 1,
    match: str = "params",
    run: RunLike | Sequence[RunLike] = (),
    output: str | Path | None = None,
    settings: Settings = None,
    valid: Texts | None = None,
    test: Texts | None = None,
    split: str = "interleaved",
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    jobs: int | None = None,
    probe: bool = False,
    html: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Comparison:
    """Train architectures alike, a minute each if no budget is given, and rank them.

    `arch` are names separated by commas. Those in `run` are compared as they are, and unless `arch`
    is given nothing is trained beside them. A callback that stops it makes it a TrainingError.
    The page `html`, if it is given, shows what `report` would, with the probes that `probe` runs.
    """
    options = plain_options(locals()) | {"plan": False}
    on_progress(Stage("loading torch", 0, 0, ""))
    if jobs != 1 and device in ("auto", "cpu") and options["arch"]:
        preloaded_context("lmcli.training.trials")  # it loads torch while this process does
    from lmcli.pages.report import with_page
    from lmcli.training.sweep import compare

    page = check_output(html, force)
    options["output"] = output or free_name(Path("runs"), "compare")
    return with_page(compare(options, on_progress), page, on_progress)


def demo(
    texts: Texts | None = None,
    *,
    arch: str | None = None,
    tokenizer: str | None = None,
    minutes: float | None = None,
    facts: str | Path | None = None,
    settings: Settings = None,
    seeds: int = 1,
    seed: int = 0,
    device: str = "auto",
    output: str | Path | None = None,
    html: str | Path | None = None,
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Demo:
    """Put "I grew up in France ... I speak fluent ___" into texts, train, say who remembers.

    Between cue and blank stand the texts' own sentences; without texts, sentences made by rule; a
    text of `make` is taken as it is. Without `arch` those of `compare` are trained, and an RNN of
    rectified units where there is time for it; without `minutes` the speed of this machine decides.
    A training ends early once it answers items that no table reports. `settings` are those of the
    trainings, and `words` and `longest` of the text that is made; `html` names the page.
    """
    options = plain_options(locals())
    on_progress(Stage("loading torch", 0, 0, ""))
    if device in ("auto", "cpu"):
        preloaded_context("lmcli.training.trials")
    from lmcli.pages.report import with_page
    from lmcli.training.demo import demo

    members = {"arch": arch or ARCHS, "if_time": "" if arch else IF_TIME}
    folder = Path(output or free_name(Path("runs"), "demo"))
    page = check_output(html, force) or folder / "demo.html"
    return with_page(demo(options | {"output": folder} | members, on_progress), page, on_progress)


def plan(texts: Texts, *, on_progress: OnProgress = warnings_only, **options: Any) -> Plan:
    """The trainings of a comparison with the same options, as commands; nothing is written."""
    from inspect import signature

    from lmcli.training.plan import plan

    defaults = {name: p.default for name, p in signature(compare).parameters.items()}
    folder = options.get("output") or free_name(Path("runs"), "compare")
    given = plain_options({**defaults, **options, "texts": texts}) | {
        "plan": True,
        "output": folder,
    }
    return plan(given, on_progress)


# ------------------------------------------------------------------ measuring


def evaluate(
    run: RunLike,
    texts: Texts | None = None,
    *,
    split: str | None = None,
    level: str = "summary",
    reset: str = "document",
    mix: RunLike | Sequence[RunLike] = (),
    cache: bool = False,
    adapt: bool = False,
    batch: int | None = None,
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    device: str = "auto",
    on_progress: OnProgress = warnings_only,
) -> Evaluation:
    """Score a text, or the `split` of the run's own, its test part by default: each token once.

    `mix` are runs to be mixed with this one, by weights fitted on its validation part. `cache`
    counts the text read so far, `adapt` trains on it: each token is scored, then learnt from.
    """
    from lmcli.evaluation.perplexity import evaluate_run
    from lmcli.system import pick_device

    how = {"encoding": encoding, "errors": errors, "newlines": newlines, "documents": documents}
    run, names, device = load(run), text_names(texts), pick_device(device)
    more: dict[str, Any] = {"mix": open_runs(mix), "cache": cache, "adapt": adapt}
    return evaluate_run(run, names, split, level, reset, batch, how, device, on_progress, **more)


def cloze(
    runs: RunLike | Sequence[RunLike],
    *,
    text: str | None = None,
    candidates: str | Sequence[str] | None = None,
    swap: str | None = None,
    gaps: str | Sequence[int] | None = None,
    filler: str | Path | None = None,
    items: str | Path | None = None,
    top: int = 5,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> ClozeResult | ItemAnswers:
    """Fill the blank of a text, or answer the held-out items beside the text of the runs."""
    from lmcli.evaluation.cloze import fill_blank, whole_numbers
    from lmcli.evaluation.item_answers import answer_items

    opened, numbers = open_runs(runs), whole_numbers(gaps)
    if text is not None:
        return fill_blank(
            opened, text, candidates=candidates, swap=swap, gaps=numbers, filler=filler, top=top,
            seed=seed, on_progress=on_progress,
        )  # fmt: skip
    for name, value in {"candidates": candidates, "swap": swap, "filler": filler}.items():
        if value is not None:
            raise UsageError(f"--{name} needs a text", f'--text "... ___" --{name} {value}')
    return answer_items(opened, Path(items) if items else None, numbers, on_progress)


def probe(
    runs: RunLike | Sequence[RunLike],
    texts: Texts | None = None,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> ProbeReport:
    """Measure how far back each run remembers: by one probe, or by all that apply."""
    from lmcli.evaluation.probes.data import ProbeData, ProbedModel
    from lmcli.evaluation.probes.report import ProbeReport, load_probes, run_probes
    from lmcli.registry import PROBES

    probes = load_probes([name] if name else PROBES.names(), settings or {})
    opened = open_runs(runs)
    data = ProbeData.of_runs(opened, text_names(texts), on_progress)
    subjects = [ProbedModel.of(run) for run in opened]
    results = run_probes(probes, subjects, data, seed, on_progress)
    return ProbeReport(results, all=name is None)


def inspect(
    run: RunLike,
    text: str,
    *,
    gate: str | None = None,
    units: int | None = None,
    unit: int | None = None,
    correlate: str | None = None,
    versus: RunLike | None = None,
    on_progress: OnProgress = warnings_only,
) -> Inspection:
    """Look inside a run while it reads a text, or a file: gates, cells, units, its losses."""
    from lmcli.evaluation.inspection import inspect_text

    other = None if versus is None else load(versus)
    return inspect_text(load(run), text, gate, units, unit, correlate, other, on_progress)


def report(
    source: RunLike,
    output: str | Path | None = None,
    *,
    png: str | Path | None = None,
    csv: str | Path | None = None,
    probes: bool = True,
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Report:
    """Write the page of a run or a comparison; with `probes` its memory curves are measured."""
    from lmcli.pages.report import write_report

    return write_report(source, output, png, csv, probes, force, on_progress)


# ------------------------------------------------------------------ making


def sample(
    run: RunLike,
    prompt: str = "",
    *,
    length: int = 500,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Sequence[str] = (),
    count: int = 1,
    seed: int | None = None,
    mix: RunLike | Sequence[RunLike] = (),
    novelty: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Samples:
    """Text that continues the prompt, as an iterator of chunks; needs no torch for most runs.

    `length` is in tokens, 0 without end. Without a seed each call gives another text. Tokens are
    drawn from the mixture with the runs `mix`; `novelty` finds what stands in the training text.
    """
    from lmcli.generation.generate import Samples
    from lmcli.generation.sampling import SamplingSettings

    settings, mixed, opened = SamplingSettings(temperature, top_k, top_p, min_p), None, load(run)
    if others := open_runs(mix):
        from lmcli.evaluation.ensemble import open_ensemble
        from lmcli.generation.mixed_model import Mixed

        ensemble = open_ensemble(opened, others, on_progress=on_progress)
        mixed = Mixed(ensemble.runs, *ensemble.weights())
    return Samples(
        opened, prompt, settings, length=length, stops=stop, count=count, seed=seed,
        on_progress=on_progress, mixed=mixed, novelty=novelty,
    )  # fmt: skip


def make(
    grammar: str,
    output: str | Path | None = None,
    *,
    size: str | None = None,
    level: int | None = None,
    digits: int | None = None,
    carry_length: int | None = None,
    settings: Settings = None,
    seed: int | None = None,
    filler: Texts | None = None,
    facts: str | Path | None = None,
    pairs: str | Path | None = None,
    frame: str | None = None,
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> MadeText:
    """Write the text of a grammar to `output` (GRAMMAR.txt), with items and about file beside it.

    None takes the grammar's own default; an option that the grammar lacks is a UsageError. With
    `filler`, texts of your own, the sentences between cue and query are theirs; `facts` (auto, a
    language, a TOML file), or `pairs` (a CSV file) and `frame`, say what the others are.
    """
    from lmcli.grammars.base import write_grammar
    from lmcli.registry import GRAMMARS

    cls: Any = GRAMMARS.load(grammar)
    parts: Sequence[Any] = ()
    if filler is not None or facts or pairs or frame:
        from lmcli.data.corpus import CorpusSpec, load_corpus
        from lmcli.grammars.france.natural import prepare

        texts = text_names(filler)
        corpus = load_corpus(CorpusSpec(tuple(texts)), on_progress) if texts else None
        cls, *parts = prepare(grammar, corpus, facts, pairs, frame, on_progress)
    named = {"size": size, "level": level, "digits": digits, "carry_length": carry_length}
    given = {name: value for name, value in (named | {"seed": seed}).items() if value is not None}
    given |= settings or {}
    check_known(given, cls.Settings)
    made = cls(*parts, update(cls.Settings(), given))
    return write_grammar(made, Path(output or f"{grammar}.txt"), force)


def export(
    run: RunLike, *, to: str = "numpy", output: str | Path | None = None, force: bool = False
) -> Export:
    """Write a run as a folder that others can use.

    `numpy`: text is sampled without torch; `onnx`: a file for any runtime of ONNX; `hf`: the layout
    of the Hugging Face Hub, read again by `lmcli.generation.export.load_hf`.
    """
    from lmcli.generation.export import export_run

    return export_run(load(run), to, None if output is None else Path(output), force)
