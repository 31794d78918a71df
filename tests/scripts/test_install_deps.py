"""install-deps does nothing when nothing is missing, and asks apt for exactly what is, after one update."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "install-deps"


class InstallDeps(unittest.TestCase):
    def run_with(self, installed, *arguments, apt_status=0):
        """Runs the script where dpkg-query reports `installed`; returns (exit code, calls of apt-get)."""
        with tempfile.TemporaryDirectory() as folder:
            lines = "".join(f"{package}=installed\n" for package in installed) + "removed-thing=config-files\n"
            pathlib.Path(folder, "packages").write_text(lines)
            programs = {
                "dpkg-query": f'cat "{folder}/packages"',
                "apt-get": f'echo "$@" >>"{folder}/calls"; exit {apt_status}',
                "sudo": 'exec "$@"',
            }
            for name, body in programs.items():
                program = pathlib.Path(folder, name)
                program.write_text(f"#!/bin/bash\n{body}\n")
                program.chmod(0o755)
            env = dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}")
            done = subprocess.run([str(SCRIPT), *arguments], env=env, capture_output=True, text=True, check=False)
            calls = pathlib.Path(folder, "calls")
            return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    def all_packages(self):
        code, calls = self.run_with([])
        self.assertEqual(code, 0)
        return re.findall(r"(?:^| )(?!install)([a-z][^ ]*)", calls[-1])

    def test_nothing_missing_means_nothing_done(self):
        packages = self.all_packages()
        self.assertIn("libdnnl-dev", packages)
        self.assertEqual(self.run_with(packages), (0, []))
        # Debian reports some packages with their architecture.
        self.assertEqual(self.run_with([f"{package}:amd64" for package in packages]), (0, []))

    def test_only_what_is_missing_is_installed(self):
        packages = [package for package in self.all_packages() if package != "libfmt-dev"]
        code, calls = self.run_with(packages)
        self.assertEqual(code, 0)
        self.assertEqual([call.split()[0] for call in calls], ["update", "install"])
        self.assertTrue(calls[1].endswith(" libfmt-dev"), calls[1])
        self.assertNotIn("libdnnl-dev", calls[1])

    def test_a_build_needs_no_clang(self):
        _, calls = self.run_with([], "--build")
        self.assertIn("libdnnl-dev", calls[-1])
        self.assertNotIn("clang", calls[-1])

    def test_a_failing_apt_is_a_failure(self):
        code, _ = self.run_with([], apt_status=100)
        self.assertNotEqual(code, 0)


if __name__ == "__main__":
    unittest.main()
