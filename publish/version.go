package publish

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

// versionFile describes a version, in its folder.
const versionFile = "version.json"

// format is that of version.json.
const format = 1

// A Version is a published policy.
type Version struct {
	// Name is also that of its folder.
	Name string `json:"version"`
	// Sequence orders the versions of a place; the first is 1.
	Sequence int `json:"sequence"`
	// Time is when it was published, UTC.
	Time time.Time `json:"time"`
	// Meta is what its publisher says of it.
	Meta map[string]string `json:"meta,omitempty"`
	// Withdrawn says that the place went back behind it.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Pending says that it is stored and was not current yet.
	Pending bool `json:"pending,omitempty"`
	// Files are sorted by path.
	Files []File `json:"files"`
	// Damage says why its description can't be read; nothing but the name is known then.
	Damage string `json:"damage,omitempty"`

	cause error // of the damage
}

// A File is one of a version.
type File struct {
	// Path is below the version's folder, with slashes.
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Bytes is the size of all files.
func (v Version) Bytes() (n int64) {
	for _, f := range v.Files {
		n += f.Bytes
	}
	return n
}

// described is version.json.
type described struct {
	Format int `json:"format"`
	Version
}

func encodeVersion(v Version) ([]byte, error) {
	text, err := json.MarshalIndent(described{format, v}, "", "  ")
	return checksum.Seal(append(text, '\n')), err
}

// damaged is a version whose version.json can't be read.
func damaged(name string, cause error) Version {
	return Version{Name: name, Damage: fmt.Sprintf("%s: %v", versionFile, cause), cause: cause}
}

// decodeVersion reads version.json of the named version.
func decodeVersion(name string, text []byte) (Version, error) {
	var d described
	text, err := checksum.Open(text)
	if err != nil {
		return Version{}, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return Version{}, err
	}
	if d.Format != format {
		return Version{}, fmt.Errorf("format is %d, want %d", d.Format, format)
	}
	if d.Name != name || d.Sequence < 1 {
		return Version{}, fmt.Errorf("it describes version %q, number %d, want %q and 1 or more", d.Name, d.Sequence, name)
	}
	for _, f := range d.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return Version{}, fmt.Errorf("file %q, want a path inside of the version", f.Path)
		}
	}
	return d.Version, nil
}

// differs names the first file that only one of the sorted lists has or that differs, or "".
func differs(have, want []File) string {
	for i := range max(len(have), len(want)) {
		switch {
		case i >= len(have):
			return want[i].Path
		case i >= len(want) || have[i].Path < want[i].Path:
			return have[i].Path
		case have[i] != want[i]:
			return want[i].Path
		}
	}
	return ""
}

// sortFiles orders files by path.
func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
}

var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

func checkName(version string) error {
	if !names.MatchString(version) {
		return &NameError{version}
	}
	return nil
}

// NameError is a version that can't be the name of a folder everywhere.
type NameError struct{ Version string }

// Error implements error.
func (e *NameError) Error() string {
	return fmt.Sprintf("publish: version %q, want up to 128 letters, digits and . _ + - that begin with a letter or digit", e.Version)
}

// PlaceError is a place that can't be used as it is.
type PlaceError struct{ Place, Problem string }

// Error implements error.
func (e *PlaceError) Error() string { return fmt.Sprintf("publish: %q %s", e.Place, e.Problem) }

// ExistsError is a version published already with other files, of which File is one.
type ExistsError struct{ Place, Version, File string }

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("publish: %q has a version %q with other content (%s); a published version does not change", e.Place, e.Version, e.File)
}

// WithdrawnError is a version that was rolled back and is published again.
type WithdrawnError struct{ Place, Version string }

// Error implements error.
func (e *WithdrawnError) Error() string {
	return fmt.Sprintf("publish: version %q of %q was rolled back; only a rollback to it by name brings it back", e.Version, e.Place)
}

// Withdrawn marks the kind for those who don't import this package.
func (e *WithdrawnError) Withdrawn() {}

// NoVersionError is a version that is not there to go back to; Version is "" where none was named.
type NoVersionError struct{ Place, Version string }

// Error implements error.
func (e *NoVersionError) Error() string {
	if e.Version == "" {
		return fmt.Sprintf("publish: %q has no version older than the current one", e.Place)
	}
	return fmt.Sprintf("publish: %q has no version %q", e.Place, e.Version)
}

// DamagedError is a version whose files, or whose description, are not those that were published.
type DamagedError struct {
	Place, Version, Problem string
	// Err is what reading gave, nil where that went well.
	Err error
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("publish: version %q of %q is damaged: %s", e.Version, e.Place, e.Problem)
}

// Unwrap gives the error of reading.
func (e *DamagedError) Unwrap() error { return e.Err }

// NoLinksError is a file system that has no symbolic links, so that current can't be made.
type NoLinksError struct {
	Place string
	Err   error
}

// Error implements error.
func (e *NoLinksError) Error() string {
	return fmt.Sprintf("publish: the file system of %q has no symbolic links, which current is one of: %v", e.Place, e.Err)
}

// Unwrap gives the system's error.
func (e *NoLinksError) Unwrap() error { return e.Err }

// Environment says that the machine is at fault.
func (e *NoLinksError) Environment() {}
