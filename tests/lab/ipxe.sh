#!/usr/bin/env bash
# Owns iPXE 2.0 for the lab, which can check a file's hash: Debian unstable's package, fetched from the host's own mirror
# and never installed. Its boot programs have other names than the stable one's.
#
#     tests/lab/ipxe.sh [DIRECTORY]      default target/lab; prints the package's path
#     swarmboot kit import --deb … --deb PATH
set -eu
umask 022
export LC_ALL=C

dir="${1:-target/lab}"
mkdir -p "$dir/ipxe"
dir="$(cd "$dir/ipxe" && pwd)"
exec 9>"$dir/.lock"
flock 9
if [ -s "$dir/list" ] && [ -s "$dir/$(cat "$dir/list")" ]; then
    echo "$dir/$(cat "$dir/list")"
    exit 0
fi
work="$(mktemp -d "$dir/.fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# apt with lists and a cache of its own, so that the host's stay as they are.
mirror="$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | grep --max-count=1 -v security || true)"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} unstable main" \
    >"$work/sources.list"
chmod -R a+rwX "$work"
apt=(apt-get --quiet=2 -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$work/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
    -o Acquire::Languages=none)
echo "ipxe.sh: fetching unstable's ipxe" >&2
"${apt[@]}" update >&2
(cd "$work" && "${apt[@]}" download ipxe) >&2
rm -f "$dir"/*.deb
mv "$work"/ipxe_*.deb "$dir/"
(cd "$dir" && echo ipxe_*.deb) >"$dir/list"
echo "$dir/$(cat "$dir/list")"
