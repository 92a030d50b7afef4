"""An ONNX file computes what its model computes, with the state carried from call to call."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

from lmcli.errors import LmcliError, RunError
from lmcli.generation.export import export_onnx, load_tokenizer
from lmcli.generation.onnx_export import FILE, largest_difference
from lmcli.generation.onnx_graph import onnx_model, state_names
from lmcli.registry import MODELS

NETS = [name for name in MODELS.names() if name not in ("ngram", "hybrid")]
VARIANTS = (
    *("rnn activation=relu", "rnn block=true layers=2", "gru block=true", "gru layers=2"),
    *("lstm peepholes=true", "lstm coupled=true", "lstm forget=false", "lstm attend=5 layers=2"),
    *("window direct=true", "window window=1", "attention window=4 layers=1 heads=5"),
    *("lstm softmax=adaptive", "window softmax=adaptive", "attention tie=true"),
    *("minlstm block=false", "mingru layers=1", "lstm tie=true embedding=12"),
)


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_model(model, {}).SerializeToString(), options)


@pytest.mark.parametrize("name", [*NETS, *VARIANTS])
def test_logits_are_those_of_the_model_over_200_steps_of_carried_state(build, name):
    model, steps = build(name, vocabulary=9), 200
    session = session_of(model)
    tokens = np.random.default_rng(1).integers(0, 9, (2, steps))
    tokens[0, [0, 70]] = tokens[1, [0, 130, 131]] = model.start_id
    state = model.initial_state(2)
    carried = dict(zip(state_names(model), [part.numpy() for part in state], strict=True))
    with torch.inference_mode():
        whole, _ = model(torch.from_numpy(tokens), state)
    for t in range(steps):
        logits, *after = session.run(None, {"tokens": tokens[:, t : t + 1], **carried})
        carried = dict(zip(carried, after, strict=True))
        assert np.abs(logits[:, 0] - whole[:, t].numpy()).max() <= 1e-5, t
    some, *_ = session.run(None, {"tokens": tokens[:1, :150], **_start(model)})
    assert np.abs(some - whole[:1, :150].numpy()).max() <= 1e-5


def _start(model):
    return dict(zip(state_names(model), [p.numpy() for p in model.initial_state(1)], strict=True))


@pytest.mark.parametrize("name", NETS)
def test_a_weight_that_differs_is_seen(build, name):
    model = build(name, vocabulary=9)
    file = onnx_model(model, {}).SerializeToString()
    assert largest_difference(model, file) <= 1e-5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    assert largest_difference(model, file) > 1e-4


def test_a_folder_holds_all_that_another_program_needs(trained, tmp_path):
    export_onnx(trained("gru"), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {FILE, "README.md", "config.json", "lmcli_tokenizer.json"}
    session = onnxruntime.InferenceSession(tmp_path / "out" / FILE)
    assert [i.name for i in session.get_inputs()] == ["tokens", "hidden_1"]
    assert [o.name for o in session.get_outputs()] == ["logits", "hidden_1_after"]
    assert session.get_inputs()[0].shape == ["batch", "length"]
    assert session.get_modelmeta().custom_metadata_map["arch"] == "gru"
    assert load_tokenizer(tmp_path / "out").encode("abc").tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["lstm", "window"])
def test_the_lines_of_the_page_run(trained, tmp_path, monkeypatch, capsys, name):
    export_onnx(trained(name), tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("the ", "abc")
    monkeypatch.chdir(tmp_path / "out")
    exec(code, {})
    assert len(capsys.readouterr().out) == 100


def test_counts_are_refused_in_words(trained, tmp_path):
    with pytest.raises(LmcliError, match="a table of counts") as caught:
        export_onnx(trained("ngram"), tmp_path / "out")
    assert "lstm" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_hybrid_is_refused_for_the_table_in_it(trained, tmp_path):
    with pytest.raises(LmcliError, match="one part of it is a table of counts"):
        export_onnx(trained("hybrid"), tmp_path / "out")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing_is_named(trained, tmp_path, monkeypatch, package):
    run = trained("gru")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LmcliError, match=f"needs {package}") as caught:
        export_onnx(run, tmp_path / "out")
    assert "lmcli[onnx]" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_only_an_export_is_replaced_and_only_by_force(trained, tmp_path):
    run, out = trained("rnn"), tmp_path / "out"
    export_onnx(run, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        export_onnx(run, out)
    export_onnx(trained("gru"), out, force=True)
    assert "gru" in (out / "README.md").read_text(encoding="utf-8")
    assert (out / "notes.txt").read_text() == "mine"
    for path in (run.path, tmp_path):
        with pytest.raises(RunError, match=r"the run itself|not an export"):
            export_onnx(run, path, force=True)
