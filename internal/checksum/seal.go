// Package checksum lets files say whether they are what was written: a JSON file by a
// field with the SHA-256 of the rest, a folder by a list of its files' in the format of sha256sum.
package checksum

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
)

// ErrChanged is a file that is not what was written.
var ErrChanged = errors.New("the file is not what was written")

// sealPattern is how a sealed text ends.
var sealPattern = regexp.MustCompile(`,\n( *)"sha256": "([0-9a-f]{64})"\n\}\n$`)

// Seal adds the field "sha256" to a JSON object, its SHA-256 without that field. The object is
// indented, has fields, and ends with a newline; other text is returned as it is.
func Seal(text []byte) []byte {
	body, ok := bytes.CutSuffix(text, []byte("\n}\n"))
	if !ok {
		return text
	}
	_, first, _ := bytes.Cut(body, []byte("\n"))
	indent := first[:len(first)-len(bytes.TrimLeft(first, " "))]
	sum := sha256.Sum256(text)
	return fmt.Appendf(bytes.Clone(body), ",\n%s\"sha256\": \"%s\"\n}\n", indent, hex.EncodeToString(sum[:]))
}

// Open returns what was sealed. Text without a seal is returned as it is: nothing is known of
// it. The error is [ErrChanged].
func Open(text []byte) ([]byte, error) {
	at := sealPattern.FindSubmatchIndex(text)
	if at == nil {
		return text, nil
	}
	body := append(bytes.Clone(text[:at[0]]), "\n}\n"...)
	sum := sha256.Sum256(body)
	if have, want := hex.EncodeToString(sum[:]), string(text[at[4]:at[5]]); have != want {
		return nil, fmt.Errorf("SHA-256 is %s, want %s: %w", have, want, ErrChanged)
	}
	return body, nil
}
