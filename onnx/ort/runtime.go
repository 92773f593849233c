//go:build cgo

package ort

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// Options say where and how a session runs.
type Options struct {
	// Provider is one of Providers(): "cpu", "cuda", ….
	Provider string
	// ProviderOptions are the provider's own settings, for example
	// {"device_id": "1"} for cuda.
	ProviderOptions map[string]string
	// Threads is the number of threads inside one operation, at least 1. Results are
	// the same from run to run for a fixed number.
	Threads int
	// Lanes is how many runs of a backbone go on at once, which share Threads; 0 chooses.
	Lanes int
}

// DefaultOptions is the CPU with all the cores this process may use.
func DefaultOptions() Options {
	return Options{Provider: "cpu", Threads: runtime.GOMAXPROCS(0)}
}

// A Runtime is the process's hold on the ONNX Runtime library. It is safe for
// concurrent use.
type Runtime struct {
	lib Library
}

// environment is the one library and environment a process can have: the
// bindings keep them in package variables. It lives until the process ends,
// because providers can't be relied on to survive its release.
var environment struct {
	sync.Mutex
	path string
}

// Open loads lib. A process has one library: opening another one is an error,
// opening the same again shares it.
func Open(lib Library) (*Runtime, error) {
	environment.Lock()
	defer environment.Unlock()
	if environment.path != "" {
		if environment.path != lib.Path {
			return nil, fmt.Errorf("ort: library %q is open, so %q can't be", environment.path, lib.Path)
		}
		return &Runtime{lib: lib}, nil
	}
	ortgo.SetSharedLibraryPath(lib.Path)
	// Errors come back as values; the library's own log would put them on stderr
	// a second time. Going on after an error here would be a segmentation fault.
	if err := ortgo.InitializeEnvironment(ortgo.WithLogLevelFatal()); err != nil {
		return nil, &LibraryError{Tried: []Attempt{{lib.Source, lib.Path, err}}}
	}
	environment.path = lib.Path
	lib.Version = ortgo.GetVersion()
	return &Runtime{lib: lib}, nil
}

// Library returns what the runtime was opened with.
func (r *Runtime) Library() Library { return r.lib }

// Version returns the library's version, for example "1.27.0".
func (r *Runtime) Version() string { return r.lib.Version }

// selfTestSize is the edge of the self-test's square matrices: large enough that
// every thread gets work, far less than a second.
const selfTestSize = 256

// SelfTest multiplies two matrices with a known product under opt and returns
// how long one multiplication took after the first.
func (r *Runtime) SelfTest(ctx context.Context, opt Options) (time.Duration, error) {
	const n = selfTestSize
	model := onnx.NewModel("self_test", onnx.Opset{Version: engineOpset})
	g := model.Graph
	g.AddInput("a", onnx.Float32, onnx.Fixed(n), onnx.Fixed(n))
	g.AddInput("b", onnx.Float32, onnx.Fixed(n), onnx.Fixed(n))
	g.Add("MatMul", []string{"a", "b"}, []string{"c"})
	g.AddOutput("c", onnx.Float32, onnx.Fixed(n), onnx.Fixed(n))
	s, err := r.newSession(model, []string{"a", "b"}, []string{"c"}, opt)
	if err != nil {
		return 0, err
	}
	defer s.close()

	// a_ik = i, b_kj = j, so c_ij = n·i·j; all exact in float32.
	a, b, c := make([]float32, n*n), make([]float32, n*n), make([]float32, n*n)
	for i := range a {
		a[i], b[i] = float32(i/n), float32(i%n)
	}
	var took time.Duration
	for range 2 {
		start := time.Now()
		if err := s.runFloat32(ctx, [][]float32{a, b}, c, n, n); err != nil {
			return 0, err
		}
		took = time.Since(start)
	}
	for i, got := range c {
		if want := float64(n) * float64(i/n) * float64(i%n); math.Abs(float64(got)-want) > 1e-6*want {
			return 0, fmt.Errorf("ort: self-test on %s gives %g at [%d,%d], want %g", opt.Provider, got, i/n, i%n, want)
		}
	}
	return took, nil
}
