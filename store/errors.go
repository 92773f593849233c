package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"
)

// Kinds of errors. An [Error] of kind NotFound is fs.ErrNotExist too, one of kind Denied
// fs.ErrPermission and one of kind Exists fs.ErrExist.
const (
	// Other is a failure of no kind below.
	Other Kind = iota
	// NotFound is a bucket, object or folder that is not there.
	NotFound
	// Denied is a request without credentials, with wrong ones, or with too few rights.
	Denied
	// Unreachable is a store that could not be reached, or did not answer rightly in time.
	Unreachable
	// Exists is something in the place of what was to be written.
	Exists
	// Changed is an object that is not what it was when it was looked at.
	Changed
	// Corrupt is an object whose bytes are not what the store says they are.
	Corrupt
)

// A Kind says what sort of failure an [Error] is.
type Kind int

// wants says by kind what would have been right.
var wants = map[Kind]string{
	NotFound:    "an object, a folder or a pattern that names some",
	Denied:      "credentials that may do that (of the environment, a profile or the machine)",
	Unreachable: "a store that can be reached (network, endpoint and region)",
	Corrupt:     "the bytes that the store's checksum is of",
}

// An Error says what was done where, what failed, and what is wanted.
type Error struct {
	// Op is what was done: "read", "write", "list", …
	Op string
	// URL is the bucket and key, without credentials.
	URL string
	// Kind is what sort of failure it is.
	Kind Kind
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("store: %s %s: %v", e.Op, e.URL, e.Err)
	if want := wants[e.Kind]; want != "" {
		text += ", want " + want
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is compare with the kinds of package fs.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Kind == NotFound
	case fs.ErrPermission:
		return e.Kind == Denied
	case fs.ErrExist:
		return e.Kind == Exists
	}
	return false
}

// KindOf returns the kind of an error of this package; Other where there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Other
}

// deniedCodes are the names that stores give to refusals beside 401 and 403.
var deniedCodes = []string{
	"AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
	"XAdminUserNotFound", // of versitygw, for an unknown key
}

// status is the HTTP status of the answer behind err, 0 where there is none.
func status(err error) int {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	if answer, ok := errors.AsType[*googleapi.Error](err); ok {
		return answer.Code
	}
	return azureStatus(err)
}

// kindOf tells the kind of an error of a driver.
func kindOf(err error) Kind {
	code := status(err)
	if code == http.StatusUnauthorized || code == http.StatusForbidden {
		return Denied // of Google's, the driver says that nothing is there
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return NotFound
	case gcerrors.PermissionDenied:
		return Denied
	case gcerrors.AlreadyExists, gcerrors.FailedPrecondition:
		return Changed
	}
	api, coded := errors.AsType[smithy.APIError](err)
	_, signing := errors.AsType[*noCredentials](err)
	switch {
	case signing:
		return Denied
	case coded && slices.Contains(deniedCodes, api.ErrorCode()):
		return Denied
	case code == http.StatusNotFound:
		return NotFound
	case code == http.StatusPreconditionFailed, code == http.StatusConflict:
		return Changed
	case transient(err):
		return Unreachable
	}
	return Other
}

// noCredentials says that nothing on the machine names an account of the store.
type noCredentials struct{ error }

func (e *noCredentials) Unwrap() error { return e.error }

// transient reports a failure that may pass: of the network, or of a server that is
// overloaded or broken.
func transient(err error) bool {
	if errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) {
		return false
	}
	switch code := status(err); {
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests:
		return true
	case code >= 500:
		return code != http.StatusNotImplemented
	case code != 0 && code < 300: // an answer that broke off or was not understood
		return true
	case code != 0:
		return false
	}
	_, network := errors.AsType[net.Error](err)
	_, cut := errors.AsType[*net.OpError](err)
	return network || cut || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled) ||
		errors.Is(err, errShort)
}
