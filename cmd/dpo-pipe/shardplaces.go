package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// Shards of a cache at a URL lie below that URL as they lie below a folder. Each is built in a
// work folder of its own and pushed when it is whole, so that in a store there are only
// finished ones; machines have nothing but the URL in common.

// shard makes the work folder of the shard that cfg asks for, and puts the folder that the
// cache would be in there into cfg.Out. Where the joined cache is at the URL, its manifest is
// brought; where the shard is, cfg.Elsewhere is its manifest.
func (p *places) shard(ctx context.Context, cfg *pipeline.PrecomputeConfig) (*destination, error) {
	out := cfg.Out
	if path, local := store.Local(out); local {
		cfg.Out = path
		return nil, nil
	}
	shard := refcache.Shard{Index: cfg.Shard, Of: cfg.Shards}
	d, err := p.hold("--out", store.Join(out, shard.Dir("")), shardOutput)
	if err != nil {
		return nil, err
	}
	cfg.Out = filepath.Join(d.work, store.Base(out))
	d.folder = shard.Dir(cfg.Out)
	p.shown[cfg.Out] = shownURL(out)
	joined, err := p.joinedManifest(ctx, out, cfg.Out)
	if err == nil && !joined { // else the join may be removing the shard
		cfg.Elsewhere, err = d.wholeShard(ctx, shard)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// joinedManifest brings the manifest of the cache at a URL to a folder, and reports whether one is there. What
// else is at the URL may be shards, and a cache that is being joined.
func (p *places) joinedManifest(ctx context.Context, url, folder string) (bool, error) {
	file := filepath.Join(folder, cacheOutput.markers[0])
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("work folder: %w", err)
	}
	state, err := store.Look(ctx, url, cacheOutput.markers...)
	if err != nil {
		return false, err
	}
	if state.Foreign != "" && !strings.HasPrefix(state.Foreign, refcache.ShardsName+"/") {
		return false, (&destination{kind: cacheOutput, url: url, field: "--out"}).foreign(state)
	}
	if state.Marker == "" {
		return false, nil
	}
	paths, err := p.fetch(ctx, store.Join(url, state.Marker), store.FetchOptions{})
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(paths[0])
	if err == nil {
		err = os.MkdirAll(folder, 0o777)
	}
	if err != nil {
		return false, fmt.Errorf("work folder: %w", err)
	}
	return true, atomicfile.WriteFile(file, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// wholeShard is the manifest of the shard at the destination's URL; nil unless every file is
// there that it names, in its size.
func (d *destination) wholeShard(ctx context.Context, shard refcache.Shard) (*refcache.Manifest, error) {
	state, err := store.Look(ctx, d.url, d.kind.markers...)
	if err != nil {
		return nil, err
	}
	if state.Foreign != "" {
		return nil, d.foreign(state)
	}
	if state.Marker == "" {
		return nil, nil
	}
	paths, err := d.places.fetch(ctx, store.Join(d.url, state.Marker), store.FetchOptions{})
	if err != nil {
		return nil, err
	}
	m, err := refcache.ReadManifest(filepath.Dir(paths[0]))
	if errors.Is(err, refcache.ErrCorrupt) {
		return nil, nil
	}
	if err != nil || !m.Complete || m.Shard == nil || *m.Shard != shard {
		return nil, err
	}
	b, err := store.Open(ctx, d.url)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	sizes := map[string]int64{}
	if err := b.List(ctx, func(o store.Object) error { sizes[o.Name] = o.Size; return nil }); err != nil {
		return nil, err
	}
	for _, file := range m.Files() {
		if sizes[file.Name] != file.Size {
			return nil, nil
		}
	}
	return &m, nil
}

// joinPlaces brings what is at URLs to this machine; of shards only the manifests, the rest
// when cfg.Bring asks for it.
func (a *app) joinPlaces(c *cli.Context, cfg *pipeline.JoinConfig) (*destination, error) {
	p := a.places(c)
	if err := p.model(c.Context, &cfg.Model, cfg.ModelFile); err != nil {
		return nil, err
	}
	if err := p.data(c.Context, &cfg.Data); err != nil {
		return nil, err
	}
	url := cfg.Out
	if path, local := store.Local(url); local {
		cfg.Out = path
		return nil, nil
	}
	// Not the work folder of a pass of one process, which may hold a cache to update.
	d, err := p.hold("--out", store.Join(url, refcache.ShardsName), joinOutput)
	if err != nil {
		return nil, err
	}
	d.url, d.folder = url, filepath.Join(d.work, store.Base(url))
	cfg.Out = d.folder
	p.shown[d.folder] = shownURL(url)
	if err = d.empty(); err == nil {
		_, err = p.joinedManifest(c.Context, url, d.folder)
	}
	if err == nil {
		err = d.shardManifests(c.Context)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	cfg.Bring = d.bringShards
	return d, nil
}

// shardManifests brings the manifests of the shards at the URL. One that has begun is a folder
// without.
func (d *destination) shardManifests(ctx context.Context) error {
	below := filepath.Join(d.folder, refcache.ShardsName)
	var begun []string
	manifests := func(names []string) []string {
		begun = nil
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			dir, file, _ := strings.Cut(name, "/")
			begun = append(begun, dir)
			return file != d.kind.markers[0]
		})
	}
	_, err := d.places.fetch(ctx, store.Join(d.url, refcache.ShardsName), store.FetchOptions{Into: below, Keep: manifests})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, dir := range slices.Compact(begun) {
		if err := os.MkdirAll(filepath.Join(below, dir), 0o777); err != nil {
			return fmt.Errorf("work folder: %w", err)
		}
	}
	return nil
}

// bringShards brings files of shards, by their names below the cache's folder.
func (d *destination) bringShards(ctx context.Context, files []string) error {
	below := filepath.Join(d.folder, refcache.ShardsName)
	if err := os.RemoveAll(below); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	wanted := map[string]bool{}
	for _, file := range files {
		wanted[file] = true
	}
	_, err := d.places.fetch(ctx, store.Join(d.url, refcache.ShardsName), store.FetchOptions{
		Into: below, Shared: true, Keep: func(names []string) []string {
			return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !wanted[path.Join(refcache.ShardsName, name)] })
		},
	})
	return err
}

// joined ends a join at a URL that came to an error or a result: the cache is pushed, and what
// nobody needs any more is removed there. Damaged shards are, too: a shard that has its
// manifest in a store counts as whole there, and would not be made again.
func (d *destination) joined(ctx context.Context, keep bool, result pipeline.JoinResult, err error) error {
	if lack, ok := errors.AsType[*refcache.ShardsError](err); ok {
		for n, i := range lack.Damaged {
			if errors.Is(lack.Damage[n], refcache.ErrCorrupt) {
				err = errors.Join(err, d.clear(ctx, (&refcache.Shard{Index: i, Of: lack.Of}).Dir("")))
			}
		}
	}
	if err != nil {
		return err
	}
	if result.Shards > 0 {
		err = d.push(ctx)
	} else {
		err = d.empty() // it was pushed before
	}
	if err != nil || keep {
		return err
	}
	return d.clear(ctx, refcache.ShardsName)
}

// clear removes a folder below the URL.
func (d *destination) clear(ctx context.Context, name string) error {
	b, err := store.Open(ctx, store.Join(d.url, name))
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Clear(ctx, d.kind.markers...)
}
