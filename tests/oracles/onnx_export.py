# needs: onnx onnxruntime numpy
"""Every benchmark model, exported: onnx's checker finds nothing, its shape inference agrees, and onnxruntime computes
what we do, at batches that the export never saw. Read back by us, too."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import numpy as np
import onnx
import onnxruntime

import oracle


def outputs(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


for case in oracle.CASES:
    for first in (False, True) if case in ("cnn", "resnet20") else (False,):
        path = oracle.scratch / "model.onnx"
        oracle.run("tests/oracle_cases", case, "--onnx", path, *(["--first", "1"] if first else []))
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
        ops = [n.op_type for n in model.graph.node]
        print(case, len(ops), "nodes,", ops.count("Transpose"), "transposes")
        assert ops.count("BatchNormalization") == (21 if case == "resnet20" else 0)
        names = {i.name for i in model.graph.initializer}
        expected = {"cnn": "c1.weight", "gpt": "blocks.0.qkv.weight", "lstm": "lstm.weight_hh_l1"}.get(case)
        assert expected is None or expected in names, sorted(names)
        for batch in (1, 5):
            x = oracle.inputs(case, batch)
            x_file, y_file = oracle.scratch / "x.npy", oracle.scratch / "y.npy"
            np.save(x_file, oracle.channels_last(x))
            oracle.run("tests/oracle_cases", case, "--x", x_file, "--y", y_file)
            theirs = outputs(path, x if first else oracle.channels_last(x))
            oracle.check_close(f"{case}, batch {batch}", np.load(y_file), theirs)
            np.save(x_file, x if first else oracle.channels_last(x))
            oracle.run("tests/oracle_cases", case, "--x", x_file, "--y", y_file, "--from", path)
            oracle.check_close(f"{case}, batch {batch}, read back", np.load(y_file), theirs)
