//go:build azure

package store

import (
	"context"
	"errors"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
)

// openAzure opens a container of Azure Blob Storage as AZURE_STORAGE_ACCOUNT and its
// companions say.
func openAzure(ctx context.Context, at location) (*blob.Bucket, error) {
	opener := azureblob.URLOpener{MakeClient: azureblob.NewDefaultClient, ServiceURLOptions: *azureblob.NewDefaultServiceURLOptions()}
	return opener.OpenBucketURL(ctx, &url.URL{Scheme: at.scheme, Host: at.bucket, RawQuery: at.options.Encode()})
}

// azureStatus is the HTTP status of an answer of Azure.
func azureStatus(err error) int {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}
