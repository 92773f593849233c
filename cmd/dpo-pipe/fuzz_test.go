//go:build cgo && linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/onnx/ort"
)

const (
	// fuzzVariable says how many broken files of each kind are read, fewFuzzed how many
	// without it; fuzzKinds names the kinds, all without it.
	fuzzVariable = "DPO_PIPE_FUZZ"
	fewFuzzed    = 200
	fuzzKinds    = "DPO_PIPE_FUZZ_KINDS"
	// hung is how long one file may take, on a machine that does much else.
	hung = time.Minute
	// decodeMemory is how much a process that reads broken files may hold, kB. The files
	// are small; what the program is ready for is 64 MiB for one buffer, or a thousand times
	// what a small file holds.
	decodeMemory = 1 << 20
	// enough crashes of one kind are told.
	enough = 3
)

// TestBrokenFiles reads broken files of every kind, in processes of their own. Each is
// an error, or is accepted because its format can't tell; none ends the process,
// takes long or takes much memory. A sealed file is never accepted.
func TestBrokenFiles(t *testing.T) {
	n := fewFuzzed
	if text := os.Getenv(fuzzVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("%s is %q, want a number of files", fuzzVariable, text)
		}
	}
	seeds := t.TempDir()
	writeSeeds(t, seeds)
	only := os.Getenv(fuzzKinds)
	t.Logf("%-22s %7s %7s %8s %7s %10s %9s", "kind", "files", "errors", "accepted", "crashes", "slowest", "peak")
	for _, d := range decoders {
		if only != "" && !strings.Contains(","+only+",", ","+d.kind+",") {
			continue
		}
		f := fuzzing{t: t, decoder: d, seeds: seeds, n: n}
		f.run()
		t.Logf("%-22s %7d %7d %8d %7d %10v %6d MB", d.kind, n, f.errors, f.accepted, f.crashes, f.slowest.Round(time.Millisecond), f.peak>>10)
		if f.peak > decodeMemory {
			t.Errorf("%s: a process held %d MB, want at most %d", d.kind, f.peak>>10, decodeMemory>>10)
		}
		if d.sealed && f.accepted > 0 {
			t.Errorf("%s: %d files that are not the original were accepted", d.kind, f.accepted)
		}
	}
}

// fuzzing is the reading of all broken files of a kind.
type fuzzing struct {
	t       *testing.T
	decoder decoder
	seeds   string
	n       int

	errors, accepted, crashes int
	slowest                   time.Duration
	peak                      int64 // kB
}

// run starts a process, and another behind every file that ends it.
func (f *fuzzing) run() {
	for next := 0; next < f.n && f.crashes < enough; {
		read, err := f.process(next)
		if next += read; err == nil {
			continue
		}
		f.crashes++
		keep := filepath.Join(os.TempDir(), fmt.Sprintf("dpo-pipe-%s-%d", strings.ReplaceAll(f.decoder.kind, " ", "-"), next))
		broken := loadMutants(f.t, f.seeds, f.decoder).make(next)
		f.t.Errorf("%s: file %d (kept as %s): %v", f.decoder.kind, next, keep, errors.Join(err, os.WriteFile(keep, broken, 0o666)))
		next++
	}
}

// process reads files from number first on in a process of its own, and returns how many
// it read. An error says how the next one ended it.
func (f *fuzzing) process(first int) (read int, err error) {
	f.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, exe, f.decoder.kind, f.seeds, f.t.TempDir(), strconv.Itoa(first), strconv.Itoa(f.n))
	cmd.Args[0] = decodeCommand
	cmd.Env = append(os.Environ(), ort.LibraryVariable+"="+library(f.t))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	timer := time.AfterFunc(hung, func() { cancel(fmt.Errorf("hangs: more than %v", hung)) })
	for lines := bufio.NewScanner(out); lines.Scan(); timer.Reset(hung) {
		var ok bool
		var took time.Duration
		var peak int64
		if _, err := fmt.Sscanf(lines.Text(), "%t %d %d", &ok, &took, &peak); err != nil {
			f.t.Fatalf("%s: says %q: %v", f.decoder.kind, lines.Text(), err)
		}
		if ok {
			f.accepted++
		} else {
			f.errors++
		}
		f.slowest, f.peak = max(f.slowest, took), max(f.peak, peak)
		read++
	}
	timer.Stop()
	err = cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return read, cause
	}
	if err != nil {
		return read, fmt.Errorf("%w: %.2000s", err, stderr.String())
	}
	return read, nil
}

// decodeCommand is the name under which the test binary is decodeMain.
const decodeCommand = "dpo-pipe-decode"

func init() { programs[decodeCommand] = decodeMain }

// decodeMain reads broken files of one kind, and writes a line for each: whether it was
// accepted, how long that took (ns), and what the process held at most so far (kB). What ends
// the process is found by its parent.
func decodeMain() {
	kind, seeds, work := os.Args[1], os.Args[2], os.Args[3]
	first, _ := strconv.Atoi(os.Args[4])
	end, _ := strconv.Atoi(os.Args[5])
	for _, d := range decoders {
		if d.kind != kind {
			continue
		}
		if err := d.each(seeds, work, first, end); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailed)
		}
	}
}

func (d decoder) each(seeds, work string, first, end int) error {
	top, _, _ := strings.Cut(d.file, "/")
	if err := os.CopyFS(filepath.Join(work, top), os.DirFS(filepath.Join(seeds, top))); err != nil {
		return err
	}
	if top != "cache" { // a run's report and settings refer to it
		if err := os.CopyFS(filepath.Join(work, "cache"), os.DirFS(filepath.Join(seeds, "cache"))); err != nil {
			return err
		}
	}
	m, err := readMutants(seeds, d)
	if err != nil {
		return err
	}
	read := func(data []byte) error {
		path := filepath.Join(work, d.file)
		os.Remove(path) // a mapped file must not change
		if err := os.WriteFile(path, data, 0o666); err != nil {
			return err
		}
		return d.decode(work)
	}
	if err := read(m.seeds[0]); err != nil {
		return fmt.Errorf("the sound file is refused: %w", err)
	}
	for i := first; i < end; i++ {
		data := m.make(i)
		start := time.Now()
		err := read(data)
		took := time.Since(start)
		peak, e := peakOfThis()
		if e != nil {
			return e
		}
		fmt.Println(err == nil, took.Nanoseconds(), peak)
	}
	return nil
}

// peakOfThis is the largest resident set of this process so far, kB. What the system tells
// a parent includes what the child was before it ran this program.
func peakOfThis() (kB int64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, text, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(text, &kB)
	return kB, err
}

// readMutants reads what a kind's broken files are made from: the sound file, and others
// in the folder of its name with "seeds" behind it.
func readMutants(seeds string, d decoder) (mutants, error) {
	more, err := filepath.Glob(filepath.Join(seeds, d.file+".seeds", "*"))
	if err != nil {
		return mutants{}, err
	}
	var m mutants
	for _, path := range append([]string{filepath.Join(seeds, d.file)}, more...) {
		data, err := os.ReadFile(path)
		if err != nil {
			return m, err
		}
		m.seeds = append(m.seeds, data)
	}
	return m, nil
}

func loadMutants(t *testing.T, seeds string, d decoder) mutants {
	t.Helper()
	m, err := readMutants(seeds, d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
