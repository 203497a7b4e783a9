#!/usr/bin/env python3
"""Checks the rules of the source tree that compilers do not see.

- A folder includes only from rows above it: core, then operations, ..., then the program.
- Each foreign library has one door: the folders that may include its headers.
- No file is longer than 600 lines, and half of them are shorter than 200.
- Every .cc file is named in a CMakeLists.txt, and every header is included somewhere.
- No file names a path of somebody's machine.
- Every command in scripts/ has a header line, --help, and is executable.

Exit code: 0 the rules hold, 1 they do not; one line says which file breaks what.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys

# Folder: row. The longest prefix of a file's path is its unit; a unit may include from itself and
# from units of a smaller row. Tests may include anything.
ROWS = {
    "kernels/core": 1,
    "kernels": 2,
    "parallel/comm": 2,
    "data/hdf5": 2,
    "data": 3,
    "parallel": 3,
    "trainer/model": 4,
    "trainer/optim": 5,
    "trainer/checkpoint": 6,
    "trainer/config": 6,
    "trainer/metrics": 6,
    "trainer": 7,
    "trainer/verify": 8,
    "trainer/app": 9,
}
# Files that belong to another unit than that of their folder.
UNIT_OF_FILE = {
    f"trainer/{name}": "trainer/config"
    for name in ("run_config.h", "run_config.cc", "parallel_rules.h", "parallel_rules.cc")
}

# Header pattern: files that may include it.
DOORS = {
    r"mpi\.h": r"parallel/comm/",
    r"nccl\.h": r"parallel/comm/",
    r"H5.*\.h|hdf5.*\.h": r"data/hdf5/",
    r"yaml-cpp/.*": r"trainer/config/yaml_tree\.cc",
    r"sentencepiece.*": r"data/tokenizer.*\.cc",
    r"oneapi/.*|dnnl.*": r"kernels/linear/.*\.cc",
    r"hwy/.*": r"kernels/.*(-inl\.h|_cpu\.cc)",
    r"cuda.*|cublas.*|cudnn.*": r"kernels/core/cuda/.*|.*\.cuh?|.*_cuda\.cc",
    r"CLI/.*": r"trainer/app/",
}

SOURCE_FOLDERS = ("kernels", "parallel", "data", "trainer", "tests")
CODE = (".cc", ".h", ".cu", ".cuh")
MAX_LINES = 600
MAX_MEDIAN = 200
MACHINE_PATH = re.compile(r"/(?:home|root|work|Users|mnt)/[\w.-]+")


def files_of(root):
    """Every file that git knows or could add; outside a repository every file."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True
    )
    if listing.returncode == 0:
        names = listing.stdout.splitlines()
    else:
        names = [os.path.relpath(path, root) for path in root.rglob("*")]
    return sorted({name for name in names if (root / name).is_file()})


def unit_of(name):
    if name in UNIT_OF_FILE:
        return UNIT_OF_FILE[name]
    folder = os.path.dirname(name)
    while folder and folder not in ROWS:
        folder = os.path.dirname(folder)
    return folder


def check_includes(name, text, known):
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not match:
            continue
        kind, target = match.groups()
        if kind == '"' and target not in known:
            yield f"{name}:{number}: includes {target}, which is no path from the root of the tree"
        if name.startswith("tests/"):
            continue
        if target.startswith("tests/"):
            yield f"{name}:{number}: includes {target}; only tests may include tests"
            continue
        for header, door in DOORS.items():
            if kind == "<" and re.fullmatch(header, target) and not re.match(door, name):
                yield f"{name}:{number}: includes <{target}>, which only {door} may"
        here, there = unit_of(name), unit_of(target)
        if kind == '"' and there and here != there and ROWS[there] >= ROWS[here]:
            yield (
                f"{name}:{number}: {here} (row {ROWS[here]}) includes {target} of {there} "
                f"(row {ROWS[there]}); only rows above are open to it"
            )


def check_lengths(lines):
    for name, count in lines.items():
        if count > MAX_LINES:
            yield f"{name}: {count} lines; split it, {MAX_LINES} is the limit"
    if lines and statistics.median(lines.values()) >= MAX_MEDIAN:
        yield f"half of the files have {MAX_MEDIAN} lines or more; split the longest"


def is_word(word, text):
    return re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w.])", text) is not None


def check_listed(texts):
    lists = {os.path.dirname(n): t for n, t in texts.items() if n.endswith("CMakeLists.txt")}
    included = set()
    for text in texts.values():
        included.update(re.findall(r'#\s*include\s+"([^"]+)"', text))
        included.update(re.findall(r'#define HWY_TARGET_INCLUDE "([^"]+)"', text))
    for name in texts:
        if not name.startswith(SOURCE_FOLDERS):
            continue
        if name.endswith((".cc", ".cu")):
            listed = (is_word(os.path.relpath(name, at or "."), list) for at, list in lists.items())
            if not any(listed):
                yield f"{name}: is in no CMakeLists.txt"
        stands_in = "/cuda_emulation/" in name and "/include/" in name  # for <...> of another library
        if name.endswith((".h", ".cuh")) and name not in included and not stands_in:
            yield f"{name}: no file includes it"


def check_scripts(root, texts):
    for name, text in texts.items():
        path = pathlib.PurePath(name)
        if path.parts[0] not in ("scripts", ".ci") or not text.startswith("#!"):
            continue
        if not os.access(root / name, os.X_OK):
            yield f"{name}: has a #! line but is not executable"
        head = text.splitlines()[1:2]
        if not head or not re.match(r'# \w|"""\w', head[0]):
            yield f"{name}: the second line does not say what it does"
        if "--help" not in text and "argparse" not in text:
            yield f"{name}: has no --help"
        if "bash" in text.splitlines()[0]:
            if not text.startswith("#!/usr/bin/env bash\n") or "set -euo pipefail" not in text:
                yield f"{name}: wants '#!/usr/bin/env bash' and 'set -euo pipefail'"


def check_tree(root):
    texts = {}
    for name in files_of(root):
        try:
            texts[name] = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    known = set(texts)
    code = {n: t for n, t in texts.items() if n.startswith(SOURCE_FOLDERS) and n.endswith(CODE)}
    for name, text in code.items():
        yield from check_includes(name, text, known)
    yield from check_lengths({n: t.count("\n") for n, t in code.items()})
    yield from check_listed(texts)
    yield from check_scripts(root, texts)
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            for path in MACHINE_PATH.findall(line):
                yield f"{name}:{number}: names {path}, a path of one machine"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=pathlib.Path, default=here, help="the tree, by default ours")
    faults = list(check_tree(parser.parse_args().root))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
