#!/usr/bin/env python3
"""The digits model: trains it, writes it as ONNX, and judges it on images it never saw.

The data are scikit-learn's 1,797 scans of handwritten digits (8x8 pixels, values 0 to 16). A fixed
80 % trains the model; the other 360 are digits-heldout.csv, which the sensor of the demo sends.

    train     train anew and write model, description and held-out images below --out
    evaluate  run a model over a CSV of labelled images with ONNX Runtime
"""

import argparse
import csv
import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE / "repository" / "digits" / "1" / "model.onnx"
HELDOUT = HERE / "digits-heldout.csv"

SEED = 2026
HIDDEN = 128
EPOCHS = 120
BATCH = 64
LEARNING_RATE = 3e-3
DROPPED = 0.25  # of the hidden units, in each training step
# Weights live on this grid. The last bits of a matrix product depend on the CPU; rounding them
# away after each step makes training give the same bytes on every machine.
GRID = 2.0**16


def split():
    """The data set's training and held-out parts, as (images, labels) each."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x, held_x, y, held_y = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return (x, y), (held_x, held_y)


def shifted(rng, images):
    """Each image moved by up to a pixel, as a hand would: a blend of it and of a neighbour."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    dy, dx = rng.integers(0, 3, (2, len(images), 1, 1))
    rows, columns = np.arange(8)[:, None] + dy, np.arange(8)[None, :] + dx
    moved = padded[np.arange(len(images))[:, None, None], rows, columns].reshape(-1, 64)
    share = rng.random((len(images), 1))
    return (1 - share) * images + share * moved


def train(images, labels):
    """Weights of 64 -> HIDDEN (ReLU) -> 10 (softmax): Adam, cosine schedule, small shifts."""
    rng = np.random.default_rng(SEED)
    weights = [
        rng.normal(0, np.sqrt(2 / 64), (64, HIDDEN)),
        np.zeros(HIDDEN),
        rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, 10)),
        np.zeros(10),
    ]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    targets = np.eye(10)[labels] * 0.95 + 0.005
    steps_per_epoch = -(-len(images) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for batch in np.array_split(order, steps_per_epoch):
            step += 1
            x = shifted(rng, images[batch]) / 16
            keep = (rng.random((len(batch), HIDDEN)) >= DROPPED) / (1 - DROPPED)
            w1, b1, w2, b2 = weights
            hidden = np.maximum(x @ w1 + b1, 0) * keep
            scores = np.exp((logits := hidden @ w2 + b2) - logits.max(axis=1, keepdims=True))
            error = (scores / scores.sum(axis=1, keepdims=True) - targets[batch]) / len(batch)
            back = (error @ w2.T) * (hidden > 0) * keep
            gradients = [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
            progress = step / (EPOCHS * steps_per_epoch)
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * progress))
            for w, g, m, v in zip(weights, gradients, first, second):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                unbiased = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                w -= rate * unbiased
                np.round(w * GRID, out=w)
                w /= GRID
    return [w.astype(np.float32) for w in weights]


def to_onnx(weights):
    """The graph: scales the pixels itself, and answers with the label and all ten probabilities."""
    from onnx import TensorProto, checker, helper, numpy_helper

    names = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    constants = [numpy_helper.from_array(w, name) for w, name in zip(weights, names)]
    constants.append(numpy_helper.from_array(np.float32(1 / 16), "scale"))
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "hidden.weight", "hidden.bias"], ["dense"]),
            helper.make_node("Relu", ["dense"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "output.weight", "output.bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        constants,
        doc_string="Handwritten digits: 8x8 pixels of 0 to 16, row by row.",
    )
    # Opset 17 and IR 8 are what ONNX Runtime 1.17, the oldest API the agent speaks, knows well.
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="aethir-edge",
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def evaluate(model, heldout):
    """Runs every image of the CSV through the model; how many labels are right?"""
    import onnxruntime

    with open(heldout, newline="") as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=np.int64)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answers, _ = session.run(
        ["label", "probabilities"], {"pixels": rows[:, 1:].astype(np.float32)}
    )
    correct = int((answers == rows[:, 0]).sum())
    return {"images": len(rows), "correct": correct, "accuracy": correct / len(rows)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train anew")
    command.add_argument("--out", type=pathlib.Path, default=HERE, help="default: cross/models")
    command = commands.add_parser("evaluate", help="judge a trained model")
    command.add_argument("--model", type=pathlib.Path, default=MODEL)
    command.add_argument("--heldout", type=pathlib.Path, default=HELDOUT)
    arguments = parser.parse_args()

    if arguments.command == "train":
        model = arguments.out / MODEL.relative_to(HERE)
        heldout = arguments.out / HELDOUT.name
        (images, labels), (held_images, held_labels) = split()
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(to_onnx(train(images, labels)))
        with open(heldout, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["label"] + [f"p{i}" for i in range(64)])
            writer.writerows(
                [label, *image.astype(int)] for label, image in zip(held_labels, held_images)
            )
    else:
        model, heldout = arguments.model, arguments.heldout

    result = evaluate(model, heldout) | {"model_bytes": model.stat().st_size}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{model}: {result['correct']} of {result['images']} held-out images right"
            f" ({result['accuracy']:.2%}), {result['model_bytes']} bytes"
        )


if __name__ == "__main__":
    main()
