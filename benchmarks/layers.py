"""Every stateful layer beside `nn.GRU` of the same sizes: training, a step on the device, weights.

Alone: `python -m benchmarks.layers`
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import interleaved, table
from edgernn.nets.attention import Attention
from edgernn.nets.convolution import CausalConv, TcnBlock
from edgernn.nets.gates import FastGrnnLayer, MinGruLayer
from edgernn.nets.layers import GruLayer, LstmLayer, RnnLayer, Stateful
from edgernn.nets.windows import BackwardWindow
from edgernn_device.engine import _open
from edgernn_export.graph import build_layer_graph
from edgernn_export.quantize import quantize

T, N, WIDTH = 1024, 32, 32
"""Samples, streams, inputs and features: 32 is the default of `[network] hidden`."""
ROUNDS = 7
LAYERS: dict[str, Callable[[], Stateful]] = {
    "GruLayer": lambda: GruLayer(WIDTH, WIDTH),
    "LstmLayer": lambda: LstmLayer(WIDTH, WIDTH),
    "RnnLayer": lambda: RnnLayer(WIDTH, WIDTH),
    "FastGrnnLayer": lambda: FastGrnnLayer(WIDTH, WIDTH),
    "FastGrnnLayer, rank 8": lambda: FastGrnnLayer(WIDTH, WIDTH, rank=8),
    "MinGruLayer": lambda: MinGruLayer(WIDTH, WIDTH),
    "CausalConv, kernel 3": lambda: CausalConv(WIDTH, WIDTH, kernel=3),
    "TcnBlock, kernel 3": lambda: TcnBlock(WIDTH, WIDTH, kernel=3),
    "Attention, length 32": lambda: Attention(WIDTH, length=32),
    "BackwardWindow of a GRU, 8 samples": lambda: BackwardWindow(
        WIDTH, GruLayer(WIDTH, WIDTH), length=8
    ),
}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(T, N, WIDTH)
    layers = {name: make() for name, make in LAYERS.items()}
    training: dict[str, Callable[[], object]] = {"nn.GRU": _bare_gru(x)}
    training |= {name: _training(layer, x) for name, layer in layers.items()}
    steps = {name: _step(layer) for name, layer in layers.items()}
    train_s = interleaved(training, rounds=ROUNDS)
    step_s = interleaved(steps, rounds=ROUNDS)
    bare_s = train_s["nn.GRU"]
    rows = [["`nn.GRU`", f"{1e3 * bare_s:,.1f}", "1.0", "", _weights(nn.GRU(WIDTH, WIDTH))]]
    for name, layer in layers.items():
        figures = [f"{1e3 * train_s[name]:,.1f}", f"{bare_s / train_s[name]:.1f}"]
        rows.append([name, *figures, f"{1e6 * step_s[name]:,.1f}", _weights(layer)])
    print("## Layers: training, and a step on the device\n")
    print(
        f"{WIDTH} inputs to {WIDTH} features. Training: forward and backward over {T} samples of "
        f"{N} streams in torch. Step: one sample of one stream in ONNX Runtime, int8, the layer "
        f"alone. One thread each. Median of {ROUNDS} interleaved rounds.\n"
    )
    print(table(["layer", "training, ms", "`nn.GRU` / layer", "step, µs", "weights"], rows))


def _bare_gru(x: Tensor) -> Callable[[], object]:
    gru = nn.GRU(WIDTH, WIDTH)
    return lambda: gru(x)[0].sum().backward()


def _training(layer: Stateful, x: Tensor) -> Callable[[], object]:
    fresh = [torch.zeros(N, *row) for row in layer.state_shapes.values()]
    return lambda: layer(x, *fresh)[0].sum().backward()


def _step(layer: Stateful) -> Callable[[], object]:
    """With the engine's own session options."""
    model = quantize(build_layer_graph(layer, WIDTH), "int8")
    session = _open(model.SerializeToString(), "layer")
    feeds = {"x": np.zeros((1, 1, WIDTH), np.float32)} | {
        f"state.{name}": np.zeros((1, *row), np.float32) for name, row in layer.state_shapes.items()
    }
    return lambda: session.run(None, feeds)


def _weights(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


if __name__ == "__main__":
    main()
