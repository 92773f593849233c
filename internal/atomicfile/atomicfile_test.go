package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var errFill = errors.New("no more to write")

// names lists what is in dir.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, want := range []string{"one", "", "two, which is longer"} {
		if err := WriteFile(path, text(want)); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != want {
			t.Errorf("content is %q, want %q", got, want)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("the folder holds %q, want f alone", got)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat(plain)
	if errA != nil || errB != nil || a.Mode() != b.Mode() {
		t.Errorf("mode is %v, a plain file's is %v", a.Mode(), b.Mode())
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("old=", old), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if old {
				if err := WriteFile(path, text("old")); err != nil {
					t.Fatal(err)
				}
			}
			err := WriteFile(path, func(w io.Writer) error { return errors.Join(text("half")(w), errFill) })
			if !errors.Is(err, errFill) {
				t.Fatalf("error is %v, want that of the writer", err)
			}
			if got := names(t, dir); old && (len(got) != 1 || content(t, path) != "old") || !old && len(got) != 0 {
				t.Errorf("the folder holds %q", got)
			}
		})
	}
}

func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(to, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := CopyFile(to, from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file to copy: %v, want fs.ErrNotExist", err)
	}
	if text, err := os.ReadFile(to); string(text) != "old" || err != nil {
		t.Errorf("it left %q (%v), want what was there", text, err)
	}
	if err := os.WriteFile(from, []byte("new"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := CopyFile(to, from); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); string(text) != "new" || err != nil {
		t.Errorf("got %q (%v), want the copy", text, err)
	}
}

func TestCreateInNoFolder(t *testing.T) {
	if _, err := Create(filepath.Join(t.TempDir(), "absent", "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file: error is %v", err)
	}
	if _, err := CreateDir(filepath.Join(t.TempDir(), "absent", "d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder: error is %v", err)
	}
}

func TestDir(t *testing.T) {
	parent := t.TempDir()
	final := filepath.Join(parent, "d")
	for _, name := range []string{"a", "b"} {
		d, err := CreateDir(final)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.Path, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		d.Abort() // does nothing behind Commit
		// The second folder replaces the first whole.
		if got := names(t, final); !slices.Equal(got, []string{name}) {
			t.Errorf("the folder holds %q, want %q", got, name)
		}
	}
	d, err := CreateDir(filepath.Join(parent, "aborted"))
	if err != nil {
		t.Fatal(err)
	}
	d.Abort()
	if got := names(t, parent); !slices.Equal(got, []string{"d"}) {
		t.Errorf("the parent holds %q, want d alone", got)
	}
}

func TestRemove(t *testing.T) {
	parent := t.TempDir()
	for _, path := range []string{"keep/x", "gone/y/z", TempPrefix + "1/x"} {
		if err := os.MkdirAll(filepath.Join(parent, path), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(parent, TempPrefix+"2"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := RemoveDir(filepath.Join(parent, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := RemoveDir(filepath.Join(parent, "gone")); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := RemoveTemp(parent); err != nil {
		t.Fatal(err)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"keep"}) {
		t.Errorf("the parent holds %q, want keep alone", got)
	}
}

func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	for _, target := range []string{"a", "b/c"} {
		if err := os.WriteFile(filepath.Join(dir, TempPrefix+"link"), nil, 0o666); err != nil { // of a killed process
			t.Fatal(err)
		}
		if err := Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(link); err != nil || got != target {
			t.Errorf("the link leads to %q, %v, want %q", got, err, target)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Symlink("a", filepath.Join(dir, "folder")); err == nil {
		t.Error("a folder was replaced")
	}
	if got := names(t, dir); !slices.Equal(got, []string{"folder", "link"}) {
		t.Errorf("the folder holds %q", got)
	}
}
