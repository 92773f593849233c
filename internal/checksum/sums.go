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

// endMark begins the last line of a list, with the SHA-256 of the lines before it; sha256sum takes
// it for a comment. A list that was cut behind a line has none.
const endMark = "# SHA-256 of the lines above: "

// WriteSums writes the list of all files below dir into it.
func WriteSums(dir string) error {
	var list strings.Builder
	err := eachFile(dir, func(path, name string) error {
		sum, err := sumOf(path)
		fmt.Fprintf(&list, "%s  %s\n", sum, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(dir, SumsFile), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s%s%s\n", list.String(), endMark, hexOf(sha256.Sum256([]byte(list.String()))))
		return err
	})
}

// VerifySums checks the files below dir that its list names and that are there; without a
// list nothing is known of them. A list of other make, which does not say where it ends, must
// name every file of the folder. The error wraps [ErrChanged] and names the file.
func VerifySums(dir string) error {
	err := verify(dir, false)
	if errors.Is(err, errNoList) {
		return nil
	}
	return err
}

// VerifyAll is VerifySums of a folder that must have a list, and all that this names.
func VerifyAll(dir string) error { return verify(dir, true) }

// errNoList is a folder without a list.
var errNoList = errors.New("there is none")

func verify(dir string, all bool) error {
	list := filepath.Join(dir, SumsFile)
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checksum: %q: %w: %w", list, errNoList, ErrChanged)
	}
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	lines, ended, err := linesOf(list, string(text))
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for line := range strings.Lines(lines) {
		want, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || len(want) != hex.EncodedLen(sha256.Size) || !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("checksum: %q has the line %.100q, want a SHA-256, two spaces and a file's name: %w", list, line, ErrChanged)
		}
		listed[name] = true
		if err := verifyFile(filepath.Join(dir, filepath.FromSlash(name)), want, all); err != nil {
			return err
		}
	}
	if ended {
		return nil
	}
	return eachFile(dir, func(path, name string) error {
		if listed[name] {
			return nil
		}
		return fmt.Errorf("checksum: %q is not in %q, which does not say where it ends: %w", path, list, ErrChanged)
	})
}

// linesOf takes the last line off a list, ended, if that is what says so.
func linesOf(path, text string) (lines string, ended bool, err error) {
	body, whole := strings.CutSuffix(text, "\n")
	if !whole {
		return "", false, fmt.Errorf("checksum: %q is cut short: %w", path, ErrChanged)
	}
	at := strings.LastIndex(body, "\n") + 1
	want, ended := strings.CutPrefix(body[at:], endMark)
	if !ended {
		return text, false, nil
	}
	if have := hexOf(sha256.Sum256([]byte(text[:at]))); have != want {
		return "", true, fmt.Errorf("checksum: %q: SHA-256 of its lines is %s, want %s: %w", path, have, want, ErrChanged)
	}
	return text[:at], true, nil
}

// verifyFile compares a file with its sum. One that is missing is an error where it must be there;
// elsewhere whoever needs it says so.
func verifyFile(path, want string, must bool) error {
	have, err := sumOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("checksum: %q is missing, want it as in %s: %w", path, SumsFile, ErrChanged)
	case err != nil:
		return fmt.Errorf("checksum: %w", err)
	case have != want:
		return fmt.Errorf("checksum: %q: SHA-256 is %s, want %s as in %s: %w", path, have, want, SumsFile, ErrChanged)
	}
	return nil
}

// eachFile visits the files below dir by path and by name in a list.
func eachFile(dir string, visit func(path, name string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == SumsFile || strings.HasPrefix(d.Name(), atomicfile.TempPrefix) {
			return err
		}
		return visit(path, filepath.ToSlash(name))
	})
}

func hexOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }

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
