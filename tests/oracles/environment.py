# needs: onnx onnxruntime numpy safetensors tensorboard
"""The environment holds the releases that scripts/install-oracles pins: an answer is known to be of which program."""

import importlib.metadata
import pathlib
import re

script = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "install-oracles"
pins = dict(re.findall(r"\b([a-z]+)==([0-9.]+)", script.read_text()))
assert {"onnx", "onnxruntime", "numpy", "safetensors", "tensorboard", "torch"} <= set(pins), pins
for name, pinned in pins.items():
    try:
        found = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        assert name == "torch", f"{name} is missing"  # the one that is only installed when asked for
        continue
    assert found == pinned, f"{name}: expected {pinned}, found {found}"
