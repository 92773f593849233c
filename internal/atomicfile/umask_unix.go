//go:build unix

package atomicfile

import (
	"io/fs"
	"sync"
	"syscall"
)

// umask reads the process's file mode mask, which can only be read by setting it.
var umask = sync.OnceValue(func() fs.FileMode {
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	return fs.FileMode(mask)
})
