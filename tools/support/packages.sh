# Sourced by tools/test and tools/quickstart: makes sure that Debian packages are there. Needs neither
# root nor network when they are.
# shellcheck shell=bash

# shellcheck disable=SC2034 # used by who sources this
build_packages=(gcc libc6-dev meson ninja-build pkg-config liburing-dev libhwloc-dev libnuma-dev libjson-c-dev
    libxxhash-dev)
# shellcheck disable=SC2034
test_packages=(g++ clang clang-format libclang-rt-14-dev libcriterion-dev binutils python3 python3-numpy python3-pytest
    shellcheck spin ccache groff-base bash-completion util-linux)

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "packages: root is needed to install them and there is no sudo. Run as root: $*" >&2
        return 1
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

install_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        echo "packages: this is no Debian. Install what these Debian packages hold: $*" >&2
        return 1
    fi
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    echo "installing ${missing[*]}"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
