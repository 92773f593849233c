package storetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/servertest"
)

// RequireGSVariable, set to 1, makes a fake-gcs-server that can't be built fail the tests instead
// of skipping them.
const RequireGSVariable = "DPO_PIPE_REQUIRE_GS"

var fakeGCS = program{
	name: "fake-gcs-server", folder: "fakegcs", path: "github.com/fsouza/fake-gcs-server", require: RequireGSVariable,
}

// StartGS runs fake-gcs-server with these buckets until the test ends, and names it in the test's
// environment. The program is the one that `make fakegcs` builds, or is built now where the tests
// require it. flags are the server's own.
func StartGS(t *testing.T, buckets []string, flags ...string) *Server {
	t.Helper()
	address := servertest.FreeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	// What is read is asked for by the XML API, which the server has at its public host alone.
	args := []string{"-public-host", address, "-external-url", "http://" + address, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-log-level", "warn"}
	fakeGCS.run(t, address, append(args, flags...)...)
	s := &Server{Name: fakeGCS.name, scheme: "gs", URL: "http://" + address}
	for _, name := range buckets {
		body, err := json.Marshal(map[string]string{"name": name})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(s.URL+"/storage/v1/b?project=test", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("bucket %s: %s", name, resp.Status)
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	return s
}

// objectsGS asks the server by its JSON API for the objects' generations.
func objectsGS(s *Server, bucket string) (map[string]string, error) {
	resp, err := http.Get(s.URL + "/storage/v1/b/" + bucket + "/o")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list %s: %s", bucket, resp.Status)
	}
	var list struct {
		Items []struct{ Name, Generation string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, err
	}
	objects := map[string]string{}
	for _, o := range list.Items {
		objects[o.Name] = o.Generation
	}
	return objects, nil
}
