//go:build cgo

package ort

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// installed returns the library that is in use, or skips.
func installed(t *testing.T) Library {
	t.Helper()
	return openRuntime(t).Library()
}

// emptyCache makes the user's cache folder an empty one for the test.
func emptyCache(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("LocalAppData", filepath.Join(dir, "cache"))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "dpo-pipe", "onnxruntime-"+PinnedVersion)
}

// link puts the library at path under a folder made for it.
func link(t *testing.T, lib Library, path string) {
	t.Helper()
	if filepath.Base(lib.Path) == lib.Path {
		t.Skip("the library was found by the system's loader, so its file is not known")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(lib.Path, path); err != nil {
		t.Fatal(err)
	}
}

func TestFindLibraryOrder(t *testing.T) {
	lib := installed(t)
	cached := filepath.Join(emptyCache(t), libraryNames()[0])
	link(t, lib, cached)
	fromVariable := filepath.Join(t.TempDir(), "variable.so")
	link(t, lib, fromVariable)
	fromFlag := filepath.Join(t.TempDir(), "flag.so")
	link(t, lib, fromFlag)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flag, variable, path, source string
	}{
		{"flag before all", fromFlag, fromVariable, fromFlag, "--ort-lib"},
		{"variable before the cache", "", fromVariable, fromVariable, LibraryVariable},
		{"cache", "", "", cached, "user cache"},
		{"flag names a folder", filepath.Dir(cached), "", cached, "--ort-lib"},
		{"variable names a folder", "", filepath.Dir(cached), cached, LibraryVariable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(LibraryVariable, c.variable)
			got, err := FindLibrary(c.flag)
			if err != nil {
				t.Fatal(err)
			}
			if got.Path != c.path || got.Source != c.source || got.Version != lib.Version {
				t.Errorf("found %+v, want %s by %s, version %s", got, c.path, c.source, lib.Version)
			}
		})
	}
	t.Run("beside the executable before the cache", func(t *testing.T) {
		beside := filepath.Join(filepath.Dir(exe), libraryNames()[0])
		link(t, lib, beside)
		defer os.Remove(beside)
		t.Setenv(LibraryVariable, "")
		if got, err := FindLibrary(""); err != nil || got.Path != beside || got.Source != "beside the executable" {
			t.Errorf("found %+v, %v, want %s", got, err, beside)
		}
	})
}

// TestFindLibraryNeverSkipsTheUsersWord has a good library in the cache, which must not
// be taken in place of a wrong explicit one.
func TestFindLibraryNeverSkipsTheUsersWord(t *testing.T) {
	lib := installed(t)
	link(t, lib, filepath.Join(emptyCache(t), libraryNames()[0]))
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o666); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.so")
	folder := t.TempDir()
	for _, c := range []struct{ name, flag, variable, place, reason string }{
		{"flag, missing", missing, "", missing, "not found"},
		{"variable, missing", "", missing, missing, "not found"},
		{"flag, no library", text, "", text, text},
		{"variable, no library", "", text, text, text},
		{"flag, empty folder", folder, "", filepath.Join(folder, libraryNames()[0]), "not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(LibraryVariable, c.variable)
			got, err := FindLibrary(c.flag)
			var failed *LibraryError
			if !errors.As(err, &failed) || len(failed.Tried) != 1 || failed.Tried[0].Path != c.place {
				t.Fatalf("found %+v, error %v, want a LibraryError for %s", got, err, c.place)
			}
			for _, want := range []string{c.place, c.reason, "`make setup`", LibraryVariable} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %q", err, want)
				}
			}
		})
	}
}

// TestFindLibraryNamesEveryPlace runs in a process of its own, because the system's
// loader finds by name what this one has loaded.
func TestFindLibraryNamesEveryPlace(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		runChild(t)
		return
	}
	folder := emptyCache(t)
	t.Setenv(LibraryVariable, "")
	lib, err := FindLibrary("")
	if err == nil {
		if lib.Source == "user cache" {
			t.Fatalf("found %+v in an empty cache folder", lib)
		}
		t.Skipf("this system has a library of its own: %+v", lib)
	}
	exe, _ := os.Executable()
	for _, want := range []string{
		"beside the executable: " + filepath.Dir(exe), "user cache: " + folder, "system loader: " + libraryNames()[0],
		"1.24 or later", "`make setup`", LibraryVariable,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error\n%v\ndoes not contain %q", err, want)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.24.0": true, "1.27.0": true, "1.100.0": true, "1.24.0-dev": true,
		"1.23.2": false, "1.9.1": false, "2.0.0": false, "": false, "1": false, "1.x": false,
	} {
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("version %q: error is %v, want usable = %t", version, err, ok)
		}
	}
}

func TestOpenIsOnePerProcess(t *testing.T) {
	first := openRuntime(t)
	if second, err := Open(first.Library()); err != nil || second.Version() != first.Version() {
		t.Errorf("the same library again: %+v, %v", second, err)
	}
	other := first.Library()
	other.Path += ".other"
	if _, err := Open(other); err == nil || !strings.Contains(err.Error(), "is open") {
		t.Errorf("a second library: error is %v", err)
	}
}

// childVariable tells the test binary that it is the child of a test.
const childVariable = "DPO_PIPE_TEST_OPEN_CHILD"

// TestOpenAfterAFailure opens what is no library and then one, in a process of its own:
// there is one environment in each, and a mistake here would be a segmentation fault.
func TestOpenAfterAFailure(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		if _, err := Open(Library{Path: filepath.Join(t.TempDir(), "none.so")}); err == nil {
			t.Error("a missing library opens")
		}
		r := openRuntime(t)
		if _, err := r.SelfTest(t.Context(), DefaultOptions()); err != nil {
			t.Error(err)
		}
		return
	}
	installed(t)
	runChild(t)
}

// runChild runs the test it is called from in a process of its own.
func runChild(t *testing.T) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), childVariable+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestSelfTest(t *testing.T) {
	r := openRuntime(t)
	if err := checkVersion(r.Version()); err != nil {
		t.Error(err)
	}
	took, err := r.SelfTest(t.Context(), DefaultOptions())
	if err != nil || took <= 0 || took.Seconds() > 1 {
		t.Errorf("self-test took %v, %v, want less than a second", took, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.SelfTest(ctx, DefaultOptions()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled self-test: error is %v", err)
	}
}

func TestProviders(t *testing.T) {
	r := openRuntime(t)
	offered := r.Providers()
	if len(offered) == 0 || offered[0] != "cpu" {
		t.Fatalf("providers are %v, want cpu first", offered)
	}
	t.Logf("offered: %v", offered)
	for _, name := range append(ProviderNames(), "abacus", "CPU", "") {
		opt := DefaultOptions()
		opt.Provider = name
		_, err := r.SelfTest(t.Context(), opt)
		if slices.Contains(offered, name) {
			continue // it may still lack its device
		}
		var failed *ProviderError
		if !errors.As(err, &failed) || failed.Provider != name || !slices.Equal(failed.Offered, offered) {
			t.Errorf("provider %q: error is %v, want a ProviderError that offers %v", name, err, offered)
		}
		if want := "offers " + strings.Join(offered, ", "); !strings.Contains(err.Error(), want) {
			t.Errorf("provider %q: error %q does not contain %q", name, err, want)
		}
	}
	opt := DefaultOptions()
	opt.Threads = 0
	if _, err := r.SelfTest(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "threads is 0") {
		t.Errorf("0 threads: error is %v", err)
	}
}
