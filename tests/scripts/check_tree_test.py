#!/usr/bin/env python3
"""Each rule of scripts/check_tree.py, broken in a small tree of its own; and --help everywhere."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECK = ROOT / "scripts" / "check_tree.py"

# A tree that keeps the rules.
SOUND = {
    "kernels/CMakeLists.txt": "lib(SOURCES core/a.cc norm/b.cc)\n",
    "kernels/core/a.h": "#pragma once\n",
    "kernels/core/a.cc": '#include "kernels/core/a.h"\n',
    "kernels/norm/b.h": '#include "kernels/core/a.h"\n',
    "kernels/norm/b.cc": '#include "kernels/norm/b.h"\n',
    "trainer/CMakeLists.txt": "lib(SOURCES c.cc)\n",
    "trainer/c.cc": '#include "kernels/norm/b.h"\n',
    "scripts/go": "#!/usr/bin/env bash\n# Goes.\nset -euo pipefail\n# --help\n",
}


def check(changes):
    """Exit code and words of the check on the sound tree with changes; None removes a file."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**SOUND, **changes}.items():
            if text is None:
                continue
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
            os.chmod(root / name, 0o755)
        done = subprocess.run(
            [sys.executable, CHECK, "--root", root], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr


class CheckTree(unittest.TestCase):
    def broken(self, changes, words):
        code, said = check(changes)
        self.assertIn(words, said)
        self.assertEqual(said.count("\n"), 1, said)
        self.assertEqual(code, 1)

    def test_a_sound_tree_passes(self):
        self.assertEqual(check({}), (0, ""))

    def test_a_row_below_is_closed(self):
        self.broken(
            {"kernels/core/a.cc": '#include "kernels/core/a.h"\n#include "kernels/norm/b.h"\n'},
            "kernels/core/a.cc:2: kernels/core (row 1) includes kernels/norm/b.h of kernels (row 2)",
        )

    def test_the_same_row_is_closed(self):
        self.broken(
            {
                "parallel/comm/d.h": "#pragma once\n",
                "kernels/norm/b.cc": '#include "kernels/norm/b.h"\n#include "parallel/comm/d.h"\n',
            },
            "kernels/norm/b.cc:2: kernels (row 2) includes parallel/comm/d.h of parallel/comm",
        )

    def test_only_tests_include_tests(self):
        self.broken(
            {"tests/t.h": "#pragma once\n", "trainer/c.cc": '#include "tests/t.h"\n'},
            "trainer/c.cc:1: includes tests/t.h; only tests may",
        )

    def test_an_include_is_a_path_from_the_root(self):
        self.broken({"trainer/c.cc": '#include "c.h"\n'}, "trainer/c.cc:1: includes c.h, which is no")

    def test_a_foreign_library_has_one_door(self):
        for header in ("mpi.h", "hdf5.h", "yaml-cpp/yaml.h", "oneapi/dnnl/dnnl.hpp", "cuda.h"):
            self.broken(
                {"trainer/c.cc": f"#include <{header}>\n"}, f"trainer/c.cc:1: includes <{header}>"
            )

    def test_a_door_is_open_to_its_folder(self):
        changes = {
            "parallel/CMakeLists.txt": "lib(comm/m.cc)\n",
            "parallel/comm/m.cc": "#include <mpi.h>\n",
        }
        self.assertEqual(check(changes), (0, ""))

    def test_no_file_is_too_long(self):
        self.broken(
            {"trainer/c.cc": "\n" * 601}, "trainer/c.cc: 601 lines; split it, 600 is the limit"
        )

    def test_half_of_the_files_are_short(self):
        long = {n: t + "\n" * 250 for n, t in SOUND.items() if n.endswith((".h", ".cc"))}
        self.broken(long, "half of the files have 200 lines or more")

    def test_every_source_is_listed(self):
        self.broken({"trainer/d.cc": "\n"}, "trainer/d.cc: is in no CMakeLists.txt")
        self.broken({"trainer/CMakeLists.txt": "lib(cc.cc c.cc.in)\n"}, "trainer/c.cc: is in no")

    def test_every_header_is_included(self):
        self.broken({"trainer/d.h": "#pragma once\n"}, "trainer/d.h: no file includes it")

    def test_no_machine_path(self):
        path = "/home" + "/somebody"  # this file keeps the rule, too
        self.broken({"docs/a.md": f"\nsee {path}\n"}, f"docs/a.md:2: names {path}")

    def test_commands_say_what_they_do(self):
        start = "#!/usr/bin/env bash\n"
        body = "set -euo pipefail\n# --help\n"
        self.broken({"scripts/go": start + body}, "scripts/go: the second line does not say")
        self.broken({"scripts/go": start + "# Goes.\nset -euo pipefail\n"}, "has no --help")
        self.broken({"scripts/go": start + "# Goes.\n# --help\n"}, "wants '#!/usr/bin/env bash'")
        self.broken({"scripts/go": "#!/bin/bash\n# Goes.\n" + body}, "wants '#!/usr/bin/env bash'")


class Scripts(unittest.TestCase):
    def commands(self):
        for path in sorted((ROOT / "scripts").iterdir()):
            if path.is_file() and path.read_bytes().startswith(b"#!"):
                yield path

    def test_every_command_explains_itself(self):
        for path in self.commands():
            done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f"{path.name}: {done.stderr}")
            self.assertRegex(done.stdout.lower(), "usage: .*" + path.name, path.name)

    def test_the_packages_are_listed_without_installing(self):
        command = [ROOT / "scripts" / "install_packages", "--list"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertIn("libhdf5-openmpi-dev", done.stdout.split())


if __name__ == "__main__":
    unittest.main()
