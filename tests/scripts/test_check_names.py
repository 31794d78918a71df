"""The checker of names is itself checked: what is local to two files of a folder must be named with both places, and what
only looks like it must not."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECKER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check-names"


class CheckNames(unittest.TestCase):
    def run_on(self, first, second, second_name="src/cpu/plan/b.cc"):
        with tempfile.TemporaryDirectory() as root:
            for name, text in (("src/cpu/plan/a.cc", first), (second_name, second)):
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            done = subprocess.run([sys.executable, str(CHECKER), root], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout

    def assert_found(self, name, declaration):
        text = f"namespace bp {{\n\nnamespace {{\n{declaration}\n}}  // namespace\n}}  // namespace bp\n"
        code, output = self.run_on(text, text)
        self.assertEqual((code, output), (1, f"{name} is local to src/cpu/plan/a.cc:4 and to src/cpu/plan/b.cc:4\n"))

    def assert_passes(self, first, second, **where):
        self.assertEqual(self.run_on(first, second, **where), (0, ""))

    def test_declarations_of_every_kind(self):
        self.assert_found("size_of", "int size_of(int n) { return n; }")
        self.assert_found("size_of", "template <class T, int N = 2> std::vector<std::pair<T, int>> size_of(T n);")
        self.assert_found("size_of", 'std::function<void(int)> size_of(const char* s = ")};") noexcept;')
        self.assert_found("kSizes", "constexpr int kSizes[] = {1, 2, 3};")
        self.assert_found("sizes", "thread_local long sizes{-1};")
        self.assert_found("Size", "struct Size : Base<int> {\n  int of() { return 1; }\n};")
        self.assert_found("Size", "enum class Size : int { small, large };")
        self.assert_found("scaled", "const auto scaled = [](int n) { return 2 * n; };")

    def test_static_functions(self):
        text = "namespace bp {\nstatic int size_of(int n) { return n; }\n}\n"
        code, output = self.run_on(text, text)
        self.assertEqual(code, 1)
        self.assertIn("size_of is local to src/cpu/plan/a.cc:2 and to src/cpu/plan/b.cc:2", output)

    def test_what_is_shared_or_hidden_passes(self):
        shared = "namespace bp {\nint size_of(int n);\nstruct Size { static int of(); };\n}\n"
        self.assert_passes(shared, shared)
        inside = "namespace {{\nint {0}() {{\n  struct Size {{ int n; }};\n  int sizes = 1;\n  return sizes;\n}}\n}}\n"
        self.assert_passes(inside.format("a"), inside.format("b"))
        member = "namespace {{\nstruct {0} {{ void run(); }};\nvoid {0}::run() {{}}\nbool operator==({0}, {0});\n}}\n"
        self.assert_passes(member.format("A"), member.format("B"))
        alias = "namespace {\nusing Sizes = std::vector<int>;\nusing std::min;\nstatic_assert(sizeof(int) == 4);\n}\n"
        self.assert_passes(alias, alias)
        comment = 'namespace {{\n// int size_of();\n#define SIZE int size_of();\nauto {0} = "int size_of() {{";\n}}\n'
        self.assert_passes(comment.format("a"), comment.format("b"))

    def test_overloads_in_one_file_and_files_of_other_folders_pass(self):
        text = "namespace {\nint size_of(int n);\nint size_of(long n);\n}\n"
        self.assert_passes(text, "")
        self.assert_passes(text, text, second_name="src/cpu/b.cc")

    def test_files_that_are_compiled_alone_pass(self):
        alone = '#include "hwy/foreach_target.h"\nnamespace {\nint size_of(int n);\n}\n'
        self.assert_passes(alone, alone)


if __name__ == "__main__":
    unittest.main()
