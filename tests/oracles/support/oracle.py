"""What the oracles share: running our programs, comparing arrays, and the benchmark's models in PyTorch."""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

build = pathlib.Path(sys.argv[1])
scratch = pathlib.Path(tempfile.mkdtemp(prefix="bp_oracle_"))

CASES = ("tiny", "mlp", "cnn", "resnet20", "lstm", "gpt")


def run(program, *arguments):
    """Runs build/PROGRAM; what it printed. Fails with what it said."""
    done = subprocess.run([str(build / program), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{program} {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def check_close(what, ours, theirs, tolerance=1e-5):
    """Every element within `tolerance` of the largest magnitude."""
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, expected {theirs.shape}"
    worst = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0)) / max(1e-30, float(np.abs(theirs).max(initial=0)))
    assert worst <= tolerance, f"{what}: {worst:.3g} off, {tolerance:.0e} allowed"
    print(f"{what}: {worst:.2g} off")


def inputs(case, batch, seed=0):
    """As PyTorch takes them: images [N, C, H, W]."""
    draw = np.random.default_rng(seed)
    shape = {"tiny": (2,), "mlp": (784,), "cnn": (1, 28, 28), "resnet20": (3, 32, 32), "lstm": (64,), "gpt": (128,)}[case]
    if case in ("lstm", "gpt"):
        return draw.integers(0, 96, (batch, *shape))
    return draw.random((batch, *shape), dtype=np.float32)


def channels_last(x):
    """[N, C, H, W] to [N, H, W, C]; anything else as it is."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x
