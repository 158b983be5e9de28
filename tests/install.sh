#!/bin/sh
# `make install` into a scratch folder, then users of the installed files: C11 and C++11 through pkg-config, with the
# shared and with the static library, and the program. Ends with "N passed, N failed".
passed=0; failed=0; skipped=0
root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
ok() { # ok NAME COMMAND...
    name=$1; shift
    if "$@" > "$root/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)); echo "-- $name:"; tail -n 5 "$root/log"
    fi
}
version=$(sed -n 's/^.define G4_VERSION "\(.*\)"/\1/p' gemma4.h)
soversion=${version%.*}
lib=$root/usr/lib
export PKG_CONFIG_PATH="$lib/pkgconfig"
CC=${CC:-cc}; CXX=${CXX:-c++}; model=${1:-tests/data/text_e2b.g4}

ok "make install" make -s install PREFIX="$root/usr"
for f in bin/gemma4 include/gemma4.h include/gemma4_single.h lib/libgemma4.a "lib/libgemma4.so.$version" \
    lib/pkgconfig/gemma4.pc lib/cmake/gemma4/gemma4-config.cmake share/man/man1/gemma4.1 share/gemma4/export.py \
    share/bash-completion/completions/gemma4 share/zsh/site-functions/_gemma4 \
    share/fish/vendor_completions.d/gemma4.fish; do
    ok "$f is there" test -f "$root/usr/$f"
done
mkdir -p "$root/nothing"
ok "the installed program finds the installed model" \
    sh -c "cd '$root/nothing' && HOME='$root/nothing' '$root/usr/bin/gemma4' models | grep -q 'share/gemma4/tiny.g4'"
ok "the linker's name leads to the library" test "$(readlink "$lib/libgemma4.so")" = "libgemma4.so.$soversion"
ok "only the two headers were installed" test "$(ls "$root/usr/include" | tr '\n' ' ')" = "gemma4.h gemma4_single.h "
ok "pkg-config knows the version" test "$(pkg-config --modversion gemma4)" = "$version"
ok "the shared library has a soname" sh -c "readelf -d '$lib/libgemma4.so' | grep -q 'soname.*libgemma4.so.$soversion'"
ok "it exports g4_ names only" sh -c "! nm -D --defined-only '$lib/libgemma4.so' | grep -v ' g4_'"
ok "it exports what the header declares" sh -c "nm -D --defined-only '$lib/libgemma4.so' | grep -q ' g4_engine_open'"
ok "it hides the rest" sh -c "! nm -D --defined-only '$lib/libgemma4.so' | grep -q g4_alloc"

flags=$(pkg-config --cflags gemma4); shared=$(pkg-config --libs gemma4)
static=$(pkg-config --static --libs-only-l gemma4)
# shellcheck disable=SC2086
{
ok "C11, shared" $CC -std=c11 tests/use_c11.c -o "$root/c_shared" $flags $shared
ok "C++11, shared" $CXX -std=c++11 tests/use_cxx.cc -o "$root/cxx_shared" $flags $shared
ok "C11, static" $CC -std=c11 -pthread tests/use_c11.c -o "$root/c_static" $flags "$lib/libgemma4.a" ${static#-lgemma4}
}
# From an empty folder, whose only way to the library is the installed header: as a library and with the implementation.
mkdir "$root/empty"
cp tests/use_c11.c "$root/empty/linked.c"
cp tests/use_header.c "$root/empty/header.c"
cp tests/use_single.c "$root/empty/single.c"
cp tests/use_cxx.cc "$root/empty/linked.cc"
cp tests/use.h tests/test.h "$root/empty"
here=$PWD
in_empty() { (cd "$root/empty" && "$@"); } # the model's path is absolute
for cc in gcc clang; do
    command -v $cc > /dev/null || continue
    # shellcheck disable=SC2086
    {
    ok "$cc, header's implementation" in_empty $cc -std=c11 -O1 header.c -o header $flags -lm -lpthread
    ok "$cc, single file" in_empty $cc -std=c11 -O1 single.c -o single $flags -lm -lpthread
    ok "$cc, library" in_empty $cc -std=c11 linked.c -o linked $flags $shared
    }
    ok "$cc, header's implementation, runs" in_empty ./header "$here/$model"
    ok "$cc, single file, runs" in_empty ./single "$here/$model"
    ok "$cc, library, runs" in_empty env LD_LIBRARY_PATH="$lib" ./linked "$here/$model"
done
# shellcheck disable=SC2086
ok "C++11 from there" in_empty $CXX -std=c++11 linked.cc -o linked_cxx $flags $shared
ok "C++11 from there, runs" in_empty env LD_LIBRARY_PATH="$lib" ./linked_cxx "$here/$model"

# The program is a client like any other: its sources, the installed header, the exported names.
mkdir "$root/program"
cp -r run.c cli "$root/usr/include/gemma4.h" "$root/program"
# shellcheck disable=SC2086
ok "the program, shared" \
    sh -c "cd '$root/program' && $CC -std=c11 -O1 -pthread run.c cli/*.c -o gemma4 $flags $shared -lm"
ok "the program, shared, runs" env LD_LIBRARY_PATH="$lib" "$root/program/gemma4" info -m "$model"
ok "it takes all from the library" sh -c "readelf -d '$root/program/gemma4' | grep -q 'NEEDED.*libgemma4.so.$soversion'"

ok "C11, shared, runs" env LD_LIBRARY_PATH="$lib" "$root/c_shared" "$model"
ok "C++11, shared, runs" env LD_LIBRARY_PATH="$lib" "$root/cxx_shared" "$model"
ok "C11, static, runs" "$root/c_static" "$model"
ok "the program runs from there" "$root/usr/bin/gemma4" info -m "$model"

# What the program says of itself is well-formed, where there is somebody to say so.
said=$root/usr/share
told() { # told NAME PROGRAM ARGUMENT...: the check passes and has nothing to say
    name=$1; shift
    if command -v "$1" > /dev/null; then
        ok "$name" sh -c '"$@" > "$0" 2>&1 && [ ! -s "$0" ]' "$root/said" "$@"
    else
        echo "no $1"; skipped=$((skipped + 1))
    fi
}
told "the man page" groff -man -ww -Tutf8 -z "$said/man/man1/gemma4.1"
told "completions of bash" bash -n "$said/bash-completion/completions/gemma4"
told "completions of zsh" zsh -n "$said/zsh/site-functions/_gemma4"
told "completions of fish" fish -n "$said/fish/vendor_completions.d/gemma4.fish"

# CMake finds it, in C and C++, shared and static.
if command -v cmake > /dev/null && cmake --version > /dev/null 2>&1; then
    mkdir "$root/cmake"
    cat > "$root/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.10)
project(use C CXX)
set(CMAKE_CXX_STANDARD 11)
find_package(gemma4 ${version%.*} REQUIRED)
add_executable(c_shared linked.c)
target_link_libraries(c_shared gemma4::gemma4)
add_executable(cxx_static linked.cc)
target_link_libraries(cxx_static gemma4::static)
END
    cp "$root"/empty/linked.c "$root"/empty/linked.cc tests/use.h tests/test.h "$root/cmake"
    ok "cmake finds it" cmake -S "$root/cmake" -B "$root/cmake/build" -DCMAKE_PREFIX_PATH="$root/usr"
    ok "cmake builds with it" cmake --build "$root/cmake/build"
    ok "C, shared, through cmake, runs" "$root/cmake/build/c_shared" "$model"
    ok "C++, static, through cmake, runs" "$root/cmake/build/cxx_static" "$model"
    sed 's/find_package(gemma4 [^ ]*/find_package(gemma4 0.1/' "$root/cmake/CMakeLists.txt" > "$root/cmake/old"
    mv "$root/cmake/old" "$root/cmake/CMakeLists.txt"
    ok "another 0.N is not what it takes" \
        sh -c "! cmake -S '$root/cmake' -B '$root/cmake/old' -DCMAKE_PREFIX_PATH='$root/usr'"
else
    echo "no cmake"; skipped=$((skipped + 1))
fi

ok "make uninstall" make -s uninstall PREFIX="$root/usr"
ok "it leaves no file" test -z "$(find "$root/usr" ! -type d)"

# A package is built with DESTDIR: nothing may land outside it, and no file may name it.
ok "make install DESTDIR" make -s install PREFIX=/usr LIBDIR=/usr/lib/somewhere DESTDIR="$root/stage"
pc=$root/stage/usr/lib/somewhere/pkgconfig/gemma4.pc
ok "the staged pkg-config file names the final place" grep -q '^prefix=/usr$' "$pc"
ok "and LIBDIR" test "$(PKG_CONFIG_PATH=${pc%/*} pkg-config --variable=libdir gemma4)" = /usr/lib/somewhere
ok "no file names the stage" sh -c "! grep -rqF '$root' '$root/stage'"
ok "make uninstall DESTDIR" make -s uninstall PREFIX=/usr LIBDIR=/usr/lib/somewhere DESTDIR="$root/stage"
ok "it leaves nothing there" test -z "$(find "$root/stage" ! -type d)"

# What a distribution passes is used.
ok "CFLAGS and LDFLAGS are used" sh -c "make -n B='$root/b' PROGRAM='$root/b/gemma4' CFLAGS=-O2 LDFLAGS=-Wl,-z,now all |
    grep -q 'O2.*libgemma4.a.*-Wl,-z,now'"

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
