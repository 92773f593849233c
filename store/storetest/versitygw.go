package storetest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/servertest"
)

// RequireVariable, set to 1, makes a versitygw that can't be built fail the tests instead of
// skipping them.
const RequireVariable = "DPO_PIPE_REQUIRE_S3"

// AccessKey and Secret are the one account of versitygw and of Azurite.
const (
	AccessKey = "storetest"
	Secret    = "storetest-secret"
)

var versitygw = program{
	name: "versitygw", folder: "versitygw", path: "github.com/versity/versitygw/cmd/versitygw", require: RequireVariable,
}

// Start runs versitygw with these buckets until the test ends, and names it in the test's
// environment. The program is the one that `make versitygw` builds, or is built now where the
// tests require it. flags are the server's own.
func Start(t *testing.T, buckets []string, flags ...string) *Server {
	t.Helper()
	s := &Server{Name: versitygw.name, scheme: "s3", Folder: t.TempDir()}
	for _, name := range buckets {
		if err := os.Mkdir(filepath.Join(s.Folder, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	s.serve(t, flags...)
	return s
}

// Serve runs another versitygw on the same buckets, with other flags, and names that in the
// test's environment.
func (s *Server) Serve(t *testing.T, flags ...string) *Server {
	t.Helper()
	other := &Server{Name: s.Name, scheme: s.scheme, Folder: s.Folder}
	other.serve(t, flags...)
	return other
}

func (s *Server) serve(t *testing.T, flags ...string) {
	t.Helper()
	address := servertest.FreeAddress(t)
	// Metadata goes to files beside the objects: not every file system has attributes for it.
	sidecar := filepath.Join(filepath.Dir(s.Folder), "metadata-"+filepath.Base(s.Folder))
	if err := os.MkdirAll(sidecar, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sidecar) })
	args := append([]string{"--port", address, "--access", AccessKey, "--secret", Secret, "--quiet"}, flags...)
	versitygw.run(t, address, append(args, "posix", "--sidecar", sidecar, s.Folder)...)
	s.URL = "http://" + address
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": s.URL, "AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": Secret, "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

// objectsS3 lists the files of a bucket. Parts of objects that are not there are below .sgwtmp.
func objectsS3(s *Server, bucket string) (map[string]string, error) {
	objects := map[string]string{}
	root := filepath.Join(s.Folder, bucket)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == ".sgwtmp" {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		objects[filepath.ToSlash(name)] = info.ModTime().Format(time.RFC3339Nano)
		return err
	})
	return objects, err
}
