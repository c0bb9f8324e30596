"""NVIDIA's own client against a box: everything that it can ask of the models in test-models.

Usage: triton.py HOST:PORT. Ends with 0 when all is as it should be.
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

NUMBERS = {
    "uint8": [0, 255],
    "uint16": [0, 2**16 - 1],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "int8": [-128, 127],
    "int16": [-(2**15), 2**15 - 1],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "fp16": [0.1, -65504],
    "bf16": [1.5, -3.0e38],
    "fp32": [0.1, 3.4e38],
    "fp64": [0.1, -1.7e308],
    "bool": [False, True],
    "bytes": ["", "größer ≥ 0 😀"],
}


def tensor(name, values, datatype=None, binary=True):
    datatype = datatype or name.upper()
    if datatype == "BYTES":
        values = np.array([str(v).encode() for v in np.ravel(values)], dtype=object).reshape(np.shape(values))
    else:
        values = np.array(values, dtype=triton_to_np_dtype(datatype))
    tensor = triton.InferInput(name, values.shape, datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor, values


def same(got, sent, name):
    if name == "bytes":
        got = np.array([v if isinstance(v, bytes) else v.encode() for v in got.ravel()], dtype=object)
        sent = sent.ravel()
    assert np.array_equal(got, sent), f"{name}: sent {sent!r}, got {got!r}"


def refused(wanted, ask):
    """`ask` must fail with the status and the words wanted."""
    status, words = wanted
    try:
        ask()
    except InferenceServerException as error:
        assert error.status() == status and words in error.message(), f"wanted {wanted}, got {error}"
    else:
        raise AssertionError(f"not refused: {wanted}")


def server(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "aethir-edge", metadata
    assert {"binary_tensor_data", "classification", "model_repository"} <= set(metadata["extensions"])


def every_datatype(client):
    metadata = client.get_model_metadata("every-datatype")
    assert metadata["versions"] == ["1"] and metadata["platform"] == "onnxruntime_onnx", metadata
    assert {i["name"]: i["datatype"] for i in metadata["inputs"]} == {n: n.upper() for n in NUMBERS}
    assert all(i["shape"] == [-1, -1] for i in metadata["inputs"] + metadata["outputs"])
    for shape in [(1, 2), (2, 1), (0, 3)]:
        for is_binary in [True, False]:
            # This client writes no FP16 and BF16 in JSON.
            in_json = lambda name: not is_binary and name not in ["fp16", "bf16"]
            value = lambda values: np.reshape(np.array(values, dtype=object), shape) if 0 not in shape else np.zeros(shape)
            sent = {n: tensor(n, value(v), binary=not in_json(n)) for n, v in NUMBERS.items()}
            outputs = [triton.InferRequestedOutput(f"{n}-out", binary_data=not in_json(n)) for n in NUMBERS]
            result = client.infer("every-datatype", [t for t, _ in sent.values()], outputs=outputs, request_id="7")
            response = result.get_response()
            assert response["id"] == "7" and response["model_version"] == "1", response
            for name, (_, values) in sent.items():
                output = result.get_output(f"{name}-out")
                assert output["datatype"] == name.upper() and output["shape"] == list(shape), output
                if 0 not in shape:
                    same(result.as_numpy(f"{name}-out").reshape(shape), values, name)


def shapes(client):
    scalar = triton.InferInput("scalar", [], "INT64")
    scalar.set_data_from_numpy(np.array(21, dtype=np.int64))
    for length in [0, 1, 5]:
        row, values = tensor("row", np.arange(length), "FP32")
        # No outputs named: all of them, as binary tensors.
        result = client.infer("shapes", [scalar, row])
        assert result.get_output("doubled")["shape"] == [] and result.as_numpy("doubled") == 42
        assert result.as_numpy("length") == length
        assert np.array_equal(result.as_numpy("twice"), np.concatenate([values, values]))
        # One output alone.
        only = client.infer("shapes", [scalar, row], outputs=[triton.InferRequestedOutput("length")])
        assert [o["name"] for o in only.get_response()["outputs"]] == ["length"]


def texts(client):
    first, _ = tensor("first", ["a", "ß"], "BYTES")
    second, _ = tensor("second", ["c"], "BYTES", binary=False)
    result = client.infer("texts", [first, second])
    assert [v.decode() for v in result.as_numpy("both")] == ["a", "ß", "c"]
    for bad, words in [(b"\xff", "utf-8"), (b"a\0b", "zero byte")]:
        first.set_data_from_numpy(np.array([bad, b""], dtype=object))
        refused(("400", words), lambda: client.infer("texts", [first, second]))


def parameters(client):
    pixels, _ = tensor("pixels", np.zeros((2, 64)), "FP32")
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    result = client.infer("digits", [pixels], outputs=wanted, priority=1, timeout=10_000_000)
    classes = result.as_numpy("probabilities")
    assert classes.shape == (2, 3), classes
    value, index, label = classes[0][0].decode().split(":")
    assert index == label and 0 < float(value) <= 1, classes
    values = [float(c.decode().split(":")[0]) for c in classes[0]]
    assert values == sorted(values, reverse=True), values
    refused(("408", "deadline"), lambda: client.infer("digits", [pixels], timeout=1))
    custom = client.infer("digits", [pixels], parameters={"camera": "door"})
    assert custom.as_numpy("label").shape == (2,)


def versions(client):
    x, _ = tensor("x", [40], "INT64")
    answer = lambda version: client.infer("switch", [x], model_version=version)
    assert answer("").as_numpy("y")[0] == 42 and answer("").get_response()["model_version"] == "2"
    assert answer("1").as_numpy("y")[0] == 41 and answer("2").as_numpy("y")[0] == 42
    assert client.is_model_ready("switch") and client.is_model_ready("switch", "1")
    assert not client.is_model_ready("switch", "9") and not client.is_model_ready("dog")
    assert client.get_model_metadata("switch", "1")["versions"] == ["1", "2"]
    refused(("404", "no version 9"), lambda: answer("9"))
    refused(("400", "whole numbers"), lambda: answer("newest"))


def errors(client):
    pixels, _ = tensor("pixels", np.zeros((1, 63)), "FP32")
    refused(("400", "takes [-1, 64]"), lambda: client.infer("digits", [pixels]))
    wrong, _ = tensor("pixels", np.zeros((1, 64)), "FP64")
    refused(("400", "the model takes FP32"), lambda: client.infer("digits", [wrong]))
    other, _ = tensor("image", np.zeros((1, 64)), "FP32")
    refused(("400", 'no input "image"'), lambda: client.infer("digits", [other]))
    refused(("404", "there is no model dog"), lambda: client.infer("dog", [pixels]))
    refused(("404", "there is no model dog"), lambda: client.get_model_metadata("dog"))
    fine, _ = tensor("pixels", np.zeros((1, 64)), "FP32")
    output = [triton.InferRequestedOutput("colour")]
    refused(("400", 'no output "colour"'), lambda: client.infer("digits", [fine], outputs=output))


def repository(client):
    index = {(e["name"], e["version"]): e for e in client.get_model_repository_index()}
    assert index["switch", "1"]["state"] == "READY", index
    assert index["absent", "1"]["state"] == "UNAVAILABLE" and "NoSuchOperator" in index["absent", "1"]["reason"], index
    assert "NaN" in index["nan", "1"]["reason"], "its self-test fails"
    refused(("500", "NoSuchOperator"), lambda: client.load_model("absent"))
    refused(("404", "no model dog"), lambda: client.load_model("dog"))
    refused(("400", "not served"), lambda: client.load_model("digits", config="{}"))
    x, _ = tensor("x", [40], "INT64")
    client.unload_model("switch")
    assert not client.is_model_ready("switch")
    refused(("503", "was unloaded"), lambda: client.infer("switch", [x]))
    client.load_model("switch")
    assert client.is_model_ready("switch") and client.infer("switch", [x]).as_numpy("y")[0] == 42
    refused(("404", "no model dog"), lambda: client.unload_model("dog"))


def main():
    client = triton.InferenceServerClient(sys.argv[1])
    for check in [server, every_datatype, shapes, texts, parameters, versions, errors, repository]:
        check(client)
        print(f"{check.__name__}: as it should be")


if __name__ == "__main__":
    main()
