# Sourced by tools/test and tools/quickstart: makes sure that Debian packages are there. Needs neither root nor
# network when they are.
# shellcheck shell=bash

# Debian's programs first: those of a conda or pyenv environment know nothing of Debian's libraries.
PATH=/usr/bin:/bin:$PATH

# shellcheck disable=SC2034 # used by who sources this
build_packages=(gcc libc6-dev meson ninja-build pkg-config liburing-dev libhwloc-dev libnuma-dev libjson-c-dev
    libxxhash-dev libisal-dev python3)
# shellcheck disable=SC2034
test_packages=(g++ clang clang-format libclang-rt-14-dev libcriterion-dev libfuse3-dev fuse3 binutils python3-numpy
    python3-pytest shellcheck spin groff-base valgrind
    python3-dev python3-torch python3-pil python3-mesonpy python3-pip python3-venv patchelf)
# shellcheck disable=SC2034
numa_packages=(qemu-system-x86 busybox-static cpio e2fsprogs) # tools/test numa only

missing_packages() {
    local package status
    status=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true # fails when it does not know one
    for package in "$@"; do
        grep -qxF "installed $package" <<<"$status" || echo "$package"
    done
}

# Waits for others that install at the same time, as a machine does that has just been started.
apt_install() { # SUDO PACKAGE…, SUDO may be empty
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    [[ -z $1 ]] || apt=("$1" "${apt[@]}")
    "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${@:2}"
}

install_packages() {
    local missing sudo='' log
    if ! command -v dpkg-query >/dev/null; then
        echo "packages: this is no Debian. Install what these Debian packages hold: $*" >&2
        return 1
    fi
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ $(id -u) -ne 0 ]]; then
        sudo=$(command -v sudo) || {
            echo "packages: missing ${missing[*]}: only root can install them and there is no sudo." \
                "Run as root: apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
            return 1
        }
    fi
    log=$(realpath -m "${BASH_SOURCE[0]}/../../../build/packages.log")
    mkdir -p "${log%/*}" || return 1
    echo "installing ${missing[*]}"
    apt_install "$sudo" "${missing[@]}" >"$log" 2>&1 </dev/null && return 0
    cat "$log" >&2
    echo "packages: apt-get could not install them: its words are above and in $log." \
        "Correct that and run this again" >&2
    return 1
}
