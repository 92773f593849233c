package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/publish"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// job brings what a job names by URL to this machine: caches and runs to folders from which they
// go back (see kept), and model and data, of which what did not change is there, and is what it
// was to the job too, which goes by content. Paths that name no data are refused.
func (p *places) job(ctx context.Context, cfg *job.Config, writes bool) (job.Kept, error) {
	if path := cfg.Notify.Textfile; store.IsURL(path) {
		return nil, &pipeline.FieldError{Field: "notify.textfile", Value: store.Redact(path), Want: "a path of this machine"}
	}
	k := &kept{places: p, writes: writes, caches: map[string]*keptCache{}}
	err := k.open(ctx, cfg)
	if err == nil {
		err = p.inputs(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// inputs brings model and data of a job. A pattern is one source of a job, and stands for a
// folder with what it matches.
func (p *places) inputs(ctx context.Context, cfg *job.Config) error {
	if err := p.model(ctx, &cfg.Model.Path, cfg.Model.File); err != nil {
		return err
	}
	for _, sources := range [][]job.Source{cfg.Data, cfg.Evaluation.Pairs} {
		for i := range sources {
			if err := p.source(ctx, &sources[i].Path); err != nil {
				return err
			}
		}
	}
	if err := cfg.CheckData(); err != nil {
		return &usageErr{err}
	}
	return nil
}

// source replaces the URL of a file, folder or pattern by one path.
func (p *places) source(ctx context.Context, place *string) error {
	paths, err := p.fetch(ctx, *place, store.FetchOptions{})
	if err != nil {
		return err
	}
	if !store.IsURL(*place) || len(paths) == 1 {
		*place = paths[0]
		return nil
	}
	folder := filepath.Dir(paths[0])
	for slices.ContainsFunc(paths, func(file string) bool { return !strings.HasPrefix(file, folder+string(filepath.Separator)) }) {
		folder = filepath.Dir(folder)
	}
	*place = folder
	return nil
}

// openPlace opens where a job publishes.
func (p *places) openPlace(ctx context.Context, where string) (job.Place, error) {
	place, err := publish.Open(where)
	if _, local := store.Local(where); err != nil || local {
		return place, err
	}
	return storePlace{place, p, ctx}, nil
}

// storePlace is a place in a store, for a job that compares with the current version.
type storePlace struct {
	*publish.Place
	places *places
	ctx    context.Context
}

// Current implements job.Place: the folder is of this machine, and holds what a comparison
// needs, the adapter.
func (s storePlace) Current() (version, folder string, ok bool, err error) {
	version, folder, ok, err = s.Place.Current()
	if err != nil || !ok {
		return version, folder, ok, err
	}
	paths, err := s.places.fetch(s.ctx, folder, store.FetchOptions{Keep: func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return !strings.HasPrefix(name, pipeline.AdapterName+"/") && name != "version.json"
		})
	}})
	if err != nil {
		return "", "", false, err
	}
	return version, paths[0], true, nil
}
