package datasets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
)

// Fingerprint returns a SHA-256, in hexadecimal, of the bytes of the files that
// paths name, in the order in which Open reads them. That of one file is the
// file's own; that of several is the hash of theirs, 32 bytes each, so that
// moving bytes from one file to the next changes it. Names do not matter. A mix that
// changes what is read, as in [Options], is hashed with each of its paths.
func Fingerprint(ctx context.Context, paths []string, mix ...Share) (string, error) {
	if len(mix) > 0 && slices.ContainsFunc(mix, func(s Share) bool { return s != whole }) {
		return mixFingerprint(ctx, paths, mix)
	}
	files, _, err := expand(paths)
	if err != nil {
		return "", err
	}
	all := sha256.New()
	for _, path := range files {
		sum, err := fileSum(ctx, path)
		if err != nil {
			return "", fmt.Errorf("datasets: %s: %w", path, err)
		}
		if len(files) == 1 {
			return hex.EncodeToString(sum), nil
		}
		all.Write(sum)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// mixFingerprint hashes each path's own fingerprint with its share.
func mixFingerprint(ctx context.Context, paths []string, mix []Share) (string, error) {
	if err := checkMix(mix, len(paths)); err != nil {
		return "", err
	}
	all := sha256.New()
	for i, s := range mix {
		sum, err := Fingerprint(ctx, paths[i:i+1])
		if err != nil {
			return "", err
		}
		fmt.Fprintln(all, sum, s.Weight, s.Limit)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// fileSum returns the SHA-256 of one file.
func fileSum(ctx context.Context, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	// The wrapper hides the file's WriteTo, which would not ask the context.
	in := struct{ io.Reader }{&guardedFile{File: f, ctx: ctx}}
	if _, err := io.CopyBuffer(h, in, make([]byte, inputBuffer)); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
