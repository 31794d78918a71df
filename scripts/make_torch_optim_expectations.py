#!/usr/bin/env python3
"""Writes tests/data/torch_optim.json: what PyTorch's optimizers, schedules, clipping and normalising layers compute, in
f64. Run by hand when a case is added (needs torch); tests/state compares with it.
usage: scripts/make_torch_optim_expectations.py [OUT]"""

import json
import pathlib
import sys
import warnings

import torch
from torch.optim import lr_scheduler

warnings.filterwarnings("ignore")
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
STEPS = 10
SHAPES = {"weight": (3, 2), "bias": (2,)}
INITIAL = {name: torch.randn(shape) for name, shape in SHAPES.items()}
GRADS = [{name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]

# our name, torch's class, options (torch's spelling)
OPTIMIZERS = [
    ("sgd", torch.optim.SGD, {"lr": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.05}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.05}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01, "centered": True}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.8}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.8, "centered": True, "weight_decay": 0.05}),
    ("adagrad", torch.optim.Adagrad, {"lr": 0.1}),
    ("adagrad", torch.optim.Adagrad,
     {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.3, "weight_decay": 0.05, "eps": 1e-8}),
    ("adam", torch.optim.Adam, {"lr": 0.01}),
    ("adam", torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.05}),
    ("adam", torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    ("adamw", torch.optim.AdamW, {"lr": 0.01}),
    ("adamw", torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
]


def run_optimizer(make):
    """The parameters after each step, flattened: weight, then bias."""
    parameters = {name: value.clone().requires_grad_() for name, value in INITIAL.items()}
    optimizer = make(parameters)
    history = []
    for step in range(STEPS):
        for name, parameter in parameters.items():
            parameter.grad = GRADS[step][name].clone()
        optimizer.step()
        history.append([x for p in parameters.values() for x in p.detach().flatten().tolist()])
    return history


def optimizers():
    cases = []
    for name, cls, options in OPTIMIZERS:
        history = run_optimizer(lambda ps, c=cls, o=options: c(list(ps.values()), **o))
        cases.append({"optimizer": name, "options": options, "values": history})
    groups = run_optimizer(lambda ps: torch.optim.AdamW(
        [{"params": [ps["weight"]]}, {"params": [ps["bias"]], "weight_decay": 0.0, "lr": 0.005}],
        lr=0.01, weight_decay=0.1))
    cases.append({"optimizer": "adamw", "options": {"lr": 0.01, "weight_decay": 0.1},
                  "bias_group": {"lr_scale": 0.5, "weight_decay": 0.0}, "values": groups})
    return cases


def clipping():
    cases = []
    for limit in (0.5, 100.0):
        ps = [torch.zeros(s, requires_grad=True) for s in SHAPES.values()]
        for p, g in zip(ps, GRADS[0].values()):
            p.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(ps, limit).item()
        clipped = [x for p in ps for x in p.grad.flatten().tolist()]
        for p, g in zip(ps, GRADS[0].values()):
            p.grad = g.clone()
        torch.nn.utils.clip_grad_value_(ps, limit)
        cases.append({"limit": limit, "norm": norm, "by_norm": clipped,
                      "by_value": [x for p in ps for x in p.grad.flatten().tolist()]})
    return cases


def rates(make, steps, lr=0.1):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def schedules():
    def warm(after):
        return lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5), after(o)], milestones=[5])

    return {
        "step": rates(lambda o: lr_scheduler.StepLR(o, 3, 0.5), 12),
        "multistep": rates(lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5, 9], 0.3), 12),
        "exponential": rates(lambda o: lr_scheduler.ExponentialLR(o, 0.9), 12),
        "cosine": rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 10, 0.01), 11),
        "polynomial": rates(lambda o: lr_scheduler.PolynomialLR(o, 8, 2.0), 12),
        "warmup_exponential": rates(warm(lambda o: lr_scheduler.ExponentialLR(o, 0.9)), 12),
        "one_cycle": rates(lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=20, cycle_momentum=False), 19),
        "one_cycle_linear": rates(lambda o: lr_scheduler.OneCycleLR(
            o, 0.5, total_steps=21, pct_start=0.25, anneal_strategy="linear", div_factor=10, final_div_factor=100,
            cycle_momentum=False), 20),
    }


def plateau():
    metrics = [1.0, 0.9, 0.9, 0.91, 0.9, 0.89995, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.81, 0.7, 0.7, 0.7, 0.7, 0.7]
    cases = []
    for options in ({"patience": 2}, {"patience": 1, "cooldown": 2, "factor": 0.5, "min_lr": 0.02},
                    {"patience": 1, "mode": "max", "threshold": 0.02, "threshold_mode": "abs"}):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        values = []
        for metric in metrics:
            scheduler.step(metric)
            values.append(optimizer.param_groups[0]["lr"])
        cases.append({"options": options, "metrics": metrics, "rates": values})
    return cases


def layers():
    """A small network's outputs and gradients, batch norm's statistics included; weights in PyTorch's layout."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, (3, 2), stride=2, padding=1), torch.nn.BatchNorm2d(4),
                              torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3),
                              torch.nn.LayerNorm(3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
    before = {k: {"shape": list(v.shape), "data": v.flatten().tolist()}
              for k, v in net.state_dict().items() if "num_batches" not in k}
    x = torch.randn(5, 2, 4, 8)
    y = net(x)
    (y ** 2 * torch.arange(1.0, 4.0)).sum().backward()
    out = {"state": before, "x_nhwc": x.permute(0, 2, 3, 1).flatten().tolist(), "train": y.flatten().tolist(),
           "grads": {k: p.grad.flatten().tolist() for k, p in net.named_parameters()},
           "running_mean": net[1].running_mean.tolist(), "running_var": net[1].running_var.tolist()}
    net.eval()
    out["eval"] = net(x).flatten().tolist()
    return out


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "tests/data/torch_optim.json"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = lambda values: {k: v.flatten().tolist() for k, v in values.items()}
    data = {"torch": torch.__version__, "initial": flat(INITIAL), "grads": [flat(g) for g in GRADS],
            "optimizers": optimizers(), "clipping": clipping(), "schedules": schedules(), "plateau": plateau(),
            "layers": layers()}
    path.write_text(json.dumps(data, indent=None) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
