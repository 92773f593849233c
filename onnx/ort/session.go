//go:build cgo

package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// externalFolder tells ONNX Runtime where the external data of a model loaded
// from bytes lies.
const externalFolder = "session.model_external_initializers_file_folder_path"

// ProfileVariable names the environment variable that holds the beginning of file names. If it is
// set, ONNX Runtime writes for each graph, when that is closed, what its operators took:
// PREFIX-N_TIME.json, graphs counted in the order they were opened.
const ProfileVariable = "DPO_PIPE_ORT_PROFILE"

// profiled counts the graphs that are profiled.
var profiled atomic.Int64

// errClosed is what a session says after close.
var errClosed = errors.New("ort: session is closed")

// session is one loaded graph with the order of its inputs and outputs.
type session struct {
	s               *ortgo.DynamicAdvancedSession
	inputs, outputs []string
}

// newSession loads model from its bytes. Only the named outputs are returned.
func (r *Runtime) newSession(model *onnx.Model, inputs, outputs []string, opt Options) (*session, error) {
	data, err := model.Marshal()
	if err != nil {
		return nil, err
	}
	o, err := r.sessionOptions(opt)
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	if path := model.Path(); path != "" {
		folder, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		if err := o.AddSessionConfigEntry(externalFolder, folder); err != nil {
			return nil, err
		}
	}
	s, err := ortgo.NewDynamicAdvancedSessionWithONNXData(data, inputs, outputs, o)
	if err != nil {
		return nil, fmt.Errorf("ort: graph %q: %w", model.Graph.Name, err)
	}
	return &session{s, inputs, outputs}, nil
}

// newFileSession loads the model file at path, with its external data beside it.
func (r *Runtime) newFileSession(path string, inputs, outputs []string, opt Options) (*session, error) {
	o, err := r.sessionOptions(opt)
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	s, err := ortgo.NewDynamicAdvancedSession(path, inputs, outputs, o)
	if err != nil {
		return nil, fmt.Errorf("ort: %s: %w", path, err)
	}
	return &session{s, inputs, outputs}, nil
}

// sessionOptions turns opt into the library's options, which the caller destroys.
func (r *Runtime) sessionOptions(opt Options) (*ortgo.SessionOptions, error) {
	if opt.Threads < 1 {
		return nil, fmt.Errorf("ort: threads is %d, want 1 or more", opt.Threads)
	}
	o, err := ortgo.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("ort: session options: %w", err)
	}
	err = errors.Join(
		o.SetIntraOpNumThreads(opt.Threads),
		o.SetInterOpNumThreads(1),
		o.SetExecutionMode(ortgo.ExecutionModeSequential),
		// The library keeps a memory plan per input shape it has seen. Batches have
		// thousands of shapes, and memory must not grow with the data set.
		o.SetMemPattern(false),
		// Without this, 8-bit weights behind DequantizeLinear are fused into a product
		// that rounds its other side to 8 bits too.
		o.AddSessionConfigEntry("session.qdq_matmulnbits_accuracy_level", "1"),
		// Idle threads sleep: spinning takes the cores from the Go code between runs, and
		// from other programs. On two busy cores it doubled both wall and CPU time.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
	)
	if prefix := os.Getenv(ProfileVariable); prefix != "" {
		err = errors.Join(err, o.EnableProfiling(fmt.Sprintf("%s-%d", prefix, profiled.Add(1))))
	}
	if err == nil {
		err = r.useProvider(o, opt)
	}
	if err != nil {
		o.Destroy()
		return nil, err
	}
	return o, nil
}

// run executes the graph. The outputs are written in place, so every one is given.
// When ctx ends, the run is told to stop and waited for: its values are in use
// until it returns. The error is then ctx's cause.
func (s *session) run(ctx context.Context, inputs, outputs []ortgo.Value) error {
	if s.s == nil {
		return errClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o, err := ortgo.NewRunOptions()
	if err != nil {
		return fmt.Errorf("ort: run options: %w", err)
	}
	defer o.Destroy()
	terminated := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(terminated)
		_ = o.Terminate() // it fails only for options that don't exist
	})
	err = s.s.RunWithOptions(inputs, outputs, o)
	if !stop() {
		<-terminated // Terminate uses o, which is about to go
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("ort: %w", err)
	}
}

// runFloat32 runs a graph of float32 matrices [rows,cols] with one output.
func (s *session) runFloat32(ctx context.Context, inputs [][]float32, output []float32, rows, cols int) error {
	var vs values
	defer vs.destroy()
	var in []ortgo.Value
	for _, data := range append(inputs, output) {
		in = append(in, vs.float32s(data, int64(rows), int64(cols)))
	}
	if vs.err != nil {
		return vs.err
	}
	last := len(in) - 1
	return s.run(ctx, in[:last], in[last:])
}

// close frees the graph. Closing twice is harmless.
func (s *session) close() error {
	if s == nil || s.s == nil {
		return nil
	}
	err := s.s.Destroy()
	s.s = nil
	return err
}
