package refcache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

func TestDamagedCacheFailsVerify(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 2, 2, F16), 1, 2, F16)
	r := open(t, dir)
	for _, name := range []string{partName(0), partName(1), headName} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, damaged []byte) {
			if err := os.WriteFile(path, damaged, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s of %s: got %v, want ErrCorrupt with its name", what, name, err)
			}
		}
		for i := 0; i < len(data); i += 97 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 4
			check("flipped bit", damaged)
		}
		check("missing last byte", data[:len(data)-1])
		check("extra byte", append(bytes.Clone(data), 0))
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Errorf("the mended cache gives %v", err)
	}
	if err := os.Remove(filepath.Join(dir, partName(1))); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a missing part gives %v, want ErrCorrupt", err)
	}
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	t.Parallel()
	r := open(t, writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := r.Verify(ctx, nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

// TestVerifyTellsProgress checks files smaller and larger than a chunk.
func TestVerifyTellsProgress(t *testing.T) {
	t.Parallel()
	const d = verifyChunk / 16
	dir := writeCache(t, testRows(0, 3, d, F16), 2, d, F16)
	var total int64
	for name, content := range files(t, dir) {
		if name != manifestName {
			total += int64(len(content))
		}
	}
	var calls []int64
	err := open(t, dir).Verify(t.Context(), func(done, of int64) {
		if done <= last(calls) || done-last(calls) > verifyChunk || of != total {
			t.Errorf("%d of %d bytes after %v, want a chunk more of %d", done, of, calls, total)
		}
		calls = append(calls, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	if last(calls) != total || len(calls) < int(total/verifyChunk) {
		t.Errorf("%d calls end at %d, want %d", len(calls), last(calls), total)
	}
}

// last is the last of the calls, 0 before the first.
func last(calls []int64) int64 {
	if len(calls) == 0 {
		return 0
	}
	return calls[len(calls)-1]
}

func TestVerifyAddsUpTheCounts(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
	text, err := checksum.Open([]byte(files(t, dir)[manifestName]))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, manifestName, strings.Replace(string(text), `"read": 3`, `"read": 4`, 1))
	err = open(t, dir).Verify(t.Context(), nil)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "4 source rows were read, want the 3 kept and 0 dropped") {
		t.Errorf("got %v, want ErrCorrupt with the counts", err)
	}
}

// TestVerifyMemoryDoesNotGrowWithParts: all files are read by way of one chunk. The test does
// not run beside others, whose memory would count.
func TestVerifyMemoryDoesNotGrowWithParts(t *testing.T) {
	r := open(t, writeCache(t, testRows(0, 8, 2, F16), 1, 2, F16))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2*verifyChunk {
		t.Errorf("8 parts take %d bytes to verify, want about one chunk of %d", got, verifyChunk)
	}
}

// TestSealedManifest changes what a manifest says of the head, which moves every logit.
func TestSealedManifest(t *testing.T) {
	t.Parallel()
	dir := writeCache(t, testRows(0, 3, 2, F16), 2, 2, F16)
	text := files(t, dir)[manifestName]
	changed := regexp.MustCompile(`"scale": [0-9.]+`).ReplaceAllString(text, `"scale": 7.5`)
	if changed == text {
		t.Fatalf("no scale in %s", text)
	}
	write(t, dir, manifestName, changed)
	if _, err := Open(dir); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), manifestName) {
		t.Errorf("got %v, want ErrCorrupt with the manifest's name", err)
	}
}
