package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// Write writes every setting as a job file that gives the same run. Secrets are written as
// the job file had them where that was a variable, else as ***.
func (c *Config) Write(w io.Writer) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(c.node()), enc.Close())
}

func (c *Config) node() *yaml.Node { return mapping(reflect.ValueOf(c).Elem(), "") }

// mapping writes a section.
func mapping(section reflect.Value, path string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	t, _ := section.Interface().(Train)
	for _, f := range fields(section, path) {
		if !f.absent() && !t.Sweep.has(f.name) {
			n.Content = append(n.Content, word(f.name), written(f.value, f.path))
		}
	}
	return n
}

func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text, Tag: "!!str"}
}

// literal is a text that no variable is looked for in.
func literal(text string) *yaml.Node { return word(strings.ReplaceAll(text, "${", "$${")) }

func written(v reflect.Value, path string) *yaml.Node {
	switch x := v.Interface().(type) {
	case Secret:
		return word(x.written)
	case Sweep:
		return x.node()
	case Headers:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, name := range slices.Sorted(maps.Keys(x)) {
			n.Content = append(n.Content, word(name), word(x[name].written))
		}
		return n
	}
	switch v.Kind() {
	case reflect.Struct:
		return mapping(v, path)
	case reflect.Pointer:
		return written(v.Elem(), path)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, written(v.Index(i), path))
		}
		return n
	case reflect.String:
		return literal(v.String())
	case reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatFloat(v.Float(), 'g', -1, 64)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}
}

// absent reports a value that is not there. The zero of a number or a switch is a value.
func (f field) absent() bool {
	switch f.value.Kind() {
	case reflect.String, reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
		return f.omit && f.value.IsZero()
	}
	return false
}

// has reports whether a key is swept, so that it has no value of its own.
func (s Sweep) has(key string) bool {
	return slices.ContainsFunc(s, func(a pipeline.SweepAxis) bool { return strings.ReplaceAll(a.Key, "-", "_") == key })
}

func (s Sweep) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, axis := range s {
		values := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, value := range axis.Values {
			values.Content = append(values.Content, literal(value))
		}
		n.Content = append(n.Content, word(strings.ReplaceAll(axis.Key, "-", "_")), values)
	}
	return n
}

// text is a node as YAML.
func text(n *yaml.Node) string {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(n), enc.Close()); err != nil {
		panic("job: a config can't be written: " + err.Error()) // only a writer that fails makes it fail
	}
	return b.String()
}
