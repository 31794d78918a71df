#!/usr/bin/env python3
"""Writes tests/data/torch_conv.json: convolutions and pools in f64 as PyTorch computes them, in our layout.

Run with a Python that has torch (2.13 made the committed file); the tests read the file and need no torch. Operands are
multiples of 1/64 given by `pattern`, which tests/ops/torch_conv_test.cc repeats, so that sums of products are exact.

  conv            y, dx, dw of <conv(x, w), dy>; then the gradients by x, w, dy of <dx, gx> + <dw, gw>
  conv_transpose  y, dx, dw of <conv_transpose(x, w), dy>
  max_pool, avg_pool   y, dx of <pool(x), dy>
"""
import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def pattern(shape, seed):
    n = 1
    for s in shape:
        n *= s
    i = torch.arange(n, dtype=torch.int64)
    return (((i * 7919 + seed * 104729) % 257 - 128).to(torch.float64) / 64).reshape(shape)


def first(t):
    """[N, s.., C] to PyTorch's [N, C, s..]."""
    return t.movedim(-1, 1)


def flat(t):
    """[N, C, s..] to a list in our order."""
    return t.detach().movedim(1, -1).reshape(-1).tolist()


def weights(w):
    """[k.., C / groups, O] to PyTorch's [O, C / groups, k..]."""
    return w.movedim(-1, 0).movedim(-1, 1)


def flat_weights(w):
    return w.detach().movedim(1, -1).movedim(0, -1).reshape(-1).tolist()


def pad(x, low, high):
    """Zero padding of the spatial dimensions of [N, C, s..]."""
    amounts = []
    for lo, hi in zip(reversed(low), reversed(high)):
        amounts += [lo, hi]
    return F.pad(x, amounts)


def same_padding(size, kernel, stride, dilation):
    low, high = [], []
    for s, k, st, d in zip(size, kernel, stride, dilation):
        total = max((-(-s // st) - 1) * st + d * (k - 1) + 1 - s, 0)
        low.append(total // 2)
        high.append(total - total // 2)
    return low, high


def conv_case(name, x, w, stride=None, low=None, high=None, dilation=None, groups=1, same=False):
    n = len(x) - 2
    stride, dilation = stride or [1] * n, dilation or [1] * n
    low = low or [0] * n
    high = high or low
    case = dict(name=name, op="conv", x_shape=x, w_shape=w, stride=stride, low=[] if same else low,
                high=[] if same else high, dilation=dilation, groups=groups, same=same)
    if same:
        low, high = same_padding(x[1:-1], w[:n], stride, dilation)
    px, pw = first(pattern(x, 1)).requires_grad_(), weights(pattern(w, 2)).requires_grad_()
    y = CONV[n](pad(px, low, high), pw, stride=stride, dilation=dilation, groups=groups)
    y_shape = list(y.movedim(1, -1).shape)
    dy = first(pattern(y_shape, 3)).requires_grad_()
    dx, dw = torch.autograd.grad((y * dy).sum(), [px, pw], create_graph=True)
    second = (dx * first(pattern(x, 4))).sum() + (dw * weights(pattern(w, 5))).sum()
    ddx, ddw, ddy = torch.autograd.grad(second, [px, pw, dy])
    case.update(y_shape=y_shape, y=flat(y), dx=flat(dx), dw=flat_weights(dw), ddx=flat(ddx), ddw=flat_weights(ddw),
                ddy=flat(ddy))
    return case


def transpose_case(name, x, w, spatial, stride, padding, dilation, output_padding, groups=1):
    """x [N, o.., O], w [k.., C / groups, O]; PyTorch wants [O, C / groups, k..] here too."""
    n = len(x) - 2
    px, pw = first(pattern(x, 1)).requires_grad_(), weights(pattern(w, 2)).requires_grad_()
    y = CONV_TRANSPOSE[n](px, pw, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation,
                          groups=groups)
    y_shape = list(y.movedim(1, -1).shape)
    assert y_shape[1:-1] == spatial, (y_shape, spatial)
    dx, dw = torch.autograd.grad((y * first(pattern(y_shape, 3))).sum(), [px, pw])
    return dict(name=name, op="conv_transpose", x_shape=x, w_shape=w, spatial=spatial, stride=stride, low=padding,
                high=padding, dilation=dilation, groups=groups, same=False, y_shape=y_shape, y=flat(y), dx=flat(dx),
                dw=flat_weights(dw))


def pool_case(name, op, x, window, stride=None, padding=None, dilation=None, count_include_pad=True):
    n = len(x) - 2
    stride, padding, dilation = stride or window, padding or [0] * n, dilation or [1] * n
    px = first(pattern(x, 1)).requires_grad_()
    if op == "max_pool":
        y = MAX_POOL[n](px, window, stride=stride, padding=padding, dilation=dilation)
    else:
        y = AVG_POOL[n](px, window, stride=stride, padding=padding, count_include_pad=count_include_pad)
    y_shape = list(y.movedim(1, -1).shape)
    (dx,) = torch.autograd.grad((y * first(pattern(y_shape, 3))).sum(), [px])
    return dict(name=name, op=op, x_shape=x, window=window, stride=stride, padding=padding, dilation=dilation,
                count_include_pad=count_include_pad, y_shape=y_shape, y=flat(y), dx=flat(dx))


CASES = [
    conv_case("1d", [2, 7, 3], [3, 3, 4]),
    conv_case("1d strided, dilated, padded", [1, 11, 2], [3, 2, 3], stride=[2], low=[2], dilation=[2]),
    conv_case("1d same, even kernel", [2, 5, 2], [4, 2, 2], same=True),
    conv_case("2d", [2, 5, 4, 2], [3, 2, 2, 3]),
    conv_case("2d 1x1", [2, 3, 3, 4], [1, 1, 4, 2]),
    conv_case("2d strided and padded", [1, 7, 6, 2], [3, 3, 2, 2], stride=[2, 3], low=[1, 2]),
    conv_case("2d uneven padding", [1, 4, 5, 1], [3, 2, 1, 2], low=[1, 0], high=[0, 2]),
    conv_case("2d dilated", [1, 7, 7, 1], [3, 2, 1, 2], dilation=[2, 3], low=[1, 1]),
    conv_case("2d groups", [1, 4, 4, 4], [3, 3, 2, 6], groups=2, low=[1, 1]),
    conv_case("2d depthwise", [1, 5, 5, 3], [3, 3, 1, 3], groups=3, stride=[2, 2], low=[1, 1]),
    conv_case("2d depthwise, two filters a channel", [1, 4, 4, 2], [2, 2, 1, 4], groups=2),
    conv_case("2d same, stride 1, odd size", [1, 5, 3, 1], [3, 2, 1, 2], same=True),
    conv_case("2d same, stride 2, odd size", [1, 7, 5, 1], [3, 3, 1, 2], stride=[2, 2], same=True),
    conv_case("2d same, stride beyond the kernel", [1, 7, 5, 1], [2, 1, 1, 2], stride=[3, 3], same=True),
    conv_case("2d same, dilated", [1, 6, 5, 1], [3, 3, 1, 1], dilation=[2, 2], same=True),
    conv_case("2d kernel as large as the input", [2, 3, 4, 2], [3, 4, 2, 3]),
    conv_case("2d stride leaves a rest", [1, 6, 8, 1], [3, 3, 1, 1], stride=[2, 3]),
    conv_case("3d", [1, 3, 4, 3, 2], [2, 3, 2, 2, 2]),
    conv_case("3d everything", [1, 5, 4, 5, 2], [2, 2, 3, 1, 2], stride=[2, 1, 2], low=[1, 0, 1], dilation=[1, 2, 1],
              groups=2),
    transpose_case("transposed 1d", [2, 4, 3], [3, 2, 3], [9], [2], [0], [1], [0]),
    transpose_case("transposed 2d", [1, 3, 3, 2], [3, 3, 3, 2], [6, 5], [2, 2], [1, 1], [1, 1], [1, 0]),
    transpose_case("transposed 2d groups", [1, 3, 2, 4], [2, 3, 1, 4], [4, 6], [1, 2], [0, 0], [1, 1], [0, 1],
                   groups=2),
    transpose_case("transposed 3d dilated", [1, 2, 2, 2, 1], [2, 2, 2, 2, 1], [4, 4, 4], [2, 2, 2], [1, 1, 1],
                   [2, 2, 2], [1, 1, 1]),
    pool_case("max 1d", "max_pool", [2, 7, 3], [2]),
    pool_case("max 2d", "max_pool", [2, 4, 6, 3], [2, 2]),
    pool_case("max 2d overlapping, padded", "max_pool", [1, 7, 7, 2], [3, 3], stride=[2, 2], padding=[1, 1]),
    pool_case("max 2d dilated", "max_pool", [1, 8, 7, 2], [3, 2], stride=[1, 2], padding=[1, 1], dilation=[2, 3]),
    pool_case("max 3d", "max_pool", [1, 4, 5, 4, 2], [2, 3, 2], stride=[2, 1, 1], padding=[1, 1, 0]),
    pool_case("average 1d", "avg_pool", [2, 7, 3], [3], stride=[2]),
    pool_case("average 2d", "avg_pool", [2, 4, 6, 3], [2, 2]),
    pool_case("average 2d overlapping, padding counts", "avg_pool", [1, 7, 6, 2], [3, 3], stride=[2, 2],
              padding=[1, 1]),
    pool_case("average 2d overlapping, padding does not count", "avg_pool", [1, 7, 6, 2], [3, 3], stride=[2, 1],
              padding=[1, 1], count_include_pad=False),
    pool_case("average 3d", "avg_pool", [1, 4, 3, 5, 2], [2, 2, 3], padding=[1, 0, 1], count_include_pad=False),
]

path = pathlib.Path(__file__).parent.parent / "tests/data/torch_conv.json"
path.parent.mkdir(exist_ok=True)
lines = ",\n".join(json.dumps(c) for c in CASES)
path.write_text(f'{{"torch": "{torch.__version__.split("+")[0]}", "cases": [\n{lines}\n]}}\n')
print(f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes")
