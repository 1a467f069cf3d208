#!/bin/sh
# Makes sure that the named programs are there, by apt-get where it is.
# usage: system-packages.sh [--optional] PROGRAM...
# With --optional a program that cannot be had is a note, else an error.
set -eu

optional=
[ "${1:-}" = --optional ] && optional=yes && shift

package_of() {
    case $1 in
        prometheus | promtool) echo prometheus ;;
        amtool | prometheus-alertmanager) echo prometheus-alertmanager ;;
        *) echo "$1" ;;
    esac
}

packages=
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || packages="$packages $(package_of "$program")"
done
packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
[ -n "${packages% }" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root=sudo; else as_root=none; fi
fi

if command -v apt-get >/dev/null 2>&1 && [ "$as_root" != none ]; then
    echo "installing: $packages"
    # The programs are wanted, not the daemons: nothing is started.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null 2>&1; then
        $as_root chmod +x $policy && made=yes
    fi
    log=$(mktemp)
    status=0
    { $as_root apt-get update -qq &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } \
        >"$log" 2>&1 || status=$?
    [ -z "$made" ] || $as_root rm -f $policy
    [ $status = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
fi

missing=
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ -n "$optional" ]; then
    echo "note: not installed:$missing; what needs them will say so" >&2
    exit 0
fi
echo "error: not installed and not to be had here:$missing; install these packages: $packages" >&2
exit 1
