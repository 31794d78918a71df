# needs: torch safetensors numpy
"""A PyTorch state dict of each benchmark model loads here and gives the same outputs; ours loads in PyTorch, strictly."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import oracle
import torch_cases

for case in oracle.CASES:
    batch = 3
    x = oracle.inputs(case, batch)
    theirs = torch_cases.make(case, torch.from_numpy(x))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    x_file, y_file = oracle.scratch / "x.npy", oracle.scratch / "y.npy"
    np.save(x_file, oracle.channels_last(x))
    state = {name: value.contiguous() for name, value in theirs.state_dict().items()}
    save_file(state, oracle.scratch / "theirs.safetensors")
    np.savez_compressed(oracle.scratch / "theirs.npz", **{k: v.numpy() for k, v in state.items()})
    for kind in ("safetensors", "npz"):
        ours = oracle.scratch / f"ours.{kind}"
        oracle.run("tests/oracle_cases", case, "--load", oracle.scratch / f"theirs.{kind}", "--x", x_file, "--y", y_file,
                   "--save", ours)
        oracle.check_close(f"{case}, outputs from PyTorch's {kind}", np.load(y_file), expected)
        back = load_file(ours) if kind == "safetensors" else {k: torch.from_numpy(v) for k, v in np.load(ours).items()}
        fresh = torch_cases.MODELS[case]()
        fresh.load_state_dict(back, strict=True)
        for name, value in fresh.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, state[name]), f"{case} {name}: changed on the way there and back"
