#!/bin/sh
# Build the board's firmware and its emulator: hardware/setup.sh PACKAGE...
#
# The Debian packages named are installed first if something is missing and this may be done (as
# root, or with sudo that asks for no password). Where the build is not possible the packages that
# are missing are named, and that is no error unless RTPOSE_REQUIRE_HARDWARE=1.
set -u
cd "$(dirname "$0")" || exit 1

up_to_date() {
    make -q -C firmware >/dev/null 2>&1 && make -q -C emulator >/dev/null 2>&1
}

# OpenCV needs this library also where there is no screen.
has_libgl() {
    [ "$(uname)" != Linux ] && return 0
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q 'libGL\.so\.1'
}

# What the tests of uploads need: the tool, and real boot loaders to upload to.
has_uploads() {
    command -v avrdude >/dev/null && [ -d /usr/share/arduino/hardware/arduino/avr/bootloaders ]
}

missing_packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "$@"
        return
    fi
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

install() {
    command -v apt-get >/dev/null || return 1
    as_root true || return 1
    echo "installing: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" \
            >/dev/null
}

up_to_date && has_libgl && has_uploads && exit 0

command -v cc >/dev/null || set -- "$@" gcc libc6-dev

missing=$(missing_packages "$@")
if [ -n "$missing" ]; then
    # Unquoted: one word per package.
    install $missing || echo "could not install: $missing"
fi

has_libgl || echo "libGL.so.1 is missing, which OpenCV needs: install the package libgl1"

if log=$(make -s -C firmware 2>&1 && make -s -C emulator 2>&1); then
    exit 0
fi
missing=$(missing_packages "$@")
echo "the emulated board is not built."
echo "missing packages: ${missing:-none}"
echo "$log" | tail -n 5
[ "${RTPOSE_REQUIRE_HARDWARE:-0}" = 1 ] && exit 1
exit 0
