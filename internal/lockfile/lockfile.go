// Package lockfile keeps two processes from writing one folder at a time.
//
// The lock is an advisory flock(2) on a file in the folder, so that it ends with the
// process that holds it, however that ends. The file alone means nothing: a killed
// process leaves it behind, and the next one locks it. Systems and file systems that
// have no flock give locks that keep nobody out.
package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Name is the lock's file in the folder, there while the lock is held.
const Name = ".lock"

// A LockedError is a folder that another process, or another [Lock] of this one, holds.
type LockedError struct {
	// Path is the folder.
	Path string
	// Holder says who that is, "process 12 on host a since 2026-01-02T03:04:05Z"; empty
	// where the lock does not tell.
	Holder string
}

// Error implements error.
func (e *LockedError) Error() string {
	text := fmt.Sprintf("lockfile: folder %q is in use by another process", e.Path)
	if e.Holder != "" {
		text += " (" + e.Holder + ")"
	}
	return text
}

// A Lock is a folder held for one writer.
type Lock struct {
	path string
	f    *os.File // nil where nothing is held
}

// Held reports whether folder dir is locked, without keeping anybody out of it. Nothing is
// written, and a folder that may only be read can be asked about.
func Held(dir string) (bool, error) {
	is, err := held(filepath.Join(dir, Name))
	if err != nil {
		return false, fmt.Errorf("lockfile: %w", err)
	}
	return is, nil
}

// A process in Held has a lock for a moment, which one that wants the folder outlasts.
const (
	attempts = 5
	pause    = 10 * time.Millisecond
)

// Acquire locks folder dir, which must exist, without waiting for another holder's end. The
// error is a *[LockedError] where it is held already.
func Acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, Name)
	for attempt := 1; ; {
		f, err := open(path)
		if errors.Is(err, errHeld) {
			if attempt < attempts {
				attempt++
				time.Sleep(pause)
				continue
			}
			return nil, &LockedError{Path: dir, Holder: holder(path)}
		}
		if err != nil {
			return nil, fmt.Errorf("lockfile: lock %q: %w", dir, err)
		}
		l := &Lock{path: path, f: f}
		// The last holder may have removed the file between its opening and its locking
		// here: that lock is on a file nobody else can find.
		if f == nil || l.current() {
			l.sign()
			return l, nil
		}
		f.Close() // nothing was written
	}
}

// sign writes into the file who holds it. That is for people, so a full disk is no error.
func (l *Lock) sign() {
	if l.f == nil {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	if l.f.Truncate(0) == nil {
		fmt.Fprintf(l.f, "process %d on host %s since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	}
}

// holder reads what sign wrote; a moment after the lock was taken it may be nothing yet.
func holder(path string) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) > 512 {
		return ""
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(text)), "?")
}

// errHeld says that another open file has the lock.
var errHeld = errors.New("held")

// current reports whether the locked file is still the one at its path.
func (l *Lock) current() bool {
	mine, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(l.path)
	return err == nil && os.SameFile(mine, there)
}

// Release removes the file and gives the folder free. It may be called again, and on a
// nil lock.
func (l *Lock) Release() error {
	if l == nil || l.f == nil {
		return nil
	}
	var err error
	// Removed while held: afterwards it may be another's.
	if l.current() {
		err = os.Remove(l.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, l.f.Close())
	l.f = nil
	if err != nil {
		return fmt.Errorf("lockfile: release: %w", err)
	}
	return nil
}
