package refcache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// Content names what the reference makes its numbers of, and whose they are: 128 bits of
// the SHA-256 of the pair's id, prompt key and token ids. Rows of one model and one content
// differ in their weight alone.
func (r *Row) Content() [16]byte {
	data := make([]byte, 0, idBytes+keyBytes+4*(3+len(r.Prompt)+len(r.Chosen)+len(r.Rejected)))
	data = append(append(data, r.ID[:]...), r.PromptKey[:]...)
	for _, ids := range [][]int32{r.Prompt, r.Chosen, r.Rejected} {
		data = binary.LittleEndian.AppendUint32(data, uint32(len(ids)))
		for _, id := range ids {
			data = binary.LittleEndian.AppendUint32(data, uint32(id))
		}
	}
	sum := sha256.Sum256(data)
	return [16]byte(sum[:16])
}

// A Join finds the rows of a cache by their content, and counts those that nobody looked
// for. It is a hash table in a temporary file of 64 bytes a row, so that memory does not
// grow with the cache. It is not safe for concurrent use.
type Join struct {
	file  *os.File
	named bool // the system removes no open file
	slots uint64
	left  int64
}

// slot is a place of the table: the first row of a content, and how many rows have it.
type slot struct {
	content [16]byte
	row     int64 // -1: the slot is free
	rows    uint32
	found   bool
}

const (
	slotBytes = 32
	// slotsPerRow keeps the table half empty: a look-up reads two or three slots.
	slotsPerRow = 2
)

// Join makes the table of all rows. Its file lies beside the cache and has no name where
// the system allows that.
func (r *Reader) Join(ctx context.Context, progress func(done, total int64)) (*Join, error) {
	f, err := os.CreateTemp(filepath.Dir(r.dir), atomicfile.TempPrefix+"join-*")
	if err != nil {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	j := &Join{file: f, named: os.Remove(f.Name()) != nil, slots: slotsPerRow * uint64(r.Len()), left: r.Len()}
	if err := j.fill(ctx, r, progress); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func (j *Join) fill(ctx context.Context, r *Reader, progress func(done, total int64)) error {
	if err := j.file.Truncate(slotBytes * int64(j.slots)); err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	var row Row
	for i := range r.Len() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := r.Ids(i, &row); err != nil {
			return err
		}
		content := row.Content()
		at, s, err := j.find(content)
		if err != nil {
			return err
		}
		if s.row < 0 {
			s = slot{content: content, row: i}
		}
		if s.rows < math.MaxUint32 {
			s.rows++
		}
		if err := j.put(at, s); err != nil {
			return err
		}
		if progress != nil {
			progress(i+1, r.Len())
		}
	}
	return nil
}

// Find returns the first row of that content; found is false where the cache has none.
func (j *Join) Find(content [16]byte) (row int64, found bool, err error) {
	at, s, err := j.find(content)
	if err != nil || s.row < 0 {
		return 0, false, err
	}
	if !s.found {
		s.found = true
		j.left -= int64(s.rows)
		err = j.put(at, s)
	}
	return s.row, true, err
}

// Left returns how many rows have a content that Find was not asked for.
func (j *Join) Left() int64 { return j.left }

// find returns the slot of a content, or the free one for it. Contents are hashes: their
// first bits spread them over the table.
func (j *Join) find(content [16]byte) (at uint64, s slot, err error) {
	at, _ = bits.Mul64(binary.BigEndian.Uint64(content[:]), j.slots)
	for {
		if s, err = j.get(at); err != nil || s.row < 0 || s.content == content {
			return at, s, err
		}
		at = (at + 1) % j.slots
	}
}

func (j *Join) get(at uint64) (s slot, err error) {
	var b [slotBytes]byte
	if _, err := j.file.ReadAt(b[:], slotBytes*int64(at)); err != nil {
		return s, fmt.Errorf("refcache: table of rows: %w", err)
	}
	copy(s.content[:], b[:])
	s.row = int64(binary.LittleEndian.Uint64(b[16:])) - 1
	s.rows, s.found = binary.LittleEndian.Uint32(b[24:]), b[28] != 0
	return s, nil
}

func (j *Join) put(at uint64, s slot) error {
	var b [slotBytes]byte
	copy(b[:], s.content[:])
	binary.LittleEndian.PutUint64(b[16:], uint64(s.row+1))
	binary.LittleEndian.PutUint32(b[24:], s.rows)
	if s.found {
		b[28] = 1
	}
	if _, err := j.file.WriteAt(b[:], slotBytes*int64(at)); err != nil {
		return fmt.Errorf("refcache: table of rows: %w", err)
	}
	return nil
}

// Close removes the table.
func (j *Join) Close() error {
	err := j.file.Close()
	if j.named {
		err = errors.Join(err, os.Remove(j.file.Name()))
	}
	if err != nil {
		return fmt.Errorf("refcache: table of rows: %w", err)
	}
	return nil
}
