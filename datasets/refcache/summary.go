package refcache

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// A Summary describes a cache in numbers small enough to print.
type Summary struct {
	Path         string            `json:"path"`
	Format       int               `json:"format"`
	Complete     bool              `json:"complete"`
	Shard        *Shard            `json:"shard,omitempty"`
	Rows         int64             `json:"rows"`
	Parts        int               `json:"parts"`
	Bytes        int64             `json:"bytes"` // parts and head
	D            int               `json:"d"`
	V            int               `json:"v"`
	FeatureDType DType             `json:"feature_dtype"`
	Head         HeadInfo          `json:"head"`
	Counts       Counts            `json:"counts"`
	Identity     map[string]string `json:"identity"`
}

// IsCache reports whether dir holds a manifest.
func IsCache(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifestName))
	return err == nil
}

// Describe reads the summary of the cache in dir, finished or not.
func Describe(dir string) (Summary, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{
		Path: dir, Format: m.Format, Complete: m.Complete, Shard: m.Shard, Rows: m.Counts.Kept, Parts: len(m.Parts),
		D: m.D, V: m.V, FeatureDType: m.FeatureDType, Head: m.Head, Counts: m.Counts, Identity: m.Identity,
	}
	if m.Shard.hasHead() {
		s.Bytes = m.Head.Size
	}
	for _, p := range m.Parts {
		s.Bytes += p.Size
	}
	return s, nil
}

// Lines returns the summary as names and values, for people.
func (s Summary) Lines() [][2]string {
	state := "complete"
	if !s.Complete {
		state = "incomplete: precompute-ref goes on with it"
	}
	if s.Shard != nil {
		state += fmt.Sprintf(", shard %v", s.Shard)
	}
	c := s.Counts
	head := fmt.Sprintf("%d x %d, scale %v", s.V, s.D, s.Head.Scale)
	if s.Head.Bias {
		head += ", bias"
	}
	if s.Head.Softcap > 0 {
		head += fmt.Sprintf(", softcap %v", s.Head.Softcap)
	}
	features := fmt.Sprintf("%d wide, %s", s.D, s.FeatureDType)
	if s.FeatureDType == None {
		features += ": who reads the cache runs the model"
	}
	lines := [][2]string{
		{"reference cache", fmt.Sprintf("format %d, %s", s.Format, state)},
		{"rows", fmt.Sprintf("%d in %d parts, %d bytes", s.Rows, s.Parts, s.Bytes)},
		{"source rows", fmt.Sprintf("%d read, %d kept, %d dropped", c.Read, c.Kept, c.Dropped.Rows())},
		{"tokens", fmt.Sprintf("%d prompt, %d chosen, %d rejected", c.PromptTokens, c.ChosenTokens, c.RejectedTokens)},
		{"pairs", fmt.Sprintf("%d truncated, %d with the completion encoded apart", c.Truncated, c.Apart)},
		{"features", features},
		{"LM head", head},
	}
	for _, d := range c.Dropped.Drops {
		lines = append(lines, [2]string{"dropped", fmt.Sprintf("%d %s", d.Rows, d.Reason)})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Identity)) {
		lines = append(lines, [2]string{"identity " + key, s.Identity[key]})
	}
	return lines
}
