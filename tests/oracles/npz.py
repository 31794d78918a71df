# needs: numpy
"""numpy.load reads what write_npz writes, and read_npz what numpy.savez and savez_compressed write."""

import pathlib
import sys
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import numpy as np

import oracle

weights = oracle.scratch / "weights.npz"
oracle.run("tests/oracle_cases", "tiny", "--save", weights)
assert zipfile.ZipFile(weights).testzip() is None
first = dict(np.load(weights))
assert {k: v.shape for k, v in first.items()} == {
    "0.weight": (16, 2), "0.bias": (16,), "2.weight": (16, 16), "2.bias": (16,), "4.weight": (1, 16), "4.bias": (1,)}
for save in (np.savez, np.savez_compressed):
    save(oracle.scratch / "numpy.npz", **{k: v + 1 for k, v in first.items()})
    oracle.run("tests/oracle_cases", "tiny", "--load", oracle.scratch / "numpy.npz", "--save", weights)
    for name, value in np.load(weights).items():
        assert np.array_equal(value, first[name] + 1), name
