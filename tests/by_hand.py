"""Every layer once more, as its paper writes it: one stream, one sample after the other, NumPy.

Each function takes the layer's weights by name and x (T, inputs), and returns (T, width).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]
ByHand = Callable[[Weights, Array], Array]


def sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def relu(a: Array) -> Array:
    return np.maximum(a, 0)


def elman(squash: Callable[[Array], Array]) -> ByHand:
    def run(p: Weights, x: Array) -> Array:
        w, u, b = p["rnn.weight_ih_l0"], p["rnn.weight_hh_l0"], p["rnn.bias_ih_l0"]
        b = b + p["rnn.bias_hh_l0"]
        h, y = np.zeros(len(u)), []
        for sample in x:
            h = squash(w @ sample + u @ h + b)
            y.append(h)
        return np.array(y)

    return run


def gru(p: Weights, x: Array) -> Array:
    w, u = p["gru.weight_ih_l0"], p["gru.weight_hh_l0"]
    b, c = p["gru.bias_ih_l0"], p["gru.bias_hh_l0"]
    h, y = np.zeros(u.shape[1]), []
    for sample in x:
        (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(w @ sample + b, 3), np.split(u @ h + c, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        h = (1 - z) * np.tanh(n_x + r * n_h) + z * h
        y.append(h)
    return np.array(y)


def lstm(p: Weights, x: Array) -> Array:
    w, u = p["lstm.weight_ih_l0"], p["lstm.weight_hh_l0"]
    b = p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]
    h, c, y = np.zeros(u.shape[1]), np.zeros(u.shape[1]), []
    for sample in x:
        i, f, g, o = np.split(w @ sample + u @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        y.append(h)
    return np.array(y)


def fastgrnn(p: Weights, x: Array) -> Array:
    w, u = (p[f"{m}.0"] @ p[f"{m}.1"] if f"{m}.1" in p else p[f"{m}.0"] for m in "wu")
    zeta, nu = sigmoid(p["zeta"]), sigmoid(p["nu"])
    h, y = np.zeros(len(u)), []
    for sample in x:
        z = sigmoid(w @ sample + u @ h + p["bias_z"])
        candidate = np.tanh(w @ sample + u @ h + p["bias_h"])
        h = (zeta * (1 - z) + nu) * candidate + z * h
        y.append(h)
    return np.array(y)


def mingru(p: Weights, x: Array) -> Array:
    h, y = np.zeros(len(p["linear.bias"]) // 2), []
    for sample in x:
        gate, candidate = np.split(p["linear.weight"] @ sample + p["linear.bias"], 2)
        z = sigmoid(gate)
        h = (1 - z) * h + z * candidate
        y.append(h)
    return np.array(y)


def convolution(kernel: int, dilation: int, name: str = "linear") -> ByHand:
    def run(p: Weights, x: Array) -> Array:
        taps = np.split(p[f"{name}.weight"], kernel, axis=1)  # the oldest first
        y = np.tile(p[f"{name}.bias"], (len(x), 1))
        for t in range(len(x)):
            for k, tap in enumerate(taps):
                source = t - (kernel - 1 - k) * dilation
                if source >= 0:
                    y[t] += tap @ x[source]
        return y

    return run


def tcn(kernel: int, dilation: int) -> ByHand:
    def run(p: Weights, x: Array) -> Array:
        y = relu(convolution(kernel, dilation, "first.linear")(p, x))
        y = relu(convolution(kernel, dilation, "second.linear")(p, y))
        if "shortcut.weight" in p:
            x = x @ p["shortcut.weight"].T + p["shortcut.bias"]
        return relu(y + x)

    return run


def attention(length: int) -> ByHand:
    def run(p: Weights, x: Array) -> Array:
        (w_q, w_k, w_v), (b_q, b_k, b_v) = np.split(p["qkv.weight"], 3), np.split(p["qkv.bias"], 3)
        seen = np.concatenate([np.zeros((length - 1, x.shape[1])), x])
        y = []
        for t, sample in enumerate(x):
            window = seen[t : t + length]
            fit = (window @ w_k.T + b_k) @ (w_q @ sample + b_q) / np.sqrt(len(sample))
            share = np.exp(fit - fit.max())
            y.append(sample + share / share.sum() @ (window @ w_v.T + b_v))
        return np.array(y)

    return run


def backward(inner: ByHand, look_ahead: int) -> ByHand:
    def run(p: Weights, x: Array) -> Array:
        own = {name.removeprefix("layer."): weight for name, weight in p.items()}
        seen = np.concatenate([np.zeros((look_ahead - 1, x.shape[1])), x])
        windows = [seen[t : t + look_ahead][::-1] for t in range(len(x))]
        return np.array([inner(own, window)[-1] for window in windows])

    return run


def delay(samples: int) -> ByHand:
    return lambda _, x: np.concatenate([np.zeros((samples, x.shape[1])), x])[: len(x)]


def adapt(
    phi: Array,
    r: Array,
    *,
    memory: float,
    guard: float,
    span: int,
    usual: float,
    unrest: float,
    follows: bool = True,
) -> tuple[Array, Array]:
    """What goes on learning of φ (T, F) and residuals r (T, C), NaN where missing → by how much
    each mean moved and what was judged, (T, C) both."""
    size, channels = phi.shape[1], r.shape[1]
    start = 10 / memory * np.eye(size)
    p, b = start.copy(), np.zeros((size, channels))
    log_s, m, v = np.zeros(channels), np.zeros(channels), np.ones(channels)
    moved, judged = np.zeros_like(r), np.zeros_like(r)
    for t, (x, target) in enumerate(zip(phi, r, strict=True)):
        moved[t] = x @ b
        gain, w = p @ x, np.zeros(channels)
        for c in np.flatnonzero(np.isfinite(target)):
            s = np.exp(log_s[c])
            judged[t, c] = (target[c] - moved[t, c]) / s
            d, off = np.clip(judged[t, c], -5, 5), np.clip(judged[t, c] - m[c], -5, 5)
            m[c] += 2 / (span + 1) * off
            v[c] += 2 / (span + 1) * (off**2 - v[c])
            known = max(v[c], 0.01)
            u = (m[c] ** 2 + known - 1 - np.log(known)) / usual
            w[c] = 1 / guard + (1 - 1 / guard) / (1 + u**2)
            b[:, c] += gain * w[c] * d * s / (1 + w[c] * x @ gain)
            if follows:
                log_s[c] += 3 / memory * w[c] * (off**2 / (1 + off**2) - unrest)
                log_s[c] = np.clip(log_s[c], -np.log(8), np.log(8))
        most = w.max()
        p = (
            p
            - most * np.outer(gain, gain) / (1 + most * x @ gain)
            + most / (10 * memory) * (start - p)
        )
    return moved, judged
