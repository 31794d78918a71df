"""reference turns the headers' comments into doxygen's, and attaches each to what it is about."""

import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "reference"
HEADER = """// A header, of `things` <3.
//
//   int example = 1;
#pragma once

#include <vector>

namespace bp {

// Nobody's.

// ---- things ----
// How a thing is made.
struct Options {
  int a = 1, b = 2;  // both of them,
                     // and on
  std::vector<int> c = {};
};

// Does f.
int f(int x);
inline int f(double x) {
  // inside
  return static_cast<int>(x);
}
int g();
struct Thing {
  Thing(const Thing&) = delete;
  ~Thing();
};
#define BP_HIDDEN 1

}  // namespace bp
"""


class Reference(unittest.TestCase):
    def converted(self):
        loader = importlib.machinery.SourceFileLoader("reference", str(SCRIPT))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", loader))
        loader.exec_module(module)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "a.h")
            path.write_text(HEADER)
            return module.Header(path)

    def test_comments_are_attached(self):
        header = self.converted()
        text = "\n".join(line for line in header.lines if line)
        self.assertTrue(text.startswith("/// \\file\n/// A header, of <tt>things</tt> \\<3.\n/// \n/// \\code{.cpp}\n"
                                        "///   int example = 1;\n/// \\endcode\nnamespace bp {"))
        for part in ("/// \\name things\n///@{\n/// How a thing is made.\nstruct Options {",
                     "  int a = 1;\n///< both of them,\n///< and on\n  int b = 2;\n///< both of them,\n///< and on\n",
                     "\n  std::vector<int> c = {};\n};",
                     "/// Does f.\nint f(int x);\n/// Does f.\ninline int f(double x) {",
                     "}\nint g();\nstruct Thing {\n};", "///@}\n}"):
            self.assertIn(part, text)
        for gone in ("Nobody", "delete", "~Thing", "BP_HIDDEN", "///< namespace", "/// inside"):
            self.assertNotIn(gone, text)

    def test_lines_are_those_of_the_source(self):
        header = self.converted()
        for name, number in (("int g();", 26), ("  int b = 2;", 15)):
            self.assertEqual(header.numbers[header.lines.index(name)] + 1, number)


if __name__ == "__main__":
    unittest.main()
