//go:build cgo

package ort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const (
	// LibraryVariable is the environment variable that names the library.
	LibraryVariable = "DPO_PIPE_ORT_LIB"
	// PinnedVersion is the ONNX Runtime that `make setup` installs.
	PinnedVersion = "1.27.0"
	// minMinor is the oldest 1.x whose C interface the bindings ask for.
	minMinor = 24
)

// Library is an ONNX Runtime shared library that was found and can be loaded.
type Library struct {
	// Path is the file, or a bare name when the system's loader found it.
	Path string
	// Source says which place of the search order gave it, for example "user cache".
	Source string
	// Version is what the library says of itself, for example "1.27.0".
	Version string
}

// Attempt is one place where the library was looked for, and what was there.
type Attempt struct {
	Source, Path string
	Err          error
}

// LibraryError says that no usable library was found.
type LibraryError struct {
	// Tried are the places in search order.
	Tried []Attempt
}

// Error lists every place that was tried and how to mend it.
func (e *LibraryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ort: no usable ONNX Runtime library (1.%d or later); tried", minMinor)
	for _, a := range e.Tried {
		fmt.Fprintf(&b, "\n  %s: %s: %v", a.Source, a.Path, a.Err)
	}
	fmt.Fprintf(&b, "\nrun `make setup` to install version %s, or set %s to a library of your own",
		PinnedVersion, LibraryVariable)
	return b.String()
}

// errNotFound marks a place that holds no library.
var errNotFound = errors.New("not found")

// FindLibrary returns the first usable library of: explicit (the flag
// --ort-lib), the variable DPO_PIPE_ORT_LIB, the executable's folder, the user's
// cache folder, the system's loader. A folder stands for the library inside it.
//
// The first two are the user's word: when one is set and wrong, that is the
// error, and the other places are not used. The error is a *LibraryError.
func FindLibrary(explicit string) (Library, error) {
	if explicit != "" {
		return firstUsable([]place{{"--ort-lib", inFolder(explicit)}})
	}
	if path := os.Getenv(LibraryVariable); path != "" {
		return firstUsable([]place{{LibraryVariable, inFolder(path)}})
	}
	var places []place
	if exe, err := os.Executable(); err == nil {
		places = append(places, place{"beside the executable", inFolder(filepath.Dir(exe))})
	}
	if cache, err := os.UserCacheDir(); err == nil {
		folder := filepath.Join(cache, "dpo-pipe", "onnxruntime-"+PinnedVersion)
		places = append(places, place{"user cache", inFolder(folder)})
	}
	return firstUsable(append(places, place{"system loader", libraryNames()}))
}

// place is one stop of the search order with the paths to try there.
type place struct {
	source string
	paths  []string
}

func firstUsable(places []place) (Library, error) {
	var failed LibraryError
	for _, p := range places {
		for _, path := range p.paths {
			version, err := inspect(path)
			if err == nil {
				return Library{Path: path, Source: p.source, Version: version}, nil
			}
			failed.Tried = append(failed.Tried, Attempt{p.source, path, err})
		}
	}
	return Library{}, &failed
}

// inspect loads the library at path and returns its version. A bare name goes to
// the system's loader.
func inspect(path string) (string, error) {
	if filepath.Base(path) != path {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return "", errNotFound
		case err != nil:
			return "", err
		case info.IsDir():
			return "", errors.New("is a folder")
		}
	}
	version, err := probe(path)
	if err != nil {
		return "", err
	}
	return version, checkVersion(version)
}

// checkVersion refuses libraries whose C interface is too old for the bindings.
func checkVersion(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	m, err := strconv.Atoi(minor)
	if major != "1" || err != nil || m < minMinor {
		return fmt.Errorf("version is %q, want 1.%d or later", version, minMinor)
	}
	return nil
}

// inFolder returns path itself, or the names to try when path is a folder.
func inFolder(path string) []string {
	path, err := filepath.Abs(path)
	if err != nil {
		return []string{path}
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return []string{path}
	}
	var paths []string
	for _, name := range libraryNames() {
		if p := filepath.Join(path, name); exists(p) {
			paths = append(paths, p)
		}
	}
	if paths == nil {
		paths = []string{filepath.Join(path, libraryNames()[0])}
	}
	return paths
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// libraryNames are the file names of the library on this system, most specific first.
func libraryNames() []string {
	switch runtime.GOOS {
	case "windows":
		return []string{"onnxruntime.dll"}
	case "darwin":
		return []string{"libonnxruntime.1.dylib", "libonnxruntime.dylib"}
	default:
		return []string{"libonnxruntime.so.1", "libonnxruntime.so"}
	}
}
