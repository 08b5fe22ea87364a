"""FastGrnnLayer → one ONNX Scan node: ONNX has no node of its own for it.

Only h goes through the steps: W x of all samples is one product before them. The recurrent matrices
stay outside the Scan's body, which takes them from the graph around it, so that they become
integers like any other weight and are turned into float32 once.
"""

from typing import Any, cast

import torch
from onnxscript import evaluator, ir
from torch import Tensor, nn

from edgernn.nets.gates import FastGrnnLayer


@torch.library.custom_op("edgernn::fastgrnn", mutates_args=())
def fastgrnn(
    p: Tensor, h: Tensor, u: list[Tensor], delta: Tensor, zeta: Tensor, rest: Tensor
) -> tuple[Tensor, Tensor]:
    """p = W x + b_z (T, N, H), h (N, H), factors whose product is Uᵀ, delta = b_h − b_z (H,),
    ζ and ζ + ν (1,) → y (T, N, H), h."""
    y = torch.empty_like(p)
    for t in range(len(p)):
        gate = h
        for factor in u:
            gate = gate @ factor
        gate = gate + p[t]
        z, c = torch.sigmoid(gate), torch.tanh(gate + delta)
        h = (rest - zeta * z) * c + z * h
        y[t] = h
    return y, h.clone()


@fastgrnn.register_fake
def _(
    p: Tensor, h: Tensor, u: list[Tensor], delta: Tensor, zeta: Tensor, rest: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(p), torch.empty_like(h)


def _onnx_fastgrnn(p, h, u, delta, zeta, rest):  # type: ignore[no-untyped-def]  # traced
    # Not by op.Scan: onnxscript cannot know how many outputs a variadic node has.
    body = ir.AttrGraph("body", _step(u, delta, zeta, rest, h.shape[1]))
    scan = ir.Node("", "Scan", [h, p], [body, ir.AttrInt64("num_scan_inputs", 1)], num_outputs=2)
    cast("Any", evaluator.default()).nodes.append(scan)
    last, y = scan.outputs
    return y, last


def _step(
    u: list[ir.Value], delta: ir.Value, zeta: ir.Value, rest: ir.Value, hidden: int
) -> ir.Graph:
    """h, p of one sample → next h, twice: as the state and as the output."""
    nodes: list[ir.Node] = []

    def add(kind: str, *inputs: ir.Value) -> ir.Value:
        node = ir.Node("", kind, inputs, name=f"step.{len(nodes)}")
        node.outputs[0].name = f"step.{len(nodes)}.out"
        nodes.append(node)
        return node.outputs[0]

    shape = ir.Shape(["N", hidden])
    h, p = (
        ir.Value(name=f"step.{name}", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        for name in "hp"
    )
    gate = h
    for factor in u:
        gate = add("MatMul", gate, factor)
    gate = add("Add", gate, p)
    z, c = add("Sigmoid", gate), add("Tanh", add("Add", gate, delta))
    weight = add("Sub", rest, add("Mul", zeta, z))
    following = add("Add", add("Mul", weight, c), add("Mul", z, h))
    outputs = (following, add("Identity", following))
    for value in outputs:
        value.type, value.shape = h.type, shape
    return ir.Graph([h, p], outputs, nodes=nodes, opset_imports={"": 21}, name="step")


class ExportedFastGrnn(nn.Module):
    """A FastGrnnLayer whose biases and numbers are worked out, its matrices turned for MatMul."""

    w: nn.ParameterList
    u: nn.ParameterList
    bias_z: Tensor
    delta: Tensor
    zeta: Tensor
    rest: Tensor

    def __init__(self, layer: FastGrnnLayer) -> None:
        super().__init__()
        for name, factors in (("w", layer.w), ("u", layer.u)):
            turned = [factor.detach().T.contiguous() for factor in reversed(factors)]
            self.add_module(name, nn.ParameterList([nn.Parameter(t, False) for t in turned]))
        zeta, nu = torch.sigmoid(layer.zeta.detach()), torch.sigmoid(layer.nu.detach())
        self.register_buffer("bias_z", layer.bias_z.detach())
        self.register_buffer("delta", (layer.bias_h - layer.bias_z).detach())
        self.register_buffer("zeta", zeta.reshape(1))
        self.register_buffer("rest", (zeta + nu).reshape(1))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        for factor in self.w:
            x = x @ factor
        y, last = fastgrnn(x + self.bias_z, h, list(self.u), self.delta, self.zeta, self.rest)
        return y, (last,)


TRANSLATION: dict[Any, Any] = {torch.ops.edgernn.fastgrnn.default: _onnx_fastgrnn}
