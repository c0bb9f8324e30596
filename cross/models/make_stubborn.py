#!/usr/bin/env python3
"""The stubborn model: one operator that runs for as long as it is asked to, and that nothing ends but the process.

Its one input `boxes` (INT64 [1]) is how many boxes, none of which touches another, it compares pair by pair
(NonMaxSuppression); its output `kept` says how many. 1,000 are done at once, a million take minutes. ONNX Runtime looks
at its wish to end between two operators, so not in here.
"""

import argparse
import pathlib

from onnx import TensorProto, checker, helper, numpy_helper
import numpy as np


def to_onnx():
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "last": np.array([1]),
        "places": np.array([0, 1]),
        "front": np.array([0]),
        "most": np.array([2**31 - 1]),
        "overlap": np.array([0.5], dtype=np.float32),
        "half": np.float32(0.5),
    }
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Squeeze", ["boxes"], ["count"]),
            node("Range", ["zero", "count", "one"], ["numbers"]),
            node("Cast", ["numbers"], ["low"], to=TensorProto.FLOAT),
            node("Add", ["low", "half"], ["high"]),
            node("Unsqueeze", ["low", "last"], ["low_column"]),
            node("Unsqueeze", ["high", "last"], ["high_column"]),
            node("Concat", ["low_column", "low_column", "high_column", "high_column"], ["corners"], axis=1),
            node("Unsqueeze", ["corners", "front"], ["all_boxes"]),
            node("Unsqueeze", ["low", "places"], ["scores"]),
            node("NonMaxSuppression", ["all_boxes", "scores", "most", "overlap"], ["selected"]),
            node("Shape", ["selected"], ["shape"], start=0, end=1),
            node("Identity", ["shape"], ["kept"]),
        ],
        "stubborn",
        [helper.make_tensor_value_info("boxes", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, [1])],
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
    parser.add_argument("out", type=pathlib.Path, help="file to write, such as models/stubborn/1/model.onnx")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_onnx())


if __name__ == "__main__":
    main()
