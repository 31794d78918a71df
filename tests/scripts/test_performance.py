"""performance: sums of a trace, peers' lines, exponents, and a page and plots from made-up results."""

import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest
import xml.dom.minidom

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "performance"


def load():
    loader = importlib.machinery.SourceFileLoader("performance", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("performance", loader))
    loader.exec_module(module)
    return module


def event(step, start, dur, own, limit, cat="forward", bound="flops"):
    return {"ts": start, "dur": dur, "cat": cat,
            "args": {"step": step, "own_us": own, "limit_us": limit, "bound": bound}}


class Performance(unittest.TestCase):
    def setUp(self):
        self.script = load()

    def test_a_loop_counts_by_what_is_inside(self):
        events = [event("scan", 0, 10, 1, 5), event("matmul 2x2x2", 0, 6, 6, 4), event("loop(exp)", 6, 3, 3, 1),
                  event("matmul 3x3x3 + bias", 10, 5, 5, 5, "backward")]
        sums = self.script.summary(events)
        self.assertEqual(sums["kind"], {"scan": [1, 0], "matmul": [11, 9], "loop": [3, 1]})
        self.assertEqual(sums["pass"], {"forward": [10, 5], "backward": [5, 5]})

    def test_peers(self):
        text = ("tiny      ours        7.0 us  best peer jax       31.0 us  ratio   4.43   torch 286 jax 31\n"
                "geomean ratio 4.43 over 1 cases, f32, 2 threads\n\nreal 1s\n"
                "tiny      ours        8.0 us  best peer torch     40.0 us  ratio   5.00   torch 40\n"
                "geomean ratio 5.00 over 1 cases, f32, 2 threads; short: tiny\n"
                "gpt       ours       70.0 us  best peer torch-bf16  140.0 us  ratio   2.00   torch 190\n"
                "geomean ratio 2.00 over 1 cases, bf16, 2 threads\n"
                "gpt       ours       70.0 us  best peer torch  140.0 us  ratio   2.00   cut off\n")
        peers = self.script.peers_of(text)
        self.assertEqual(peers, [("f32", "tiny", 7.0, "jax", 31.0, 4.43), ("f32", "tiny", 8.0, "torch", 40.0, 5.0),
                                 ("bf16", "gpt", 70.0, "torch-bf16", 140.0, 2.0)])
        section = self.script.peers_section(peers)
        self.assertIn("| tiny | f32 | 7.0 us | jax 31.0 us | 4.43 to 5.00 | 2 |", section)
        self.assertIn("| gpt | bf16 | 70.0 us | torch-bf16 140.0 us | 2.00 | 1 |", section)

    def test_exponents(self):
        self.assertAlmostEqual(self.script.slope([(1, 5), (4, 7), (16, 7 * 16)]), 2)

    def test_the_page(self):
        sizes = dict(batch=1, depth=1, width=1, length=1)
        growth = [dict(sizes, kind="mlp", grows="batch", factor=f, step_us=3.0 * f, planned_bytes=100 * f) for f in (1, 4)]
        case = {"step_us": 5, "one_thread_us": 9, "planned_bytes": 1 << 20,
                "summary": self.script.summary([event("matmul 2x2x2", 0, 5, 5, 4)])}
        memory = {"cases": [{"case": "cnn", "planned": 10 << 20, "measured": 10.1 * 2**20, "growth": 5 << 20,
                             "torch_growth": 20 << 20}],
                  "budgets": [{"case": "gpt", "activations": 100 << 20, "budgeted_activations": 35 << 20, "share": 0.35,
                               "step_us": 2000, "budgeted_step_us": 2400, "time_ratio": 1.2, "same_bits": True}]}
        with tempfile.TemporaryDirectory() as folder:
            text = self.script.page({"cases": {"tiny": case}, "growth": growth, "memory": memory, "machine": "M"},
                                    [("f32", "tiny", 5.0, "jax", 31.0, 6.2)], pathlib.Path(folder), "A note.")
            plot = (pathlib.Path(folder) / "mlp_time.svg").read_text()
        self.assertIn("| tiny | 5.0 us | 9.0 us | 1.80 | 4.0 us | 80% | flops (100% of the time) | 1.0 MiB |", text)
        self.assertIn("| tiny | f32 | 5.0 us | jax 31.0 us | 6.20 | 1 |", text)
        self.assertIn("| mlp | batch | 3.0 us | 12.0 us | 1.00 | 1.00 |", text)
        self.assertIn("| cnn | 10.0 MiB | 10.1 MiB | +1.0% | 5.0 MiB | 20.0 MiB | 0.25 |", text)
        self.assertIn("| gpt | 100.0 MiB | 35.0 MiB | 0.35 | 2.00 ms | 2.40 ms | 1.20 | yes |", text)
        xml.dom.minidom.parseString(plot)
        self.assertIn("polyline", plot)


if __name__ == "__main__":
    unittest.main()
