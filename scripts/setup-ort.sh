#!/usr/bin/env bash
# Puts ONNX Runtime's library into the user's cache folder, where dpo-pipe looks for it.
#
#   scripts/setup-ort.sh
#
# The library is Microsoft's own build, as published in the npm package onnxruntime-node. Both the
# package and the library are checked against pinned SHA-256 sums, so a changed or damaged download
# is never installed. Nothing happens when the right library is already there.
# Exit status: 0 done, 3 the environment lacks something (npm, the network, disk, this platform).
set -euo pipefail

version=1.27.0
package_sha256=c3779c01c59832f8c03e2c392ac3af10bf08579f1822e8b1c63cc451edb302a2

tmp=
trap '[ -z "$tmp" ] || rm -rf "$tmp"' EXIT

# fail MESSAGE [HINT] ends the script with one error and, where there is one, the way out of it.
fail() {
	echo "setup-ort: error: $1" >&2
	[ $# -lt 2 ] || echo "setup-ort: hint: $2" >&2
	exit 3
}

sha256() {
	if command -v sha256sum >/dev/null; then
		sha256sum "$1" | cut -d' ' -f1
	elif command -v shasum >/dev/null; then
		shasum -a 256 "$1" | cut -d' ' -f1
	else
		fail "neither sha256sum nor shasum is installed, so a download can't be checked"
	fi
}

own="set DPO_PIPE_ORT_LIB to an ONNX Runtime library (1.24 or later) of your own"
case "$(uname -s)-$(uname -m)" in
Linux-x86_64)
	member=package/bin/napi-v6/linux/x64/libonnxruntime.so.1
	library_sha256=d8aff4aa8abee8fb2abb2f2f2459ffc94461e781e41b9f7c072829dd0d470221 ;;
Linux-aarch64 | Linux-arm64)
	member=package/bin/napi-v6/linux/arm64/libonnxruntime.so.1
	library_sha256=c36bc200e7e6c093b8abb0b34590fbdd8c52fd3fb5e33795b9523ffdde2fce0f ;;
Darwin-arm64)
	member=package/bin/napi-v6/darwin/arm64/libonnxruntime.1.dylib
	library_sha256=89f692a3a1a224e4ad0b796b0e7c0bd81113b0741bfe84211eceef14d05a9e59 ;;
*) fail "no pinned ONNX Runtime library for $(uname -s) $(uname -m)" "$own" ;;
esac

# The folder is Go's os.UserCacheDir, which honours XDG_CACHE_HOME everywhere but on macOS.
if [ "$(uname -s)" = Darwin ]; then
	cache="${HOME:?}/Library/Caches"
else
	cache="${XDG_CACHE_HOME:-${HOME:?}/.cache}"
fi
folder="$cache/dpo-pipe/onnxruntime-$version"
library="$folder/$(basename "$member")"

if [ -f "$library" ] && [ "$(sha256 "$library")" = "$library_sha256" ]; then
	exit 0
fi
command -v npm >/dev/null ||
	fail "npm is not installed, and it brings ONNX Runtime $version" "install npm, or $own"
mkdir -p "$folder" || fail "$folder can't be made"
tmp=$(mktemp -d "$folder/.setup.XXXXXX") || fail "$folder can't be written"

echo "setup-ort: fetching onnxruntime-node@$version (100 MB)" >&2
(cd "$tmp" && npm pack "onnxruntime-node@$version" --silent >name 2>npm.log) || {
	tail -n 5 "$tmp/npm.log" >&2
	fail "npm could not fetch onnxruntime-node@$version" "check the network and npm's registry, or $own"
}
archive="$tmp/$(tail -n 1 "$tmp/name")"
got=$(sha256 "$archive")
[ "$got" = "$package_sha256" ] ||
	fail "onnxruntime-node@$version has SHA-256 $got, want $package_sha256: it is not installed" "$own"
tar -xzf "$archive" -C "$tmp" "$member" || fail "$member can't be extracted into $tmp (disk full?)"
got=$(sha256 "$tmp/$member")
[ "$got" = "$library_sha256" ] ||
	fail "$member has SHA-256 $got, want $library_sha256: it is not installed" "$own"

# Same file system, so the rename is atomic: a reader sees the whole library or none.
chmod 644 "$tmp/$member"
mv -f "$tmp/$member" "$library"
echo "setup-ort: installed $library" >&2
