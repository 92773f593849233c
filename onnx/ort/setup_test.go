//go:build cgo

package ort

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// environmentStatus is the exit status for what the machine lacks.
const environmentStatus = 3

// runSetup runs the script with a cache folder and an npm of the test's own.
func runSetup(t *testing.T, cache, npm string) (stderr string, status int) {
	t.Helper()
	bin := t.TempDir()
	if npm != "" {
		if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\n"+npm+"\n"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	// Only the tools the script needs: the machine's own npm must not be found.
	for _, tool := range []string{"sh", "uname", "sha256sum", "shasum", "cut", "basename", "dirname", "mkdir", "mktemp", "tail", "tar", "gzip", "chmod", "mv", "rm"} {
		if path, err := exec.LookPath(tool); err == nil {
			if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
				t.Fatal(err)
			}
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not on this machine")
	}
	cmd := exec.Command(bash, filepath.Join("..", "..", "scripts", "setup-ort.sh"))
	cmd.Env = []string{"PATH=" + bin, "HOME=" + cache, "XDG_CACHE_HOME=" + cache}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestSetupNamesWhatIsMissing(t *testing.T) {
	for _, c := range []struct{ name, npm, want string }{
		{"no npm", "", "npm is not installed"},
		{"no network", "echo npm error network >&2; exit 1", "could not fetch onnxruntime-node@" + PinnedVersion},
		{"another package", "echo damaged >p.tgz; echo p.tgz", "want c3779c01c59832f8c03e2c392ac3af10bf08579f1822e8b1c63cc451edb302a2: it is not installed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := t.TempDir()
			out, status := runSetup(t, cache, c.npm)
			if strings.Contains(out, "no pinned ONNX Runtime library") {
				t.Skip(out)
			}
			if status != environmentStatus || !strings.Contains(out, c.want) || !strings.Contains(out, LibraryVariable) {
				t.Errorf("exit status %d with\n%s\nwant %d, %q and the variable to set", status, out, environmentStatus, c.want)
			}
			left, err := filepath.Glob(filepath.Join(cache, "dpo-pipe", "*", "*"))
			hidden, err2 := filepath.Glob(filepath.Join(cache, "dpo-pipe", "*", ".*"))
			if err != nil || err2 != nil || len(left)+len(hidden) != 0 {
				t.Errorf("files are left: %v %v", left, hidden)
			}
		})
	}
}

// TestSetupIsQuietWhenThereIsNothingToDo gives the script the installed library and an
// npm that fails.
func TestSetupIsQuietWhenThereIsNothingToDo(t *testing.T) {
	lib := installed(t)
	if lib.Version != PinnedVersion || lib.Source != "user cache" {
		t.Skipf("the library is %+v, not one that the script installed", lib)
	}
	cache := t.TempDir()
	link(t, lib, filepath.Join(cache, "dpo-pipe", "onnxruntime-"+PinnedVersion, filepath.Base(lib.Path)))
	if out, status := runSetup(t, cache, "exit 1"); status != 0 || out != "" {
		t.Errorf("exit status %d with %q, want 0 and no word", status, out)
	}
}
