//go:build cgo

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/onnx/ort"
)

// programs are what the test binary can be, by the name it is run under.
var programs = map[string]func(){"dpo-pipe": main}

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	testscript.Main(m, programs)
}

// library finds ONNX Runtime for tests that run the command; without it they are
// skipped, or fail where DPO_PIPE_REQUIRE_ORT is 1.
func library(t testing.TB) string {
	t.Helper()
	lib, err := ort.FindLibrary("")
	if err != nil {
		if os.Getenv("DPO_PIPE_REQUIRE_ORT") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no ONNX Runtime library: run `make setup` or set %s\n%v", ort.LibraryVariable, err)
	}
	return lib.Path
}

// command is a run of the program in folder dir.
func command(ctx context.Context, t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Args[0] = "dpo-pipe"
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), ort.LibraryVariable+"="+library(t))
	return cmd
}

// exits runs the program, which must end with the exit code that comes first.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	got := 0
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v exits with %d, want %d", args[1:], got, want)
	}
}

// TestScripts runs testdata/script: each file is a behaviour of the command. The
// folder $DEMO holds the built-in model and pairs, $EXAMPLES the examples; the command
// few-pairs FILE N writes the first N of the pairs, and flip-labels FILE takes chosen for rejected in a file.
func TestScripts(t *testing.T) {
	lib := library(t)
	files := t.TempDir()
	if err := demo.WriteTo(files); err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv(ort.LibraryVariable, lib)
			env.Setenv("DEMO", files)
			env.Setenv("EXAMPLES", examples)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"few-pairs": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(fewPairs(filepath.Join(files, demo.DataFile), ts.MkAbs(args[0]), args[1]))
			},
			"flip-labels": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(flipLabels(ts.MkAbs(args[0]))) },
			"exits":       exits,
			"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				info, err := os.Stat(path)
				ts.Check(err)
				ts.Check(os.Truncate(path, info.Size()-1))
			},
			"flip-bit": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				data, err := os.ReadFile(path)
				ts.Check(err)
				data[len(data)/2] ^= 1
				ts.Check(os.WriteFile(path, data, 0o666))
			},
		},
	})
}
