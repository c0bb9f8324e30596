#!/usr/bin/env python3
"""The endless model: runs as long as it is asked to, for tests of what the box does about it.

Its one input `rounds` (INT64 [1]) is how often its loop turns; its output `turned` says so. A million rounds take about
a second, and 2**62 never end. ONNX Runtime can end the loop between two rounds.
"""

import argparse
import pathlib

from onnx import TensorProto, checker, helper, numpy_helper
import numpy as np


def to_onnx():
    scalar = lambda name, kind: helper.make_tensor_value_info(name, kind, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Add", ["count", "one"], ["count_out"]),
        ],
        "round",
        [
            scalar("round", TensorProto.INT64),
            scalar("go_on", TensorProto.BOOL),
            scalar("count", TensorProto.INT64),
        ],
        [scalar("go_on_out", TensorProto.BOOL), scalar("count_out", TensorProto.INT64)],
    )
    constants = {"one": np.int64(1), "zero": np.int64(0), "true": np.bool_(True), "row": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "true", "zero"], ["total"], body=body),
            helper.make_node("Reshape", ["total", "row"], ["turned"]),
        ],
        "endless",
        [helper.make_tensor_value_info("rounds", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("turned", TensorProto.INT64, [1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
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
    parser.add_argument("out", type=pathlib.Path, help="file to write, such as models/endless/1/model.onnx")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_onnx())


if __name__ == "__main__":
    main()
