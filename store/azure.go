//go:build azure

package store

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // registers azblob://
)

// openAzure opens a container of Azure Blob Storage as AZURE_STORAGE_ACCOUNT and its
// companions say.
func openAzure(ctx context.Context, at location) (*blob.Bucket, error) {
	url := "azblob://" + at.bucket
	if len(at.options) > 0 {
		url += "?" + at.options.Encode()
	}
	return blob.OpenBucket(ctx, url)
}

// azureStatus is the HTTP status of an answer of Azure.
func azureStatus(err error) int {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}
