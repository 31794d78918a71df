#!/usr/bin/env python3
"""Writes tests/data/torch_layers.json: layers in f64 as PyTorch computes them, in our layout.

Run with a Python that has torch (2.13 made the committed file); the tests read the file and need no torch. Inputs and
parameters are multiples of 1/64 given by `pattern`, which tests/state/torch_layers_test.cc repeats. A case is

  passes   one or two forward passes in train mode: y of x = pattern(seed 1, 2), and at the first one
           dx, grads = the gradients of <y, dy>, and ddx, ddgrads = those of <dx, gx> + sum <dp, gp>
  eval     y of x = pattern(seed 1) after them, in eval mode
  buffers  what the layer keeps, after the train passes
"""
import copy
import json
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

torch.set_default_dtype(torch.float64)


def pattern(shape, seed):
    n = 1
    for s in shape:
        n *= s
    i = torch.arange(n, dtype=torch.int64)
    return (((i * 7919 + seed * 104729) % 257 - 128).to(torch.float64) / 64).reshape(shape)


def first(t):
    """[N, s.., C] to PyTorch's [N, C, s..]."""
    return t.movedim(-1, 1) if t.dim() > 2 else t


def last(t):
    return t.movedim(1, -1) if t.dim() > 2 else t


def to_ours(t, kernel):
    """PyTorch's weight [a, b, k..] to our [k.., b, a]."""
    return t.movedim(0, -1).movedim(0, -2) if kernel else t


def to_theirs(t, kernel):
    return t.movedim(-1, 0).movedim(-1, 1) if kernel else t


def flat(t):
    return t.detach().reshape(-1).tolist()


CASES = []


def case(name, module, x_shape, names=None, passes=1, ids=None, channels_first=True, buffers=None, second=True):
    """names: our name -> (PyTorch's, whether it is a kernel); seeds 10, 11, ... in that order."""
    if names is None:
        names = {n: (n, p.dim() > 1) for n, p in module.named_parameters()}
    theirs = dict(module.named_parameters())
    out = dict(name=name, x_shape=x_shape, parameters={}, passes=[])
    with torch.no_grad():
        for k, (ours, (their, kernel)) in enumerate(names.items()):
            shape = list(to_ours(theirs[their], kernel).shape)
            if ours == "weight_g":
                shape = [theirs[their].numel()]  # PyTorch keeps it [out, 1, ..]
            out["parameters"][ours] = shape
            theirs[their].copy_(to_theirs(pattern(shape, 10 + k), kernel).reshape(theirs[their].shape))
    to, back = (first, last) if channels_first else (lambda t: t, lambda t: t)
    if buffers:  # our name -> (setter of first values, getter)
        for _, (setter, _) in buffers.items():
            setter()
    module.train()
    for p in range(passes):
        x = torch.tensor(ids) if ids else to(pattern(x_shape, 1 + p)).requires_grad_()
        y = module(x)
        one = dict(y_shape=list(back(y).shape), y=flat(back(y)))
        if p == 0:
            dy = to(pattern(one["y_shape"], 3))
            wrt = ([] if ids else [x]) + [theirs[t] for t, _ in names.values()]
            d = torch.autograd.grad((y * dy).sum(), wrt, create_graph=True, allow_unused=True)
            shapes = ([] if ids else [back]) + [lambda t, k=k: to_ours(t, k) for _, k in names.values()]
            one["grads"] = [flat(f(g)) for f, g in zip(shapes, d)]
            if second:
                s = sum((f(g) * pattern(list(f(g).shape), 20 + i)).sum() for i, (f, g) in enumerate(zip(shapes, d)))
                if s.requires_grad:
                    dd = torch.autograd.grad(s, wrt, allow_unused=True)
                    one["second"] = [flat(f(torch.zeros_like(w) if g is None else g)) for f, g, w in zip(shapes, dd, wrt)]
        out["passes"].append(one)
    if buffers:
        out["buffers"] = {n: flat(getter()) for n, (_, getter) in buffers.items()}
    module.eval()
    with torch.no_grad():
        out["eval"] = flat(back(module(torch.tensor(ids) if ids else to(pattern(x_shape, 1)))))
    CASES.append(out)


def statistics(m):
    """The running statistics as PyTorch starts them."""
    return {"running_mean": (lambda: None, lambda: m.running_mean), "running_var": (lambda: None, lambda: m.running_var)}


class Fn(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def activations():
    rows = {
        "log_sigmoid": F.logsigmoid, "mish": F.mish, "softsign": F.softsign, "selu": F.selu, "relu6": F.relu6,
        # F.hardsigmoid's gradient has 1/6 in f32 only.
        "hard_sigmoid": lambda x: F.relu6(x + 3) / 6, "hard_swish": lambda x: x * F.relu6(x + 3) / 6, "tanh_shrink": F.tanhshrink,
        "celu": lambda x: F.celu(x, 0.5), "hard_shrink": lambda x: F.hardshrink(x, 0.4),
        "soft_shrink": lambda x: F.softshrink(x, 0.4), "hard_tanh": lambda x: F.hardtanh(x, -0.75, 1.25),
        "log_softmax": lambda x: F.log_softmax(x, -1), "softmax": lambda x: F.softmax(x, -1), "relu": F.relu,
        "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "elu": F.elu,
        "leaky_relu": F.leaky_relu, "softplus": F.softplus, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
        "glu": F.glu, "geglu": lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]),
        "swiglu": lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1]),
        "reglu": lambda x: x.chunk(2, -1)[0] * F.relu(x.chunk(2, -1)[1]),
    }
    # PyTorch has no second derivative of these.
    first_only = {"hard_shrink", "soft_shrink", "relu6", "hard_tanh", "hard_sigmoid", "hard_swish"}
    for name, f in rows.items():
        case(name, Fn(f), [3, 8], second=name not in first_only)
    case("prelu", nn.PReLU(), [2, 3, 4])
    case("prelu 4", nn.PReLU(4), [2, 3, 4])


def convolutions():
    case("conv_transpose1d", nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), [2, 4, 4])
    case("conv_transpose2d", nn.ConvTranspose2d(2, 3, (3, 2), (2, 3), (1, 0), (1, 2)), [2, 3, 2, 2])
    case("conv_transpose3d", nn.ConvTranspose3d(2, 2, 2, 2, 1, 1, bias=False), [1, 2, 3, 2, 2])
    case("depthwise", nn.Conv2d(3, 6, 3, padding=1, groups=3), [2, 4, 3, 3])


def pools():
    case("adaptive_avg_pool 3x2", nn.AdaptiveAvgPool2d((3, 2)), [2, 7, 5, 2])
    case("adaptive_avg_pool 2", nn.AdaptiveAvgPool2d(2), [2, 4, 6, 2])
    case("adaptive_avg_pool 4, 1d, fewer", nn.AdaptiveAvgPool1d(4), [2, 3, 2])
    case("adaptive_max_pool 3x2", nn.AdaptiveMaxPool2d((3, 2)), [2, 7, 4, 2])
    case("adaptive_max_pool 2, 3d", nn.AdaptiveMaxPool3d(2), [1, 3, 4, 5, 2])
    case("global_max_pool", Fn(lambda x: x.amax((2, 3))), [2, 3, 5, 3])


def norms():
    m = nn.BatchNorm2d(3, momentum=0.3)
    case("batch_norm", m, [2, 3, 2, 3], passes=2, buffers=statistics(m))
    m = nn.BatchNorm1d(3, momentum=None)
    case("batch_norm cumulative", m, [5, 3], passes=2, buffers=statistics(m) | {
        "num_batches_tracked": (lambda: None, lambda: m.num_batches_tracked)})
    case("group_norm", nn.GroupNorm(2, 6), [2, 3, 2, 6])
    case("group_norm 1d", nn.GroupNorm(3, 6, affine=False), [4, 6])
    case("instance_norm", nn.InstanceNorm2d(3), [2, 3, 2, 3])
    i = nn.InstanceNorm1d(3, momentum=0.2, affine=True, track_running_stats=True)
    case("instance_norm tracked", i, [2, 5, 3], passes=2, buffers=statistics(i))
    case("layer_norm", nn.LayerNorm(5), [2, 3, 5], channels_first=False)
    case("rms_norm", nn.RMSNorm(5, eps=1e-6), [2, 3, 5], channels_first=False)


def embeddings():
    ids = [[1, 0, 4], [4, 2, 4]]
    case("embedding", nn.Embedding(5, 3), [2, 3], {"weight": ("weight", False)}, ids=ids, channels_first=False)
    case("embedding padded", nn.Embedding(5, 3, padding_idx=4), [2, 3], {"weight": ("weight", False)}, ids=ids,
         channels_first=False)


def spectral(m, transposed):
    """Sets u and v by pattern and shows them; v in the order of our matrix [the rest, out]."""
    p = m.parametrizations.weight[0]
    w = m.weight
    n_out = p._u.numel()

    def ours(v):
        if w.dim() == 2:
            return v
        if transposed:  # PyTorch's [out, in, k..] to [k.., in]
            return v.reshape(w.shape[0], *w.shape[2:]).movedim(0, -1).reshape(-1)
        return v.reshape(w.shape[1:]).movedim(0, -1).reshape(-1)

    def theirs(v):
        if w.dim() == 2:
            return v
        c = w.shape[0] if transposed else w.shape[1]
        return v.reshape(*w.shape[2:], c).movedim(-1, 0).reshape(-1)

    def unit(n, seed):
        t = pattern([n], seed)
        return t / t.norm()

    return {"weight_u": (lambda: p._u.copy_(unit(n_out, 30)), lambda: p._u),
            "weight_v": (lambda: p._v.copy_(theirs(unit(p._v.numel(), 31))), lambda: ours(p._v))}


class WeightNormed(nn.Module):
    """weight_norm by its formula: the second gradient of PyTorch's fused one leaves out that |v| depends on v."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.g = nn.Parameter(torch.ones(layer.weight.shape[0], *[1] * (layer.weight.dim() - 1)))

    def forward(self, x):
        v = self.layer.weight
        w = self.g * v / v.flatten(1).norm(dim=1).reshape(self.g.shape)
        fused = weight_norm(copy.deepcopy(self.layer))
        fused.parametrizations.weight.original0.data.copy_(self.g)
        y = torch.func.functional_call(self.layer, {"weight": w}, (x,))
        assert torch.allclose(fused(x), y, rtol=1e-12, atol=1e-12)
        return y


def constraints():
    wn = {"weight_g": ("g", False), "weight_v": ("layer.weight", True), "bias": ("layer.bias", False)}
    sn = {"weight": ("parametrizations.weight.original", True), "bias": ("bias", False)}

    for name, m, x in [("weight_norm linear", nn.Linear(4, 3), [5, 4]), ("weight_norm conv", nn.Conv2d(2, 3, (3, 2)), [1, 4, 3, 2]),
                       ("weight_norm conv_transpose", nn.ConvTranspose1d(2, 3, 2, 2), [2, 3, 2])]:
        case(name, WeightNormed(m), x, wn)
    for name, m, x, t in [("spectral_norm linear", nn.Linear(4, 3), [5, 4], False),
                          ("spectral_norm conv", nn.Conv2d(2, 3, (3, 2)), [1, 4, 3, 2], False),
                          ("spectral_norm conv_transpose", nn.ConvTranspose1d(2, 3, 2, 2), [2, 3, 2], True)]:
        m = spectral_norm(m)
        case(name, m, x, sn, passes=2, buffers=spectral(m, t))


if __name__ == "__main__":
    for group in (activations, convolutions, pools, norms, embeddings, constraints):
        group()
    path = pathlib.Path(__file__).parent.parent / "tests/data/torch_layers.json"
    rounded = json.loads(json.dumps(CASES), parse_float=lambda s: float(f"{float(s):.14g}"))
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in rounded)
    path.write_text(f'{{"torch": "{torch.__version__.split("+")[0]}", "cases": [\n{lines}\n]}}\n')
    print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")
