package refcache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReaderStaysWithItsFolder replaces a cache under a reader: by the old one moved aside, the
// reader goes on; by the old one removed, it fails and says why. The new rows, in files of the
// same names and sizes, are never among what it reads.
func TestReaderStaysWithItsFolder(t *testing.T) {
	t.Parallel()
	rows := testRows(0, 4, 2, F16)
	dir := writeCache(t, rows, 2, 2, F16)
	other := testRows(0, 4, 2, F16)
	for i := range other {
		other[i].Weight++
	}
	next := writeCache(t, other, 2, 2, F16)
	r := open(t, dir)
	var row Row
	if err := r.Row(0, &row); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(t.TempDir(), "aside")
	for _, move := range [][2]string{{dir, aside}, {next, dir}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Row(3, &row); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows[3], row, sameRow); diff != "" {
		t.Errorf("row of the old cache (-want +got):\n%s", diff)
	}
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Errorf("the old files: %v", err)
	}
	if _, err := r.Head(); err != nil {
		t.Errorf("the old head: %v", err)
	}

	late := open(t, dir)
	for _, path := range []string{dir, aside} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	// Its parts are open already.
	if err := r.Row(1, &row); err != nil {
		t.Errorf("a part that is open: %v", err)
	}
	if _, err := r.Head(); !errors.Is(err, ErrReplaced) {
		t.Errorf("head: got %v, want ErrReplaced", err)
	}
	if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrReplaced) {
		t.Errorf("verify: got %v, want ErrReplaced", err)
	}
	if err := late.Row(0, &row); !errors.Is(err, ErrReplaced) {
		t.Errorf("row: got %v, want ErrReplaced", err)
	}
}
