"""Recurrent ONNX files as other tools write them: PyTorch's two exporters, tf2onnx, layout 1."""

import io
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

Floats = NDArray[np.float32]

CHANNELS, HIDDEN = 3, 4
LENGTH, STREAMS = 5, 2
"""Of the example that a file is exported with."""
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Net(nn.Module):
    """A batch-first recurrent network and a linear layer, of all samples or of the last one."""

    def __init__(self, kind: str, layers: int = 1, reads: str = "all", *, given: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = getattr(nn, kind)(CHANNELS, HIDDEN, layers, batch_first=True)
        self.linear = nn.Linear(HIDDEN, CHANNELS)
        self.reads = reads
        self.given = given

    def forward(self, x: Tensor, *state: Tensor) -> Any:
        start = () if not self.given else (state if len(state) > 1 else state[0],)
        y, last = self.layers(x, *start)
        h = last[0] if isinstance(last, tuple) else last
        y = {"all": y, "last": y[:, -1], "state": h[-1]}[self.reads]
        if self.given:
            return self.linear(y), *(last if isinstance(last, tuple) else (last,))
        return self.linear(y)

    def said(self, x: Floats) -> Floats:
        """x (T, N, C) → (T, N, C) of every sample, as if it were the last."""
        reads, self.reads = self.reads, "all"
        state = torch.zeros(self.layers.num_layers, x.shape[1], HIDDEN)
        count = 2 if isinstance(self.layers, nn.LSTM) else 1
        with torch.no_grad():
            result = self(torch.from_numpy(x).transpose(0, 1), *[state] * count * self.given)
        self.reads = reads
        said: Floats = (result[0] if self.given else result).transpose(0, 1).numpy()
        return said


def exported(
    net: nn.Module,
    *,
    dynamo: bool,
    states: int = 0,
    layers: int = 1,
    free: Any = None,
    opset: int | None = None,
) -> onnx.ModelProto:
    """What torch writes of a batch-first network; `free`: its dynamic axes."""
    state = torch.zeros(layers, STREAMS, HIDDEN)
    example = (torch.zeros(STREAMS, LENGTH, CHANNELS), *[state] * states)
    file = io.BytesIO()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if dynamo:
                program = torch.onnx.export(net.eval(), example, dynamo=True, verbose=False)
                assert program is not None
                return program.model_proto
            torch.onnx.export(
                net.eval(),
                example,
                file,  # type: ignore[arg-type]  # it takes a file as well as a name
                dynamo=False,
                input_names=["x"],
                dynamic_axes=free,
                opset_version=opset,
            )
    finally:
        logger.setLevel(level)
    return onnx.load_model_from_string(file.getvalue())


class Graph:
    """A graph by hand, node by node."""

    def __init__(self, *, opset: int = 15) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.opset = opset
        self.random = np.random.default_rng(0)

    def add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        outputs = output.split()
        name = f"the_{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def store(self, array: Any, name: str) -> str:
        self.arrays.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, kind: str, inputs: int, name: str) -> list[str]:
        rows = GATES[kind] * HIDDEN
        shapes = {"W": (1, rows, inputs), "R": (1, rows, HIDDEN), "B": (1, 2 * rows)}
        return [
            self.store(
                self.random.normal(size=shape, scale=0.5).astype(np.float32), f"{name}.{letter}"
            )
            for letter, shape in shapes.items()
        ]

    def model(self, sizes: list[Any], output: str, rank: int = 3) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*sizes, CHANNELS])
        y = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "main", [x], [y], self.arrays)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def keras_like(kind: str, layers: int) -> onnx.ModelProto:
    """As tf2onnx writes stacked Keras layers: time to the front, zeros expanded to the batch, a
    dense layer over rows."""
    g = Graph()
    for name, numbers in (("i1", 1), ("zero", 0)):
        g.store(np.array([numbers], np.int64), name)
    g.store(np.array([HIDDEN], np.int64), "units")
    g.store(np.float32(0), "nothing")
    g.add("Shape", ["x"], "shape")
    g.add("Slice", ["shape", "zero", "i1"], "batch")
    g.add("Concat", ["batch", "units"], "rows", axis=0)
    g.add("Expand", ["nothing", "rows"], "zeros")
    g.add("Unsqueeze", ["zeros", "zero"], "initial")
    value = "x"
    for i in range(layers):
        g.add("Transpose", [value], f"t{i}", perm=[1, 0, 2])
        initial = ["initial"] * (2 if kind == "LSTM" else 1)
        weights = g.weights(kind, CHANNELS if i == 0 else HIDDEN, f"l{i}")
        more = {"linear_before_reset": 1} if kind == "GRU" else {}
        g.add(kind, [f"t{i}", *weights, "", *initial], f"y{i}", hidden_size=HIDDEN, **more)
        g.add("Squeeze", [f"y{i}", "i1"], f"s{i}")
        value = g.add("Transpose", [f"s{i}"], f"b{i}", perm=[1, 0, 2])
    g.store(g.random.normal(size=(HIDDEN, CHANNELS)).astype(np.float32), "kernel")
    g.store(np.array([-1, HIDDEN], np.int64), "flat")
    g.add("Reshape", [value, "flat"], "flattened")
    g.add("MatMul", ["flattened", "kernel"], "dense")
    g.add("Slice", ["shape", "i1", g.store(np.array([2], np.int64), "i2")], "time")
    g.add("Concat", ["batch", "time", g.store(np.array([CHANNELS], np.int64), "c")], "out", axis=0)
    g.add("Reshape", ["dense", "out"], "output")
    return g.model(["batch", "time"], "output")


def batchwise(kind: str, layers: int) -> onnx.ModelProto:
    """Layout 1, which ONNX Runtime does not run at all; lengths of whole sequences beside it."""
    g = Graph(opset=20)
    lengths = g.store(np.full(STREAMS, LENGTH, np.int32), "lengths")
    value = "x"
    for i in range(layers):
        weights = g.weights(kind, CHANNELS if i == 0 else HIDDEN, f"l{i}")
        g.add(kind, [value, *weights, lengths], f"y{i}", hidden_size=HIDDEN, layout=1)
        value = g.add("Squeeze", [f"y{i}", g.store(np.array([2]), f"a{i}")], f"s{i}")
    g.add("Tanh", [value], "output")
    return g.model([STREAMS, LENGTH], "output")


def streamed(model: onnx.ModelProto, x: Floats, chunks: list[int]) -> Floats:
    """The loop of docs/adopt.md: x (T, N, C) through a stateful file → its first output."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    states = {
        i.name: np.zeros((x.shape[1], *i.shape[1:]), np.float32)
        for i in session.get_inputs()
        if i.name.startswith("state.")
    }
    first = session.get_outputs()[0].name
    names = [first, *(f"{name}.next" for name in states)]
    parts, start = [], 0
    for length in chunks:
        said, *following = session.run(names, {"x": x[start : start + length], **states})
        states = dict(zip(states, following, strict=True))
        parts.append(said)
        start += length
    return np.concatenate(parts)
