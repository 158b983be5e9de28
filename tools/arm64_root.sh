#!/bin/sh
# An arm64 Python for qemu-user, from Debian's packages, without touching the system's own: arm64_root.sh DIR
# prints the root folder (DIR/system). Needs apt-get and dpkg-deb; not root.
dir=$1
[ -n "$dir" ] && mkdir -p "$dir" && dir=$(cd "$dir" && pwd) || exit 1
version=$(apt-cache depends python3-minimal 2> /dev/null | sed -n 's/.*Depends: python\(3[.0-9]*\)-minimal.*/\1/p')
python=python$(echo "$version" | head -n 1)
[ "$python" != python ] || { echo "arm64_root.sh: apt knows no python3-minimal" >&2; exit 1; }
if [ ! -x "$dir/system/usr/bin/$python" ]; then
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial" "$dir/debs" "$dir/system"
    : > "$dir/state/status"
    apt() {
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$dir/state" \
            -o Dir::State::status="$dir/state/status" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
    }
    packages="$python-minimal lib$python-minimal lib$python-stdlib libc6 libexpat1 zlib1g libffi8 libgcc-s1"
    { apt update && cd "$dir/debs" && apt download $packages; } >&2 || exit 1
    for deb in *.deb; do dpkg-deb -x "$deb" "$dir/system" || exit 1; done
fi
echo "$dir/system"
