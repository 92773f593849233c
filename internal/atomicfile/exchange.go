package atomicfile

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Exchange gives two folders each other's name. It is one step: whatever is killed and
// whenever, either name leads to a whole folder. The error wraps [errors.ErrUnsupported],
// and nothing was changed, where the system or the file system can't do that.
func Exchange(a, b string) error {
	if err := exchange(a, b); err != nil {
		return fmt.Errorf("atomicfile: exchange %q and %q: %w", a, b, err)
	}
	return errors.Join(SyncDir(filepath.Dir(a)), SyncDir(filepath.Dir(b)))
}
