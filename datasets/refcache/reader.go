package refcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"sync"
)

// A Reader gives random access to the rows of a finished cache. Files are read, not
// mapped, so that resident memory does not grow with the cache. It stays with the folder
// that it opened: where another takes its name, it reads the old files as long as they
// are there, and never those of both. It is safe for concurrent use; calls take turns.
type Reader struct {
	dir      string
	root     *os.Root
	manifest Manifest
	ends     []int64 // ends[i] is the number of rows in parts 0 to i

	mu      sync.Mutex
	parts   recent[int, *part]
	batches recent[batchKey, *batch]
	raw     []byte
}

// batchKey is record batch number batch of part number part.
type batchKey struct{ part, batch int }

// What a reader keeps of the parts and record batches used last: few enough for file
// descriptors to last and for memory not to grow with the cache.
const (
	maxParts   = 64
	maxBatches = 256
)

// Open opens the finished cache in folder dir. The error wraps [ErrNotCache],
// [ErrIncomplete] or [ErrCorrupt].
func Open(dir string) (*Reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		if _, err := readManifest(dir); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("refcache: %w", err)
	}
	m, err := finishedManifest(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	r := &Reader{dir: dir, root: root, manifest: m, ends: make([]int64, len(m.Parts))}
	r.parts, r.batches = newRecent[int, *part](maxParts), newRecent[batchKey, *batch](maxBatches)
	var rows int64
	for i, p := range m.Parts {
		rows += p.Rows
		r.ends[i] = rows
	}
	return r, nil
}

// finishedManifest reads the manifest of the finished cache in root.
func finishedManifest(root *os.Root) (Manifest, error) {
	dir := root.Name()
	data, err := root.ReadFile(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, notCache(dir)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("refcache: %q: %w", dir, err)
	}
	m, err := parseManifest(filepath.Join(dir, manifestName), data)
	if err == nil && m.Shard != nil {
		return Manifest{}, fmt.Errorf("refcache: %q: %w, but shard %v of one", dir, ErrNotCache, m.Shard)
	}
	if err == nil && !m.Complete {
		err = fmt.Errorf("refcache: %q: %w", dir, ErrIncomplete)
	}
	return m, err
}

// Close closes the files. The reader can't be used afterwards.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := []error{r.root.Close()}
	for p := range r.parts.drain() {
		errs = append(errs, p.file.Close())
	}
	return errors.Join(errs...)
}

// Manifest returns the cache's description; it must not be changed.
func (r *Reader) Manifest() Manifest { return r.manifest }

// Len returns the number of rows.
func (r *Reader) Len() int64 { return r.manifest.Counts.Kept }

// Head reads the frozen LM head.
func (r *Reader) Head() (*Head, error) {
	f, err := r.open(headName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readHead(f, &r.manifest)
}

// open opens a file of the cache.
func (r *Reader) open(name string) (*os.File, error) {
	f, err := r.root.Open(name)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, fs.ErrNotExist) && r.replaced() {
		return nil, fmt.Errorf("refcache: %q: %w", r.dir, ErrReplaced)
	}
	return nil, fmt.Errorf("refcache: %q: %w", r.dir, err)
}

// replaced reports whether the folder that the reader opened has lost its name.
func (r *Reader) replaced() bool {
	mine, err := r.root.Stat(".")
	if err != nil {
		return true
	}
	there, err := os.Stat(r.dir)
	return err != nil || !os.SameFile(mine, there)
}

// Row reads row i in [0, Len) into dst, whose slices it reuses; its features are empty where
// the cache has none. It panics where i is out of range.
func (r *Reader) Row(i int64, dst *Row) error {
	return r.with(i, func(p *part, b *batch, k int) error {
		if err := r.ids(p, b, k, dst); err != nil {
			return err
		}
		return r.values(p, b, k, dst)
	})
}

// Ids reads the id, the prompt key and the token ids of row i alone, which is cheap, and
// empties the other slices of dst. It panics where i is out of range.
func (r *Reader) Ids(i int64, dst *Row) error {
	dst.ChosenRefLogps, dst.RejectedRefLogps = dst.ChosenRefLogps[:0], dst.RejectedRefLogps[:0]
	dst.ChosenFeatures, dst.RejectedFeatures = dst.ChosenFeatures[:0], dst.RejectedFeatures[:0]
	return r.with(i, func(p *part, b *batch, k int) error { return r.ids(p, b, k, dst) })
}

// Key reads the prompt key of row i alone. It panics where i is out of range.
func (r *Reader) Key(i int64) (key [16]byte, err error) {
	err = r.with(i, func(p *part, b *batch, k int) error { return r.hash(key[:], p, b, colPromptKey, k) })
	return key, err
}

// with finds row i: it is row k of batch b of part p.
func (r *Reader) with(i int64, f func(p *part, b *batch, k int) error) error {
	if i < 0 || i >= r.Len() {
		panic(fmt.Sprintf("refcache: row %d of %d", i, r.Len()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := sort.Search(len(r.ends), func(n int) bool { return r.ends[n] > i })
	p, err := r.part(n)
	if err != nil {
		return err
	}
	i -= r.ends[n] - r.manifest.Parts[n].Rows
	b, err := r.batch(p, n, int(i/int64(p.batchRows)))
	if err != nil {
		return err
	}
	return f(p, b, int(i%int64(p.batchRows)))
}

// part returns part n, opened.
func (r *Reader) part(n int) (*part, error) {
	if p, ok := r.parts.get(n); ok {
		return p, nil
	}
	spec := r.manifest.Parts[n]
	f, err := r.open(spec.Name)
	if err != nil {
		return nil, err
	}
	p, err := openFile(f, spec, &r.manifest)
	if err != nil {
		f.Close()
		return nil, err
	}
	if old, ok := r.parts.put(n, p); ok {
		old.file.Close() // opened for reading: nothing can be lost
	}
	return p, nil
}

func openFile(f *os.File, spec Part, m *Manifest) (*part, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	if info.Size() != spec.Size {
		return nil, fmt.Errorf("refcache: %q has %d bytes, want %d: %w", f.Name(), info.Size(), spec.Size, ErrCorrupt)
	}
	p, err := openPart(f, f.Name(), spec.Size, spec.Rows, m.BatchRows, m.shape())
	if err != nil {
		return nil, err
	}
	p.file = f
	return p, nil
}

// batch returns the index of record batch i of p, which is part n.
func (r *Reader) batch(p *part, n, i int) (*batch, error) {
	key := batchKey{n, i}
	if b, ok := r.batches.get(key); ok {
		return b, nil
	}
	b, err := p.batch(i)
	if err != nil {
		return nil, err
	}
	r.batches.put(key, b)
	return b, nil
}

// hash reads row k of a column of hashes.
func (r *Reader) hash(dst []byte, p *part, b *batch, c, k int) error {
	raw, err := r.bytes(p, b, c, k)
	copy(dst, raw)
	return err
}

// ids reads the columns that name the pair and hold its tokens.
func (r *Reader) ids(p *part, b *batch, k int, dst *Row) error {
	if err := r.hash(dst.ID[:], p, b, colID, k); err != nil {
		return err
	}
	if err := r.hash(dst.PromptKey[:], p, b, colPromptKey, k); err != nil {
		return err
	}
	for _, c := range []struct {
		column int
		dst    *[]int32
	}{{colPrompt, &dst.Prompt}, {colChosen, &dst.Chosen}, {colRejected, &dst.Rejected}} {
		raw, err := r.bytes(p, b, c.column, k)
		if err != nil {
			return err
		}
		*c.dst = resize(*c.dst, len(raw)/4)
		for i := range *c.dst {
			(*c.dst)[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	return nil
}

// values reads the other columns and checks that they fit the ids.
func (r *Reader) values(p *part, b *batch, k int, dst *Row) error {
	raw, err := r.bytes(p, b, colWeight, k)
	if err != nil {
		return err
	}
	dst.Weight = weightOf(raw)
	dst.ChosenFeatures, dst.RejectedFeatures = dst.ChosenFeatures[:0], dst.RejectedFeatures[:0]
	for _, c := range []struct {
		column int
		dtype  DType
		dst    *[]float32
		want   int
	}{
		{colChosenLogps, F32, &dst.ChosenRefLogps, len(dst.Chosen)},
		{colChosenFeatures, p.dtype, &dst.ChosenFeatures, len(dst.Chosen) * p.d},
		{colRejectedLogps, F32, &dst.RejectedRefLogps, len(dst.Rejected)},
		{colRejectedFeatures, p.dtype, &dst.RejectedFeatures, len(dst.Rejected) * p.d},
	} {
		if c.dtype == None {
			continue
		}
		if raw, err = r.bytes(p, b, c.column, k); err != nil {
			return err
		}
		*c.dst = c.dtype.values(*c.dst, raw)
		if len(*c.dst) != c.want {
			return p.corrupt(b.data[c.column], "row %d of a batch has %d values in %s, want %d", k, len(*c.dst), columnNames[c.column], c.want)
		}
	}
	return nil
}

func weightOf(raw []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(raw)) }

// bytes reads row k of column c; the result is valid until the next call.
func (r *Reader) bytes(p *part, b *batch, c, k int) ([]byte, error) {
	from, to := int64(k), int64(k+1)
	if isList(c) {
		from, to = int64(b.offsets[c][k]), int64(b.offsets[c][k+1])
	}
	width := int64(p.width(c))
	r.raw = resize(r.raw, int((to-from)*width))
	return r.raw, p.read(r.raw, b.data[c]+from*width)
}
