package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// hashOf is the SHA-256 of values as JSON, in hexadecimal.
func hashOf(values ...any) (string, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return "", fmt.Errorf("job: identity: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sumOf is the SHA-256 of data, in hexadecimal.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// quiet are settings that move no result, so that another value repeats no stage.
// The pairs of the evaluation count by their content, which the cache of them has.
var quiet = []string{"train.log_every", "train.save_every", "train.keep", "evaluation.pairs"}

// settings is a section of the config without what moves no result.
func settings(section any, path string) string {
	n := mapping(reflect.ValueOf(section).Elem(), path)
	for i := 0; i < len(n.Content); i += 2 {
		if slices.Contains(quiet, join(path, n.Content[i].Value)) {
			n.Content = slices.Delete(n.Content, i, i+2)
			i -= 2
		}
	}
	return text(n)
}

// cacheContent is the identity of what a cache holds: what it was made from and the bytes of
// its rows.
func cacheContent(path string) (string, error) {
	m, err := refcache.ReadManifest(path)
	if err != nil {
		return "", err
	}
	return hashOf(m.Identity, m.Head, m.Parts)
}

// adapterFiles are what a checkpoint is, as far as its policy goes.
var adapterFiles = []string{models.AdapterWeightsFile, models.AdapterConfigFile}

// adapterContent is the identity of a PEFT adapter folder.
func adapterContent(folder string) (string, error) {
	h := sha256.New()
	for _, name := range adapterFiles {
		f, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			return "", fmt.Errorf("job: adapter: %w", err)
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("job: adapter: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
