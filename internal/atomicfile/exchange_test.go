package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestExchange(t *testing.T) {
	parent := t.TempDir()
	a, b := filepath.Join(parent, "a"), filepath.Join(parent, "b")
	for _, path := range []string{a + "/1", b + "/2", b + "/3"} {
		if err := os.MkdirAll(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	err := Exchange(a, b)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, a); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("a holds %q, want what b held", got)
	}
	if got := names(t, b); !slices.Equal(got, []string{"1"}) {
		t.Errorf("b holds %q, want what a held", got)
	}
	if err := Exchange(a, filepath.Join(parent, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with a folder that is not there: %v", err)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the parent holds %q, want a and b", got)
	}
}

func TestRenameAndLink(t *testing.T) {
	parent := t.TempDir()
	a, b := filepath.Join(parent, "a"), filepath.Join(parent, "b")
	for _, dir := range []string{a, b} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(a, "f"), text("whole")); err != nil {
		t.Fatal(err)
	}
	if err := Link(filepath.Join(a, "f"), filepath.Join(b, "g")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	if err := Link(filepath.Join(a, "f"), filepath.Join(b, "g")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := os.Remove(filepath.Join(a, "f")); err != nil {
		t.Fatal(err)
	}
	if err := Rename(b, filepath.Join(parent, "c")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, filepath.Join(parent, "c", "g")); got != "whole" {
		t.Errorf("the link holds %q", got)
	}
	if err := Rename(filepath.Join(parent, "c"), a+"/x/y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to a folder that is not there: %v", err)
	}
}
