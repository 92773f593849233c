// Package servertest runs servers that others wrote for tests, on this machine.
package servertest

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"
)

// Run starts a program until the test ends, and returns when something answers at address.
func Run(t *testing.T, name, exe, address string, args ...string) {
	t.Helper()
	cmd := exec.Command(exe, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, &output)
		}
	})
	if err := waitFor(name, address, ended); err != nil {
		t.Fatal(err)
	}
}

// waitFor returns when the server answers, or with an error when it ended or did not in time.
func waitFor(name, address string, ended chan error) error {
	deadline := time.After(time.Minute)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New(name+" ended"), err)
		case <-deadline:
			return errors.Join(errors.New(name+" does not answer"), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// FreeAddress is one of this machine that nobody listens at.
func FreeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
