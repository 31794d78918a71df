#!/usr/bin/env python3
"""Writes tests/data/torch_recurrent.json: outputs, states and gradients of PyTorch's RNN, GRU and LSTM in f64, for
weights and inputs made by formula. Needs torch (2.13.0).
usage: scripts/make_torch_recurrent.py > tests/data/torch_recurrent.json"""

import json
import math

import torch

torch.set_default_dtype(torch.float64)
N, T, IN, HIDDEN = 3, 4, 2, 2
LENGTHS = [4, 1, 3]


def made(shape, k):
    """Value number i of tensor number k is sin(0.7 i + k) / 2, row-major."""
    n = math.prod(shape)
    return torch.tensor([0.5 * math.sin(0.7 * i + k) for i in range(n)]).reshape(shape)


def numbers(t):
    return [float(f"{v:.15g}") for v in t.detach().flatten().tolist()]


def run(kind, layers, both, lengths, start):
    options = dict(num_layers=layers, bidirectional=both, batch_first=True)
    if kind == "rnn_relu":
        model = torch.nn.RNN(IN, HIDDEN, nonlinearity="relu", **options)
    else:
        model = getattr(torch.nn, kind.upper())(IN, HIDDEN, **options)
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(made(p.shape, k))
    x = made((N, T, IN), 50).requires_grad_()
    state = (layers * (2 if both else 1), N, HIDDEN)
    h = made(state, 60).requires_grad_()
    c = made(state, 70).requires_grad_()
    given = (h, c) if kind == "lstm" else h
    source = x
    if lengths:
        source = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    y, last = model(source, given) if start else model(source)
    if lengths:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
    lasts = list(last) if kind == "lstm" else [last]
    loss = (y * made(y.shape, 80)).sum() + sum((s * made(s.shape, 90 + i)).sum() for i, s in enumerate(lasts))
    loss.backward()
    out = {"kind": kind, "layers": layers, "both": both, "lengths": lengths, "start": start, "y": numbers(y),
           "h": numbers(lasts[0]), "dx": numbers(x.grad), "grads": [numbers(p.grad) for p in model.parameters()]}
    if kind == "lstm":
        out["c"] = numbers(lasts[1])
    if start:
        out["dh"] = numbers(h.grad)
        if kind == "lstm":
            out["dc"] = numbers(c.grad)
    return out


cases = []
for kind in ("rnn", "rnn_relu", "gru", "lstm"):
    cases += [run(kind, 1, False, False, False), run(kind, 2, True, False, True), run(kind, 2, True, True, True),
              run(kind, 1, False, True, False)]
print(json.dumps({"n": N, "t": T, "in": IN, "hidden": HIDDEN, "row_lengths": LENGTHS, "cases": cases}))
