"""The include checker is itself checked: each kind of wrong include must be named with its file and line."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECKER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check-includes"


class CheckIncludes(unittest.TestCase):
    def run_on(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            done = subprocess.run([sys.executable, str(CHECKER), root], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout

    def assert_breach(self, files, where):
        code, output = self.run_on(files)
        self.assertEqual(code, 1, output)
        self.assertIn(where, output)

    def test_a_right_tree_passes(self):
        code, output = self.run_on({
            "include/bp/shape.h": "#include <array>\n",
            "src/base/error.h": '#include <fmt/format.h>\n\n#include "bp/shape.h"\n',
            "src/ir/graph.h": '#include "base/error.h"\n#include "ir/node.h"\n',
            "src/ir/node.h": "",
            "src/cpu/dnnl/conv.cc": '#include <dnnl.hpp>\n#include "ir/graph.h"\n',
            "tests/ir/graph_test.cc": '#include <gtest/gtest.h>\n#include "ir/graph.h"\n',
        })
        self.assertEqual((code, output), (0, ""))

    def test_what_is_used_of_the_standard_library_is_included(self):
        self.assert_breach({"src/base/names.cc": '#include "base/names.h"\nstd::vector<int> v;\n', "src/base/names.h": ""},
                           "src/base/names.cc: uses std::vector without <vector>")
        code, output = self.run_on({"src/base/names.cc": '#include "base/names.h"\nstd::vector<int> v;  // std::map<\n',
                                    "src/base/names.h": "#include <vector>\n"})
        self.assertEqual((code, output), (0, ""))

    def test_an_earlier_room_may_not_include_a_later_one(self):
        self.assert_breach({"src/ir/graph.h": "", "src/base/error.h": '// why\n#include "ir/graph.h"\n'},
                           "src/base/error.h:2: base must not include ir")

    def test_rooms_side_by_side_do_not_know_each_other(self):
        self.assert_breach({"src/grad/grad.h": "", "src/passes/cse.cc": '#include "grad/grad.h"\n'},
                           "src/passes/cse.cc:1: passes must not include grad")

    def test_a_public_header_hides_the_libraries(self):
        for library in ("fmt/format.h", "dnnl.hpp", "hwy/highway.h", "nlohmann/json.hpp", "toml++/toml.h", "CLI/CLI.hpp",
                        "omp.h", "zlib.h"):
            self.assert_breach({"include/bp/a.h": f"#pragma once\n#include <{library}>\n"}, "include/bp/a.h:2:")

    def test_a_public_header_may_not_include_a_private_one(self):
        self.assert_breach({"src/base/error.h": "", "include/bp/a.h": '#include "base/error.h"\n'}, "include/bp/a.h:1:")

    def test_a_library_stays_in_its_home(self):
        self.assert_breach({"src/ops/conv.cc": "#include <dnnl.hpp>\n"}, "src/ops/conv.cc:1:")

    def test_a_path_must_start_at_src(self):
        self.assert_breach({"src/base/a.h": "", "src/base/a.cc": '#include "a.h"\n'}, "src/base/a.cc:1:")

    def test_what_differs_between_instruction_sets_has_one_home(self):
        self.assert_breach({"src/cpu/kernels/rows.cc": "\nauto x = hn::MaskedLoad(m, d, p);\n"},
                           "src/cpu/kernels/rows.cc:2: hn::MaskedLoad differs between instruction sets")

    def test_an_unknown_room_is_named(self):
        self.assert_breach({"src/attic/a.h": "", "src/attic/a.cc": '#include "attic/a.h"\n'}, "room attic")


if __name__ == "__main__":
    unittest.main()
