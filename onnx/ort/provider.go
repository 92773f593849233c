//go:build cgo

package ort

import (
	"fmt"
	"strconv"
	"strings"

	ortgo "github.com/yalue/onnxruntime_go"
)

// ProviderError says that a provider can't be used.
type ProviderError struct {
	// Provider is what was asked for.
	Provider string
	// Offered are the providers this library offers here.
	Offered []string
	// Err is why; nil where the name is unknown.
	Err error
}

// Error names the provider and what could be asked for instead.
func (e *ProviderError) Error() string {
	reason := "is not a known one"
	if e.Err != nil {
		reason = "is not available: " + e.Err.Error()
	}
	return fmt.Sprintf("ort: provider %q %s; this ONNX Runtime offers %s",
		e.Provider, reason, strings.Join(e.Offered, ", "))
}

// Unwrap returns the reason.
func (e *ProviderError) Unwrap() error { return e.Err }

// appendProvider adds a provider with its own settings to a session's options.
type appendProvider func(o *ortgo.SessionOptions, settings map[string]string) error

// providers are the ones the bindings can add, by the name users give. WebGPU is
// not among them: asking a library for it on a machine without Vulkan prints a
// warning and makes the release of the environment a segmentation fault.
var providers = []struct {
	name string
	add  appendProvider
}{
	{"cpu", func(*ortgo.SessionOptions, map[string]string) error { return nil }},
	{"cuda", appendCUDA},
	{"tensorrt", appendTensorRT},
	{"coreml", func(o *ortgo.SessionOptions, s map[string]string) error {
		return o.AppendExecutionProviderCoreMLV2(s)
	}},
	{"directml", appendDirectML},
	{"openvino", func(o *ortgo.SessionOptions, s map[string]string) error {
		return o.AppendExecutionProviderOpenVINO(s)
	}},
	{"qnn", byName("QNN")},
	{"xnnpack", byName("XNNPACK")},
}

// ProviderNames returns every provider this package can ask a library for.
func ProviderNames() []string {
	names := make([]string, len(providers))
	for i, p := range providers {
		names[i] = p.name
	}
	return names
}

// Providers returns the providers that this library can load on this machine;
// "cpu" is the first. The bindings can't ask for the library's list, so each
// provider is tried.
func (r *Runtime) Providers() []string {
	var offered []string
	for _, p := range providers {
		o, err := ortgo.NewSessionOptions()
		if err != nil {
			continue
		}
		if p.add(o, nil) == nil {
			offered = append(offered, p.name)
		}
		o.Destroy()
	}
	return offered
}

// useProvider adds opt's provider to o.
func (r *Runtime) useProvider(o *ortgo.SessionOptions, opt Options) error {
	for _, p := range providers {
		if p.name != opt.Provider {
			continue
		}
		if err := p.add(o, opt.ProviderOptions); err != nil {
			return &ProviderError{opt.Provider, r.Providers(), err}
		}
		return nil
	}
	return &ProviderError{Provider: opt.Provider, Offered: r.Providers()}
}

func appendCUDA(o *ortgo.SessionOptions, settings map[string]string) error {
	cuda, err := ortgo.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	defer cuda.Destroy()
	if err := cuda.Update(settings); err != nil {
		return err
	}
	return o.AppendExecutionProviderCUDA(cuda)
}

func appendTensorRT(o *ortgo.SessionOptions, settings map[string]string) error {
	trt, err := ortgo.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	defer trt.Destroy()
	if err := trt.Update(settings); err != nil {
		return err
	}
	return o.AppendExecutionProviderTensorRT(trt)
}

// appendDirectML knows one setting, device_id.
func appendDirectML(o *ortgo.SessionOptions, settings map[string]string) error {
	device := 0
	for key, value := range settings {
		id, err := strconv.Atoi(value)
		if key != "device_id" || err != nil {
			return fmt.Errorf("setting %q is %q, want device_id with a number", key, value)
		}
		device = id
	}
	return o.AppendExecutionProviderDirectML(device)
}

func byName(name string) appendProvider {
	return func(o *ortgo.SessionOptions, settings map[string]string) error {
		return o.AppendExecutionProvider(name, settings)
	}
}
