//go:build azure

package storetest

import (
	"context"
	"encoding/base64"
	"net"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/dpo-pipe/dpo-pipe/internal/servertest"
)

// azureKey is that of Azurite's one account, [AccessKey].
var azureKey = base64.StdEncoding.EncodeToString([]byte(Secret))

// startAzure runs Azurite with these containers until the test ends, and names it in the test's
// environment. The program is the one that `make azurite` installs.
func startAzure(t *testing.T, containers []string) *Server {
	t.Helper()
	exe := filepath.Join(root(t), "build", "azurite", "node_modules", ".bin", "azurite-blob")
	if !exists(exe) {
		t.Skipf("%s is not there: run `make azurite`", exe)
	}
	address := servertest.FreeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURITE_ACCOUNTS", AccessKey+":"+azureKey)
	servertest.Run(t, "azurite", exe, address, "--blobHost", host, "--blobPort", port, "--location", t.TempDir(), "--silent", "--skipApiVersionCheck", "--disableTelemetry")
	s := &Server{Name: "azurite", scheme: "azblob", URL: "http://" + address}
	for name, value := range map[string]string{
		"AZURE_STORAGE_ACCOUNT": AccessKey, "AZURE_STORAGE_KEY": azureKey, "AZURE_STORAGE_DOMAIN": address,
		"AZURE_STORAGE_PROTOCOL": "http", "AZURE_STORAGE_IS_LOCAL_EMULATOR": "true",
	} {
		t.Setenv(name, value)
	}
	client, err := s.azure()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range containers {
		if _, err := client.CreateContainer(context.Background(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *Server) azure() (*azblob.Client, error) {
	credential, err := azblob.NewSharedKeyCredential(AccessKey, azureKey)
	if err != nil {
		return nil, err
	}
	return azblob.NewClientWithSharedKeyCredential(s.URL+"/"+AccessKey, credential, nil)
}

// objectsAzure lists the ETags of a container's blobs.
func objectsAzure(s *Server, container string) (map[string]string, error) {
	client, err := s.azure()
	if err != nil {
		return nil, err
	}
	objects := map[string]string{}
	for pages := client.NewListBlobsFlatPager(container, nil); pages.More(); {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			return nil, err
		}
		for _, blob := range page.Segment.BlobItems {
			objects[*blob.Name] = string(*blob.Properties.ETag)
		}
	}
	return objects, nil
}
