"""The build of the package: a backend (PEP 517, PEP 660) that needs a C compiler and the standard library.

A wheel holds the Python files, the shared library, the program, the tiny model, export.py and its calibration text. The
C sources stand in the folder above python/ in a checkout, and in csrc/ in a source distribution.

What may be set in the environment:
    CC                 the compiler, and what always stands behind it ("python -m ziglang cc -target ...")
    CFLAGS, LDFLAGS    more of it
    GEMMA4C_PLATFORM   the platform tag of the wheel, where it is built for another machine
    GEMMA4C_PREBUILT   a folder that holds the library and the program already: nothing is compiled
"""

import base64
import concurrent.futures
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = os.path.join(HERE, "csrc")
if not os.path.isdir(SOURCES):
    SOURCES = os.path.dirname(HERE)
FOLDERS = ("engine", "media", "chat", "cli")
DATA = ("models/tiny.g4", "models/calibration.txt", "export.py")  # beside the program in a wheel
EXPORT = 'extern __attribute__((visibility("default")))'
FLAGS = ["-std=c11", "-O3", "-pthread", "-fPIC", "-fvisibility=hidden", "-DG4_API=" + EXPORT]
PYTHON = ">=3.9"


def source(name):
    return os.path.join(SOURCES, *name.split("/"))


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def version():
    return re.search(r'#define G4_VERSION "([^"]*)"', read(source("gemma4.h"))).group(1)


def c_sources():
    """The files of the library and those of the program, as tools/floors lists them."""
    library, program = [], []
    for line in read(source("tools/floors")).splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            (program if words[0] == "cli" else library).extend(words[2:])
    return library, program


def headers():
    return ["gemma4.h"] + [f"{folder}/{f}" for folder in FOLDERS for f in sorted(os.listdir(source(folder)))
                           if f.endswith(".h")]


# ---- Compiling ---------------------------------------------------------------------------------------------------


def platform():
    given = os.environ.get("GEMMA4C_PLATFORM")
    return given or re.sub(r"[-.]", "_", sysconfig.get_platform())


def compiler():
    given = os.environ.get("CC")
    if given:
        return shlex.split(given)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    sys.exit("gemma4c: there is no C compiler: install gcc or clang, or set CC")


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        sys.exit(f"gemma4c: {' '.join(command)}\n{done.stdout}")


def build(folder):
    """Compile into the folder: (the library, the program)."""
    library = "libgemma4.dylib" if platform().startswith("macosx") else "libgemma4.so"
    prebuilt = os.environ.get("GEMMA4C_PREBUILT")
    if prebuilt:
        return os.path.join(prebuilt, library), os.path.join(prebuilt, "gemma4")
    cc, flags = compiler(), FLAGS + shlex.split(os.environ.get("CFLAGS", ""))
    of_library, of_program = c_sources()

    def compile_one(name):
        out = os.path.join(folder, name.replace("/", "_")[:-2] + ".o")
        run(cc + flags + ["-c", source(name), "-o", out])
        return out

    # The kernels take longest, so they begin first.
    names = sorted(of_library + of_program, key=lambda n: n != "engine/kernels.c")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = dict(zip(names, pool.map(compile_one, names)))
    links = ["-pthread"] + shlex.split(os.environ.get("LDFLAGS", "")) + ["-lm"]
    shared = ["-dynamiclib", "-Wl,-install_name,@rpath/" + library] if library.endswith("dylib") else \
        ["-shared", "-Wl,-soname," + library]
    out, program = os.path.join(folder, library), os.path.join(folder, "gemma4")
    run(cc + shared + [objects[n] for n in of_library] + ["-o", out] + links)
    run(cc + [objects[n] for n in of_library + of_program] + ["-o", program] + links)
    return out, program


# ---- Metadata ------------------------------------------------------------------------------------------------------


def metadata():
    return "\n".join([
        "Metadata-Version: 2.1",
        "Name: gemma4c",
        f"Version: {version()}",
        "Summary: Gemma 4 on a CPU: the engine of gemma4.c, without dependencies",
        f"Requires-Python: {PYTHON}",
        "Provides-Extra: media",
        "Requires-Dist: numpy; extra == 'media'",
        "Requires-Dist: pillow; extra == 'media'",
        "Classifier: Programming Language :: Python :: 3",
        "Classifier: Programming Language :: C",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Operating System :: MacOS",
        "Classifier: Typing :: Typed",
        "License-File: LICENSE",
        "Description-Content-Type: text/markdown",
        "",
        read(os.path.join(HERE, "README.md")),
    ])


def tag():
    return f"py3-none-{platform()}"


def wheel_info():
    return f"Wheel-Version: 1.0\nGenerator: gemma4c_build\nRoot-Is-Purelib: false\nTag: {tag()}\n"


ENTRY_POINTS = "[console_scripts]\ngemma4 = gemma4c.__main__:main\n"


def info_name():
    return f"gemma4c-{version()}.dist-info"


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = os.path.join(metadata_directory, info_name())
    os.makedirs(folder)
    for name, text in (("METADATA", metadata()), ("WHEEL", wheel_info()), ("entry_points.txt", ENTRY_POINTS)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    return info_name()


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_editable = get_requires_for_build_sdist = get_requires_for_build_wheel


# ---- Wheels --------------------------------------------------------------------------------------------------------


def moment():
    """The time of all files: the same tree makes the same wheel, byte for byte."""
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), 315532800)  # zip knows none before 1980
    return time.gmtime(seconds)[:6]


class Wheel:
    def __init__(self, directory):
        self.name = f"gemma4c-{version()}-{tag()}.whl"
        self._zip = zipfile.ZipFile(os.path.join(directory, self.name), "w", zipfile.ZIP_DEFLATED, compresslevel=9)
        self._record = []

    def add(self, name, data, mode=0o644):
        entry = zipfile.ZipInfo(name, moment())
        entry.external_attr = (stat.S_IFREG | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self._record.append(f"{name},sha256={digest},{len(data)}")

    def add_file(self, name, path, mode=0o644):
        with open(path, "rb") as f:
            self.add(name, f.read(), mode)

    def close(self):
        info = info_name()
        for name, text in (("METADATA", metadata()), ("WHEEL", wheel_info()), ("entry_points.txt", ENTRY_POINTS)):
            self.add(f"{info}/{name}", text.encode())
        self.add_file(f"{info}/LICENSE", source("LICENSE"))
        self._record.append(f"{info}/RECORD,,")
        self.add(f"{info}/RECORD", ("\n".join(self._record) + "\n").encode())
        self._zip.close()
        return self.name


def package_files():
    folder = os.path.join(HERE, "gemma4c")
    return sorted(f for f in os.listdir(folder) if f.endswith((".py", ".typed")))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with tempfile.TemporaryDirectory() as folder:
        library, program = build(folder)
        wheel = Wheel(wheel_directory)
        for f in package_files():
            wheel.add_file(f"gemma4c/{f}", os.path.join(HERE, "gemma4c", f))
        wheel.add_file("gemma4c/" + os.path.basename(library), library, 0o755)
        wheel.add_file("gemma4c/gemma4", program, 0o755)
        for name in DATA:
            if os.path.exists(source(name)):  # the model may be left out
                wheel.add_file("gemma4c/" + os.path.basename(name), source(name))
        return wheel.close()


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """The package where it stands; library and program are those that `make all build/libgemma4.so` has built."""
    wheel = Wheel(wheel_directory)
    wheel.add("gemma4c.pth", (HERE + "\n").encode())
    return wheel.close()


# ---- Source distributions ------------------------------------------------------------------------------------------


def build_sdist(sdist_directory, config_settings=None):
    base = f"gemma4c-{version()}"
    library, program = c_sources()
    files = {f"csrc/{n}": source(n) for n in library + program + headers() + list(DATA) + ["LICENSE", "tools/floors"]
             if os.path.exists(source(n))}
    files.update({f"gemma4c/{f}": os.path.join(HERE, "gemma4c", f) for f in package_files()})
    files.update({f: os.path.join(HERE, f) for f in ("pyproject.toml", "README.md", "backend/gemma4c_build.py")})
    name = base + ".tar.gz"
    with tarfile.open(os.path.join(sdist_directory, name), "w:gz", format=tarfile.PAX_FORMAT) as tar:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt", delete=False) as info:
            info.write(metadata())
        files["PKG-INFO"] = info.name
        for path, origin in sorted(files.items()):
            tar.add(origin, f"{base}/{path}", recursive=False)
        os.remove(info.name)
    return name
