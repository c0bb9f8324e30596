#!/usr/bin/env python3
"""Makes self-test.onnx, the graph with which `edge-agent doctor` tries an execution provider, and prints the outputs
that it must give. Run with the Python of `cargo xtask setup` (cross/models/requirements.txt):

    python make_self_test.py self-test.onnx

softmax(relu(x W + b) V), x of 1x8, W of 8x16, V of 16x4, all FP32. Weights and inputs are small multiples of 1/16, so
that every type and every machine holds them exactly. The outputs are computed here in double precision without ONNX
Runtime; doctor's own tests compute them a third time.
"""

import math
import sys

import onnx
from onnx import TensorProto, helper

INPUTS, HIDDEN, OUTPUTS = 8, 16, 4

x = [(i * 5 % 11 - 5) / 16 for i in range(INPUTS)]
w = [[((i * 7 + j * 13) % 17 - 8) / 16 for j in range(HIDDEN)] for i in range(INPUTS)]
b = [(j * 3 % 7 - 3) / 16 for j in range(HIDDEN)]
v = [[((j * 11 + k * 5) % 19 - 9) / 4 for k in range(OUTPUTS)] for j in range(HIDDEN)]


def outputs():
    hidden = [max(0.0, b[j] + sum(x[i] * w[i][j] for i in range(INPUTS))) for j in range(HIDDEN)]
    logits = [sum(hidden[j] * v[j][k] for j in range(HIDDEN)) for k in range(OUTPUTS)]
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def constant(name, rows):
    flat = [value for row in rows for value in row] if isinstance(rows[0], list) else rows
    shape = [len(rows), len(rows[0])] if isinstance(rows[0], list) else [len(rows)]
    return helper.make_tensor(name, TensorProto.FLOAT, shape, flat)


graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "v"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ],
    "self-test",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, OUTPUTS])],
    [constant("w", w), constant("b", b), constant("v", v)],
)
# ONNX Runtime 1.17 and newer know this operator set and this version of the format.
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1])
print("inputs ", x)
print("outputs", outputs())
