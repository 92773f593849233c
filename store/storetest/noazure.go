//go:build !azure

package storetest

import (
	"errors"
	"testing"
)

func startAzure(t *testing.T, _ []string) *Server {
	t.Helper()
	t.Skip("azblob:// is not built in: go test -tags azure")
	return nil
}

func objectsAzure(*Server, string) (map[string]string, error) {
	return nil, errors.New("built without -tags azure")
}
