//go:build cgo

package main

import (
	"context"
	"errors"
	"time"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/ort"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// ortRuntime lets the stages run on ONNX Runtime.
type ortRuntime struct {
	*ort.Runtime
	opt ort.Options
}

var _ pipeline.Runtime = ortRuntime{}

// ortError is an error of the machine: no library, no such provider.
type ortError struct{ error }

func (e ortError) Unwrap() error { return e.error }

// Environment marks the kind.
func (ortError) Environment() {}

// attempts are the places where the library was looked for.
func (e ortError) attempts() (tried []attempt) {
	if missing, ok := errors.AsType[*ort.LibraryError](e.error); ok {
		for _, t := range missing.Tried {
			tried = append(tried, attempt{t.Source, t.Path, t.Err.Error()})
		}
	}
	return tried
}

func newRuntime(o runtimeOptions) (pipeline.Runtime, error) {
	opt := ort.DefaultOptions()
	opt.Provider = o.provider
	switch {
	case o.threads < 0:
		return nil, &pipeline.FieldError{Field: "--threads", Value: o.threads, Want: "1 or more"}
	case o.threads > 0:
		opt.Threads = o.threads
	}
	lib, err := ort.FindLibrary(o.library)
	if err != nil {
		return nil, ortError{err}
	}
	rt, err := ort.Open(lib)
	if err != nil {
		return nil, ortError{err}
	}
	return ortRuntime{rt, opt}, nil
}

// Identity implements pipeline.Runtime.
func (r ortRuntime) Identity() map[string]string {
	return map[string]string{"provider": r.opt.Provider, "ort_version": r.Version()}
}

// OpenBackbone implements pipeline.Runtime.
func (r ortRuntime) OpenBackbone(m *onnx.Model, io *onnx.IO) (pipeline.Backbone, error) {
	b, err := r.NewBackbone(m, io, r.opt)
	if err != nil {
		return nil, environment(err)
	}
	return b, nil
}

// OpenEngine implements pipeline.Runtime.
func (r ortRuntime) OpenEngine(v *models.Vocabulary) (models.Engine, error) {
	e, err := r.NewEngine(v, r.opt)
	if err != nil {
		return nil, environment(err)
	}
	return e, nil
}

// OpenLanguageModel implements pipeline.Runtime.
func (r ortRuntime) OpenLanguageModel(path string) (pipeline.LanguageModel, error) {
	m, err := r.NewLM(path, r.opt)
	if err != nil {
		return nil, environment(err)
	}
	return languageModel{m}, nil
}

// languageModel is a whole model as the stages see it.
type languageModel struct{ *ort.LM }

// Generate implements pipeline.LanguageModel.
func (m languageModel) Generate(ctx context.Context, prompt []int32, g pipeline.Generation) ([]int32, error) {
	return m.LM.Generate(ctx, prompt, ort.GenerateOptions{MaxTokens: g.Limit, Stop: g.Stop, Choose: g.Choose})
}

// environment marks a provider that the machine does not offer.
func environment(err error) error {
	var provider *ort.ProviderError
	if errors.As(err, &provider) {
		return ortError{err}
	}
	return err
}

func (r ortRuntime) describe() (library, foundBy, version string, providers []string) {
	lib := r.Library()
	return lib.Path, lib.Source, lib.Version, r.Providers()
}

func (r ortRuntime) selfTest(ctx context.Context) (time.Duration, error) {
	took, err := r.SelfTest(ctx, r.opt)
	return took, environment(err)
}
