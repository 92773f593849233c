package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

// A Value is a named figure; the names are TRL's, so that curves overlay.
type Value struct {
	Name  string
	Value float64
}

// Values are figures in a fixed order. In JSON they are one object.
type Values []Value

// Get returns the figure of that name, NaN where there is none.
func (v Values) Get(name string) float64 {
	for _, x := range v {
		if x.Name == name {
			return x.Value
		}
	}
	return math.NaN()
}

// Prefixed returns the figures with a prefix before every name.
func (v Values) Prefixed(prefix string) Values {
	out := make(Values, len(v))
	for i, x := range v {
		out[i] = Value{prefix + x.Name, x.Value}
	}
	return out
}

// MarshalJSON writes one object, keys in order; a figure that is not finite is null.
func (v Values) MarshalJSON() ([]byte, error) {
	return objectOf(v, func(b *bytes.Buffer, x Value) string {
		writeNumber(b, x.Value)
		return x.Name
	}), nil
}

// objectOf writes fields as one object, in their order; write adds a field's value to b and
// returns its name.
func objectOf[T any](fields []T, write func(b *bytes.Buffer, field T) (name string)) []byte {
	var object, value bytes.Buffer
	object.WriteByte('{')
	for i, field := range fields {
		value.Reset()
		if i > 0 {
			object.WriteByte(',')
		}
		object.WriteString(strconv.Quote(write(&value, field)))
		object.WriteByte(':')
		value.WriteTo(&object)
	}
	object.WriteByte('}')
	return object.Bytes()
}

// writeNumber writes a JSON number, or null for one that is not finite.
func writeNumber(b *bytes.Buffer, x float64) {
	if finite(x) {
		b.WriteString(strconv.FormatFloat(x, 'g', -1, 64))
	} else {
		b.WriteString("null")
	}
}

// UnmarshalJSON reads one object in its order; null is a figure that is not finite.
func (v *Values) UnmarshalJSON(data []byte) error {
	*v = nil
	return eachField(data, "metrics", func(name string, dec *json.Decoder) error {
		var x *float64
		if err := dec.Decode(&x); err != nil {
			return err
		}
		*v = append(*v, Value{name, orNaN(x)})
		return nil
	})
}

// eachField reads an object name by name, in its order; read takes the value from dec.
func eachField(data []byte, what string, read func(name string, dec *json.Decoder) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return fmt.Errorf("pipeline: %s are %.20q, want an object", what, data)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		if err := read(name.(string), dec); err != nil {
			return err
		}
	}
	return nil
}

func orNaN(x *float64) float64 {
	if x == nil {
		return math.NaN()
	}
	return *x
}

// metricsLog appends lines to metrics.jsonl. Its length is part of a checkpoint,
// so that a resumed run drops the lines behind it and writes them again. The same
// figures go into the event file beside it.
type metricsLog struct {
	f      *os.File
	size   int64
	hash   hash.Hash // of so much
	events *eventLog
}

// openMetrics opens path and cuts it at size. A file that has lost lines is gone on
// with: training needs none of them.
func openMetrics(path string, size int64) (*metricsLog, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("pipeline: open metrics: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		size = min(size, info.Size())
		err = f.Truncate(size)
	}
	sum := sha256.New()
	if err == nil {
		_, err = io.Copy(sum, f) // and so to its end
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("pipeline: open metrics: %w", err)
	}
	events, err := openEvents(path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &metricsLog{f: f, size: size, hash: sum, events: events}, nil
}

func (m *metricsLog) append(v Values) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("pipeline: write metrics: %w", err)
	}
	line = append(line, '\n')
	n, err := m.f.Write(line)
	m.size += int64(n)
	m.hash.Write(line[:n])
	if err != nil {
		return fmt.Errorf("pipeline: write metrics: %w", err)
	}
	return m.events.append(v)
}

// sum is the SHA-256 of all lines.
func (m *metricsLog) sum() string { return hex.EncodeToString(m.hash.Sum(nil)) }

// checkMetrics refuses a metrics.jsonl in which lines changed that a checkpoint knows. One that
// lost lines is all right.
func checkMetrics(path string, state trainerState) error {
	if state.MetricsSHA256 == "" {
		return nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pipeline: read metrics: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, state.MetricsBytes))
	if err != nil {
		return fmt.Errorf("pipeline: read metrics: %w", err)
	}
	if have := hex.EncodeToString(sum.Sum(nil)); n == state.MetricsBytes && have != state.MetricsSHA256 {
		return fmt.Errorf("pipeline: %s: SHA-256 of the first %d bytes is %s, want %s: %w (a run goes on without the file, too)",
			path, state.MetricsBytes, have, state.MetricsSHA256, checksum.ErrChanged)
	}
	return nil
}

// sync makes the lines durable before a checkpoint refers to them.
func (m *metricsLog) sync() error {
	if err := m.f.Sync(); err != nil {
		return fmt.Errorf("pipeline: write metrics: %w", err)
	}
	return nil
}

func (m *metricsLog) close() error { return errors.Join(m.f.Close(), m.events.f.Close()) }
