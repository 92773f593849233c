package checksum

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// SumsFile is the list of a folder, which `sha256sum -c` reads.
const SumsFile = "SHA256SUMS"

// WriteSums writes the list of all files below dir into it.
func WriteSums(dir string) error {
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == SumsFile || strings.HasPrefix(d.Name(), atomicfile.TempPrefix) {
			return err
		}
		sum, err := sumOf(path)
		fmt.Fprintf(&list, "%s  %s\n", sum, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, SumsFile), func(w io.Writer) error {
		_, err := io.WriteString(w, list.String())
		return err
	})
}

// VerifySums checks the files below dir that its list names and that are there; without a
// list nothing is known of them. The error wraps [ErrChanged] and names the file.
func VerifySums(dir string) error {
	list := filepath.Join(dir, SumsFile)
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	if !strings.HasSuffix(string(text), "\n") {
		return fmt.Errorf("checksum: %q is cut short: %w", list, ErrChanged)
	}
	for line := range strings.Lines(string(text)) {
		want, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || len(want) != hex.EncodedLen(sha256.Size) || !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("checksum: %q has the line %.100q, want a SHA-256, two spaces and a file's name: %w", list, line, ErrChanged)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		have, err := sumOf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever needs it says so
		}
		if err != nil {
			return fmt.Errorf("checksum: %w", err)
		}
		if have != want {
			return fmt.Errorf("checksum: %q: SHA-256 is %s, want %s as in %s: %w", path, have, want, SumsFile, ErrChanged)
		}
	}
	return nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
