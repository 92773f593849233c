// Package storetest starts a real S3 server for tests: versitygw, on a folder of this
// machine, in a process of its own.
package storetest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// RequireVariable, set to 1, makes a server that can't be built fail the tests instead of
// skipping them.
const RequireVariable = "DPO_PIPE_REQUIRE_S3"

// AccessKey and Secret are the server's one account.
const (
	AccessKey = "storetest"
	Secret    = "storetest-secret"
)

// A Server is a running versitygw.
type Server struct {
	// URL is where it answers.
	URL string
	// Folder holds a folder for each bucket.
	Folder string
}

// Start runs a server with these buckets until the test ends, and names it in the test's
// environment. The program is the one that `make versitygw` builds, or is built now where the
// tests require it. flags are the server's own.
func Start(t *testing.T, buckets []string, flags ...string) *Server {
	t.Helper()
	s := &Server{Folder: t.TempDir()}
	for _, name := range buckets {
		if err := os.Mkdir(filepath.Join(s.Folder, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	s.serve(t, flags...)
	return s
}

// Serve runs another server on the same buckets, with other flags, and names that in the
// test's environment.
func (s *Server) Serve(t *testing.T, flags ...string) *Server {
	t.Helper()
	other := &Server{Folder: s.Folder}
	other.serve(t, flags...)
	return other
}

func (s *Server) serve(t *testing.T, flags ...string) {
	t.Helper()
	exe := program(t)
	address := freeAddress(t)
	// Metadata goes to files beside the objects: not every file system has attributes for it.
	sidecar := filepath.Join(filepath.Dir(s.Folder), "metadata-"+filepath.Base(s.Folder))
	if err := os.MkdirAll(sidecar, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sidecar) })
	args := append([]string{"--port", address, "--access", AccessKey, "--secret", Secret, "--quiet"}, flags...)
	cmd := exec.Command(exe, append(args, "posix", "--sidecar", sidecar, s.Folder)...)
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
			t.Logf("versitygw wrote:\n%s", &output)
		}
	})
	if err := waitFor(address, ended); err != nil {
		t.Fatal(err)
	}
	s.URL = "http://" + address
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": s.URL, "AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": Secret, "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

// waitFor returns when the server answers, or with an error when it ended or did not in time.
func waitFor(address string, ended chan error) error {
	deadline := time.After(time.Minute)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New("versitygw ended"), err)
		case <-deadline:
			return errors.Join(errors.New("versitygw does not answer"), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program is the path of versitygw.
func program(t *testing.T) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(root, "tools", "versitygw")) {
		above := filepath.Dir(root)
		if above == root {
			t.Fatal("no folder tools/versitygw above the test's")
		}
		root = above
	}
	exe := filepath.Join(root, "build", "versitygw")
	if exists(exe) {
		return exe
	}
	if os.Getenv(RequireVariable) != "1" {
		t.Skipf("%s is not there: run `make versitygw`, or set %s=1 to have it built", exe, RequireVariable)
	}
	build := exec.Command("go", "build", "-o", exe, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = filepath.Join(root, "tools", "versitygw")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build versitygw: %v\n%s", err, out)
	}
	return exe
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
