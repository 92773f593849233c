//go:build unix && !aix

package lockfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// open opens path, made where it is missing, with its lock; the error is errHeld where
// that is taken.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	switch err = flock(f, unix.LOCK_EX); {
	case err == nil || unsupported(err):
		return f, nil
	case err == unix.EWOULDBLOCK:
		err = errHeld
	default:
		err = &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	f.Close() // nothing was written
	return nil, err
}

// held reports whether another open file has the lock of the one at path.
func held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // with the lock, if that was to be had
	err = flock(f, unix.LOCK_SH)
	if err == nil || unsupported(err) {
		return false, nil
	}
	if err == unix.EWOULDBLOCK {
		return true, nil
	}
	return false, &fs.PathError{Op: "flock", Path: path, Err: err}
}

// flock takes a lock of a kind without waiting.
func flock(f *os.File, kind int) error {
	for {
		if err := unix.Flock(int(f.Fd()), kind|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

// unsupported reports a file system without locks, as some network mounts are: work there
// is as it would be without this package.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOLCK)
}
