#!/usr/bin/env python3
"""Small models that take and give every datatype and shape, for tests of the Open Inference Protocol.

    every-datatype  gives back each of its inputs: `bool` is answered by `bool-out`, and so on; of any two dimensions
    shapes          a scalar doubled, an empty row, a row of any length with its length
    texts           texts given back, and two rows of them put together
    switch/N        adds N to its input: a model with versions that can be told apart
    nan             divides by its input, so that a zero gives NaN
    divide          divides whole numbers: the least of them by -1 is a signal that kills ONNX Runtime on x86-64
    absent          a graph whose operator does not exist: never loads
"""

import argparse
import pathlib

from onnx import TensorProto, checker, helper, numpy_helper
import numpy as np

DATATYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}


def model(name, nodes, inputs, outputs, constants=(), is_checked=True):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    # As train_digits.py: what ONNX Runtime 1.17 knows well.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="aethir-edge"
    )
    if is_checked:
        checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def every_datatype():
    nodes = [helper.make_node("Identity", [name], [f"{name}-out"]) for name in DATATYPES]
    inputs = [value(name, kind, ["rows", "columns"]) for name, kind in DATATYPES.items()]
    outputs = [value(f"{name}-out", kind, ["rows", "columns"]) for name, kind in DATATYPES.items()]
    return model("every-datatype", nodes, inputs, outputs)


def shapes():
    nodes = [
        helper.make_node("Add", ["scalar", "scalar"], ["doubled"]),
        helper.make_node("Identity", ["row"], ["row-out"]),
        helper.make_node("Size", ["row"], ["length"]),
        helper.make_node("Concat", ["row", "row"], ["twice"], axis=0),
    ]
    inputs = [value("scalar", TensorProto.INT64, []), value("row", TensorProto.FLOAT, ["length"])]
    outputs = [
        value("doubled", TensorProto.INT64, []),
        value("row-out", TensorProto.FLOAT, ["length"]),
        value("length", TensorProto.INT64, []),
        value("twice", TensorProto.FLOAT, ["twice-as-long"]),
    ]
    return model("shapes", nodes, inputs, outputs)


def texts():
    nodes = [
        helper.make_node("Identity", ["first"], ["same"]),
        helper.make_node("Concat", ["first", "second"], ["both"], axis=0),
    ]
    inputs = [value("first", TensorProto.STRING, ["n"]), value("second", TensorProto.STRING, ["m"])]
    outputs = [value("same", TensorProto.STRING, ["n"]), value("both", TensorProto.STRING, ["n-and-m"])]
    return model("texts", nodes, inputs, outputs)


def switch(version):
    return model(
        "switch",
        [helper.make_node("Add", ["x", "version"], ["y"])],
        [value("x", TensorProto.INT64, ["n"])],
        [value("y", TensorProto.INT64, ["n"])],
        [numpy_helper.from_array(np.array([version], dtype=np.int64), "version")],
    )


def nan():
    return model(
        "nan",
        [helper.make_node("Div", ["x", "x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
    )


def divide():
    return model(
        "divide",
        [helper.make_node("Div", ["x", "y"], ["z"])],
        [value("x", TensorProto.INT64, ["n"]), value("y", TensorProto.INT64, ["n"])],
        [value("z", TensorProto.INT64, ["n"])],
    )


def absent():
    return model(
        "absent",
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        is_checked=False,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--out", type=pathlib.Path, default=here / "test-models", help="default: cross/models/test-models")
    out = parser.parse_args().out
    models = {
        "every-datatype/1": every_datatype(),
        "shapes/1": shapes(),
        "texts/1": texts(),
        "switch/1": switch(1),
        "switch/2": switch(2),
        "nan/1": nan(),
        "divide/1": divide(),
        "absent/1": absent(),
    }
    for name, graph in models.items():
        file = out / name / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(graph)


if __name__ == "__main__":
    main()
