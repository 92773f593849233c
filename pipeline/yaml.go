package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Bounds of a settings file. The YAML library compares all keys of a mapping with one another
// and notes every two that are equal: a few kB would take gigabytes.
const (
	maxYAMLBytes = 1 << 20
	maxYAMLKeys  = 1000
	maxYAMLDepth = 32
)

// decodeYAML reads one YAML document into v, which keeps what it does not mention. Keys that v does
// not have, keys that occur twice, aliases and a second document are errors, with their line.
func decodeYAML(data []byte, v any) error {
	if len(data) > maxYAMLBytes {
		return fmt.Errorf("has %d bytes, want at most %d", len(data), maxYAMLBytes)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		return err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("want one YAML document and nothing behind it")
	}
	if err := checkYAML(&doc, 0); err != nil {
		return err
	}
	// The nodes can't be decoded with KnownFields.
	dec = yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	return dec.Decode(v)
}

func checkYAML(n *yaml.Node, depth int) error {
	switch {
	case depth > maxYAMLDepth:
		return fmt.Errorf("line %d column %d: nested more than %d deep", n.Line, n.Column, maxYAMLDepth)
	case n.Kind == yaml.AliasNode:
		return fmt.Errorf("line %d column %d: an alias, want the value itself", n.Line, n.Column)
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*maxYAMLKeys:
		return fmt.Errorf("line %d column %d: more than %d keys", n.Line, n.Column, maxYAMLKeys)
	}
	seen := map[string]bool{}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if seen[child.Value] {
				return fmt.Errorf("line %d column %d: key %q is there twice", child.Line, child.Column, child.Value)
			}
			seen[child.Value] = true
		}
		if err := checkYAML(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
