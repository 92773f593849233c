package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"cloud.google.com/go/storage"
	"github.com/aws/aws-sdk-go-v2/aws"
	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/googleapis/gax-go/v2"
	gcaws "gocloud.dev/aws"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/blob/s3blob"
	"gocloud.dev/gcp"
)

// A Bucket is an open place in a store: what is below the URL it was opened with. It is
// safe for concurrent use.
type Bucket struct {
	at   location
	blob *blob.Bucket
}

// Open opens the store that a URL names. What the URL names need not be there.
func Open(ctx context.Context, place string) (*Bucket, error) {
	at, err := parse(place)
	if err != nil {
		return nil, err
	}
	b := &Bucket{at: at}
	switch at.scheme {
	case "s3":
		b.blob, err = openS3(ctx, at)
	case "gs":
		b.blob, err = openGS(ctx, at)
	case "azblob":
		b.blob, err = openAzure(ctx, at)
	case "file":
		b.blob, err = fileblob.OpenBucket(at.bucket, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	}
	if err != nil {
		return nil, b.fail("open", at.key, err)
	}
	return b, nil
}

// Close gives what the bucket holds free.
func (b *Bucket) Close() error { return b.blob.Close() }

// fail makes an error of a driver one of this package; nil stays nil.
func (b *Bucket) fail(op, key string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) {
		return err
	}
	if _, done := errors.AsType[*Error](err); done {
		return err
	}
	return &Error{Op: op, URL: b.at.at(key), Kind: kindOf(err), Err: err}
}

// answerWithin bounds how long a server may think before it answers.
const answerWithin = 60 * time.Second

// pathStyle are the options that put the bucket into the path of a request.
var pathStyle = []string{"s3ForcePathStyle", "use_path_style"}

// openS3 opens a bucket of S3 or of a server that speaks its protocol: one at an endpoint
// of its own is asked with the bucket in the path, unless told otherwise, and without
// the newer checksums, which such servers may not know.
func openS3(ctx context.Context, at location) (*blob.Bucket, error) {
	options := at.options
	endpoint := options.Get("endpoint")
	own := endpoint != "" || os.Getenv("AWS_ENDPOINT_URL") != "" || os.Getenv("AWS_ENDPOINT_URL_S3") != ""
	inPath := own
	for _, name := range pathStyle {
		if text := options.Get(name); text != "" {
			var err error
			if inPath, err = strconv.ParseBool(text); err != nil {
				return nil, fmt.Errorf("option %s is %q, want true or false", name, text)
			}
		}
	}
	rest := cloneWithout(options, append([]string{"endpoint"}, pathStyle...)...)
	if own && !rest.Has("request_checksum_calculation") {
		rest.Set("request_checksum_calculation", "when_required")
	}
	cfg, err := gcaws.V2ConfigFromURLParams(ctx, rest)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1" // S3 answers with the right one; other servers mostly ignore it
	}
	if _, anonymous := cfg.Credentials.(aws.AnonymousCredentials); !anonymous && cfg.Credentials != nil {
		if _, err := cfg.Credentials.Retrieve(ctx); err != nil && ctx.Err() == nil {
			return nil, &noCredentials{err}
		}
	}
	cfg.Logger = logging.Nop{}
	cfg.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = answerWithin })
	cfg.Retryer = func() aws.Retryer {
		return awsretry.NewStandard(func(o *awsretry.StandardOptions) { o.MaxBackoff = longestWait })
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = inPath
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
	return s3blob.OpenBucket(ctx, client, at.bucket, &s3blob.Options{RequestChecksumCalculation: cfg.RequestChecksumCalculation})
}

// cloneWithout copies the options but for some.
func cloneWithout(options url.Values, names ...string) (rest url.Values) {
	rest = url.Values{}
	for name, values := range options {
		rest[name] = values
	}
	for _, name := range names {
		rest.Del(name)
	}
	return rest
}

// openGS opens a bucket of Google Cloud Storage under the application's default
// credentials, or none with ?anonymous=true or an emulator.
func openGS(ctx context.Context, at location) (*blob.Bucket, error) {
	for name := range at.options {
		if name != "anonymous" {
			return nil, fmt.Errorf("unknown option %q, want anonymous", name)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerWithin
	if at.options.Get("anonymous") == "true" || os.Getenv("STORAGE_EMULATOR_HOST") != "" {
		return boundedGS(gcsblob.OpenBucket(ctx, gcp.NewAnonymousHTTPClient(transport), at.bucket, nil))
	}
	credentials, err := gcp.DefaultCredentials(ctx)
	if err != nil {
		return nil, &noCredentials{err}
	}
	client, err := gcp.NewHTTPClient(transport, gcp.CredentialsTokenSource(credentials))
	if err != nil {
		return nil, &noCredentials{err}
	}
	return boundedGS(gcsblob.OpenBucket(ctx, client, at.bucket, nil))
}

// driverAttempts is how often a driver sends a request: that of S3 three times unless told
// otherwise, that of Google Cloud Storage for ever.
const driverAttempts = 3

// boundedGS bounds the attempts of a bucket's driver.
func boundedGS(b *blob.Bucket, err error) (*blob.Bucket, error) {
	var client *storage.Client
	if err == nil && b.As(&client) {
		client.SetRetry(storage.WithMaxAttempts(driverAttempts), storage.WithBackoff(gax.Backoff{Initial: firstWait, Max: longestWait, Multiplier: 2}))
	}
	return b, err
}
