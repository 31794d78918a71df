"""check-docs finds the complete examples, and no others, with the output they announce."""

import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check-docs"


def load():
    loader = importlib.machinery.SourceFileLoader("check_docs", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_docs", loader))
    loader.exec_module(module)
    return module


PAGE = """# Page
```cpp
int fragment();
```
```cpp
int main() { return 0; }
```
```text
hello
```
Words.
```cpp
int main() { return 1; }
```
"""


class CheckDocs(unittest.TestCase):
    def test_complete_examples_are_found(self):
        check_docs = load()
        with tempfile.TemporaryDirectory() as root:
            check_docs.ROOT = pathlib.Path(root)
            pathlib.Path(root, "README.md").write_text(PAGE)
            found = list(check_docs.examples())
        self.assertEqual([(where, output) for where, _, output in found], [("README.md:5", "hello\n"), ("README.md:12", None)])

    def test_wrong_examples_are_complained_about(self):
        check_docs = load()
        self.assertIsNone(check_docs.try_out("int main() {}", None, []))
        self.assertIn("does not compile", check_docs.try_out("int main() { return nothing; }", None, []))
        self.assertIn("ends with 3", check_docs.try_out("int main() { return 3; }", None, []))
        self.assertIn("instead of", check_docs.try_out("int main() {}", "hello\n", []))


if __name__ == "__main__":
    unittest.main()
