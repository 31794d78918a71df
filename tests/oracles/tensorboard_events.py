# needs: numpy tensorboard
"""TensorBoard's own reader finds in the event files of a run what history.csv and the model hold, across a resumed run
and behind a torn tail."""

import csv
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))

import numpy as np
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

import oracle

NET = """
[data]
format = "idx"
train = {{ inputs = "{0}/x.idx", targets = "{0}/y.idx" }}
validation_fraction = 0.25
[model]
input = [8, 8, 1]
layers = [{{ type = "flatten" }}, {{ type = "linear", units = 3 }}]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
[train]
epochs = 3
batch = 16
threads = 1
"""


def idx(path, array):
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def events(part):
    reader = event_accumulator.EventAccumulator(str(run / "events" / part), size_guidance={
        kind: 0 for kind in ("scalars", "histograms", "images", "tensors")})
    reader.Reload()
    return reader


def history():
    with open(run / "history.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def check_scalars():
    rows = history()
    for part in ("train", "validation"):
        reader = events(part)
        metrics = ["loss", "accuracy"] + (["precision", "recall", "f1", "perplexity"] if part == "validation" else [])
        tags = metrics + (["lr", "seconds", "samples_per_second"] if part == "train" else [])
        assert sorted(reader.Tags()["scalars"]) == sorted(tags), reader.Tags()
        for tag in tags:
            column = f"{part}_{tag}" if tag in metrics else tag
            found = [(e.step, e.value) for e in reader.Scalars(tag)]
            assert found == [(row["epoch"], float(np.float32(row[column]))) for row in rows], (column, found)
    return len(rows)


draw = np.random.default_rng(0)
idx(oracle.scratch / "x.idx", draw.integers(0, 256, (200, 8, 8), dtype=np.uint8))
idx(oracle.scratch / "y.idx", draw.integers(0, 3, 200, dtype=np.uint8))
(oracle.scratch / "net.toml").write_text(NET.format(oracle.scratch))
run = oracle.scratch / "run"
oracle.run("bp", "train", oracle.scratch / "net.toml", "-q", "--out", run)
assert check_scalars() == 3

reader = events("train")
assert sorted(reader.Tags()["histograms"]) == ["parameters/1.bias", "parameters/1.weight"], reader.Tags()
for event in reader.Histograms("parameters/1.weight"):
    h = event.histogram_value
    assert h.num == sum(h.bucket) == 64 * 3 and len(h.bucket) == len(h.bucket_limit) == 64, h
    assert h.min < 0 < h.max == h.bucket_limit[-1] and np.all(np.diff(h.bucket_limit) > 0), h
assert [e.step for e in reader.Histograms("parameters/1.weight")] == [1, 2, 3]

(image,) = reader.Images("training images")
assert (image.height, image.width) == (35, 35)  # 4 x 4 pictures of 8 x 8, a pixel apart
assert image.encoded_image_string.startswith(b"\x89PNG"), image.encoded_image_string[:8]
(config,) = reader.Tensors("config")
assert b"[optimizer]" in tensor_util.make_ndarray(config.tensor_proto)[0]

# A run that goes on: another file, whose steps begin where the older ones end; a torn record at an older file's end.
(older,) = (run / "events" / "train").iterdir()
older.write_bytes(older.read_bytes() + struct.pack("<QI", 100, 0)[:9])
checkpoint = max((run / "checkpoints").iterdir())
kept = checkpoint.read_bytes()
oracle.run("bp", "train", "--resume", run, "-q", "--set", "train.epochs=5")
assert len(list((run / "events" / "train").iterdir())) == 2
assert check_scalars() == 5

# Once more from the third epoch, as after a crash that lost the last checkpoints: epochs are not told twice.
for newer in (run / "checkpoints").iterdir():
    newer.unlink()
checkpoint.write_bytes(kept)
oracle.run("bp", "train", "--resume", run, "-q", "--set", "train.epochs=6", "--set", "optimizer.lr=0.5")
assert check_scalars() == 6
print("scalars, histograms, images and text read back")
