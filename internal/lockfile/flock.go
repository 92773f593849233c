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
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	switch {
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

// unsupported reports a file system without locks, as some network mounts are: work there
// is as it would be without this package.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOLCK)
}
