package job

import (
	"fmt"
	"reflect"
	"strings"
)

// elsewhere are keys of the stages' configs that a job file does not have, because another
// section or the run's folder says it.
var elsewhere = map[string]bool{
	"cache.model": true, "cache.model_file": true, "cache.data": true, "cache.reading": true, "cache.encode": true,
	"train.cache": true, "train.out": true, "train.model": true, "train.model_file": true, "train.data": true,
	"evaluation.cache": true, "evaluation.model": true, "evaluation.model_file": true, "evaluation.checkpoint": true, "evaluation.against": true, "evaluation.data": true,
	"export.checkpoint": true, "export.model": true, "export.model_file": true, "export.out": true, "export.cache": true,
}

// choices are keys with few values.
var choices = map[string][]string{
	"encoding.truncation": {"keep_start", "keep_end"},
	"cache.features":      {"f16", "bf16", "f32", "none"},
	"train.engine":        {"ort", "gonum"}, "evaluation.engine": {"ort", "gonum"}, "export.engine": {"ort", "gonum"},
	"train.schedule":        {"cosine", "linear", "constant"},
	"train.best_direction":  {"auto", "lower", "higher"},
	"train.f_divergence":    {"reverse_kl", "forward_kl", "js", "alpha"},
	"gates.accuracy_metric": {"rewards/accuracies", "logps/accuracies"},
	"gates.published":       {Better, NotWorse, Off},
}

// sizes are keys that take a number of bytes as flags do.
var sizes = map[string]bool{"cache.memory": true, "reading.max_row_bytes": true}

// A field is a key of a section and its value.
type field struct {
	name  string // of the key alone
	path  string // with those of the sections around it
	about string
	value reflect.Value
	omit  bool // where it is zero
}

// fields lists the keys of a section, which is a struct, in order.
func fields(section reflect.Value, path string) (all []field) {
	for i := range section.NumField() {
		f := section.Type().Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			all = append(all, fields(section.Field(i), path)...)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			panic(fmt.Sprintf("job: field %s of section %q has no key", f.Name, path))
		}
		one := field{name: name, path: join(path, name), about: f.Tag.Get("about"), value: section.Field(i), omit: option == "omitempty"}
		if !elsewhere[one.path] {
			all = append(all, one)
		}
	}
	return all
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Keys lists every key of a job file that holds a value, as section.key.
func Keys() (keys []string) {
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for _, f := range fields(v, path) {
			if f.value.Kind() == reflect.Struct && !isWord(f.value) {
				walk(f.value, f.path)
			} else {
				keys = append(keys, f.path)
			}
		}
	}
	c := Default()
	walk(reflect.ValueOf(&c).Elem(), "")
	return keys
}

// isWord reports whether a value is written in one word although its type is a struct.
func isWord(v reflect.Value) bool {
	_, ok := v.Interface().(Secret)
	return ok
}

// flagKeys are the keys of flags that don't have the flag's name in their command's section.
// "" is a flag of run itself, or what run does unasked; processes that share a pass are started
// before run, which finds their joined cache.
var flagKeys = map[string]map[string]string{
	"precompute-ref": {
		"model": "model.path", "model-file": "model.file", "data": "data", "max-length": "encoding.max_length",
		"truncation": "encoding.truncation", "chat-template": "encoding.chat_template", "dry-run": "", "json": "",
		"shards": "", "shard": "", "join": "", "keep-shards": "",
	},
	"train": {
		"cache": "cache.out", "out": "runs.path", "resume": "", "model": "model.path", "model-file": "model.file",
		"data": "data", "dry-run": "", "json": "",
	},
	"eval": {
		"model": "model.path", "model-file": "model.file",
		"cache": "cache.out", "checkpoint": "train.restore_best", "against": "gates.published", "data": "evaluation.breakdown", "json": "",
	},
	"export": {
		"checkpoint": "train.restore_best", "model": "model.path", "model-file": "model.file", "out": "runs.path", "cache": "cache.out", "json": "",
	},
}

// sectionOf is that of a command's flags.
var sectionOf = map[string]string{"precompute-ref": "cache", "train": "train", "eval": "evaluation", "export": "export"}

// FlagKey names the key that sets what a flag of a command sets. It is "" for flags of run
// itself, such as --json.
func FlagKey(command, flag string) string {
	if key, ok := flagKeys[command][flag]; ok {
		return key
	}
	name := strings.ReplaceAll(flag, "-", "_")
	switch column, ok := strings.CutPrefix(flag, "column-"); {
	case ok:
		return "reading.columns." + strings.ReplaceAll(column, "-", "_")
	case flag == "store-cache":
		return "" // of the machine, not of the job
	case flag == "ort-lib" || flag == "provider" || flag == "threads":
		return "runtime." + name
	}
	return sectionOf[command] + "." + name
}
