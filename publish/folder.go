package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

const (
	currentName  = "current"
	versionsName = "versions"
)

// folder keeps a place in a file system that has symbolic links.
type folder struct{ path string }

func (f folder) where(version string) string { return filepath.Join(f.path, versionsName, version) }

func (f folder) lock(context.Context) (func() error, error) {
	versions := filepath.Join(f.path, versionsName)
	if err := os.MkdirAll(versions, 0o777); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	l, err := lockfile.Acquire(f.path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(atomicfile.RemoveTemp(f.path), atomicfile.RemoveTemp(versions)); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l.Release, nil
}

func (f folder) versions(context.Context) ([]Version, error) {
	entries, err := os.ReadDir(filepath.Join(f.path, versionsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("publish: %w", err)
	}
	var all []Version
	for _, e := range entries {
		if !names.MatchString(e.Name()) {
			continue
		}
		v, ok, err := f.describes(e.Name())
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, v)
		}
	}
	return all, nil
}

// describes reads what is said of a version; ok is false where there is none of that name.
func (f folder) describes(version string) (v Version, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(f.where(version), versionFile))
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return Version{}, false, nil
	case errors.Is(err, fs.ErrNotExist):
		// A version appears and goes with all its files: an empty folder is not ours.
		if entries, readErr := os.ReadDir(f.where(version)); readErr != nil || len(entries) == 0 {
			return Version{}, false, nil
		}
	case errors.Is(err, fs.ErrPermission): // which is nothing of this version's
		return Version{}, false, fmt.Errorf("publish: %w", err)
	case err == nil:
		v, err = decodeVersion(version, text)
	}
	if err != nil {
		v = damaged(version, err)
	}
	return v, true, nil
}

func (f folder) add(ctx context.Context, v Version, from string) error {
	dir, err := atomicfile.CreateDir(f.where(v.Name))
	if err != nil {
		return err
	}
	defer dir.Abort()
	if v.Files, err = copyFolder(ctx, from, dir.Path); err != nil {
		return err
	}
	if err := writeVersion(dir.Path, v); err != nil {
		return err
	}
	return dir.Commit()
}

func (f folder) describe(_ context.Context, v Version) error { return writeVersion(f.where(v.Name), v) }

func writeVersion(dir string, v Version) error {
	text, err := encodeVersion(v)
	if err != nil {
		return fmt.Errorf("publish: describe version %q: %w", v.Name, err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, versionFile), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

func (f folder) verify(ctx context.Context, v Version) error {
	return verifyFiles(ctx, f.path, v, f.where(v.Name), v.Files)
}

// verifyFiles compares files of a version, which are in dir, with their description.
func verifyFiles(ctx context.Context, place string, v Version, dir string, files []File) error {
	for _, want := range files {
		have, err := hashFile(ctx, dir, want.Path, io.Discard)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &DamagedError{Place: place, Version: v.Name, Problem: fmt.Sprintf("%q is missing", want.Path)}
		case err != nil:
			return err
		case have != want:
			return &DamagedError{Place: place, Version: v.Name, Problem: fmt.Sprintf("%q has %d bytes and SHA-256 %s, want %d and %s",
				want.Path, have.Bytes, have.SHA256, want.Bytes, want.SHA256)}
		}
	}
	return nil
}

func (f folder) remove(_ context.Context, version string) error {
	return atomicfile.RemoveDir(f.where(version))
}

func (f folder) current(context.Context) (string, error) {
	target, err := os.Readlink(filepath.Join(f.path, currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &PlaceError{f.path, fmt.Sprintf("has a %s that is no link: %v", currentName, err)}
	}
	dir, version := filepath.Split(target)
	if filepath.Clean(dir) != versionsName || !names.MatchString(version) {
		return "", &PlaceError{f.path, fmt.Sprintf("has %s lead to %q, want %s/VERSION", currentName, target, versionsName)}
	}
	return version, nil
}

func (f folder) point(_ context.Context, version string) error {
	err := atomicfile.Symlink(filepath.Join(versionsName, version), filepath.Join(f.path, currentName))
	if noLinks(err) {
		return &NoLinksError{f.path, err}
	}
	return err
}

// noLinks reports what systems answer where links can't be: Linux says EPERM on FAT.
func noLinks(err error) bool {
	link, ok := errors.AsType[*os.LinkError](err)
	return ok && link.Op == "symlink" && (errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM))
}

// hashFolder describes the files of a folder as Publish takes them.
func hashFolder(ctx context.Context, from string) ([]File, error) {
	return eachFile(from, func(root, path string) (File, error) { return hashFile(ctx, root, path, io.Discard) })
}

// copyFolder copies what hashFolder describes.
func copyFolder(ctx context.Context, from, to string) ([]File, error) {
	return eachFile(from, func(root, path string) (File, error) {
		at := filepath.Join(to, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
			return File{}, fmt.Errorf("publish: %w", err)
		}
		out, err := os.Create(at)
		if err != nil {
			return File{}, fmt.Errorf("publish: %w", err)
		}
		file, err := hashFile(ctx, root, path, out)
		return file, errors.Join(err, out.Close())
	})
}

// eachFile visits the regular files of a folder, and those that links lead to, but for
// version.json and temporary ones.
func eachFile(from string, visit func(root, path string) (File, error)) ([]File, error) {
	root, err := filepath.EvalSymlinks(from)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	var files []File
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == filepath.Join(root, versionFile) || strings.HasPrefix(d.Name(), atomicfile.TempPrefix) {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%q is neither a file nor a link to one", path)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		file, err := visit(root, filepath.ToSlash(rel))
		files = append(files, file)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("publish: read policy: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("publish: policy %q has no files", from)
	}
	sortFiles(files)
	return files, nil
}

// hashFile describes the file at path below root and copies it to w.
func hashFile(ctx context.Context, root, path string, w io.Writer) (File, error) {
	in, err := os.Open(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return File{}, fmt.Errorf("publish: %w", err)
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), reader{ctx, in}, make([]byte, 1<<20))
	if err != nil {
		return File{}, fmt.Errorf("publish: copy %q: %w", path, err)
	}
	return File{Path: path, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// reader ends when ctx does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
