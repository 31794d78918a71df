#!/usr/bin/env python3
"""Writes tests/data/torch_ops.json: f64 values and gradients of compositions and losses as PyTorch computes them.

Run by hand, with a Python that has PyTorch, when a case is added; tests/ops/torch_test.cc reads the file.
Each case: {"name", "inputs": [{"shape", "data", "dtype"}], "shape", "value", "cotangent", "grads": [.. or null]},
grads being those of sum(value * cotangent) by the floating inputs.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


def draw(*shape, scale=2.0):
    return scale * torch.randn(*shape)


def probabilities(*shape):
    return torch.softmax(draw(*shape), -1)


def record(name, f, *inputs):
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    y = f(*xs)
    cotangent = torch.randn_like(y)
    floats = [x for x in xs if x.is_floating_point()]
    grads = iter(torch.autograd.grad(y, floats, cotangent, allow_unused=True))
    return {
        "name": name,
        "inputs": [
            {
                "shape": list(x.shape),
                "data": x.detach().flatten().tolist(),
                "dtype": "f64" if x.is_floating_point() else "i64",
            }
            for x in xs
        ],
        "shape": list(y.shape),
        "value": y.detach().flatten().tolist(),
        "cotangent": cotangent.flatten().tolist(),
        "grads": [
            g.flatten().tolist() if x.is_floating_point() and (g := next(grads)) is not None else None
            for x in xs
        ],
    }


def elementwise_cases():
    kinks = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 30.0, -30.0, 200.0, -200.0])
    for name, f in {
        "softplus": lambda x: F.softplus(x, threshold=1e3),  # the default drops the tail beyond 20
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "elu": lambda x: F.elu(x, 1.3),
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
        "clip": lambda x: torch.clamp(x, -1.0, 0.5),
    }.items():
        yield record(name, f, torch.cat([draw(12), kinks]))


def reduction_cases():
    x = draw(3, 5)
    for name, f in {
        "softmax": lambda t: F.softmax(t, -1),
        "log_softmax": lambda t: F.log_softmax(t, -1),
        "logsumexp": lambda t: torch.logsumexp(t, -1),
        "var": lambda t: torch.var(t, 1, correction=1),
        "norm": lambda t: torch.linalg.vector_norm(t, dim=1),
        "cumsum": lambda t: torch.cumsum(t, 1),
        "prod": lambda t: torch.prod(t, 1),
        "max": lambda t: torch.amax(t, 1),
        "sort": lambda t: torch.sort(t, dim=1, stable=True).values,
        "top_k": lambda t: torch.topk(t, 2, 1).values,
    }.items():
        yield record(name, f, x)
    yield record("softmax", lambda t: F.softmax(t, -1), torch.tensor([[1e4, 1e4 - 1, -1e4], [0.0, 1.0, 2.0]]))
    yield record("prod", lambda t: torch.prod(t, 1), torch.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0]]))
    yield record("max", lambda t: torch.amax(t, 1), torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]]))
    yield record("norm", lambda t: torch.linalg.vector_norm(t, dim=1), torch.zeros(2, 3))


def index_cases():
    yield record("gather", lambda x, i: x[i], draw(4, 3), torch.tensor([0, 3, 3, 1]))
    places = torch.tensor([[0, 3, 3], [1, 2, 0]])
    yield record("take_along", lambda x, i: torch.take_along_dim(x, i, 1), draw(2, 4), places)
    yield record("einsum_bqhd", lambda a, b: torch.einsum("bqhd,bkhd->bhqk", a, b), draw(2, 3, 2, 4), draw(2, 2, 2, 4))
    chain = lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c)
    yield record("einsum_chain", chain, draw(2, 3), draw(3, 4), draw(4, 2))


def loss_cases():
    y, t = draw(4, 3), draw(4, 3)
    for r in ("mean", "sum", "none"):
        yield record(f"squared_error_{r}", lambda a, b: F.mse_loss(a, b, reduction=r), y, t)
        yield record(f"l1_loss_{r}", lambda a, b: F.l1_loss(a, b, reduction=r), y, t)
        yield record(f"huber_loss_{r}", lambda a, b: F.huber_loss(a, b, delta=0.7, reduction=r), y, t)
        yield record(
            f"binary_cross_entropy_{r}",
            lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction=r),
            torch.cat([draw(4, 3), torch.tensor([[0.0, 50.0, -50.0]])]),
            torch.cat([torch.rand(4, 3), torch.tensor([[1.0, 1.0, 1.0]])]),
        )
    yield record("kl_divergence_mean", lambda a, b: F.kl_div(a, b, reduction="batchmean"),
                 torch.log_softmax(draw(4, 3), -1), probabilities(4, 3))
    yield record("kl_divergence_sum", lambda a, b: F.kl_div(a, b, reduction="sum"),
                 torch.log_softmax(draw(4, 3), -1), probabilities(4, 3))


def cross_entropy_cases():
    weights = torch.tensor([0.5, 2.0, 1.25, 0.1])
    logits, ids, p = draw(5, 4), torch.tensor([0, 3, 1, 1, 2]), probabilities(5, 4)
    extreme = torch.tensor([[1e4, 0.0, -1e4, 1.0], [-1e4, 1e4, 1e4, 0.0]])
    for r in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            for w in (None, weights):
                form = f"{r}_{smoothing}_{'weighted' if w is not None else 'plain'}"
                f = lambda z, y: F.cross_entropy(z, y, weight=w, label_smoothing=smoothing, reduction=r)
                yield record(f"cross_entropy_{form}", f, logits, ids)
                yield record(f"cross_entropy_{form}", f, logits, p)
                yield record(f"cross_entropy_{form}", f, extreme, torch.tensor([0, 2]))


def main():
    cases = [*elementwise_cases(), *reduction_cases(), *index_cases(), *loss_cases(), *cross_entropy_cases()]
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "torch_ops.json"
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(c) for c in cases)
    path.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
    print(f"{path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
