"""The package as it is installed: offline, by pip, from the tree and from a source distribution."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ASK = "import gemma4c; print(gemma4c.Engine().session().respond('What is the opposite of hot?', temperature=0))"
COLD = "The opposite of hot is cold.\n"


def run(*command, **more):
    """What a command prints on its standard output; its failure is the test's."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, **more)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GEMMA4C", "CFLAGS"))}
    env.update(PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1", **more)
    return env


@unittest.skipUnless((BUILD / "libgemma4.so").exists(), "the library is not built")
class Install(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        prebuilt = self.folder / "prebuilt"
        prebuilt.mkdir()
        shutil.copy(BUILD / "libgemma4.so", prebuilt)
        shutil.copy(ROOT / "gemma4", prebuilt)
        self.prebuilt = str(prebuilt)
        self.empty = self.folder / "empty"
        self.empty.mkdir()

    def new_venv(self):
        run(sys.executable, "-m", "venv", self.folder / "venv")
        return self.folder / "venv" / "bin"

    def check(self, bin_folder):
        """From an empty folder: the program and the package answer."""
        env = environment(PATH=f"{bin_folder}:/usr/bin:/bin")
        told = run("gemma4", "-p", "What is the opposite of hot?", "--temp", "0", "--quiet", env=env, cwd=self.empty)
        self.assertEqual(told, COLD)
        self.assertEqual(run("python", "-c", ASK, env=env, cwd=self.empty), COLD)
        self.assertEqual(run("python", "-m", "gemma4c", "-p", "What is 39 - 1?", "--temp", "0", "--quiet", env=env,
                             cwd=self.empty), "38\n")

    def test_from_the_tree(self):
        venv = self.new_venv()
        run(venv / "pip", "install", ROOT / "python", env=environment(GEMMA4C_PREBUILT=self.prebuilt), cwd=self.empty)
        self.check(venv)
        self.assertIn("gemma4c", run(venv / "pip", "show", "gemma4c", env=environment()))
        run(venv / "pip", "uninstall", "-y", "gemma4c", env=environment())
        self.assertFalse((venv / "gemma4").exists())

    def test_editable(self):
        venv = self.new_venv()
        run(venv / "pip", "install", "-e", ROOT / "python", env=environment(), cwd=self.empty)
        self.check(venv)

    def test_wheels_are_equal_bytes(self):
        made = []
        for name in ("a", "b"):
            out = self.folder / name
            out.mkdir()
            run(sys.executable, "-c", "import gemma4c_build; gemma4c_build.build_wheel('.')", cwd=out,
                env=environment(PYTHONPATH=str(ROOT / "python" / "backend"), GEMMA4C_PREBUILT=self.prebuilt))
            (wheel,) = out.iterdir()
            made.append(wheel.read_bytes())
        self.assertEqual(made[0], made[1])
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("gemma4c/py.typed", names)
        self.assertIn("gemma4c/tiny.g4", names)

    @unittest.skipUnless(shutil.which(os.environ.get("CC", "cc")), "no C compiler")
    def test_source_distribution(self):
        """It carries the sources, and they compile; without optimisation, which is what takes long."""
        run(sys.executable, "-c", "import gemma4c_build; gemma4c_build.build_sdist('.')", cwd=self.folder,
            env=environment(PYTHONPATH=str(ROOT / "python" / "backend")))
        (archive,) = self.folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            self.assertTrue(all(name.startswith("gemma4c-") for name in tar.getnames()))
        venv = self.new_venv()
        run(venv / "pip", "install", archive, env=environment(CFLAGS="-O0 -DG4_SCALAR_ONLY"), cwd=self.empty)
        self.check(venv)
