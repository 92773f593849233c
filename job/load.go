package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A KeyError is a mistake in a job file.
type KeyError struct {
	// File, Line and Column say where; Line is 0 for a key that the file does not give.
	File         string
	Line, Column int
	// Key is the key, with its sections; Problem is what is wrong and what was wanted.
	Key, Problem string
}

func (e *KeyError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
	}
	if e.Key == "" {
		return where + ": " + e.Problem
	}
	return where + ": " + e.Key + " " + e.Problem
}

// position is where a key stands in the file.
type position struct{ line, column int }

// Load reads the job file at path, with references to the environment replaced, paths made
// absolute, and every key checked. The error joins a *[KeyError] for each mistake.
func Load(path string, getenv func(string) (string, bool)) (Config, error) {
	c, err := read(path, getenv)
	if err != nil {
		return c, err
	}
	return c, c.validate()
}

// LoadRuns reads from a job file only where its runs are: variables and keys that this has no
// need of may be missing.
func LoadRuns(path string, getenv func(string) (string, bool)) (string, error) {
	c, err := read(path, getenv)
	for _, one := range eachError(err) {
		key, ok := errors.AsType[*KeyError](one)
		if !ok || key.Key == "" || strings.HasPrefix(key.Key, "runs") {
			return "", one
		}
	}
	return c.Runs.Path, nil
}

func eachError(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

func read(path string, getenv func(string) (string, bool)) (Config, error) {
	c := Default()
	c.file, c.at = path, map[string]position{}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("job: %w", err)
	}
	d := &decoder{file: path, getenv: getenv, at: c.at}
	d.decode(text, &c)
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return c, fmt.Errorf("job: %w", err)
	}
	c.locate(dir)
	if c.Name == "" {
		c.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return c, errors.Join(d.errs...)
}

// decoder turns the nodes of a YAML file into a config.
type decoder struct {
	file   string
	getenv func(string) (string, bool)
	at     map[string]position
	errs   []error
}

func (d *decoder) fail(n *yaml.Node, key, format string, args ...any) {
	d.errs = append(d.errs, &KeyError{d.file, n.Line, n.Column, key, fmt.Sprintf(format, args...)})
}

func (d *decoder) decode(text []byte, c *Config) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		d.errs = append(d.errs, &KeyError{File: d.file, Problem: "is empty, want a job"})
		return
	}
	if err != nil {
		d.errs = append(d.errs, &KeyError{File: d.file, Problem: "is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")})
		return
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		d.fail(&more, "", "a second document begins, want one job")
		return
	}
	d.value(doc.Content[0], reflect.ValueOf(c).Elem(), "")
}

// reader is a type that reads its own node.
type reader interface {
	read(d *decoder, n *yaml.Node, path string)
}

// value reads a node into v, whose key is path.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r, ok := v.Addr().Interface().(reader); ok {
		r.read(d, n, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.section(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	default:
		d.scalar(n, v, path)
	}
}

// section reads a mapping into the fields of a struct; a section without keys changes nothing.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is %s, want keys and their values", kindText(n))
		return
	}
	known := fields(v, path)
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			d.fail(key, join(path, key.Value), "is there twice, first in line %d, want it once", line)
			continue
		}
		seen[key.Value] = key.Line
		f, ok := find(known, key.Value)
		if !ok {
			d.fail(key, join(path, key.Value), "is no key, want %s", names(known, key.Value))
			continue
		}
		d.at[f.path] = position{key.Line, key.Column}
		d.value(value, f.value, f.path)
	}
}

func find(known []field, name string) (field, bool) {
	for _, f := range known {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// list reads a sequence; one value stands for a list of it.
func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	entries := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		entries = n.Content
	}
	v.Set(reflect.MakeSlice(v.Type(), len(entries), len(entries)))
	for i, entry := range entries {
		d.value(entry, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

// scalar reads one word.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	want := wanted(v.Kind())
	if sizes[path] {
		want = pipeline.BytesWanted
	}
	text, ok := d.text(n, path, want)
	if !ok {
		return
	}
	if sizes[path] {
		bytes, err := pipeline.ParseBytes(text)
		if err != nil {
			d.fail(n, path, "is %q, want %s", text, want)
		}
		v.SetInt(bytes)
		return
	}
	if want := set(v, text, n); want != "" {
		d.fail(n, path, "is %q, want %s", text, want)
	}
}

// text is the word of a node, with variables of the environment in it.
func (d *decoder) text(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "is %s, want %s", kindText(n), want)
		return "", false
	}
	if n.ShortTag() == "!!null" {
		d.fail(n, path, "has no value, want %s", want)
		return "", false
	}
	text, _, err := expand(n.Value, d.getenv)
	if err != nil {
		d.fail(n, path, "can't be read: %v", err)
		return "", false
	}
	return text, true
}

// set parses text into v; want says what it takes where it does not parse.
func set(v reflect.Value, text string, n *yaml.Node) (want string) {
	var err error
	// A quoted number is text, unless it was quoted for the braces of a variable.
	if v.Kind() != reflect.String && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && text == n.Value {
		return wanted(v.Kind()) + " without quotes"
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return wanted(v.Kind())
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		var i int64
		i, err = strconv.ParseInt(text, 10, 64)
		v.SetInt(i)
	case reflect.Uint64:
		var i uint64
		i, err = strconv.ParseUint(text, 10, 64)
		v.SetUint(i)
	case reflect.Float64:
		var x float64
		x, err = strconv.ParseFloat(text, 64)
		v.SetFloat(x)
	default:
		panic("job: no key has type " + v.Type().String())
	}
	if err != nil {
		return wanted(v.Kind())
	}
	return ""
}

func wanted(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number, 0 or more"
	case reflect.Float64:
		return "a number"
	}
	return "a text"
}

func kindText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// names lists the keys that a section has; where one is like what was written, only that.
func names(known []field, written string) string {
	all := make([]string, len(known))
	for i, f := range known {
		if all[i] = f.name; alike(f.name, written) {
			return f.name
		}
	}
	return "one of " + strings.Join(all, ", ")
}

// alike reports names that are one letter added, left out, changed or swapped apart, or that
// differ in - and _.
func alike(a, b string) bool {
	a, b = strings.ToLower(strings.ReplaceAll(a, "-", "_")), strings.ToLower(strings.ReplaceAll(b, "-", "_"))
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	switch len(a) - len(b) {
	case 0:
		return a == "" || a[1:] == b[1:] || len(a) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]
	case 1:
		return a[1:] == b
	case -1:
		return a == b[1:]
	}
	return false
}

// read takes one word for the path.
func (m *Model) read(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode {
		d.value(n, reflect.ValueOf(&m.Path).Elem(), path)
		return
	}
	d.section(n, reflect.ValueOf(m).Elem(), path)
}

// read takes one word for the path.
func (s *Source) read(d *decoder, n *yaml.Node, path string) {
	s.Weight = 1
	if n.Kind == yaml.ScalarNode {
		d.value(n, reflect.ValueOf(&s.Path).Elem(), path)
		return
	}
	d.section(n, reflect.ValueOf(s).Elem(), path)
}

// read takes one word for the URL.
func (w *Webhook) read(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode {
		w.URL.read(d, n, path)
		return
	}
	d.section(n, reflect.ValueOf(w).Elem(), path)
}

// read keeps the reference to the environment beside what it stands for.
func (s *Secret) read(d *decoder, n *yaml.Node, path string) {
	text, ok := d.text(n, path, "a text")
	if !ok {
		return
	}
	s.written = masked
	if _, told, _ := expand(n.Value, d.getenv); told {
		s.written = n.Value
	}
	if s.value = text; text == masked {
		s.value = ""
	}
}

// Headers are those of a request, with secrets for values.
type Headers map[string]Secret

// read takes a mapping of names to values.
func (h *Headers) read(d *decoder, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is a word or a list, want names of headers and their values") // a word may be secret
		return
	}
	*h = Headers{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if _, twice := (*h)[key.Value]; twice {
			d.fail(key, join(path, key.Value), "is there twice, want it once")
			continue
		}
		var value Secret
		d.value(n.Content[i+1], reflect.ValueOf(&value).Elem(), join(path, key.Value))
		(*h)[key.Value] = value
	}
}

// Sweep holds the axes of a sweep in the order of the file.
type Sweep []pipeline.SweepAxis

// read takes a mapping of keys to lists.
func (s *Sweep) read(d *decoder, n *yaml.Node, path string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is %s, want settings and the list of their values", kindText(n))
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		var values []string
		before := len(d.errs)
		d.value(n.Content[i+1], reflect.ValueOf(&values).Elem(), join(path, key.Value))
		if len(d.errs) > before {
			continue
		}
		// The values of a loss may hold commas; a last ; makes ; the separator.
		axis, err := pipeline.ParseSweep([]string{strings.ReplaceAll(key.Value, "_", "-") + "=" + strings.Join(values, ";") + ";"})
		if err != nil {
			d.fail(key, join(path, key.Value), "can't be swept: %v", err)
			continue
		}
		for _, earlier := range *s {
			if earlier.Key == axis[0].Key {
				d.fail(key, join(path, key.Value), "is there twice, want it once")
			}
		}
		*s = append(*s, axis...)
	}
}
