// Package atomicfile writes files and folders that are either whole or absent.
//
// Everything is written under a temporary name beside its destination, synced,
// renamed, and the parent folder synced, so that a killed process, a full disk
// or a power cut never leaves half an output under the final name. Temporary
// names start with [TempPrefix]; a reader that lists a folder skips them.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// TempPrefix starts the name of every temporary file and folder.
const TempPrefix = ".dpo-pipe-tmp-"

// File is an output being written. It must end in Commit or Abort; Abort after
// Commit does nothing, so that it can be deferred.
type File struct {
	f    *os.File
	buf  *bufio.Writer
	path string
}

// Create starts writing path. The parent folder must exist.
func Create(path string) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("atomicfile: create %q: %w", path, err)
	}
	return &File{f: f, buf: bufio.NewWriterSize(f, 1<<18), path: path}, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) { return f.buf.Write(p) }

// Commit flushes, syncs and renames the file to its final name, replacing what
// was there. On error nothing is left behind and the old file is untouched.
func (f *File) Commit() error {
	defer f.Abort()
	if f.f == nil {
		return fmt.Errorf("atomicfile: commit %q: already closed", f.path)
	}
	if err := f.finish(); err != nil {
		return fmt.Errorf("atomicfile: write %q: %w", f.path, err)
	}
	f.f = nil
	return SyncDir(filepath.Dir(f.path))
}

// finish makes the temporary file durable and gives it its final name.
func (f *File) finish() error {
	if err := f.buf.Flush(); err != nil {
		return err
	}
	// CreateTemp makes files private; outputs are as readable as the umask lets.
	if err := f.f.Chmod(0o666 &^ umask()); err != nil {
		return err
	}
	if err := f.f.Sync(); err != nil {
		return err
	}
	if err := f.f.Close(); err != nil {
		return err
	}
	return os.Rename(f.f.Name(), f.path)
}

// Abort removes the temporary file. It is safe to call after Commit.
func (f *File) Abort() {
	if f.f == nil {
		return
	}
	f.f.Close()
	os.Remove(f.f.Name())
	f.f = nil
}

// WriteFile writes what fill produces to path, or leaves path as it was.
func WriteFile(path string, fill func(w io.Writer) error) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := fill(f); err != nil {
		return err
	}
	return f.Commit()
}

// CopyFile writes what is in the file at from to path, whole or not at all. Where there is no
// such file the error wraps fs.ErrNotExist, and path stays as it is.
func CopyFile(path, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("atomicfile: copy %q: %w", from, err)
	}
	defer in.Close()
	return WriteFile(path, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// Dir is a folder being written: callers fill Path and then Commit.
type Dir struct {
	// Path is the temporary folder.
	Path  string
	final string
}

// CreateDir starts writing the folder final, whose parent must exist.
func CreateDir(final string) (*Dir, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(final), TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("atomicfile: create folder %q: %w", final, err)
	}
	if err := os.Chmod(tmp, 0o777&^umask()); err != nil {
		os.RemoveAll(tmp)
		return nil, fmt.Errorf("atomicfile: create folder %q: %w", final, err)
	}
	return &Dir{Path: tmp, final: final}, nil
}

// Commit syncs every file and renames the folder to its final name. An existing
// folder of that name is replaced: it is moved aside first and removed after.
func (d *Dir) Commit() error {
	defer d.Abort()
	if err := syncTree(d.Path); err != nil {
		return fmt.Errorf("atomicfile: sync folder %q: %w", d.final, err)
	}
	if err := replaceDir(d.Path, d.final); err != nil {
		return fmt.Errorf("atomicfile: rename folder %q: %w", d.final, err)
	}
	d.Path = ""
	return SyncDir(filepath.Dir(d.final))
}

// Abort removes the temporary folder. It is safe to call after Commit.
func (d *Dir) Abort() {
	if d.Path != "" {
		os.RemoveAll(d.Path)
		d.Path = ""
	}
}

// replaceDir renames tmp to final; rename(2) can't replace a folder with
// content, so the old one is given a temporary name for the moment between.
func replaceDir(tmp, final string) error {
	err := os.Rename(tmp, final)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, err := os.MkdirTemp(filepath.Dir(final), TempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(old)
	aside := filepath.Join(old, "old")
	if err := os.Rename(final, aside); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return errors.Join(err, os.Rename(aside, final))
	}
	return nil
}

// RemoveDir removes a folder and its content; it is never seen half removed under its name.
// A folder that is not there is no error.
func RemoveDir(path string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(path), TempPrefix+"*")
	if err != nil {
		return fmt.Errorf("atomicfile: remove folder %q: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(tmp, "old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("atomicfile: remove folder %q: %w", path, errors.Join(err, os.Remove(tmp)))
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("atomicfile: remove folder %q: %w", path, err)
	}
	return nil
}

// RemoveTemp removes what killed processes left in folder dir.
func RemoveTemp(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, TempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("atomicfile: remove left-over %q: %w", path, err)
		}
	}
	return nil
}

func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return SyncDir(path)
	})
}

// SyncDir makes the names in a folder (or the bytes of a file) durable.
func SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Rename gives a folder another name, which must be free, for good.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	return errors.Join(SyncDir(filepath.Dir(to)), SyncDir(filepath.Dir(from)))
}

// Link gives the whole file from a second name, to, in another folder of its file system.
func Link(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	return SyncDir(filepath.Dir(to))
}

// Symlink makes path a symbolic link to target in one step, replacing a file or link there.
func Symlink(target, path string) error {
	dir, name := filepath.Split(path)
	tmp := filepath.Join(dir, TempPrefix+name)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("atomicfile: link %q: %w", path, err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("atomicfile: link %q: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("atomicfile: link %q: %w", path, errors.Join(err, os.Remove(tmp)))
	}
	return SyncDir(filepath.Dir(path))
}
