package refcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// A Head is the frozen LM head: z = Scale · (W h + Bias), then
// Softcap · tanh(z / Softcap) where Softcap > 0.
type Head struct {
	V, D int
	// Weight is W, float32, row-major [V,D].
	Weight []float32
	// Bias is [V], or nil.
	Bias []float32
	// Scale is 1 for most models.
	Scale float32
	// Softcap bounds the logits; 0 means none.
	Softcap float32
}

// HeadInfo is what the manifest says of the head.
type HeadInfo struct {
	Bias    bool    `json:"bias"`
	Scale   float32 `json:"scale"`
	Softcap float32 `json:"softcap"`
	Size    int64   `json:"size"`
	SHA256  string  `json:"sha256"`
}

// tensorInfo is an entry of a safetensors header.
type tensorInfo struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

const (
	weightTensor = "lm_head.weight"
	biasTensor   = "lm_head.bias"
)

// safetensorsHeader returns the first bytes of the file: the length of the JSON that
// follows, and that JSON, padded to 8 bytes.
func safetensorsHeader(v, d int, bias bool) []byte {
	weight := 4 * int64(v) * int64(d)
	tensors := map[string]tensorInfo{weightTensor: {DType: "F32", Shape: []int64{int64(v), int64(d)}, Offsets: [2]int64{0, weight}}}
	if bias {
		tensors[biasTensor] = tensorInfo{DType: "F32", Shape: []int64{int64(v)}, Offsets: [2]int64{weight, weight + 4*int64(v)}}
	}
	text, err := json.Marshal(tensors) // keys come out sorted
	if err != nil {
		panic(fmt.Sprintf("refcache: header of %s: %v", headName, err)) // no value in it can fail
	}
	text = append(text, bytes.Repeat([]byte{' '}, -len(text)&7)...)
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
}

// check reports what makes h no head.
func (h *Head) check() error {
	if h.V < 1 || h.D < 1 || len(h.Weight) != h.V*h.D || (h.Bias != nil && len(h.Bias) != h.V) {
		return fmt.Errorf("LM head of %d x %d has %d weights and %d biases", h.V, h.D, len(h.Weight), len(h.Bias))
	}
	return nil
}

// writeTo writes h as safetensors.
func (h *Head) writeTo(w io.Writer) error {
	if _, err := w.Write(safetensorsHeader(h.V, h.D, h.Bias != nil)); err != nil {
		return err
	}
	chunk := make([]byte, 0, 1<<16)
	for _, tensor := range [][]float32{h.Weight, h.Bias} {
		for len(tensor) > 0 {
			n := min(len(tensor), cap(chunk)/4)
			chunk = F32.appendValues(chunk[:0], tensor[:n])
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			tensor = tensor[n:]
		}
	}
	return nil
}

// info describes h as it will be stored.
func (h *Head) info() (HeadInfo, error) {
	hash := sha256.New()
	size := int64(len(safetensorsHeader(h.V, h.D, h.Bias != nil))) + 4*int64(len(h.Weight)+len(h.Bias))
	if err := h.writeTo(hash); err != nil {
		return HeadInfo{}, err
	}
	return HeadInfo{Bias: h.Bias != nil, Scale: h.Scale, Softcap: h.Softcap, Size: size, SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}

func (h *Head) write(dir string) error {
	return atomicfile.WriteFile(filepath.Join(dir, headName), h.writeTo)
}

// readHead reads the file of the head of the cache that m describes.
func readHead(f *os.File, m *Manifest) (*Head, error) {
	path := f.Name()
	want := safetensorsHeader(m.V, m.D, m.Head.Bias)
	values := int64(m.V) * int64(m.D)
	if m.Head.Bias {
		values += int64(m.V)
	}
	size := int64(len(want)) + 4*values
	if info, err := f.Stat(); err != nil || info.Size() != size || m.Head.Size != size {
		return nil, fmt.Errorf("refcache: %q is not of %d bytes, those of a %d x %d head: %w", path, size, m.V, m.D, ErrCorrupt)
	}
	hash := sha256.New()
	r := io.TeeReader(f, hash)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(r, have); err != nil || !bytes.Equal(have, want) {
		return nil, fmt.Errorf("refcache: %q has another header than a %d x %d head: %w", path, m.V, m.D, ErrCorrupt)
	}
	h := &Head{V: m.V, D: m.D, Scale: m.Head.Scale, Softcap: m.Head.Softcap, Weight: make([]float32, m.V*m.D)}
	if m.Head.Bias {
		h.Bias = make([]float32, m.V)
	}
	if err := readFloats(r, h.Weight, h.Bias); err != nil {
		return nil, fmt.Errorf("refcache: %q: %w", path, err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != m.Head.SHA256 {
		return nil, fmt.Errorf("refcache: %q has SHA-256 %s, want %s: %w", path, sum, m.Head.SHA256, ErrCorrupt)
	}
	return h, nil
}

func readFloats(r io.Reader, tensors ...[]float32) error {
	chunk := make([]byte, 1<<16)
	for _, tensor := range tensors {
		for len(tensor) > 0 {
			n := min(len(tensor), len(chunk)/4)
			if _, err := io.ReadFull(r, chunk[:4*n]); err != nil {
				return err
			}
			for i := range n {
				tensor[i] = math.Float32frombits(binary.LittleEndian.Uint32(chunk[4*i:]))
			}
			tensor = tensor[n:]
		}
	}
	return nil
}
