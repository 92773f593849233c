#!/usr/bin/env bash
# Formatting, vet and staticcheck, with the versions pinned in tools/go.mod.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
go build -C tools -o ../build/ honnef.co/go/tools/cmd/staticcheck mvdan.cc/gofumpt

unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs build/gofumpt -l)
if [ -n "$unformatted" ]; then
	printf 'lint: not formatted (run build/gofumpt -w):\n%s\n' "$unformatted" >&2
	exit 1
fi
go mod tidy -diff >/dev/null || {
	echo "lint: go.mod is not tidy (run go mod tidy)" >&2
	exit 1
}
go vet ./...
CGO_ENABLED=0 go vet ./...
build/staticcheck ./...
echo "lint: clean"
