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
package publish

import (
	"context"
	"errors"
	"fmt"
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
	// versions lists the whole versions, in any order; there are none where nothing is.
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
// killed Publish began. The error is an *[ExistsError] where its files are others, and a
// *[WithdrawnError] where it was rolled back.
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
	// What is newer than the current version never became it, or is no longer wanted.
	if s.current != "" {
		if err := p.withdraw(ctx, s.newer(s.current)); err != nil {
			return err
		}
	}
	v := Version{Name: version, Sequence: s.next(), Time: time.Now().UTC().Truncate(time.Second), Meta: meta}
	if err := p.store.add(ctx, v, from); err != nil {
		return err
	}
	return p.store.point(ctx, version)
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
		return nil
	}
	if have.Withdrawn {
		return &WithdrawnError{Place: p.path, Version: have.Name}
	}
	if err := p.store.verify(ctx, have); err != nil {
		return err
	}
	return p.store.point(ctx, have.Name)
}

// Current names the version in use and the folder or URL with its files, which stays the same
// when current moves on; ok is false where nothing was published yet.
func (p *Place) Current() (version, folder string, ok bool, err error) {
	version, err = p.store.current(context.Background())
	if err != nil || version == "" {
		return "", "", false, err
	}
	return version, p.store.where(version), true, nil
}

// Versions lists what is published, the oldest first.
func (p *Place) Versions() ([]Version, error) {
	all, err := p.store.versions(context.Background())
	slices.SortFunc(all, func(a, b Version) int { return a.Sequence - b.Sequence })
	return all, err
}

// state is a place at one moment.
type state struct {
	all     []Version // the oldest first
	current string    // "" where there is none
}

// state reads the place. With a *[PlaceError], of a pointer that leads astray, the versions
// are right.
func (p *Place) state(ctx context.Context) (state, error) {
	all, err := p.Versions()
	if err != nil {
		return state{}, err
	}
	s := state{all: all}
	if s.current, err = p.store.current(ctx); err != nil {
		return s, err
	}
	if _, ok := s.find(s.current); s.current != "" && !ok {
		return s, &PlaceError{p.path, fmt.Sprintf("has current lead to %q, which is no version there; roll back to one that is by its name", s.current)}
	}
	return s, nil
}

func (s state) find(version string) (Version, bool) {
	i := slices.IndexFunc(s.all, func(v Version) bool { return v.Name == version })
	if i < 0 {
		return Version{}, false
	}
	return s.all[i], true
}

// next is the sequence number of a new version.
func (s state) next() int {
	if len(s.all) == 0 {
		return 1
	}
	return s.all[len(s.all)-1].Sequence + 1
}

// newer are the versions behind the named one.
func (s state) newer(version string) []Version {
	v, _ := s.find(version)
	return slices.DeleteFunc(slices.Clone(s.all), func(w Version) bool { return w.Sequence <= v.Sequence })
}
