//go:build !unix

package atomicfile

import "io/fs"

// umask is empty where the system has none.
func umask() fs.FileMode { return 0 }
