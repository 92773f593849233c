package store

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// schemes are those of places in stores; file is a folder of this machine.
var schemes = []string{"s3", "gs", "azblob", "file"}

// IsURL reports whether a path is a URL of a store or of a file, not a name in the file system.
func IsURL(path string) bool {
	scheme, _, found := strings.Cut(path, "://")
	return found && slices.Contains(schemes, scheme)
}

// Local returns the path that a file URL names, or path itself where it is no URL. The
// result is false for a URL of an object store.
func Local(path string) (string, bool) {
	rest, isFile := strings.CutPrefix(path, "file://")
	if !isFile {
		return path, !IsURL(path)
	}
	rest, _, _ = strings.Cut(rest, "?")
	if plain, err := url.PathUnescape(rest); err == nil {
		rest = plain
	}
	return filepath.FromSlash(rest), true
}

// location is a place in a store: where the bucket is, and a key in it.
type location struct {
	scheme, bucket string
	// key has no slash at either end; folder says that the URL ended with one.
	key    string
	folder bool
	// options are those of the bucket, from the URL's query.
	options url.Values
}

// parse reads a URL. The key is taken as it stands, as the stores' own tools take it:
// nothing is escaped but what follows the ?, which are options of the bucket.
func parse(text string) (location, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	if !IsURL(text) {
		return location{}, &Error{Op: "open", URL: Redact(text), Err: fmt.Errorf("no URL of a store (%s)", strings.Join(schemes, "://, ")+"://")}
	}
	// A ? with no = behind it is of a pattern.
	var query string
	if at := strings.LastIndex(rest, "?"); at >= 0 && strings.Contains(rest[at:], "=") {
		rest, query = rest[:at], rest[at+1:]
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return location{}, &Error{Op: "open", URL: Redact(text), Err: errors.New("options behind ? that can't be read")}
	}
	l := location{scheme: scheme, options: options}
	if scheme == "file" {
		file, _ := Local(text)
		if !filepath.IsAbs(file) {
			return location{}, &Error{Op: "open", URL: text, Err: errors.New("no absolute path (file:///folder/file)")}
		}
		l.bucket, l.key = filepath.VolumeName(file)+string(filepath.Separator), strings.TrimPrefix(filepath.ToSlash(file), "/")
	} else {
		l.bucket, l.key, _ = strings.Cut(rest, "/")
	}
	if l.bucket == "" {
		return location{}, &Error{Op: "open", URL: Redact(text), Err: errors.New("no bucket behind ://")}
	}
	l.folder = strings.HasSuffix(l.key, "/") || l.key == ""
	l.key = strings.Trim(l.key, "/")
	return l, nil
}

// String is the URL without options and credentials.
func (l location) String() string { return l.at(l.key) }

// at is the URL of another key of the bucket.
func (l location) at(key string) string {
	if l.scheme == "file" {
		return "file:///" + key
	}
	// user:password@ is nothing a bucket's name holds, but someone may write it.
	bucket := l.bucket
	if at := strings.LastIndex(bucket, "@"); at >= 0 {
		bucket = bucket[at+1:]
	}
	return l.scheme + "://" + bucket + "/" + key
}

// origin tells apart buckets of one name at several endpoints.
func (l location) origin() string {
	return l.scheme + " " + l.options.Get("endpoint") + " " + l.bucket
}

// join is a key below the location's.
func (l location) join(name string) string { return path.Join(l.key, name) }

// harmless are the options that a message may show.
var harmless = []string{"endpoint", "region", "profile", "s3ForcePathStyle", "use_path_style", "anonymous"}

// Redact returns a URL as a message may show it: without a user and a password, and
// without options that may hold credentials.
func Redact(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return text
	}
	rest, query, _ := strings.Cut(rest, "?")
	host, key, slash := strings.Cut(rest, "/")
	if at := strings.LastIndex(host, "@"); at >= 0 {
		host = host[at+1:]
	}
	text = scheme + "://" + host
	if slash {
		text += "/" + key
	}
	if !strings.Contains(query, "=") {
		if query != "" {
			text += "?" + query // of a pattern
		}
		return text
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return text
	}
	kept := url.Values{}
	for name, values := range options {
		if slices.Contains(harmless, name) {
			kept[name] = values
		}
	}
	if endpoint, err := url.Parse(kept.Get("endpoint")); err == nil && endpoint.User != nil {
		endpoint.User = nil
		kept.Set("endpoint", endpoint.String())
	}
	if len(kept) == 0 {
		return text
	}
	return text + "?" + kept.Encode()
}

// Join returns the URL of a name below the folder that a URL names; the options stay.
func Join(text, name string) string {
	rest, query := text, ""
	if at := strings.LastIndex(text, "?"); at >= 0 && strings.Contains(text[at:], "=") {
		rest, query = text[:at], text[at:]
	}
	return strings.TrimRight(rest, "/") + "/" + strings.Trim(filepath.ToSlash(name), "/") + query
}

// Beside returns the URL of what lies beside a URL's file or folder under its name and a suffix;
// the options stay. A whole bucket has nothing beside it.
func Beside(text, suffix string) (string, error) {
	l, err := parse(text)
	if err == nil && l.key == "" {
		err = &Error{Op: "open", URL: l.String(), Err: errors.New("nothing can lie beside a whole bucket, want a key in it")}
	}
	if err != nil {
		return "", err
	}
	return Join(Dir(text), path.Base(l.key)+suffix), nil
}

// Dir returns the URL of the folder that a URL's file or folder is in; the options stay.
func Dir(text string) string {
	rest, query := text, ""
	if at := strings.LastIndex(text, "?"); at >= 0 && strings.Contains(text[at:], "=") {
		rest, query = text[:at], text[at:]
	}
	rest = strings.TrimRight(rest, "/")
	return rest[:strings.LastIndex(rest, "/")+1] + query
}

// Base returns the last name of a URL's key, or its bucket where it has no key.
func Base(text string) string {
	l, err := parse(text)
	switch {
	case err != nil:
		return path.Base(text)
	case l.key == "":
		return l.bucket
	}
	return path.Base(l.key)
}

// Parent returns the URL, without options, of the folder in which the file or folder lies
// that Fetch makes of a URL; of a pattern that is the folder where its wildcards begin.
func Parent(text string) string {
	l, err := parse(text)
	if err != nil {
		return text
	}
	if at := strings.IndexAny(l.key, wildcards); at >= 0 {
		l.key = strings.TrimSuffix(l.key[:strings.LastIndex("/"+l.key[:at], "/")], "/")
	}
	whole := strings.TrimSuffix(l.String(), "/")
	return whole[:strings.LastIndex(whole, "/")]
}

// wildcards make a pattern of a key.
const wildcards = "*?["
