"""bench-compare: ratios, bands and verdicts, and what it reads of callgrind."""

import importlib.machinery
import importlib.util
import math
import pathlib
import random
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "bench-compare"


def load():
    loader = importlib.machinery.SourceFileLoader("bench_compare", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_compare", loader))
    loader.exec_module(module)
    return module


class BenchCompare(unittest.TestCase):
    def setUp(self):
        self.script = load()

    def test_without_noise_the_ratio_is_exact(self):
        ratio, band = self.script.ratio_and_band([(100, 110, 100)] * 3)
        self.assertAlmostEqual(ratio, 1.1)
        self.assertAlmostEqual(band, 1)

    def test_a_drift_of_the_machine_cancels(self):
        ratio, _ = self.script.ratio_and_band([(100, 110, 121), (200, 220, 242)])
        self.assertAlmostEqual(ratio, 1)

    def test_the_band_holds_95_of_100_equal_builds(self):
        draw = random.Random(1)
        for many in (3, 5, 15):
            n, inside = 400, 0
            for _ in range(n):
                rounds = [tuple(math.exp(draw.gauss(0, 0.05)) for _ in range(3)) for _ in range(many)]
                ratio, band = self.script.ratio_and_band(rounds)
                inside += 1 / band <= ratio <= band
            self.assertGreater(inside / n, 0.92, many)
            self.assertLess(inside / n, 0.99, many)

    def test_verdicts(self):
        self.assertEqual(self.script.verdict(1.02, 1.01, 0.01), "slower")
        self.assertEqual(self.script.verdict(1.02, 1.03, 0.01), "same")
        self.assertEqual(self.script.verdict(1.02, 1.0, 0.05), "same")
        self.assertEqual(self.script.verdict(0.9, 1.05, 0.01), "faster")

    def test_counts_are_read(self):
        self.assertEqual(self.script.instructions("==1== Collected : 126649\n==1== I   refs:  126,649"), 126649)
        self.assertEqual(self.script.instructions("==1== I   refs:      1,126,649"), 1126649)
        self.assertIsNone(self.script.instructions("nothing"))

    def test_the_last_json_line_counts(self):
        self.assertEqual(self.script.last_json('words\n{"step_us": 1}\n{"step_us": 2}\n'), {"step_us": 2})
        self.assertIsNone(self.script.last_json("words"))


if __name__ == "__main__":
    unittest.main()
