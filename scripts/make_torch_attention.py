#!/usr/bin/env python3
"""Writes tests/data/torch_attention.json: what PyTorch makes, in f64, of attention and transformer layers.

Run by hand, with a Python that has PyTorch, when a case is added; tests/state/attention_test.cc reads the file.
Parameters, inputs and cotangents are made by formula on both sides (see made()); parameter k is the k-th of
named_parameters(), input n has k = 100 + n, the cotangent k = 200. A case holds the value, the gradients of the inputs
and, of each parameter's gradient g, three numbers: sum g sin(i + 1), sum g cos(0.3 i), sum g^2.
"""

import json
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def made(k, shape):
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (0.6 * torch.sin(1.7 * k + 2.39 * i + 0.1)).reshape(shape)


def rounded(t):
    return [float(f"{x:.13g}") for x in t.detach().flatten().tolist()]


def digest(g):
    g = g.flatten()
    i = torch.arange(g.numel(), dtype=torch.float64)
    return [float(f"{x:.13g}") for x in [(g * torch.sin(i + 1)).sum(), (g * torch.cos(0.3 * i)).sum(), (g * g).sum()]]


def case(name, f, shapes, module=None):
    parameters = list(module.named_parameters()) if module else []
    with torch.no_grad():
        for k, (_, p) in enumerate(parameters):
            p.copy_(made(k, p.shape))
    inputs = [made(100 + n, s).requires_grad_() for n, s in enumerate(shapes)]
    y = f(*inputs)
    grads = torch.autograd.grad(y, inputs + [p for _, p in parameters], made(200, y.shape))
    return {
        "name": name,
        "shapes": shapes,
        "value": rounded(y),
        "grads": [rounded(g) for g in grads[: len(inputs)]],
        "order": {n: k for k, (n, _) in enumerate(parameters)},
        "parameters": {n: digest(g) for (n, _), g in zip(parameters, grads[len(inputs) :])},
    }


def layers():
    b, t, s, w = 2, 3, 4, 8
    causal = torch.triu(torch.ones(t, t, dtype=torch.bool), 1)
    padding = torch.tensor([[False, False, True], [False, False, False]])
    added = made(300, (t, t))
    mha = lambda **o: nn.MultiheadAttention(w, 2, batch_first=True, **o)
    m = mha()
    yield case("attention", lambda x: m(x, x, x, need_weights=False)[0], [[b, t, w]], m)
    yield case("attention_causal", lambda x: m(x, x, x, attn_mask=causal, need_weights=False)[0], [[b, t, w]], m)
    yield case("attention_lengths", lambda x: m(x, x, x, key_padding_mask=padding, need_weights=False)[0], [[b, t, w]], m)
    yield case("attention_added", lambda x: m(x, x, x, attn_mask=added, need_weights=False)[0], [[b, t, w]], m)
    yield case("attention_cross", lambda x, y: m(x, y, y, need_weights=False)[0], [[b, t, w], [b, s, w]], m)
    n = mha(bias=False)
    yield case("attention_no_bias", lambda x: n(x, x, x, need_weights=False)[0], [[b, t, w]], n)
    for pre in (False, True):
        for activation in ("relu", "gelu"):
            e = nn.TransformerEncoderLayer(w, 2, 12, 0.0, activation, batch_first=True, norm_first=pre)
            yield case(f"encoder_{'pre' if pre else 'post'}_{activation}", e, [[b, t, w]], e)
        d = nn.TransformerDecoderLayer(w, 2, 12, 0.0, "relu", batch_first=True, norm_first=pre)
        run = lambda x, y: d(x, y, tgt_mask=causal, tgt_is_causal=True)
        yield case(f"decoder_{'pre' if pre else 'post'}", run, [[b, t, w], [b, s, w]], d)


def functions():
    grouped = lambda q, k, v: F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
    ).transpose(1, 2)
    yield case("grouped", grouped, [[2, 3, 4, 2], [2, 3, 2, 2], [2, 3, 2, 3]])


out = pathlib.Path(__file__).parent.parent / "tests/data/torch_attention.json"
out.write_text(json.dumps(list(layers()) + list(functions())) + "\n")
