#!/usr/bin/env bash
# Owns the lab's boot kit as packages: the distribution's full kernel (with every driver that it has) and the iPXE
# network boot programs, as .deb files that are fetched and never installed, so that the host keeps its own boot menu.
#
#     tests/lab/kernel.sh [DIRECTORY]     default target/lab; prints the paths, one a line
#     swarmboot kit import --deb PATH --deb PATH …
#
# Which kernel that is comes from the metapackage's dependency: its name carries a version that changes with every
# update. Ubuntu splits modules into packages of their own; they are fetched too.
set -eu
umask 022
export LC_ALL=C

dir="${1:-target/lab}"
mkdir -p "$dir/debs"
dir="$(cd "$dir/debs" && pwd)"
. /etc/os-release

exec 9>"$dir/.lock"
flock 9
if [ -s "$dir/list" ]; then
    complete=yes
    while read -r path; do [ -s "$dir/$path" ] || complete=no; done <"$dir/list"
    if [ "$complete" = yes ]; then
        sed "s|^|$dir/|" "$dir/list"
        exit 0
    fi
fi

dependencies() { apt-cache depends --important --no-recommends --no-suggests "$1" 2>/dev/null | sed -n 's/^ *|\{0,1\}Depends: //p'; }

case "${ID:-}" in
    ubuntu) meta=linux-image-generic ;;
    *) meta=linux-image-amd64 ;;
esac
# A fresh host or container has no package lists yet.
if [ -z "$(dependencies "$meta")" ] && [ "$(id -u)" -eq 0 ]; then
    apt-get --quiet=2 update >&2
fi
kernel="$(dependencies "$meta" | grep --max-count=1 --extended-regexp '^linux-image-[0-9]' || true)"
[ -n "$kernel" ] || {
    echo "kernel.sh: $meta names no kernel package; hint: apt-get update" >&2
    exit 1
}
packages=("$kernel")
for module_package in $(dependencies "$meta"; dependencies "$kernel"); do
    case "$module_package" in linux-modules-[0-9]* | linux-modules-extra-[0-9]*) packages+=("$module_package") ;; esac
done
packages+=(ipxe)

echo "kernel.sh: fetching ${packages[*]}" >&2
work="$(mktemp -d "$dir/.fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# apt drops its privileges for a download and complains where the folder is root's: let it have the folder.
chmod 755 "$work"
if [ "$(id -u)" -eq 0 ] && id _apt >/dev/null 2>&1; then chown _apt "$work"; fi
(cd "$work" && apt-get --quiet=2 -o APT::Sandbox::User=root download "${packages[@]}") >&2
rm -f "$dir"/*.deb "$dir/list"
mv "$work"/*.deb "$dir/"
(cd "$dir" && for package in "${packages[@]}"; do echo "${package}"_*.deb; done) >"$dir/.list"
mv "$dir/.list" "$dir/list"
sed "s|^|$dir/|" "$dir/list"
