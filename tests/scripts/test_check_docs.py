"""check-docs finds the complete examples, and no others, with the output they announce; it complains about configurations and
commands that bp does not take."""

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
            found = list(check_docs.programs())
        self.assertEqual([(where, output) for where, _, output in found], [("README.md:5", "hello\n"), ("README.md:12", None)])

    def test_wrong_examples_are_complained_about(self):
        check_docs = load()
        self.assertIsNone(check_docs.try_out("int main() {}", None, []))
        self.assertIn("does not compile", check_docs.try_out("int main() { return nothing; }", None, []))
        self.assertIn("ends with 3", check_docs.try_out("int main() { return 3; }", None, []))
        self.assertIn("instead of", check_docs.try_out("int main() {}", "hello\n", []))

    def test_examples_of_headers_become_functions(self):
        check_docs = load()
        with tempfile.TemporaryDirectory() as root:
            check_docs.ROOT = pathlib.Path(root)
            folder = pathlib.Path(root, "include", "bp")
            folder.mkdir(parents=True)
            (folder / "a.h").write_text("// A.\n//\n//   int x = 1;\n//   if (x)\n//     ++x;\n#pragma once\n//   no\n")
            (folder / "b.h").write_text("// B.\n#pragma once\n")
            code, headers = check_docs.header_examples()
        self.assertEqual(headers, 1)
        self.assertIn('{\n#line 3 "include/bp/a.h"\nint x = 1;\nif (x)\n  ++x;\n}', code)


BP = """#!/bin/sh
case "$*" in
  --help) printf 'Subcommands:\\n  train    trains\\n' ;;
  "train --help") echo '  -q,--quiet   says less'; echo '  --set KEY=VALUE' ;;
  keys) echo '| `lr` | a number |' ;;
  inspect*) grep -q bad shown.toml && echo refused >&2 && exit 2; exit 4 ;;
esac
"""
EXAMPLE = '# Text.\nname = "x"\n[data]\na = 1\n[tune]\nb = 2\n'


class AgainstTheProgram(unittest.TestCase):
    def complaints(self, kind, page):
        check_docs = load()
        with tempfile.TemporaryDirectory() as root:
            check_docs.ROOT = pathlib.Path(root)
            for name, text in (("bp", BP), ("README.md", ""), ("examples/x.toml", EXAMPLE), ("docs/guides/x.md", page),
                               ("examples/fashion_mnist.toml", EXAMPLE)):
                pathlib.Path(root, name).parent.mkdir(parents=True, exist_ok=True)
                pathlib.Path(root, name).write_text(text)
            program = pathlib.Path(root, "bp")
            program.chmod(0o755)
            return list(getattr(check_docs, kind)(program).check())

    def test_configurations(self):
        whole = '```toml\nname = "x"\n[data]\na = 1\n```\n'
        self.assertEqual(self.complaints("Configurations", whole), [])
        self.assertIn("not shown: a = 1", self.complaints("Configurations", '```toml\nname = "x"\n[data]\n```\n')[0])
        self.assertEqual(self.complaints("Configurations", whole + "```toml\n[data]\na = 2\n```\n"), [])
        self.assertIn("x.md:7: bp refuses", self.complaints("Configurations", whole + "\n```toml\n[data]\nbad = 2\n```\n")[0])

    def test_tables_take_the_place_of_others(self):
        self.assertEqual(load().replaced("a = 1\n[b]\nc = 1\n[[d]]\n[[d]]\n", "[[d]]\ne = 1\n[f]\n"),
                         "a = 1\n[b]\nc = 1\n[[d]]\ne = 1\n[f]\n")

    def test_commands(self):
        good = "```sh\nbuild/bp train a.toml --quiet --set optimizer.lr=1  # words\n```\n    bp train a.toml -q\n`bp train`\n"
        self.assertEqual(self.complaints("Commands", good), [])
        for bad, message in (("bp strain x", "no such command"), ("bp train --quick", "no --quick"),
                             ("bp train --set optimizer.rl=1", "no key optimizer.rl"), ("bp train examples/y.toml", "no examples/y")):
            for form in (f"```sh\n{bad}\n```\n", f"    {bad}\n", f"Say `{bad}`.\n"):
                self.assertIn(message, self.complaints("Commands", form)[0])


if __name__ == "__main__":
    unittest.main()
