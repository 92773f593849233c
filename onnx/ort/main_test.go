//go:build cgo

package ort

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// requireVariable makes a missing library a failure instead of a skip.
const requireVariable = "DPO_PIPE_REQUIRE_ORT"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openRuntime returns the runtime for a test, which is skipped where the machine has
// no library. When the test ends no ONNX Runtime value may be left.
func openRuntime(t testing.TB) *Runtime {
	t.Helper()
	lib, err := FindLibrary("")
	if err != nil {
		if os.Getenv(requireVariable) == "1" {
			t.Fatal(err)
		}
		t.Skipf("no ONNX Runtime library: run `make setup` or set %s\n%v", LibraryVariable, err)
	}
	r, err := Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := liveValues.Load(); n != 0 {
			t.Errorf("%d ONNX Runtime values are left, want 0", n)
		}
	})
	return r
}
