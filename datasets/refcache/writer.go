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

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// A Writer fills a cache part by part, and keeps other writers out of its folder until
// Finish or Close. After a kill, Create goes on behind the last whole part. It is not
// safe for concurrent use.
type Writer struct {
	dir      string
	manifest Manifest
	position Position
	encoder  *encoder
	log      *os.File
	lock     *lockfile.Lock
}

// Create starts a cache in folder dir, which may exist if it is empty, or resumes the
// unfinished one of the same identity that is there: the size and SHA-256 of its parts are
// checked, and what follows the last good one is removed. Where m.Shard is not nil, dir is
// the folder of that shard; a finished one whose files are damaged is taken up again.
//
// The error is a *[StaleError] where dir holds a cache of another identity, wraps
// [ErrComplete] where it holds a finished one of this identity, and is a
// *[lockfile.LockedError] where another writer has the folder.
func Create(dir string, m Manifest, head Head) (*Writer, error) {
	m.Format, m.Complete, m.BatchRows = Format, false, m.batchRows()
	m.Counts, m.Parts = Counts{}, nil
	if err := errors.Join(head.check(), m.validate()); err != nil {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	if m.D != head.D || m.V != head.V {
		return nil, fmt.Errorf("refcache: LM head is %d x %d, manifest says %d x %d", head.V, head.D, m.V, m.D)
	}
	var err error
	if m.Head, err = head.info(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		// Nobody changes a finished cache: it may lie where no lock can be made.
		if have, err := readManifest(dir); err == nil && have.Complete {
			return nil, have.complete(dir, m)
		}
		return nil, err
	}
	w, err := openWriter(dir, m, &head)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	w.lock = lock
	return w, nil
}

// openWriter starts or resumes a cache in the locked folder dir.
func openWriter(dir string, m Manifest, head *Head) (*Writer, error) {
	have, err := readManifest(dir)
	switch {
	case errors.Is(err, ErrNotCache):
		err = start(dir, &m, head)
	case err == nil && have.Complete && m.Shard != nil:
		err = mend(dir, have, m, head)
	case err == nil && have.Complete:
		// A kill between the two steps of Finish leaves the log.
		err = errors.Join(removeLog(dir), have.complete(dir, m))
	case err == nil:
		if err = have.same(m); err == nil && m.Shard.hasHead() && newVerifier(context.Background(), func(int) {}).part(dir, m.headFile()) != nil {
			err = errors.Join(os.RemoveAll(filepath.Join(dir, headName)), head.write(dir))
		}
	}
	if err != nil {
		return nil, err
	}
	return resume(dir, m)
}

// complete is why the finished cache in dir, which m describes, is not written as want.
func (m Manifest) complete(dir string, want Manifest) error {
	if err := m.same(want); err != nil {
		return err
	}
	return fmt.Errorf("refcache: %q: %w", dir, ErrComplete)
}

// start makes dir the folder of an unfinished cache without parts.
func start(dir string, m *Manifest, head *Head) error {
	// A kill before the manifest was there leaves a head or temporary files.
	if err := atomicfile.RemoveTemp(dir); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	for _, name := range names {
		if name.Name() != headName && name.Name() != lockfile.Name {
			return fmt.Errorf("refcache: %q: %w, and not empty: it holds %q", dir, ErrNotCache, name.Name())
		}
	}
	if m.Shard.hasHead() {
		if err := head.write(dir); err != nil {
			return err
		}
	}
	return m.write(dir)
}

// resume opens the unfinished cache in dir behind its last whole part.
func resume(dir string, m Manifest) (*Writer, error) {
	if err := atomicfile.RemoveTemp(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, logName)
	entries, _, err := readLog(path, m.Shard)
	if err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, manifest: m, encoder: newEncoder(m.shape())}
	check := newVerifier(context.Background(), func(int) {})
	for _, e := range entries {
		if check.part(dir, e.Part) != nil {
			break // whatever is in doubt is computed again
		}
		w.manifest.add(e)
		w.position = e.Position
	}
	whole := entries[:len(w.manifest.Parts)]
	if err := rewriteLog(path, whole); err != nil {
		return nil, err
	}
	if err := removeParts(dir, w.manifest.Parts); err != nil {
		return nil, err
	}
	if w.log, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	return w, nil
}

func rewriteLog(path string, entries []entry) error {
	return atomicfile.WriteFile(path, func(w io.Writer) error {
		for _, e := range entries {
			line, err := e.line()
			if err != nil {
				return err
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeParts removes the files of parts that are not among those.
func removeParts(dir string, parts []Part) error {
	keep := make(map[string]bool, len(parts))
	for _, p := range parts {
		keep[p.Name] = true
	}
	names, err := filepath.Glob(filepath.Join(dir, "part-*.arrow"))
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	for _, name := range names {
		if keep[filepath.Base(name)] {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("refcache: %w", err)
		}
	}
	return nil
}

// Position returns what was given with the last whole part: a pass goes on behind
// Position().Rows source rows, with these counts.
func (w *Writer) Position() Position { return w.position.clone() }

// Parts returns the number of whole parts.
func (w *Writer) Parts() int { return len(w.manifest.Parts) }

// Rows returns the number of rows in whole parts.
func (w *Writer) Rows() int64 { return w.manifest.Counts.Kept }

// WritePart writes rows as the next part: it is in the cache whole, with position, or,
// after any error or kill, not at all. Where parts begin is the caller's choice; it must
// not depend on how often a pass was interrupted. Rows may be reused afterwards.
//
// The error is a *[FeatureError] where a hidden state overflows the stored dtype.
func (w *Writer) WritePart(rows []Row, position Position) error {
	if len(rows) == 0 {
		return errors.New("refcache: part without rows")
	}
	e := entry{Position: position.clone()}
	for i := range rows {
		if err := rows[i].check(w.manifest.D, w.manifest.FeatureDType); err != nil {
			return err
		}
		e.count(&rows[i])
	}
	var err error
	if e.Part, err = w.writeFile(rows, position.Rows); err != nil {
		return err
	}
	return w.append(e)
}

// append makes a file that is there, whole, the next part.
func (w *Writer) append(e entry) error {
	line, err := e.line()
	if err != nil {
		return err
	}
	if _, err := w.log.Write(line); err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	if err := w.log.Sync(); err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	w.manifest.add(e)
	w.position = e.Position
	return nil
}

// writeFile writes the file of the next part.
func (w *Writer) writeFile(rows []Row, sourceEnd int64) (Part, error) {
	p := Part{Name: w.manifest.partName(w.Parts()), Rows: int64(len(rows)), SourceEnd: sourceEnd}
	hash := sha256.New()
	err := atomicfile.WriteFile(filepath.Join(w.dir, p.Name), func(f io.Writer) error {
		out := &forward{w: io.MultiWriter(f, hash)}
		err := w.encoder.write(out, rows, w.manifest.BatchRows)
		p.Size = out.at
		return err
	})
	p.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return p, err
}

// Finish marks the cache complete; position holds the final counts. The writer can't be
// used afterwards. A cache has parts; a shard may have none.
func (w *Writer) Finish(position Position) error {
	if w.Parts() == 0 && w.manifest.Shard == nil {
		return errors.New("refcache: no rows to keep")
	}
	m := w.manifest
	m.Counts.at(position.clone())
	m.Complete = true
	if err := m.write(w.dir); err != nil {
		return err
	}
	if m.Shard != nil {
		return w.Close()
	}
	return errors.Join(w.closeLog(), removeLog(w.dir), w.lock.Release())
}

// removeLog removes what a finished cache does not need.
func removeLog(dir string) error {
	err := os.Remove(filepath.Join(dir, logName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("refcache: %w", err)
	}
	return nil
}

// Close ends writing and leaves the cache resumable. It may follow Finish.
func (w *Writer) Close() error { return errors.Join(w.closeLog(), w.lock.Release()) }

func (w *Writer) closeLog() error {
	if w.log == nil {
		return nil
	}
	err := w.log.Close()
	w.log = nil
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	return nil
}
