# needs: onnx onnxruntime numpy
"""Operations of every kind, exported one by one: onnxruntime computes from the file what we compute."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import numpy as np
import onnx
import onnxruntime

import oracle

oracle.run("tests/oracle_export", oracle.scratch)
wrong = []
files = sorted(oracle.scratch.glob("*.onnx"))
assert len(files) > 60
for path in files:
    name = path.stem
    arguments = [np.load(f) for f in sorted(oracle.scratch.glob(f"{name}.in*.npy"))]
    expected = [np.load(f) for f in sorted(oracle.scratch.glob(f"{name}.out*.npy"))]
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        results = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), arguments, strict=True)})
        for k, (ours, theirs) in enumerate(zip(expected, results, strict=True)):
            assert ours.dtype == theirs.dtype, f"dtype {ours.dtype}, onnxruntime says {theirs.dtype}"
            oracle.check_close(f"{name}, output {k}", ours, theirs)
    except Exception as error:  # all of them are wanted, not the first only
        wrong.append(f"{name}: {error}")
assert not wrong, "\n".join(wrong)
