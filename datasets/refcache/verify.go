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
	"path/filepath"
)

// Verify reads every file and checks its size and SHA-256, and that the counts add up. The
// error wraps [ErrCorrupt] and names the first file that differs. Where progress is not nil,
// it is told after every chunk how many of the total bytes are checked; they are the files'
// sizes as the manifest has them.
func (r *Reader) Verify(ctx context.Context, progress func(done, total int64)) error {
	m := &r.manifest
	if c := m.Counts; c.Read != c.Kept+c.Dropped.Rows() {
		return fmt.Errorf("refcache: %q: %d source rows were read, want the %d kept and %d dropped: %w",
			filepath.Join(r.dir, manifestName), c.Read, c.Kept, c.Dropped.Rows(), ErrCorrupt)
	}
	files := append([]Part{m.headFile()}, m.Parts...)
	var done, total int64
	for _, f := range files {
		total += f.Size
	}
	read := func(n int) {
		if done += int64(n); progress != nil {
			progress(done, total)
		}
	}
	v := newVerifier(ctx, read)
	for _, f := range files {
		if err := r.verify(v, f); err != nil {
			return err
		}
	}
	return nil
}

// verify checks one file.
func (r *Reader) verify(v *verifier, p Part) error {
	f, err := r.open(p.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("refcache: %q is missing: %w", filepath.Join(r.dir, p.Name), ErrCorrupt)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return v.file(f, p.Size, p.SHA256)
}

// verifyChunk is how much of a file is read and hashed at a time.
const verifyChunk = 1 << 20

// verifier checks files, all of them by way of one chunk of memory.
type verifier struct {
	ctx   context.Context
	read  func(n int) // is told the bytes of every chunk
	chunk []byte
}

func newVerifier(ctx context.Context, read func(n int)) *verifier {
	return &verifier{ctx, read, make([]byte, verifyChunk)}
}

// part checks the file of a part in a folder.
func (v *verifier) part(dir string, p Part) error {
	path := filepath.Join(dir, p.Name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("refcache: %q is missing: %w", path, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	defer f.Close()
	return v.file(f, p.Size, p.SHA256)
}

// file checks the size and SHA-256 of a file, reading it once.
func (v *verifier) file(f *os.File, size int64, sum string) error {
	path := f.Name()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	if info.Size() != size {
		return fmt.Errorf("refcache: %q has %d bytes, want %d: %w", path, info.Size(), size, ErrCorrupt)
	}
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, &watched{v, f}, v.chunk); err != nil {
		return fmt.Errorf("refcache: %q: %w", path, err)
	}
	if have := hex.EncodeToString(hash.Sum(nil)); have != sum {
		return fmt.Errorf("refcache: %q has SHA-256 %s, want %s: %w", path, have, sum, ErrCorrupt)
	}
	return nil
}

// watched tells of every read, and ends when the verifier's context does.
type watched struct {
	v *verifier
	r io.Reader
}

func (w *watched) Read(p []byte) (int, error) {
	if w.v.ctx.Err() != nil {
		return 0, context.Cause(w.v.ctx)
	}
	n, err := w.r.Read(p)
	if n > 0 {
		w.v.read(n)
	}
	return n, err
}
