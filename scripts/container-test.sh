#!/usr/bin/env bash
# Builds examples/Containerfile with buildah, looks at what is in the image, and runs its command
# as the user that it names, on a root that can't be written.
#
#   scripts/container-test.sh
#
# Where the registries of the base images can't be reached, stand-ins are made under their names:
# Debian's own packages, this machine's Go, Node.js and npm. Everything is in a temporary folder,
# the images too.
# Exit status: 0 right, 1 wrong, 3 no buildah here (Debian's buildah and debootstrap, root) and no
# way to install it.
set -euo pipefail
cd "$(dirname "$0")/.."
clone=$PWD

say() { echo "container-test: $*"; }
fail() {
	say "error: $*" >&2
	exit 1
}
lack() {
	say "$*" >&2
	exit 3
}

[ "$(id -u)" = 0 ] || lack "building without a user namespace takes root"
if ! { command -v buildah && command -v debootstrap; } >/dev/null; then
	command -v apt-get >/dev/null || lack "no buildah here, and installing it takes apt-get"
	say "installing buildah and debootstrap"
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends buildah debootstrap; } >/dev/null ||
		lack "buildah and debootstrap can't be installed"
fi

tmp=$(mktemp -d /var/tmp/dpo-pipe-container.XXXXXX)
store=(--root "$tmp/storage" --runroot "$tmp/run" --storage-driver overlay)
export BUILDAH_ISOLATION=chroot TMPDIR=$tmp
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$tmp/policy.json"
down() {
	buildah "${store[@]}" umount --all >/dev/null 2>&1 || true
	buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
	umount "$tmp/storage/overlay" 2>/dev/null || true
	rm -rf "$tmp"
}
trap down EXIT
if ! buildah "${store[@]}" info >/dev/null 2>&1; then
	store=(--root "$tmp/storage" --runroot "$tmp/run" --storage-driver vfs)
fi
b() { buildah "${store[@]}" "$@"; }

# standin NAME FOLDER [SETTING…] makes an image of a folder, with settings of buildah config.
standin() {
	local name=$1 folder=$2 container
	shift 2
	container=$(b from --quiet scratch)
	cp -a "$folder/." "$(b mount "$container")" # buildah copy would make all of it root's
	b umount "$container" >/dev/null
	[ $# = 0 ] || b config "$@" "$container"
	b commit --quiet --rm --signature-policy "$tmp/policy.json" "$container" "$name" >/dev/null
	say "$name: a stand-in of $(du -sm "$folder" | cut -f1) MB"
}

# debian FOLDER PACKAGES makes a root of Debian 12 with some packages more, and with what this
# machine needs to reach its package registries.
debian() {
	debootstrap --variant=minbase --include="$2" bookworm "$1" >"$tmp/debootstrap.log" 2>&1 || {
		tail -n 5 "$tmp/debootstrap.log" >&2
		lack "debootstrap can't make a root of Debian 12"
	}
	rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/dev/*
	mkdir -p "$1/etc/ssl/certs"
	cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
}

# runtime FOLDER makes what distroless/cc-debian12 holds: libraries, certificates, and a user.
runtime() {
	local package root=$1
	mkdir -p "$root/home/nonroot" "$root/tmp" "$root/etc/ssl/certs" "$tmp/packages"
	(cd "$tmp/packages" && apt-get -qq -o APT::Sandbox::User=root download base-files libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 netbase tzdata >/dev/null) ||
		lack "Debian's packages can't be fetched"
	for package in "$tmp"/packages/*.deb; do
		dpkg-deb -x "$package" "$root"
	done
	cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
	printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$root/etc/passwd"
	printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
	chown 65532:65532 "$root/home/nonroot"
	chmod 1777 "$root/tmp"
}

# bases makes the images that the file begins from.
bases() {
	local image missing=
	for image in $(sed -n 's/^FROM \([^ ]*\).*/\1/p' examples/Containerfile); do
		timeout 300 buildah "${store[@]}" pull --quiet --signature-policy "$tmp/policy.json" "$image" >/dev/null 2>"$tmp/pull.log" ||
			missing="$missing $image"
	done
	[ -n "$missing" ] || return 0
	say "not to be had:$missing ($(tail -n 1 "$tmp/pull.log" | grep -o '[^:]*$'))"
	debian "$tmp/debian" gcc,libc6-dev
	for image in $missing; do
		case $image in
		*/node:*)
			cp -a "$tmp/debian" "$tmp/node"
			mkdir -p "$tmp/node/usr/local/lib/node_modules"
			cp -L "$(command -v node)" "$tmp/node/usr/local/bin/node"
			cp -a "$(npm root -g)/npm" "$tmp/node/usr/local/lib/node_modules/"
			ln -s ../lib/node_modules/npm/bin/npm-cli.js "$tmp/node/usr/local/bin/npm"
			standin "$image" "$tmp/node" --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
				--env npm_config_cafile=/etc/ssl/certs/ca-certificates.crt --env "npm_config_registry=$(npm config get registry)"
			;;
		*/golang:*)
			cp -a "$tmp/debian" "$tmp/go"
			cp -a "$(go env GOROOT)" "$tmp/go/usr/local/go"
			standin "$image" "$tmp/go" --env PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
				--env GOPATH=/go --env GOTOOLCHAIN=local --env "GOPROXY=$(go env GOPROXY)" --workingdir /go
			;;
		*/cc-debian12:*)
			runtime "$tmp/runtime"
			standin "$image" "$tmp/runtime" --user 65532 --workingdir /home/nonroot \
				--env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
			;;
		*) fail "no stand-in for $image" ;;
		esac
	done
}

bases
say "building examples/Containerfile"
b build --quiet --pull-never --signature-policy "$tmp/policy.json" -f examples/Containerfile -t localhost/dpo-pipe "$clone" >"$tmp/build.log" 2>&1 || {
	tail -n 20 "$tmp/build.log" >&2
	fail "the image can't be built"
}

base=$(b from --quiet --pull-never "$(sed -n 's/^FROM //p' examples/Containerfile | tail -n 1)")
image=$(b from --quiet --pull-never localhost/dpo-pipe)
below=$(b mount "$base") root=$(b mount "$image")
say "built: $(du -sm "$root" | cut -f1) MB, $(du -sm "$below" | cut -f1) of them the base image's"

# What the build adds is the command and the library: no source, nothing else of the clone.
names() { (cd "$1" && find . -type f -o -type l) | sort; }
added=$(comm -13 <(names "$below") <(names "$root"))
[ "$added" = $'./usr/local/bin/dpo-pipe\n./usr/local/lib/libonnxruntime.so.1' ] || fail "the image has beside its base: $added"
for text in "$clone" "$HOME/"; do
	! grep -qaF "$text" "$root/usr/local/bin/dpo-pipe" || fail "the command holds the path $text"
done
config=$(b inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' localhost/dpo-pipe)
case $config in
"65532 [/usr/local/bin/dpo-pipe]" | "nonroot [/usr/local/bin/dpo-pipe]") ;;
*) fail "the image runs as $config" ;;
esac
[ ! -e "$root/bin/sh" ] || say "note: the base image has a shell"

# in_image COMMAND… runs the image's command as the user that it names.
in_image() { b run "$image" -- /usr/local/bin/dpo-pipe "$@"; }
in_image --version >"$tmp/version" || fail "--version"
in_image doctor >"$tmp/doctor" || fail "doctor: $(cat "$tmp/doctor")"
in_image demo >"$tmp/demo" 2>"$tmp/demo.err" || fail "demo: $(tail -n 5 "$tmp/demo.err")"
say "$(head -n 1 "$tmp/version"); $(grep -o 'self-test.*' "$tmp/doctor" | tr -s ' ')"
say "demo: $(grep -m 1 'policy  ' "$tmp/demo" | tr -s ' ')"

# As examples/kubernetes runs it: the root can't be written, /data and /tmp can.
mkdir -p "$tmp/data" "$root/data" "$root/proc" "$root/dev"
install -m 644 examples/job.yaml "$tmp/data/"
cp -r internal/demo/assets/model "$tmp/data/model"
mkdir "$tmp/data/preferences"
head -n 200 internal/demo/assets/preferences.jsonl >"$tmp/data/preferences/1.jsonl"
chown -R 65532:65532 "$tmp/data"
sealed() {
	unshare --mount --fork sh -ec '
		root=$1 data=$2
		shift 2
		mount --rbind "$root" "$root"
		mount -o remount,bind,ro "$root"
		mount --bind "$data" "$root/data"
		mount -t tmpfs none "$root/tmp"
		mount -t proc none "$root/proc"
		mount --rbind /dev "$root/dev"
		exec env -i HOME=/home/nonroot PATH="$PATH" DPO_PIPE_ORT_LIB=/usr/local/lib/libonnxruntime.so.1 \
			chroot --userspec=65532:65532 "$root" /usr/local/bin/dpo-pipe "$@"
	' sh "$root" "$tmp/data" "$@"
}
sealed run /data/job.yaml >"$tmp/job" 2>"$tmp/job.err" || fail "run: $(tail -n 5 "$tmp/job.err")"
say "$(tail -n 1 "$tmp/job")"
[ -e "$tmp/data/policies/current/model.onnx" ] || fail "the job published nothing: $(cat "$tmp/job")"
[ "$(stat -c %u "$tmp/data/policies/current/model.onnx")" = 65532 ] || fail "the policy is not the user's"
sealed run /data/job.yaml >"$tmp/job" 2>"$tmp/job.err" || fail "run, again: $(tail -n 5 "$tmp/job.err")"
say "$(tail -n 1 "$tmp/job")"
