#!/usr/bin/env python3
"""The wide model: 48 MiB of weights and little work, for tests of what copies of a model cost in memory.

Its one input `x` (FP32 [1, 1024]) goes through twelve square layers; its output is `y`.
"""

import argparse
import pathlib

from onnx import TensorProto, checker, helper, numpy_helper
import numpy as np

WIDTH, LAYERS = 1024, 12


def to_onnx():
    random = np.random.default_rng(1)
    nodes, weights, last = [], [], "x"
    for layer in range(LAYERS):
        weight = random.uniform(-0.05, 0.05, (WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight-{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"weight-{layer}"], [f"sum-{layer}"]))
        last = f"y-{layer}" if layer < LAYERS - 1 else "y"
        nodes.append(helper.make_node("Relu", [f"sum-{layer}"], [last]))
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH])
    graph = helper.make_graph(nodes, "wide", [port("x")], [port("y")], weights)
    # As train_digits.py: what ONNX Runtime 1.17 knows well.
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="aethir-edge",
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="file to write, such as models/wide/1/model.onnx")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_onnx())


if __name__ == "__main__":
    main()
