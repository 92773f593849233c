package models

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
	"github.com/x448/float16"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// The kinds of [CheckpointError].
var (
	// ErrCorrupt is a file that is damaged or isn't of its format.
	ErrCorrupt = errors.New("corrupt file")
	// ErrUnsupported is a sound file that asks for what this program doesn't do.
	ErrUnsupported = errors.New("unsupported")
	// ErrMismatch is a sound file whose tensors are not the ones wanted.
	ErrMismatch = errors.New("mismatch")
)

// CheckpointError is a checkpoint file that can't be used.
type CheckpointError struct {
	// Path is the file.
	Path string
	// Kind is [ErrCorrupt], [ErrUnsupported] or [ErrMismatch].
	Kind error
	// Detail says what is there and what was wanted.
	Detail string
}

// Error names the file and what is wrong with it.
func (e *CheckpointError) Error() string {
	return fmt.Sprintf("models: checkpoint file %q: %v: %s", e.Path, e.Kind, e.Detail)
}

// Unwrap returns the kind.
func (e *CheckpointError) Unwrap() error { return e.Kind }

// tensor is one entry of a safetensors file: float32, or int64 where ints is set.
type tensor struct {
	name   string
	shape  []int
	floats []float32
	ints   []int64
}

func (t tensor) dtype() safetensors.DType {
	if t.ints != nil {
		return safetensors.I64
	}
	return safetensors.F32
}

// size returns the number of bytes.
func (t tensor) size() int { return 4*len(t.floats) + 8*len(t.ints) }

// writeTensors writes a safetensors file.
func writeTensors(path string, tensors []tensor) error {
	return atomicfile.WriteFile(path, func(w io.Writer) error { return encodeTensors(w, tensors) })
}

// encodeTensors writes tensors as safetensors. Equal tensors give equal bytes:
// names are sorted, and spaces fill the header up to a multiple of 8.
func encodeTensors(w io.Writer, tensors []tensor) error {
	tensors = slices.SortedFunc(slices.Values(tensors), func(a, b tensor) int { return strings.Compare(a.name, b.name) })
	type entry struct {
		DType   safetensors.DType `json:"dtype"`
		Shape   []int             `json:"shape"`
		Offsets [2]int            `json:"data_offsets"`
	}
	// encoding/json sorts the keys of a map.
	head := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	at := 0
	for _, t := range tensors {
		head[t.name] = entry{t.dtype(), t.shape, [2]int{at, at + t.size()}}
		at += t.size()
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	text = append(text, strings.Repeat(" ", roundUp(len(text), 8)-len(text))...)
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
		return err
	}
	for _, t := range tensors {
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}

// write writes the values, a few at a time.
func (t tensor) write(w io.Writer) error {
	var buf []byte
	for part := range slices.Chunk(t.floats, 4096) {
		buf = buf[:0]
		for _, x := range part {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	buf = buf[:0]
	for _, x := range t.ints {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(x))
	}
	_, err := w.Write(buf)
	return err
}

// readTensors reads a whole safetensors file.
func readTensors(path string) (*tensorFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, readError(path, err)
	}
	return parseTensors(path, data)
}

// parseTensors reads what the file at path holds.
func parseTensors(path string, data []byte) (*tensorFile, error) {
	file, err := safetensors.Deserialize(data)
	if err != nil {
		return nil, &CheckpointError{path, ErrCorrupt, err.Error()}
	}
	return &tensorFile{path: path, SafeTensors: file}, nil
}

func readError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("models: %q is no checkpoint file: %w", path, err)
	}
	return fmt.Errorf("models: read checkpoint file: %w", err)
}

// tensorFile is an open safetensors file.
type tensorFile struct {
	path string
	safetensors.SafeTensors
}

func (f *tensorFile) fail(kind error, format string, args ...any) error {
	return &CheckpointError{f.path, kind, fmt.Sprintf(format, args...)}
}

// only reports tensors beyond those named.
func (f *tensorFile) only(names ...string) error {
	have := f.Names()
	slices.Sort(have)
	for _, name := range have {
		if !slices.Contains(names, name) {
			return f.fail(ErrUnsupported, "tensor %q has no place here, want %q only", name, names)
		}
	}
	return nil
}

// view returns the tensor called name, which must have one of the types and the shape.
// A size of -1 stands for any from 1 on.
func (f *tensorFile) view(name string, dtypes []safetensors.DType, shape ...int) (safetensors.TensorView, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return t, f.fail(ErrMismatch, "no tensor %q, have %q", name, f.Names())
	}
	if !slices.Contains(dtypes, t.DType()) {
		return t, f.fail(ErrMismatch, "tensor %q is %v, want one of %v", name, t.DType(), dtypes)
	}
	fits := func(have uint64, want int) bool {
		if want < 0 {
			return have > 0 && have <= math.MaxInt32
		}
		return have == uint64(want)
	}
	if !slices.EqualFunc(t.Shape(), shape, fits) {
		return t, f.fail(ErrMismatch, "tensor %q has shape %v, want %v", name, t.Shape(), shape)
	}
	return t, nil
}

// floatTypes are the types of weights. PEFT stores those of the model it trained, often half wide.
var floatTypes = []safetensors.DType{safetensors.F32, safetensors.F16, safetensors.BF16}

// floats reads a float tensor, widened to float32, which is exact. All values must be finite and
// at least floor.
func (f *tensorFile) floats(name string, floor float64, shape ...int) ([]float32, []uint64, error) {
	t, err := f.view(name, floatTypes, shape...)
	if err != nil {
		return nil, nil, err
	}
	values := widen(t.Data(), t.DType())
	for i, x := range values {
		if !finite(x) || float64(x) < floor {
			return nil, nil, f.fail(ErrCorrupt, "tensor %q holds %v at place %d", name, x, i)
		}
	}
	return values, t.Shape(), nil
}

// widen returns little-endian values of one of floatTypes as float32.
func widen(data []byte, dtype safetensors.DType) []float32 {
	size := 2
	if dtype == safetensors.F32 {
		size = 4
	}
	values := make([]float32, len(data)/size)
	for i := range values {
		switch b := data[i*size:]; dtype {
		case safetensors.F32:
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		case safetensors.F16:
			values[i] = float16.Frombits(binary.LittleEndian.Uint16(b)).Float32()
		case safetensors.BF16:
			values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
		}
	}
	return values
}
