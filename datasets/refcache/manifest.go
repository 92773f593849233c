package refcache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

// Names and numbers of format 1; they never change.
const (
	// Format is the version this package reads and writes.
	Format       = 1
	manifestName = "manifest.json"
	headName     = "head.safetensors"
	logName      = "parts.jsonl"
)

// Kinds of errors.
var (
	// ErrCorrupt is a cache whose bytes are not what was written.
	ErrCorrupt = errors.New("corrupt cache")
	// ErrIncomplete is a cache whose writing was not finished; Create resumes it.
	ErrIncomplete = errors.New("incomplete cache")
	// ErrComplete is what Create says of a finished cache of the same identity.
	ErrComplete = errors.New("cache is complete")
	// ErrNotCache is a folder without a manifest.
	ErrNotCache = errors.New("not a reference cache")
	// ErrReplaced is a cache that was replaced or removed while a [Reader] had it open.
	ErrReplaced = errors.New("cache was replaced or removed while it was read")
)

// A StaleError is a cache made with other settings than are wanted.
type StaleError struct {
	// Key names the setting; Have is the cache's value, Want the wanted one ("" where absent).
	Key, Have, Want string
}

// Error implements error.
func (e *StaleError) Error() string {
	return fmt.Sprintf("refcache: stale %s: have %q, want %q", e.Key, e.Have, e.Want)
}

// A Manifest describes a cache. To Create one, fill Identity, D, V and FeatureDType.
type Manifest struct {
	Format   int  `json:"format"`
	Complete bool `json:"complete"`
	// Shard says which parts these are where they are not all; Create takes it as it is.
	Shard *Shard `json:"shard,omitempty"`
	// Identity holds everything that can move a number, by key.
	Identity map[string]string `json:"identity"`
	// D is the width of a hidden state, V the number of tokens.
	D int `json:"d"`
	V int `json:"v"`
	// FeatureDType is how hidden states are stored.
	FeatureDType DType `json:"feature_dtype"`
	// BatchRows is the number of rows in each record batch of a part but its last.
	BatchRows int `json:"batch_rows"`
	// Head describes head.safetensors.
	Head HeadInfo `json:"head"`
	// Counts is what became of the source rows.
	Counts Counts `json:"counts"`
	// Parts are in order of rows.
	Parts []Part `json:"parts"`
}

// A Part is one file of rows.
type Part struct {
	Name string `json:"name"`
	Rows int64  `json:"rows"`
	// SourceEnd is how many source rows had been consumed when it was written.
	SourceEnd int64  `json:"source_end"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
}

// A Position is how far a pass has come; everything counts from the first source row.
type Position struct {
	// Rows is how many source rows were consumed, usable or not.
	Rows int64 `json:"rows"`
	// Dropped counts those that could not be used.
	Dropped datasets.Tally `json:"dropped"`
	// Apart counts pairs whose completion was encoded apart from its prompt, Truncated
	// those that were shortened.
	Apart     int64 `json:"apart"`
	Truncated int64 `json:"truncated"`
}

// clone returns a copy that shares nothing with p: callers go on counting in theirs.
func (p Position) clone() Position {
	var dropped datasets.Tally
	dropped.Merge(p.Dropped)
	p.Dropped = dropped
	return p
}

// Counts is what became of the source rows.
type Counts struct {
	// Read is Kept plus the rows in Dropped.
	Read int64 `json:"read"`
	Kept int64 `json:"kept"`
	// Dropped counts the unusable rows by reason.
	Dropped   datasets.Tally `json:"dropped"`
	Apart     int64          `json:"apart"`
	Truncated int64          `json:"truncated"`
	// PromptTokens, ChosenTokens and RejectedTokens are sums over the kept rows.
	PromptTokens   int64 `json:"prompt_tokens"`
	ChosenTokens   int64 `json:"chosen_tokens"`
	RejectedTokens int64 `json:"rejected_tokens"`
}

// Check returns a *[StaleError] for the first key of want, in sorted order, that the cache's
// identity does not hold with that value.
func (m Manifest) Check(want map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if have, ok := m.Identity[key]; !ok || have != want[key] {
			return &StaleError{Key: key, Have: have, Want: want[key]}
		}
	}
	return nil
}

// CheckAll is Check, and returns a *[StaleError] for a key that want does not have, too.
func (m Manifest) CheckAll(want map[string]string) error {
	if err := m.Check(want); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(m.Identity)) {
		if _, ok := want[key]; !ok {
			return &StaleError{Key: key, Have: m.Identity[key]}
		}
	}
	return nil
}

// same returns a *StaleError unless the manifests ask for the same rows.
func (m Manifest) same(want Manifest) error {
	if err := m.CheckAll(want.Identity); err != nil {
		return err
	}
	for _, f := range []struct {
		key        string
		have, want any
	}{
		{"hidden width", m.D, want.D},
		{"vocabulary size", m.V, want.V},
		{"feature dtype", m.FeatureDType, want.FeatureDType},
		{"batch rows", m.BatchRows, want.BatchRows},
		{"LM head", m.Head, want.Head},
		{"shard", m.Shard.String(), want.Shard.String()},
	} {
		if f.have != f.want {
			return &StaleError{Key: f.key, Have: fmt.Sprint(f.have), Want: fmt.Sprint(f.want)}
		}
	}
	return nil
}

// batchRows is the format's number of rows for the manifest's shape; an odd shape is
// left to validate.
func (m *Manifest) batchRows() int {
	if m.D < 1 {
		return 1
	}
	return m.shape().batchRows()
}

func (m *Manifest) shape() shape { return shape{d: m.D, dtype: m.FeatureDType} }

// partName is the name of part i of those in m.
func (m *Manifest) partName(i int) string { return partName(m.Shard.part(i)) }

// headFile is the LM head's file, as if it were a part.
func (m *Manifest) headFile() Part {
	return Part{Name: headName, Size: m.Head.Size, SHA256: m.Head.SHA256}
}

// partName is the name of part i of a cache.
func partName(i int) string { return fmt.Sprintf("part-%05d.arrow", i) }

// validate reports what makes m no manifest of a cache.
func (m *Manifest) validate() error {
	const most = 1 << 30
	if m.D < 1 || m.D > most || m.V < 1 || m.V > most || m.BatchRows < 1 || m.BatchRows > most {
		return fmt.Errorf("d is %d, v %d, batch_rows %d, want 1 to %d", m.D, m.V, m.BatchRows, most)
	}
	if _, err := ParseDType(string(m.FeatureDType)); err != nil {
		return fmt.Errorf("feature dtype is %q, want %s", m.FeatureDType, DTypeNames)
	}
	if s := m.Shard; s != nil && (s.Of < 1 || s.Index < 0 || s.Index >= s.Of) {
		return fmt.Errorf("shard is %v, want 0 to %d", s, s.Of-1)
	}
	var rows int64
	for i, p := range m.Parts {
		if p.Name != m.partName(i) || p.Rows < 1 || p.Size < 1 {
			return fmt.Errorf("part %d is %q with %d rows, %d bytes", i, p.Name, p.Rows, p.Size)
		}
		rows += p.Rows
	}
	if rows != m.Counts.Kept {
		return fmt.Errorf("parts hold %d rows, counts say %d", rows, m.Counts.Kept)
	}
	return nil
}

// ReadManifest reads the manifest of a cache, finished or not; for an unfinished one the
// whole parts so far are in it.
func ReadManifest(dir string) (Manifest, error) {
	m, err := readManifest(dir)
	if err != nil || m.Complete {
		return m, err
	}
	entries, _, err := readLog(filepath.Join(dir, logName), m.Shard)
	if err != nil {
		return Manifest{}, err
	}
	for _, e := range entries {
		m.add(e)
	}
	return m, nil
}

func readManifest(dir string) (m Manifest, err error) {
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, notCache(dir)
	}
	if err != nil {
		return m, fmt.Errorf("refcache: %w", err)
	}
	return parseManifest(path, data)
}

func notCache(dir string) error {
	return fmt.Errorf("refcache: %q: %w: no %s", dir, ErrNotCache, manifestName)
}

// parseManifest reads the text of the manifest at path.
func parseManifest(path string, data []byte) (m Manifest, err error) {
	if data, err = checksum.Open(data); err != nil {
		return Manifest{}, fmt.Errorf("refcache: %q: %w: %w", path, ErrCorrupt, err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("refcache: %q: %w: %w", path, ErrCorrupt, err)
	}
	if m.Format != Format {
		return Manifest{}, fmt.Errorf("refcache: %q: format is %d, this program reads %d", path, m.Format, Format)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("refcache: %q: %w: %w", path, err, ErrCorrupt)
	}
	return m, nil
}

// write replaces the manifest of dir. It is sealed: what it says of the head moves numbers.
func (m *Manifest) write(dir string) error {
	return atomicfile.WriteFile(filepath.Join(dir, manifestName), func(w io.Writer) error {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetIndent("", " ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(m); err != nil {
			return err
		}
		_, err := w.Write(checksum.Seal(text.Bytes()))
		return err
	})
}
