// Package publish puts finished policies where others read them: versioned folders below
// one place, and a link, current, to the one that is in use. The place is a folder or, by
// URL, in an object store, where current is an object whose text is the link's target.
//
//	PLACE/current -> versions/2026-11-27
//	PLACE/versions/2026-11-27/   the policy's files and version.json
//
// A version appears whole or not at all, and current changes in one step, so that a process
// that is killed at any moment leaves the state before or the state after. A reader that
// takes several files resolves the link once ([Place.Current] does) and then reads one version.
//
// Versions are ordered by their sequence number. Going back withdraws those that are newer
// than the one gone back to: they stay, but are neither published again nor gone back to
// unless asked for by name.
//
// A version whose version.json is damaged is listed as that, never removed nor gone back to, and
// keeps nobody from publishing, unless it is the current one: of that nothing would be known.
// A place that had a current version and has no pointer is an error, too, and no empty place.
package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/store"
)

// A Place is where versions of one policy are published. Its methods may be called by several
// processes; those that write hold a lock, and fail with a *[lockfile.LockedError] where
// another has it.
type Place struct {
	path  string
	store storage
}

// storage is what holds a place: folders here, and whatever else can replace a pointer in
// one step. Writers hold its lock.
type storage interface {
	// lock takes the place for one writer and removes what killed writers left half done.
	lock(ctx context.Context) (unlock func() error, err error)
	// versions lists the versions, in any order, with the damage of those that can't be read;
	// there are none where nothing is.
	versions(ctx context.Context) ([]Version, error)
	// add stores the files of folder from with v and the description of them; until all are there
	// the version is not.
	add(ctx context.Context, v Version, from string) error
	// describe replaces what is said of a version.
	describe(ctx context.Context, v Version) error
	// verify compares the stored files with their description; *[DamagedError] where they differ.
	verify(ctx context.Context, v Version) error
	// remove takes a version away; it is never seen in part.
	remove(ctx context.Context, version string) error
	// current names the version that the pointer leads to, "" where there is no pointer.
	current(ctx context.Context) (version string, err error)
	// point makes the pointer lead to a version, in one step.
	point(ctx context.Context, version string) error
	// where is the path or address of a version.
	where(version string) string
}

// Open gives the place at path, a folder that [Place.Publish] makes where it is missing, or
// the URL of one in a store.
func Open(path string) (*Place, error) {
	path, local := store.Local(path)
	if !local {
		return &Place{path: store.Redact(path), store: bucket{path}}, nil
	}
	if path == "" || strings.Contains(path, "://") {
		return nil, &PlaceError{Place: path, Problem: "is no folder and no URL of a store"}
	}
	return &Place{path: path, store: folder{path}}, nil
}

// Publish copies the files of folder from into a new version and makes it current; meta is
// kept with it. Links are followed, so that a version needs nothing outside of itself; a
// version.json of another place is left out.
//
// The same version with the same files again changes nothing, beyond finishing what a
// killed Publish began. The error is an *[ExistsError] where its files are others, a
// *[WithdrawnError] where it was rolled back, and a *[DamagedError] where the description of it
// or of the current version is damaged.
func (p *Place) Publish(ctx context.Context, version, from string, meta map[string]string) (err error) {
	if err := checkName(version); err != nil {
		return err
	}
	unlock, err := p.store.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := p.state(ctx)
	if err != nil {
		return err
	}
	if have, ok := s.find(version); ok {
		return p.again(ctx, s, have, from)
	}
	if err := p.damage(s, version); err != nil {
		return err
	}
	// What is newer than the current version never became it, or is no longer wanted.
	if s.current != "" {
		if err := p.withdraw(ctx, s.newer(s.current)); err != nil {
			return err
		}
	}
	v := Version{Name: version, Sequence: s.next(), Time: time.Now().UTC().Truncate(time.Second), Meta: meta, Pending: true}
	if err := p.store.add(ctx, v, from); err != nil {
		return err
	}
	if err := p.store.point(ctx, version); err != nil {
		return err
	}
	return p.settle(ctx, version)
}

// settle notes that a version has been current.
func (p *Place) settle(ctx context.Context, version string) error {
	s, err := p.state(ctx)
	if err != nil {
		return err
	}
	v, _ := s.find(version)
	if !v.Pending {
		return nil
	}
	v.Pending = false
	return p.store.describe(ctx, v)
}

// again publishes a version that is there already.
func (p *Place) again(ctx context.Context, s state, have Version, from string) error {
	files, err := hashFolder(ctx, from)
	if err != nil {
		return err
	}
	if file := differs(have.Files, files); file != "" {
		return &ExistsError{Place: p.path, Version: have.Name, File: file}
	}
	if s.current == have.Name {
		return p.settle(ctx, have.Name)
	}
	if have.Withdrawn {
		return &WithdrawnError{Place: p.path, Version: have.Name}
	}
	if err := p.store.verify(ctx, have); err != nil {
		return err
	}
	if err := p.store.point(ctx, have.Name); err != nil {
		return err
	}
	return p.settle(ctx, have.Name)
}

// Current names the version in use and the folder or URL with its files, which stays the same
// when current moves on; ok is false where nothing was published yet. The error is a *[PlaceError]
// where something was and there is no pointer to it.
func (p *Place) Current() (version, folder string, ok bool, err error) {
	ctx := context.Background()
	if version, err = p.store.current(ctx); err != nil {
		return "", "", false, err
	}
	if version == "" {
		_, err := p.state(ctx)
		return "", "", false, err
	}
	return version, p.store.where(version), true, nil
}

// Verify compares the files below a folder of a version with what was published. They and
// version.json are in dir on this machine. The error is a *[DamagedError] where they differ.
func (p *Place) Verify(ctx context.Context, version, dir, below string) error {
	text, err := os.ReadFile(filepath.Join(dir, versionFile))
	var v Version
	if err == nil {
		v, err = decodeVersion(version, text)
	}
	if err != nil {
		return &DamagedError{p.path, version, damaged(version, err).Damage, err}
	}
	files := slices.DeleteFunc(slices.Clone(v.Files), func(f File) bool { return !strings.HasPrefix(f.Path, below+"/") })
	return verifyFiles(ctx, p.path, v, dir, files)
}

// Versions lists what is published, the oldest first; damaged ones, of which only the name is known,
// come last.
func (p *Place) Versions() ([]Version, error) {
	all, err := p.store.versions(context.Background())
	slices.SortFunc(all, func(a, b Version) int {
		switch {
		case a.Damage == "" && b.Damage == "":
			return a.Sequence - b.Sequence
		case a.Damage == "":
			return -1
		case b.Damage == "":
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return all, err
}

// Made names the newest version, withdrawn or not, that was published with this value in its meta;
// "" where none was.
func (p *Place) Made(key, value string) (version string, err error) {
	all, err := p.Versions()
	for _, v := range all {
		if have, ok := v.Meta[key]; ok && have == value {
			version = v.Name
		}
	}
	return version, err
}

// state is a place at one moment.
type state struct {
	all     []Version // the oldest first
	damaged []Version // of these only the name is known
	current string    // "" where there is none
}

// state reads the place. With a *[PlaceError], of a pointer that leads astray or is lost, and a
// *[DamagedError], of the current version, the others are right.
func (p *Place) state(ctx context.Context) (state, error) {
	all, err := p.Versions()
	if err != nil {
		return state{}, err
	}
	var s state
	settled := false
	for _, v := range all {
		if settled = settled || !v.Pending; v.Damage != "" {
			s.damaged = append(s.damaged, v)
		} else {
			s.all = append(s.all, v)
		}
	}
	if s.current, err = p.store.current(ctx); err != nil {
		return s, err
	}
	if s.current == "" {
		if settled {
			return s, &PlaceError{p.path, "has versions, of which some was current, and no current; roll back to one by its name"}
		}
		return s, nil
	}
	if err := p.damage(s, s.current); err != nil {
		return s, err
	}
	if _, ok := s.find(s.current); !ok {
		return s, &PlaceError{p.path, fmt.Sprintf("has current lead to %q, which is no version there; roll back to one that is by its name", s.current)}
	}
	return s, nil
}

// damage is a *[DamagedError] where the named version's description can't be read.
func (p *Place) damage(s state, version string) error {
	for _, v := range s.damaged {
		if v.Name == version {
			return &DamagedError{p.path, v.Name, v.Damage, v.cause}
		}
	}
	return nil
}

func (s state) find(version string) (Version, bool) {
	i := slices.IndexFunc(s.all, func(v Version) bool { return v.Name == version })
	if i < 0 {
		return Version{}, false
	}
	return s.all[i], true
}

// next is the sequence number of a new version, above those that damaged ones may have.
func (s state) next() int {
	n := 1 + len(s.damaged)
	if len(s.all) > 0 {
		n += s.all[len(s.all)-1].Sequence
	}
	return n
}

// newer are the versions behind the named one.
func (s state) newer(version string) []Version {
	v, _ := s.find(version)
	return slices.DeleteFunc(slices.Clone(s.all), func(w Version) bool { return w.Sequence <= v.Sequence })
}
