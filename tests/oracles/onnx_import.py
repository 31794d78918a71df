# needs: onnx numpy
"""The node tests that the onnx project ships (Debian's libonnx-testdata: ONNX 1.12, operator set 17), quantised ones and
those on sequences, maps, optional values or strings aside: at least nine of ten give the expected outputs, and every
other one is refused by the name of its operator; none gives anything else.
usage: onnx_import.py BUILD [--list]     --list: what is refused, and why"""

import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import subprocess

import numpy as np
import onnx
from onnx import numpy_helper

import oracle

DATA = pathlib.Path("/usr/share/libonnx-testdata/data/node")
NEWEST = 17
BFLOAT16 = onnx.TensorProto.BFLOAT16


def ops_of(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from ops_of(attribute.g)


def counts(model):
    """Whether the test is among those asked for."""
    ports = list(model.graph.input) + list(model.graph.output)
    if any(p.type.WhichOneof("value") != "tensor_type" for p in ports):
        return False  # sequences, maps, optional values
    if any(p.type.tensor_type.elem_type == onnx.TensorProto.STRING for p in ports):
        return False
    ops = set(ops_of(model.graph))
    if any("quantize" in op.lower() or op.startswith("QLinear") or op.endswith("Integer") for op in ops):
        return False
    if any("Sequence" in op or "Optional" in op for op in ops):
        return False
    return all(o.domain in ("", "ai.onnx") and o.version <= NEWEST for o in model.opset_import)


def value(path, port):
    array = numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    if port.type.tensor_type.elem_type == BFLOAT16:  # stored as words
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def input_file(path, port, prefix):
    """The file of an input: mended where bfloat16 is stored as words without its type, and where a shape is lost (the
    operand of CastLike that gives its type)."""
    kind, tensor = port.type.tensor_type, onnx.TensorProto.FromString(path.read_bytes())
    shape = [d.dim_value for d in kind.shape.dim]
    if kind.elem_type == tensor.data_type and not (port.name == "like" and shape != list(tensor.dims)):
        return path
    values = np.broadcast_to(numpy_helper.to_array(tensor), shape)
    if kind.elem_type == BFLOAT16:
        values = values.astype(np.uint16)
    out = onnx.TensorProto(data_type=kind.elem_type, dims=shape, raw_data=values.tobytes())
    mended = pathlib.Path(f"{prefix}{path.name}")
    mended.write_bytes(out.SerializeToString())
    return mended


def difference(ours, theirs, port):
    """What is wrong, or None."""
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, expected {theirs.shape}"
    tolerance = 1e-3 if theirs.dtype.kind == "f" else 0  # onnx's own, one unit in the last place of float16
    if port.type.tensor_type.elem_type == BFLOAT16:
        tolerance = 2**-7  # and one of bfloat16: the data were cut off, where the operator rounds to nearest
    if not np.allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=tolerance, atol=1e-7, equal_nan=True):
        return f"off by {np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0):.3g}"
    return None


if not DATA.is_dir():
    print(f"skipped: there is no {DATA}: Debian's package libonnx-testdata brings it", file=sys.stderr)
    sys.exit(77)

cases, lines = [], []
for folder in sorted(DATA.iterdir()):
    model = onnx.load(folder / "model.onnx")
    if not counts(model):
        continue
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = sorted(data.glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        prefix = oracle.scratch / f"{folder.name}.{data.name}."
        cases.append((folder.name, model.graph, data, prefix))
        files = [input_file(path, port, prefix) for path, port in zip(inputs, model.graph.input)]
        lines.append(" ".join(map(str, [folder / "model.onnx", prefix, *files])))
done = subprocess.run([oracle.build / "tests/oracle_import"], input="\n".join(lines) + "\n", capture_output=True, text=True)
assert done.returncode == 0, f"oracle_import: {done.returncode}\n{done.stderr}"
answers = done.stdout.splitlines()
assert len(answers) == len(cases), f"{len(answers)} answers for {len(cases)} cases"

passed, refused, wrong = 0, collections.defaultdict(list), []
for (name, graph, data, prefix), answer in zip(cases, answers, strict=True):
    if answer.startswith("refused"):
        refused[answer[8:]].append(name)
        if not any(op in answer for op in ops_of(graph)):
            wrong.append(f"{name}: refused without naming an operator: {answer[8:]}")
        continue
    problems = []
    for k, path in enumerate(sorted(data.glob("output_*.pb"), key=lambda p: int(p.stem.split("_")[1]))):
        problem = difference(np.load(f"{prefix}{k}.npy"), value(path, graph.output[k]), graph.output[k])
        if problem:
            problems.append(f"output {k}: {problem}")
    if problems:
        wrong.append(f"{name}: {'; '.join(problems)}")
    else:
        passed += 1
refusals = sum(map(len, refused.values()))
print(f"{passed} of {len(cases)} pass ({100 * passed / len(cases):.1f}%), {refusals} are refused by name")
if "--list" in sys.argv:
    for why, names in sorted(refused.items()):
        print(f"refused: {', '.join(names)}: {why}")
assert not wrong, "\n" + "\n".join(wrong)
assert passed + refusals == len(cases)
assert passed >= 0.9 * len(cases)
