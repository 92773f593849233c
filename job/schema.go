package job

import (
	"reflect"
	"strings"
)

// Schema is the JSON schema of a job file (draft 2020-12), made from the config's types.
// about describes keys that are flags of single commands; it returns "" for others.
func Schema(about func(key string) string) map[string]any {
	c := Default()
	s := schema{about}.section(reflect.ValueOf(&c).Elem(), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$defs"] = map[string]any{"variable": variable}
	s["title"] = "a job of dpo-pipe run"
	s["required"] = []string{"model", "data"}
	return s
}

type schema struct {
	about func(key string) string
}

// section describes a mapping, with the defaults of its keys.
func (s schema) section(v reflect.Value, path string) map[string]any {
	properties := map[string]any{}
	for _, f := range fields(v, path) {
		one := s.of(f.value, f.path)
		if about := s.describe(f); about != "" {
			one["description"] = about
		}
		properties[f.name] = one
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

func (s schema) describe(f field) string {
	if f.about != "" {
		return f.about
	}
	if about := flagless[f.path]; about != "" {
		return about
	}
	return strings.ReplaceAll(s.about(f.path), "`", "")
}

// flagless explains keys of the stages' configs that no flag sets.
var flagless = map[string]string{
	"reading.columns":       "names of the columns",
	"reading.max_row_bytes": "largest JSON row that is read, bytes",
}

// variable is a word with a variable of the environment in it.
var variable = map[string]any{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`}

// size is a number of bytes with its unit, as pipeline.ParseBytes reads it.
var size = map[string]any{"type": "string", "pattern": `^[0-9]+[kKmMgGtT]?([iI]?[bB])?$`}

// of describes the value of a key.
func (s schema) of(v reflect.Value, path string) map[string]any {
	switch v.Interface().(type) {
	case Secret:
		return map[string]any{"type": "string"}
	case Headers:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case Sweep:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "array", "minItems": 1}}
	case Model, Webhook:
		return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, s.section(v, path)}}
	case []Source:
		entry := map[string]any{"oneOf": []any{map[string]any{"type": "string"}, s.section(reflect.ValueOf(Source{Weight: 1}), path)}}
		return map[string]any{"oneOf": []any{entry["oneOf"].([]any)[0], map[string]any{"type": "array", "minItems": 1, "items": entry}}}
	}
	if v.Kind() == reflect.Struct {
		return s.section(v, path)
	}
	if v.Kind() == reflect.Pointer {
		return s.word(reflect.Zero(v.Type().Elem()), path, false)
	}
	// What the default is depends on the machine.
	return s.word(v, path, path != "cache.memory")
}

// word describes a scalar.
func (s schema) word(v reflect.Value, path string, hasDefault bool) map[string]any {
	one := map[string]any{}
	if values := choices[path]; values != nil {
		one["enum"] = values
	}
	switch v.Kind() {
	case reflect.Bool:
		one["type"] = "boolean"
	case reflect.Int, reflect.Int64:
		one["type"] = "integer"
	case reflect.Uint64:
		one["type"], one["minimum"] = "integer", 0
	case reflect.Float64:
		one["type"] = "number"
	default:
		one["type"] = "string"
	}
	if one["type"] != "string" || one["enum"] != nil {
		ways := []any{one, map[string]any{"$ref": "#/$defs/variable"}}
		if sizes[path] {
			ways = append(ways, size)
		}
		one = map[string]any{"anyOf": ways}
	}
	if hasDefault && v.IsValid() && !(v.Kind() == reflect.String && v.String() == "") {
		one["default"] = v.Interface()
	}
	return one
}
