"""KServe's own client against a box.

Usage: kserve_rest.py HOST:PORT. Ends with 0 when all is as it should be.
"""

import asyncio
import importlib.abc
import importlib.machinery
import sys
import types

import httpx
import numpy as np


class Absent(types.ModuleType):
    """Stands for a package that kserve's server needs and its client only imports: any name in it is an empty class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class FindAbsent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `kubernetes` and `pandas`, of which set-up spares us 205 MB."""

    def find_spec(self, name, _path, _target=None):
        if name.split(".")[0] in ("kubernetes", "pandas"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(FindAbsent())

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request(model, is_binary, **inputs):
    tensors = []
    for name, (datatype, values) in inputs.items():
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=is_binary)
        tensors.append(tensor)
    parameters = {"binary_data_output": True} if is_binary else None
    return InferRequest(model, tensors, request_id="7", parameters=parameters)


async def refused(wanted, ask):
    status, words = wanted
    try:
        await ask
    except httpx.HTTPStatusError as error:
        is_so = error.response.status_code == status and words in str(error)
        assert is_so, f"wanted {wanted}, got {error}"
    else:
        raise AssertionError(f"not refused: {wanted}")


async def main():
    url = f"http://{sys.argv[1]}"
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "digits") is True
    assert await client.is_model_ready(url, "dog") is False

    pixels = np.zeros((1, 64), dtype=np.float32)
    for is_binary in [False, True]:
        answer = await client.infer(url, request("digits", is_binary, pixels=("FP32", pixels)), model_name="digits")
        assert answer.model_name == "digits" and answer.id == "7", answer
        outputs = {output.name: output.as_numpy() for output in answer.outputs}
        assert outputs["label"].shape == (1,) and outputs["probabilities"].shape == (1, 10), outputs
        assert abs(outputs["probabilities"].sum() - 1) < 1e-5

        row, scalar = np.arange(3, dtype=np.float32), np.array(2**62, dtype=np.int64)
        both = {"row": ("FP32", row), "scalar": ("INT64", scalar)}
        answer = await client.infer(url, request("shapes", is_binary, **both), model_name="shapes")
        outputs = {output.name: output for output in answer.outputs}
        assert int(outputs["length"].as_numpy()) == 3
        assert np.array_equal(outputs["twice"].as_numpy(), np.concatenate([row, row]))

        texts = {n: ("BYTES", np.array(["ß", n], dtype=object)) for n in ["first", "second"]}
        answer = await client.infer(url, request("texts", is_binary, **texts), model_name="texts")
        both = next(output for output in answer.outputs if output.name == "both").as_numpy()
        assert [v.decode() if isinstance(v, bytes) else v for v in both] == ["ß", "first", "ß", "second"], both

    one = request("digits", False, pixels=("FP32", pixels))
    one.request_outputs = [RequestedOutput("label")]
    answer = await client.infer(url, one, model_name="digits")
    assert [output.name for output in answer.outputs] == ["label"], answer

    short = request("digits", False, pixels=("FP32", pixels[:, :9]))
    await refused((400, "takes [-1, 64]"), client.infer(url, short, model_name="digits"))
    await refused((404, "there is no model dog"), client.infer(url, short, model_name="dog"))
    await client.close()
    print("kserve: as it should be")


if __name__ == "__main__":
    asyncio.run(main())
