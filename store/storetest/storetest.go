// Package storetest starts real servers of stores for tests, on this machine, each in a process
// of its own: versitygw for s3://, fake-gcs-server for gs://, Azurite for azblob:// (with the build
// tag azure).
package storetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/servertest"
)

// A Server is a running server.
type Server struct {
	// Name is the program's.
	Name string
	// URL is where it answers.
	URL string
	// Folder holds a folder for each bucket of versitygw.
	Folder string

	scheme string
}

// At is the URL of a bucket and a key in it.
func (s *Server) At(place string) string { return s.scheme + "://" + place }

// Each runs a test on a server of every kind that has these buckets and is named in the test's
// environment. What is not built is skipped, or built where the tests require it.
func Each(t *testing.T, buckets []string, test func(t *testing.T, s *Server)) {
	t.Run("versitygw", func(t *testing.T) { test(t, Start(t, buckets)) })
	t.Run("fake-gcs-server", func(t *testing.T) { test(t, StartGS(t, buckets)) })
	t.Run("azurite", func(t *testing.T) { test(t, startAzure(t, buckets)) })
}

// Objects lists the keys in a bucket as the server has them: not through the code under test.
func (s *Server) Objects(t *testing.T, bucket string) (keys []string) {
	t.Helper()
	for key := range s.objects(t, bucket) {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Written is a text that is another one each time that an object is written.
func (s *Server) Written(t *testing.T, bucket, key string) string {
	t.Helper()
	text, there := s.objects(t, bucket)[key]
	if !there {
		t.Fatalf("bucket %s of %s has no object %q", bucket, s.Name, key)
	}
	return text
}

// objects is by key when an object was written.
func (s *Server) objects(t *testing.T, bucket string) map[string]string {
	t.Helper()
	list := map[string]func(*Server, string) (map[string]string, error){"s3": objectsS3, "gs": objectsGS, "azblob": objectsAzure}
	objects, err := list[s.scheme](s, bucket)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// A program is a server that a module below tools/ builds.
type program struct {
	// name is of the program, of its folder below tools/ too; path is its package.
	name, folder, path string
	// require is a variable that, set to 1, makes a server that can't be built fail the tests
	// instead of skipping them.
	require string
}

// run starts the program until the test ends, and returns when something answers at address.
func (p program) run(t *testing.T, address string, args ...string) {
	t.Helper()
	servertest.Run(t, p.name, p.file(t), address, args...)
}

// file is the path of the program.
func (p program) file(t *testing.T) string {
	t.Helper()
	root := root(t)
	exe := filepath.Join(root, "build", p.name)
	if exists(exe) {
		return exe
	}
	if os.Getenv(p.require) != "1" {
		t.Skipf("%s is not there: run `make %s`, or set %s=1 to have it built", exe, p.folder, p.require)
	}
	build := exec.Command("go", "build", "-o", exe, p.path)
	build.Dir = filepath.Join(root, "tools", p.folder)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", p.name, err, out)
	}
	return exe
}

// root is the folder of the clone.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(dir, "tools", versitygw.folder)) {
		above := filepath.Dir(dir)
		if above == dir {
			t.Fatal("no folder tools above the test's")
		}
		dir = above
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
