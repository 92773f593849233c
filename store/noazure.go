//go:build !azure

package store

import (
	"context"
	"errors"

	"gocloud.dev/blob"
)

func openAzure(context.Context, location) (*blob.Bucket, error) {
	return nil, errors.New("this dpo-pipe was built without Azure: build it with -tags azure")
}

func azureStatus(error) int { return 0 }
