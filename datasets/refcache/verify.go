package refcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// verifyFile checks the size and SHA-256 of a file, reading it once.
func verifyFile(ctx context.Context, path string, size int64, sum string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("refcache: %q is missing: %w", path, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	if info.Size() != size {
		return fmt.Errorf("refcache: %q has %d bytes, want %d: %w", path, info.Size(), size, ErrCorrupt)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, &cancellable{ctx, f}); err != nil {
		return fmt.Errorf("refcache: %q: %w", path, err)
	}
	if have := hex.EncodeToString(hash.Sum(nil)); have != sum {
		return fmt.Errorf("refcache: %q has SHA-256 %s, want %s: %w", path, have, sum, ErrCorrupt)
	}
	return nil
}

// cancellable ends a read when ctx does.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
