package main

import (
	"context"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// storeFlag names the folder in which what is at URLs is kept on this machine.
const storeFlag = "store-cache"

func storeCacheFlag() cli.Flag {
	return &cli.StringFlag{
		Name: storeFlag, Usage: "`FOLDER` that keeps what is at URLs (s3://, gs://, file://)", EnvVars: []string{store.CacheVariable},
		DefaultText: "dpo-pipe/store in the user's cache folder",
	}
}

// takesPlaces reports whether a command has paths that may be URLs.
func takesPlaces(c *cli.Command) bool {
	return slices.Contains([]string{"precompute-ref", "train", "eval", "export", "compare", "inspect", "report", "run", "runs"}, c.Name)
}

// places are the URLs of one command and where on this machine they are. Inputs are
// fetched before the stage that reads them; outputs are built in a work folder, always
// the same for a URL, and pushed when they are whole.
type places struct {
	app   *app
	cache string
	// shown says what a path on this machine is called in results and errors.
	shown map[string]string
	// err says why there is no cache; of no consequence where all paths are local.
	err    error
	pruned bool
}

func (a *app) places(c *cli.Context) *places {
	if a.at != nil {
		return a.at
	}
	p := &places{app: a, cache: c.String(storeFlag), shown: map[string]string{}}
	if p.cache == "" {
		p.cache, p.err = store.DefaultCache()
	} else {
		p.cache, p.err = filepath.Abs(p.cache)
	}
	a.stdout = renaming{a.stdout, p}
	a.at = p
	return p
}

// name writes URLs for the folders they are kept in.
func (p *places) name(text string) string {
	if p == nil {
		return text
	}
	for path, url := range p.shown {
		text = strings.ReplaceAll(text, path, url)
	}
	return text
}

// renaming is a writer of results: they name what the user named.
type renaming struct {
	io.Writer
	places *places
}

func (r renaming) Write(data []byte) (int, error) {
	if _, err := io.WriteString(r.Writer, r.places.name(string(data))); err != nil {
		return 0, err
	}
	return len(data), nil
}

// fetch brings what a URL names; a path of this machine is returned as it is.
func (p *places) fetch(ctx context.Context, place string, opt store.FetchOptions) ([]string, error) {
	if path, local := store.Local(place); local {
		return []string{path}, nil
	}
	if p.err != nil {
		return nil, p.err
	}
	progress := newProgress(p.app.stderr)
	defer progress.end()
	opt.Cache, opt.Report = p.cache, transfer(progress, "fetch")
	paths, err := store.Fetch(ctx, place, opt)
	if err != nil {
		return nil, err
	}
	p.prune()
	// trees/XX/ID holds the file or folder under its own name.
	if below, err := filepath.Rel(filepath.Join(p.cache, "trees"), paths[0]); err == nil && filepath.IsLocal(below) {
		parts := strings.SplitN(filepath.ToSlash(below), "/", 3)
		p.shown[filepath.Join(p.cache, "trees", parts[0], parts[1])] = store.Parent(place)
	}
	return paths, nil
}

// prune removes what the cache has not been asked for in a long time, once in a command.
func (p *places) prune() {
	if !p.pruned {
		p.pruned = true
		_ = store.Prune(p.cache) // what stays is removed by another command
	}
}

// transfer shows how far a transfer is.
func transfer(p *progress, stage string) func(store.Transfer) {
	start := time.Now()
	const mb = 1e6
	return func(t store.Transfer) {
		p.report(pipeline.Progress{
			Stage: stage, Done: t.Done / mb, Total: t.Total / mb, Unit: "MB", Fresh: t.Done / mb, Elapsed: time.Since(start), Note: t.URL,
		})
	}
}

// in replaces URLs of files and folders by where they are.
func (p *places) in(ctx context.Context, fields ...*string) error {
	for _, field := range fields {
		if *field == "" {
			continue
		}
		paths, err := p.fetch(ctx, *field, store.FetchOptions{})
		if err != nil {
			return err
		}
		*field = paths[0]
	}
	return nil
}

// data replaces URLs and patterns in a list of data.
func (p *places) data(ctx context.Context, list *[]string) error {
	var all []string
	for _, place := range *list {
		paths, err := p.fetch(ctx, place, store.FetchOptions{})
		if err != nil {
			return err
		}
		all = append(all, paths...)
	}
	*list = all
	return nil
}

// model replaces the URL of a model. Of its .onnx files only the one that is used is
// fetched. One that is named itself is fetched with the folder that it is in, where the
// weights are and, above onnx/, the tokenizer.
func (p *places) model(ctx context.Context, place *string, file string) error {
	if _, local := store.Local(*place); local || path.Ext(store.Base(*place)) != ".onnx" {
		paths, err := p.fetch(ctx, *place, store.FetchOptions{Keep: modelFiles(file)})
		if err == nil {
			*place = paths[0]
		}
		return err
	}
	name, folder := store.Base(*place), store.Dir(*place)
	if store.Base(folder) == "onnx" {
		name, folder = path.Join("onnx", name), store.Dir(folder)
	}
	paths, err := p.fetch(ctx, folder, store.FetchOptions{Keep: modelFiles(name)})
	if err == nil {
		*place = filepath.Join(paths[0], filepath.FromSlash(name))
	}
	return err
}

// modelFiles leaves out of a model's files what belongs to other .onnx files than the one
// that file picks (see pipeline.FindModel), and weights in formats of others.
func modelFiles(file string) func(names []string) []string {
	return func(names []string) []string {
		candidates := []string{"model.onnx", "onnx/model.onnx"}
		if file != "" {
			candidates = []string{file, path.Join("onnx", file)}
		}
		chosen := slices.IndexFunc(candidates, func(name string) bool { return slices.Contains(names, name) })
		var others []string
		for _, name := range names {
			if chosen >= 0 && name != candidates[chosen] && path.Ext(name) == ".onnx" {
				others = append(others, name)
			}
		}
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			ofOther := func(other string) bool {
				return name == other || strings.HasPrefix(name, other+"_data") || strings.HasPrefix(name, other+".data")
			}
			return slices.ContainsFunc(others, ofOther) || isForeignWeight(path.Base(name))
		})
	}
}

// isForeignWeight reports weights of a model in a format that is not read here.
func isForeignWeight(name string) bool {
	for _, pattern := range []string{"model*.safetensors", "pytorch_model*.bin", "*.gguf", "*.h5", "*.msgpack", "*.ot"} {
		if matches, _ := path.Match(pattern, name); matches {
			return true
		}
	}
	return false
}
