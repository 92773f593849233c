package pipeline

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/tfevents"
)

// eventsName is what TensorBoard finds in a run folder: the one file with the
// curves of metrics.jsonl.
const eventsName = "events.out.tfevents.dpo-pipe"

// eventLog appends lines of metrics to the event file.
type eventLog struct {
	f *os.File
	w *tfevents.Writer
}

// openEvents begins the event file beside a metrics file with the lines that are
// there, so that a resumed run shows no step twice. Lines hold no time: those of
// earlier processes get that of this start.
func openEvents(metrics string) (*eventLog, error) {
	f, err := os.Create(filepath.Join(filepath.Dir(metrics), eventsName))
	if err != nil {
		return nil, fmt.Errorf("pipeline: open events: %w", err)
	}
	e := &eventLog{f: f}
	if e.w, err = tfevents.NewWriter(f, time.Now()); err == nil {
		err = eachMetrics(metrics, e.append)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// append writes every figure of a line as a point of the curve of that name; step and
// epoch say where the line stands.
func (e *eventLog) append(line Values) error {
	var scalars []tfevents.Scalar
	for _, v := range line {
		if v.Name != "step" && v.Name != "epoch" {
			scalars = append(scalars, tfevents.Scalar{Tag: v.Name, Value: v.Value})
		}
	}
	step := line.Get("step")
	if math.IsNaN(step) {
		return nil // not a line of ours
	}
	return e.w.Write(time.Now(), int64(step), scalars)
}

// eachMetrics reads the lines of a metrics file in order. A last line that a kill
// cut short is left out, and one that is no object of figures.
func eachMetrics(path string, do func(Values) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("pipeline: read metrics: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pipeline: read metrics: %w", err)
		}
		var line Values
		if json.Unmarshal(bytes.TrimSpace(text), &line) != nil {
			continue
		}
		if err := do(line); err != nil {
			return err
		}
	}
}
