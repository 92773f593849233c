package store

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A store has no links. One of a folder is written as a small object of its name, whose
// text is linkText and where it leads, and is a link again where it is fetched.
const linkText = "dpo-pipe link: "

// linkSize bounds the object of a link.
const linkSize = 1 << 10

// linkObject is the text of a link that leads to target, a path relative to it.
func linkObject(target string) string { return linkText + filepath.ToSlash(target) + "\n" }

// Link is what an object holds that leads to target, a place relative to the folder it is
// in: a URL of the object is then one of the place.
func Link(target string) []byte { return []byte(linkObject(target)) }

// LinkTarget returns where the object leads that holds text; false where it is no link.
func LinkTarget(text []byte) (target string, ok bool) {
	target, ok = strings.CutPrefix(string(text), linkText)
	return strings.TrimSuffix(target, "\n"), ok
}

// parseLink returns where the link name, in the folder at which everything begins, leads;
// "" where the text is no link's.
func parseLink(name, text string) (string, error) {
	target, isLink := LinkTarget([]byte(text))
	if !isLink {
		return "", nil
	}
	if path.IsAbs(target) || !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), target))) {
		return "", fmt.Errorf("%s is a link to %q, want one that stays in the folder", name, target)
	}
	return target, nil
}

// linkTarget returns where an object that was fetched to file leads if it is a link.
func linkTarget(file string, o Object) (string, error) {
	if o.Size > linkSize || o.Size < int64(len(linkText)) {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return parseLink(o.Name, string(text))
}

// linked returns the place that an object leads to, nil where it is no link.
func (b *Bucket) linked(ctx context.Context, o Object) (*Bucket, error) {
	if o.Size > linkSize || o.Size < int64(len(linkText)) {
		return nil, nil
	}
	text, _, err := b.ReadPointer(ctx, "")
	if err != nil {
		return nil, err
	}
	target, err := parseLink(o.key, string(text))
	if err != nil || target == "" {
		return nil, err
	}
	there := *b
	there.at.key = path.Join(path.Dir(o.key), target)
	return &there, nil
}
