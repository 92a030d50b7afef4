"""An architecture as a graph of ONNX operators: token ids and state in, logits and state out.

**In:** a model of lmcli with its weights.
**Out:** a `ModelProto` for any runtime of ONNX, with a free batch and length. Recurrences are a
`Scan` whose body is the step of the layer; a window and attention are gathers over positions.

torch's own exporter unrolls such loops for one length, or needs a package more; the equations are
those of models/*.py, and what comes out is compared with the model when it is exported.

Shapes as in models/base.py; batch first, time second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

OPSET, IR_VERSION = 17, 8
"""from 2022: what every runtime of today reads"""
END = np.iinfo(np.int64).max
Value = Any
"""the name of a tensor in the graph, or numbers that become a constant"""
Step = Callable[["Graph", list[str], list[str]], tuple[list[str], str]]
"""a body: graph, states, inputs of one step -> new states, output"""


class Graph:
    """Nodes in order, and constants that are shared with the bodies of loops."""

    def __init__(self, parent: Graph | None = None) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = parent.constants if parent else {}
        self.numbers: Iterator[int] = parent.numbers if parent else itertools.count()

    def name(self, value: Value) -> str:
        """The name of a tensor; numbers become a constant: int64, float32 or bool."""
        if isinstance(value, str):
            return value
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        kinds = {"f": np.float32, "i": np.int64, "u": np.int64}
        name = f"constant_{next(self.numbers)}"
        self.constants[name] = array.astype(kinds.get(array.dtype.kind, array.dtype))
        return name

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """One node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: Value, **attributes: Any) -> list[str]:
        """One node; the names of its outputs."""
        from onnx import helper

        names = [f"{kind.lower()}_{next(self.numbers)}" for _ in range(outputs)]
        node = helper.make_node(kind, [self.name(i) for i in inputs], names, **attributes)
        self.nodes.append(node)
        return names

    def cast(self, value: Value, kind: str) -> str:
        """FLOAT or INT64."""
        from onnx import TensorProto

        return self.op("Cast", value, to=getattr(TensorProto, kind))

    def linear(self, x: Value, weight: Any, bias: Any = None) -> str:
        """x W^T + b. Shapes: (..., E), (H, E) -> (..., H)."""
        y = self.op("MatMul", x, weight.detach().t().contiguous())
        return y if bias is None else self.op("Add", y, bias)

    def norm(self, x: Value, layer: Any) -> str:
        """LayerNorm over the last axis."""
        inputs = x, layer.weight, layer.bias
        return self.op("LayerNormalization", *inputs, axis=-1, epsilon=layer.eps)

    def gelu(self, x: Value) -> str:
        """x times the normal distribution function."""
        erf = self.op("Erf", self.op("Mul", x, math.sqrt(0.5)))
        half = self.op("Mul", x, 0.5)
        return self.op("Mul", half, self.op("Add", erf, 1.0))

    def split(self, x: Value, parts: int, size: int) -> list[str]:
        """Parts of the last axis, each of one size."""
        return self.ops("Split", parts, x, [size] * parts, axis=-1)

    def tail(self, x: Value, first: Value) -> str:
        """What lies from `first` on along time."""
        return self.op("Slice", x, first, [END], [1])

    def scan(self, states: Sequence[str], inputs: Sequence[str], step: Step) -> list[str]:
        """A loop over time: the states after it, then the outputs of all steps (B, T, H)."""
        from onnx import TensorProto, helper

        def declared(names: Sequence[str]) -> list[Any]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]

        body = Graph(self)
        before = [f"before_{next(self.numbers)}" for _ in states]
        now = [f"now_{next(self.numbers)}" for _ in inputs]
        after, y = step(body, before, now)
        ends = [body.op("Identity", value) for value in (*after, y)]  # no name is there twice
        graph = helper.make_graph(body.nodes, "step", declared([*before, *now]), declared(ends))
        axes: dict[str, Any] = {"scan_input_axes": [1] * len(inputs), "scan_output_axes": [1]}
        number = {"num_scan_inputs": len(inputs)}
        return self.ops("Scan", len(ends), *states, *inputs, body=graph, **number, **axes)


# ------------------------------------------------------------------ parts of architectures


def embedded(g: Graph, model: Any, tokens: Value) -> str:
    """The vectors of tokens, from one table, also where the model has an adaptive one."""
    import torch

    return g.op("Gather", model.embed(torch.arange(model.vocabulary + 1)), tokens)


def predicted(g: Graph, model: Any, x: Value) -> str:
    """The output layer. Shapes: (B, T, H) -> (B, T, V)."""
    if model.adaptive is None:
        return g.linear(x, *model.output_parameters())
    layer = model.adaptive
    head = g.op("LogSoftmax", g.linear(x, layer.head.weight, layer.head.bias), axis=-1)
    parts = [g.op("Slice", head, [0], [layer.shortlist_size], [-1])]
    for place, (narrow, words) in enumerate(layer.tail, layer.shortlist_size):
        inside = g.linear(g.linear(x, narrow.weight), words.weight)
        cluster = g.op("Slice", head, [place], [place + 1], [-1])
        parts.append(g.op("Add", g.op("LogSoftmax", inside, axis=-1), cluster))
    return g.op("Concat", *parts, axis=-1)


def document_mask(g: Graph, marks: Value, is_start: Value, length: Value) -> tuple[str, str]:
    """Which tokens each must not see, (B, T, W - 1 + T), and the marks after the last."""
    count = g.op("CumSum", g.cast(is_start, "INT64"), 1)  # (B, T)
    before = g.op("Sub", g.cast(marks, "INT64"), 1)
    number = g.op("Concat", before, count, axis=1)  # (B, W - 1 + T)
    last = g.op("Slice", count, [-1], [END], [1])
    after = g.cast(g.op("Equal", g.tail(number, length), last), "FLOAT")
    keys, queries = g.op("Unsqueeze", number, [1]), g.op("Unsqueeze", count, [2])
    return g.op("Not", g.op("Equal", keys, queries)), after


def local_attention(
    g: Graph, query: Value, key: Value, value: Value, bias: Any, mask: Value, length: Value
) -> str:
    """Attention within a sliding window; see models/layers/local_attention.py."""
    heads, window = bias.shape

    def by_head(x: Value, order: Sequence[int]) -> str:
        return g.op("Transpose", g.op("Reshape", x, [0, 0, heads, -1]), perm=list(order))

    q, v = by_head(query, (0, 2, 1, 3)), by_head(value, (0, 2, 1, 3))
    width = g.cast(g.op("Slice", g.op("Shape", q), [-1], [END]), "FLOAT")  # D
    q = g.op("Div", q, g.op("Sqrt", width))
    scores = g.op("MatMul", q, by_head(key, (0, 2, 3, 1)))  # (B, N, T, W - 1 + T)
    steps = g.op("Squeeze", length)
    queries = g.op("Unsqueeze", g.op("Range", 0, steps, 1), [1])
    keys = g.op("Range", 0, g.op("Add", steps, window - 1), 1)
    distance = g.op("Sub", g.op("Add", queries, window - 1), keys)  # (T, W - 1 + T)
    near = g.op("Clip", distance, 0, window - 1)
    scores = g.op("Add", scores, g.op("Gather", bias, near, axis=1))
    hidden = g.op("Or", g.op("Not", g.op("Equal", near, distance)), g.op("Unsqueeze", mask, [1]))
    scores = g.op("Where", hidden, -math.inf, scores)
    mean = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    return g.op("Reshape", g.op("Transpose", mean, perm=[0, 2, 1, 3]), [0, 0, -1])


# ------------------------------------------------------------------ recurrent architectures


def rnn_layer(g: Graph, layer: Any, u: str, keep: str, state: list[str]) -> list[str]:
    """States after it and outputs of all steps."""
    kind = {"tanh": "Tanh", "relu": "Relu"}[layer.settings.activation]

    def step(b: Graph, states: list[str], inputs: list[str]) -> tuple[list[str], str]:
        h = b.op("Mul", states[0], inputs[1])
        h = b.op(kind, b.op("Add", inputs[0], b.linear(h, layer.recurrent_weight)))
        return [h], h

    return g.scan(state, [g.linear(u, layer.input_weight, layer.bias), keep], step)


def gru_layer(g: Graph, layer: Any, u: str, keep: str, state: list[str]) -> list[str]:
    """The gates are closed at a document's start."""
    closed = g.op("Mul", g.op("Sub", 1.0, keep), layer.closing)
    inputs = g.op("Add", g.linear(u, layer.input_weight, layer.bias), closed)

    def step(b: Graph, states: list[str], inputs: list[str]) -> tuple[list[str], str]:
        from_x = b.split(inputs[0], 3, layer.hidden)
        from_h = b.split(b.linear(states[0], layer.recurrent_weight), 3, layer.hidden)
        r, z = (b.op("Sigmoid", b.op("Add", from_x[i], from_h[i])) for i in range(2))
        inner = b.op("Mul", r, b.op("Add", from_h[2], layer.candidate_bias))
        n = b.op("Tanh", b.op("Add", from_x[2], inner))
        h = b.op("Add", n, b.op("Mul", z, b.op("Sub", states[0], n)))
        return [h], h

    return g.scan(state, [inputs], step)


def lstm_layer(g: Graph, layer: Any, u: str, keep: str, state: list[str]) -> list[str]:
    """With peepholes, coupled gates or without a forget gate, as the layer is."""
    peepholes = layer.recurrent_peepholes

    def seen(b: Graph, gate: str, which: int, c: str) -> str:
        if peepholes is None:
            return gate
        return b.op("Add", gate, b.op("Mul", c, peepholes[which]))

    def step(b: Graph, states: list[str], inputs: list[str]) -> tuple[list[str], str]:
        h, c = (b.op("Mul", part, inputs[1]) for part in states)
        total = b.op("Add", inputs[0], b.linear(h, layer.recurrent_weight))
        i, *between, g_, o = b.split(total, len(layer.bias) // layer.hidden, layer.hidden)
        i = b.op("Sigmoid", seen(b, i, 0, c))
        kept = c
        if layer.forget_mode == "gate":
            kept = b.op("Mul", b.op("Sigmoid", seen(b, between[0], 1, c)), c)
        elif layer.forget_mode == "coupled":
            kept = b.op("Mul", b.op("Sub", 1.0, i), c)
        c = b.op("Add", kept, b.op("Mul", i, b.op("Tanh", g_)))
        o = b.op("Sigmoid", seen(b, o, -1, c))
        h = b.op("Mul", o, b.op("Tanh", c))
        return [b.op("Mul", part, inputs[1]) for part in (h, c)], h

    return g.scan(state, [g.linear(u, layer.input_weight, layer.bias), keep], step)


def minimal_layer(g: Graph, layer: Any, u: str, keep: str, state: list[str]) -> list[str]:
    """The gates of mingru and minlstm do not read the state."""
    gates = g.split(g.linear(u, layer.input_weight, layer.bias), layer.gates, layer.hidden)
    ratio = gates[0]  # the logarithm of write / keep, or of keep / write
    if layer.gates == 3:
        f, i = (g.op("Neg", g.op("Softplus", g.op("Neg", gate))) for gate in gates[:2])
        ratio = g.op("Sub", i, f)
    write, stay = g.op("Sigmoid", ratio), g.op("Sigmoid", g.op("Neg", ratio))

    def step(b: Graph, states: list[str], inputs: list[str]) -> tuple[list[str], str]:
        h = b.op("Add", b.op("Mul", inputs[0], states[0]), inputs[1])
        return [h], h

    return g.scan(state, [g.op("Mul", stay, keep), g.op("Mul", write, gates[-1])], step)


LAYERS = {"rnn": rnn_layer, "gru": gru_layer, "lstm": lstm_layer}
LAYERS |= {"mingru": minimal_layer, "minlstm": minimal_layer}


def recurrent(g: Graph, model: Any, tokens: str, state: list[str]) -> tuple[str, list[str]]:
    """Hidden vectors and states of a stack of recurrent layers."""
    is_start = g.op("Equal", tokens, model.start_id)
    keep = g.op("Unsqueeze", g.cast(g.op("Not", is_start), "FLOAT"), [-1])  # (B, T, 1)
    x, after, parts = embedded(g, model, tokens), list[str](), model.Layer.parts
    for place, layer in enumerate(model.layers):
        before = state[place * parts : (place + 1) * parts]
        if not isinstance(layer, model.Layer):
            x, new = output_attention(g, layer, x, is_start, before)
            after += new
            continue
        u = g.norm(x, layer.norm) if layer.has_block else x
        *new, h = LAYERS[model.name](g, layer, u, keep, before)
        x = block_output(g, layer, x, h) if layer.has_block else h
        after += new
    return x, after


def block_output(g: Graph, layer: Any, x: str, h: str) -> str:
    """What follows a recurrence in a residual block."""
    y = g.linear(h, layer.out_proj.weight)
    if layer.residual:
        y = g.op("Add", x, y)
    return feed_forward(g, layer, y)


def feed_forward(g: Graph, layer: Any, y: str) -> str:
    """y + W_2 gelu(W_1 LayerNorm(y) + c_1) + c_2."""
    up = g.gelu(g.linear(g.norm(y, layer.ffn_norm), layer.up.weight, layer.up.bias))
    return g.op("Add", y, g.linear(up, layer.down.weight, layer.down.bias))


def output_attention(
    g: Graph, layer: Any, x: str, is_start: str, state: list[str]
) -> tuple[str, list[str]]:
    """One head over the last outputs."""
    length = g.op("Slice", g.op("Shape", is_start), [1], [2])
    mask, marks = document_mask(g, state[1], is_start, length)
    outputs = g.op("Concat", state[0], x, axis=1)
    key, value = g.split(g.linear(outputs, layer.key_value.weight), 2, layer.hidden)
    query = g.linear(x, layer.query.weight)
    read = local_attention(g, query, key, value, layer.distance_bias, mask, length)
    kept = g.op("Mul", g.tail(outputs, length), g.op("Unsqueeze", marks, [-1]))
    return g.op("Add", x, read), [kept, marks]


# ------------------------------------------------------------------ attention and window


def attention(g: Graph, model: Any, tokens: str, state: list[str]) -> tuple[str, list[str]]:
    """The Transformer, all tokens at once."""
    length = g.op("Slice", g.op("Shape", tokens), [1], [2])
    is_start = g.op("Equal", tokens, model.start_id)
    mask, marks = document_mask(g, state[0], is_start, length)
    x, after = embedded(g, model, tokens), [marks]
    for place, layer in enumerate(model.layers):
        read = g.linear(g.norm(x, layer.norm), layer.query_key_value.weight)
        q, k, v = g.split(read, 3, model.inner)
        keys, values = (
            g.op("Concat", old, new, axis=1)
            for old, new in zip(state[1 + 2 * place : 3 + 2 * place], (k, v), strict=True)
        )
        y = local_attention(g, q, keys, values, layer.distance_bias, mask, length)
        x = feed_forward(g, layer, g.op("Add", x, g.linear(y, layer.out_proj.weight)))
        for part in (keys, values):
            mine = g.op("Unsqueeze", marks, [-1])
            after.append(g.op("Mul", g.tail(part, length), mine))
    return g.norm(x, model.norm), after


def window(g: Graph, model: Any, tokens: str, state: list[str]) -> tuple[str, list[str]]:
    """A hidden layer over the last N tokens; logits here where they are connected directly."""
    length = g.op("Slice", g.op("Shape", tokens), [1], [2])
    read = g.op("Concat", state[0], tokens, axis=1)
    begins = g.op("Unsqueeze", g.op("Range", 0, g.op("Squeeze", length), 1), [1])
    places = g.op("Add", begins, np.arange(model.context + 1))  # (T, N)
    windows = forgetting(g, g.op("Gather", read, places, axis=1), model.start_id)  # (B, T, N)
    x = g.op("Reshape", embedded(g, model, windows), [0, 0, -1])  # (B, T, N E)
    h = g.op("Tanh", g.linear(x, model.hidden.weight, model.hidden.bias))
    after = forgetting(g, g.tail(read, length), model.start_id)
    if model.direct is None:
        return predicted(g, model, h), [after]
    logits = g.linear(h, model.output.weight, model.output.bias)
    return g.op("Add", logits, g.linear(x, model.direct.weight)), [after]


def forgetting(g: Graph, tokens: str, start_id: int) -> str:
    """Start ids in place of every token before one."""
    starts = g.cast(g.op("Equal", tokens, start_id), "INT64")
    later = g.op("CumSum", starts, -1, reverse=1)  # here or later
    return g.op("Where", g.op("Greater", later, 0), start_id, tokens)


# ------------------------------------------------------------------ a whole model


def state_names(model: LanguageModel) -> list[str]:
    """A name for each tensor of the state."""
    model_: Any = model
    if model.name == "window":
        return ["context"]
    count = len(model.initial_state(1))
    if model.name == "attention":
        layers = range(1, len(model_.layers) + 1)
        return ["marks", *(f"{kind}_{n}" for n in layers for kind in ("keys", "values"))]
    attend = getattr(model_.settings, "attend", 0)
    kinds = ("hidden", "cell") if model.name == "lstm" else ("hidden",)
    layers = range(1, (count - 2 * bool(attend)) // len(kinds) + 1)
    return [f"{k}_{n}" for n in layers for k in kinds] + (["outputs", "marks"] if attend else [])


def onnx_model(model: LanguageModel, about: dict[str, str]) -> Any:
    """The whole graph with its weights; `about` goes into its properties."""
    from onnx import TensorProto, helper, numpy_helper

    g, names = Graph(), state_names(model)
    if model.name == "window":
        logits, after = window(g, model, "tokens", names)
    else:
        read = attention if model.name == "attention" else recurrent
        x, after = read(g, model, "tokens", names)
        logits = predicted(g, model, x)
    ends = ["logits", *(f"{name}_after" for name in names)]
    for end, value in zip(ends, [logits, *after], strict=True):
        g.nodes.append(helper.make_node("Identity", [value], [end]))
    declare = helper.make_tensor_value_info
    inputs = [declare("tokens", TensorProto.INT64, ["batch", "length"])]
    outputs = [declare("logits", TensorProto.FLOAT, ["batch", "length", model.vocabulary])]
    for name, part in zip(names, model.initial_state(1), strict=True):
        kind = TensorProto.FLOAT if part.is_floating_point() else TensorProto.INT64
        shape = ["batch", *part.shape[1:]]
        inputs.append(declare(name, kind, shape))
        outputs.append(declare(f"{name}_after", kind, shape))
    weights = [numpy_helper.from_array(array, name) for name, array in g.constants.items()]
    graph = helper.make_graph(g.nodes, model.name, inputs, outputs, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(proto, about)
    return proto
