//go:build cgo && unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// binaryVariable names the program that is measured; else it is this test binary, under
// the name dpo-pipe.
const binaryVariable = "DPO_PIPE_BENCH_BINARY"

// cost is what a run of a program took, its children included.
type cost struct {
	CPU  float64 // seconds of all processors, user and system
	Peak int64   // bytes resident at most
}

// costOf runs the program in dir, which must succeed.
func costOf(t testing.TB, dir string, args ...string) (c cost) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cost.json")
	cmd := command(t.Context(), t, dir)
	binary := cmd.Path
	if b := os.Getenv(binaryVariable); b != "" {
		binary = b
	}
	cmd.Args = append([]string{"measure", file, binary}, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func init() { programs["measure"] = measure }

// measure is a program of its own, which runs another and writes its cost to a file: measure
// FILE PROGRAM ARGS… Linux counts as a program's peak also what the process had resident that
// started it, so one that has tests or a vocabulary in memory would measure itself.
func measure() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Args[0] = "dpo-pipe"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if err == nil {
		err = os.WriteFile(os.Args[1], costText(cmd.ProcessState.SysUsage().(*syscall.Rusage)), 0o666)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func costText(u *syscall.Rusage) []byte {
	peak := int64(u.Maxrss)
	if runtime.GOOS != "darwin" {
		peak <<= 10 // kB elsewhere
	}
	text, err := json.Marshal(cost{time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), peak})
	if err != nil {
		panic(err) // two finite numbers
	}
	return text
}
