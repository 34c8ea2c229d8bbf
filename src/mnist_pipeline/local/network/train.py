"""Train the demo's network on MNIST's 60,000 training images and write `mnist.onnx`.

Not part of any set-up: the trained file lies beside this script. To make it anew (README.md in this folder says where
the four idx files come from):

    python -m venv /tmp/train && /tmp/train/bin/pip install -r requirements.txt
    /tmp/train/bin/python train.py --data DIR_WITH_THE_IDX_FILES --out mnist.onnx

The network takes `images`, FP32 `[N, 784]` in 0..1 (white on black), and gives `probabilities`, FP32 `[N, 10]`.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax
from jax.scipy.ndimage import map_coordinates
from onnx import TensorProto, helper, numpy_helper

CHANNELS = (24, 48, 64)
HIDDEN = 128


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes (yann.lecun.com/exdb/mnist: magic, big-endian dimensions, data)."""
    raw = path.read_bytes()
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def init(key: jax.Array) -> dict[str, jax.Array]:
    """He-initialised weights: three 3x3 convolutions (NHWC), two dense layers."""
    sizes = {
        "conv1": (3, 3, 1, CHANNELS[0]),
        "conv2": (3, 3, CHANNELS[0], CHANNELS[1]),
        "conv3": (3, 3, CHANNELS[1], CHANNELS[2]),
        "dense1": (3 * 3 * CHANNELS[2], HIDDEN),
        "dense2": (HIDDEN, 10),
    }
    weights: dict[str, jax.Array] = {}
    for name, shape in sizes.items():
        key, sub = jax.random.split(key)
        fan_in = int(np.prod(shape[:-1]))
        weights[name + "_w"] = jax.random.normal(sub, shape) * np.sqrt(2 / fan_in)
        weights[name + "_b"] = jnp.zeros(shape[-1])
    return weights


def forward(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Logits `[N, 10]` of images `[N, 28, 28]`."""
    x = images[..., None]
    for layer in ("conv1", "conv2", "conv3"):
        x = jax.lax.conv_general_dilated(
            x, weights[layer + "_w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[layer + "_b"])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ weights["dense1_w"] + weights["dense1_b"])
    return x @ weights["dense2_w"] + weights["dense2_b"]


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Rotate by ±15°, scale and shear by ±15 %, shift by ±2 px, thin or thicken, each image by its own draw."""
    n = images.shape[0]
    draws = jax.random.uniform(key, (n, 7), minval=-1, maxval=1)
    angle = draws[:, 0] * np.deg2rad(15)
    scale_y, scale_x = 1 + 0.15 * draws[:, 1], 1 + 0.15 * draws[:, 2]
    shear = 0.15 * draws[:, 3]
    shift = 2 * draws[:, 4:6]
    y, x = jnp.meshgrid(jnp.arange(28) - 13.5, jnp.arange(28) - 13.5, indexing="ij")

    # One row an image: angle, scale of y and of x, shear, shift of y and of x.
    drawn = jnp.column_stack([angle, scale_y, scale_x, shear, shift])

    def one(image: jax.Array, draw: jax.Array) -> jax.Array:
        a, sy, sx, sh, dy, dx = draw
        rows = sy * (jnp.cos(a) * y - jnp.sin(a) * x) + 13.5 + dy
        cols = sx * (jnp.sin(a) * y + jnp.cos(a) * x) + sh * y + 13.5 + dx
        return map_coordinates(image, [rows, cols], order=1)

    moved = jax.vmap(one)(images, drawn)
    # Half of them keep their strokes; a quarter each has them thinner, or thicker, by up to a pixel on either side.
    weight = jnp.sign(draws[:, 6]) * jnp.maximum(0, 2 * jnp.abs(draws[:, 6]) - 1)
    weight = weight[:, None, None]
    thick = jax.lax.reduce_window(moved, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
    thin = jax.lax.reduce_window(moved, jnp.inf, jax.lax.min, (1, 3, 3), (1, 1, 1), "SAME")
    return moved + jnp.maximum(weight, 0) * (thick - moved) - 0.5 * jnp.maximum(-weight, 0) * (moved - thin)


def train(images: np.ndarray, labels: np.ndarray, epochs: int, batch: int, seed: int) -> dict[str, jax.Array]:
    """AdamW, one cycle to 3e-3, label smoothing 0.02; what is kept is the weights' moving average over 1,000 steps."""
    steps = epochs * (len(images) // batch)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 3e-3), weight_decay=1e-3)
    weights = init(jax.random.key(seed))
    state = optimizer.init(weights)
    mean = jax.tree.map(jnp.copy, weights)
    data, target = jnp.asarray(images), jnp.asarray(labels)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(weights, mean, state, key, rows):  # noqa: ANN001, ANN202 - jitted, shapes are those above
        def loss_of(weights):  # noqa: ANN001, ANN202
            x = augment(key, data[rows].astype(jnp.float32) / 255)
            wanted = optax.smooth_labels(jax.nn.one_hot(target[rows], 10), 0.02)
            return optax.softmax_cross_entropy(forward(weights, x), wanted).mean()

        loss, gradient = jax.value_and_grad(loss_of)(weights)
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        return weights, optax.incremental_update(weights, mean, 1e-3), state, loss

    shuffle, key = np.random.default_rng(seed), jax.random.key(seed + 1)
    for epoch in range(epochs):
        started = time.monotonic()
        order = shuffle.permutation(len(images))[: steps // epochs * batch].reshape(-1, batch)
        for rows in order:
            key, sub = jax.random.split(key)
            weights, mean, state, loss = step(weights, mean, state, sub, jnp.asarray(rows))
        print(f"epoch {epoch + 1}/{epochs}: loss {float(loss):.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return mean


def to_onnx(weights: dict[str, jax.Array]) -> onnx.ModelProto:
    """The same network as an ONNX graph: NHWC becomes NCHW, so kernels and the first dense rows are permuted."""
    w = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    for layer in ("conv1", "conv2", "conv3"):
        w[layer + "_w"] = w[layer + "_w"].transpose(3, 2, 0, 1)
    w["dense1_w"] = w["dense1_w"].reshape(3, 3, CHANNELS[2], HIDDEN).transpose(2, 0, 1, 3).reshape(-1, HIDDEN)
    nodes = [helper.make_node("Reshape", ["images", "image_shape"], ["x0"])]
    last = "x0"
    for layer in ("conv1", "conv2", "conv3"):
        conv, relu, pool = (f"{layer}_{part}" for part in ("conv", "relu", "pool"))
        nodes += [
            helper.make_node("Conv", [last, layer + "_w", layer + "_b"], [conv], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [conv], [relu]),
            helper.make_node("MaxPool", [relu], [pool], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        last = pool
    nodes += [
        helper.make_node("Flatten", [last], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense1_w", "dense1_b"], ["dense1"]),
        helper.make_node("Relu", ["dense1"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "dense2_w", "dense2_b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mnist",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 784])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in w.items()]
        + [numpy_helper.from_array(np.array([-1, 1, 28, 28], np.int64), "image_shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, write the ONNX file, and print its accuracy on the 10,000 test images as onnxruntime computes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the four idx files, unpacked")
    parser.add_argument("--out", type=Path, default=Path("mnist.onnx"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    weights = train(
        read_idx(options.data / "train-images-idx3-ubyte"),
        read_idx(options.data / "train-labels-idx1-ubyte"),
        options.epochs,
        options.batch,
        options.seed,
    )
    onnx.save(to_onnx(weights), options.out)

    import onnxruntime

    session = onnxruntime.InferenceSession(options.out)
    test = read_idx(options.data / "t10k-images-idx3-ubyte").reshape(-1, 784).astype(np.float32) / 255
    (probabilities,) = session.run(None, {"images": test})
    right = (probabilities.argmax(1) == read_idx(options.data / "t10k-labels-idx1-ubyte")).mean()
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {100 * right:.2f} % of {len(test):,} test images")


if __name__ == "__main__":
    main()
