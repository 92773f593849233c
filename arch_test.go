// Package dpopipe checks the structure of the module: who may import whom, and
// the size of what is written.
package dpopipe

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dpo-pipe/dpo-pipe"

// imports is the package map of docs/architecture.md: the in-module packages
// that each package may import.
var imports = map[string][]string{
	"internal/atomicfile": {},
	"internal/checksum":   {"internal/atomicfile"},
	"internal/demo":       {"internal/atomicfile"},
	"internal/lockfile":   {},
	"internal/servertest": {},
	"internal/tfevents":   {},
	"loss":                {},
	"datasets":            {"internal/atomicfile"},
	"datasets/tokenizer":  {},
	"datasets/encode":     {"datasets", "datasets/tokenizer"},
	"datasets/refcache":   {"datasets", "internal/atomicfile", "internal/checksum", "internal/lockfile"},
	"onnx":                {"internal/atomicfile"},
	"onnx/onnxtest":       {"onnx"},
	"onnx/ort":            {"onnx", "models"},
	"models":              {"loss", "internal/atomicfile"},
	"models/enginetest":   {"models", "loss"},
	"store":               {"internal/atomicfile", "internal/lockfile"},
	"store/storetest":     {"internal/servertest"},
	"pipeline": {
		"loss", "datasets", "datasets/tokenizer", "datasets/encode", "datasets/refcache", "onnx", "models",
		"internal/atomicfile", "internal/checksum", "internal/lockfile", "internal/tfevents",
	},
	"notify":  {},
	"publish": {"store", "internal/atomicfile", "internal/checksum", "internal/lockfile"},
	"job": {
		"datasets", "datasets/encode", "datasets/refcache", "models", "pipeline", "internal/atomicfile", "internal/checksum", "internal/lockfile",
	},
	"cmd/dpo-pipe": {
		"loss", "datasets", "datasets/tokenizer", "datasets/encode", "datasets/refcache", "onnx", "onnx/ort",
		"models", "pipeline", "job", "notify", "publish", "store", "internal/atomicfile", "internal/checksum", "internal/demo",
		"internal/lockfile",
	},
}

// fences name the packages that alone may import a heavy dependency, and those
// that alone may print or end the process.
var fences = map[string][]string{
	"github.com/apache/arrow/":          {"datasets", "datasets/refcache"},
	"github.com/yalue/onnxruntime_go":   {"onnx/ort"},
	"github.com/urfave/cli":             {"cmd/dpo-pipe"},
	"github.com/nikolalohinski/gonja":   {"datasets/encode"},
	"google.golang.org/protobuf":        {"onnx", "internal/tfevents"},
	"github.com/prometheus/":            {"notify"},
	"gonum.org/":                        {"models"},
	"github.com/nlpodyssey/safetensors": {"models", "datasets/refcache"},
	"log":                               {},
	"flag":                              {},
	"github.com/dlclark/regexp2":        {"datasets/tokenizer", "datasets/encode"},
	"github.com/google/flatbuffers":     {"datasets"},
	"go.yaml.in/yaml":                   {"pipeline", "job", "cmd/dpo-pipe"},
	"gocloud.dev/":                      {"store"},
	"github.com/aws/":                   {"store"},
	"github.com/Azure/":                 {"store", "store/storetest"},
	"cloud.google.com/go/":              {"store"},
	"google.golang.org/api/":            {"store"},
	"github.com/johannesboyne/gofakes3": {},
	"C":                                 {"onnx/ort"},
	"math/rand":                         {},
	"github.com/rogpeppe/go-internal":   {},
	"pgregory.net/rapid":                {},
	"github.com/google/go-cmp":          {},
	"go.uber.org/goleak":                {},
	"testing":                           {"internal/servertest", "models/enginetest", "onnx/onnxtest", "store/storetest"},
}

// tools are main packages that make fixtures; the map of the product leaves them out.
var tools = []string{"internal/demo/", "scripts/"}

func TestImportsFollowTheMap(t *testing.T) {
	for _, cgo := range []string{"0", "1"} {
		for pkg, deps := range listImports(t, cgo) {
			if slices.ContainsFunc(tools, func(dir string) bool { return strings.HasPrefix(pkg, dir) }) {
				continue
			}
			allowed, known := imports[pkg]
			if !known {
				t.Errorf("CGO_ENABLED=%s: package %s is not in the map; add it here and to docs/architecture.md", cgo, pkg)
				continue
			}
			for _, dep := range deps {
				if in, ours := strings.CutPrefix(dep, module+"/"); ours && !slices.Contains(allowed, in) {
					t.Errorf("CGO_ENABLED=%s: %s imports %s; allowed: %v (docs/architecture.md)", cgo, pkg, in, allowed)
				}
			}
		}
	}
}

func TestHeavyDependenciesAreFenced(t *testing.T) {
	for _, cgo := range []string{"0", "1"} {
		for pkg, deps := range listImports(t, cgo) {
			if slices.ContainsFunc(tools, func(dir string) bool { return strings.HasPrefix(pkg, dir) }) {
				continue
			}
			for _, dep := range deps {
				for prefix, inside := range fences {
					hit := dep == prefix || strings.HasPrefix(dep, prefix) && strings.ContainsAny(prefix, "./") && strings.Contains(prefix, ".")
					if hit && !slices.Contains(inside, pkg) {
						t.Errorf("%s imports %s; only %v may", pkg, dep, inside)
					}
				}
			}
		}
	}
}

// listImports maps every package of the module, by its path below it, to what
// its non-test files import.
func listImports(t *testing.T, cgo string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED="+cgo)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	byPackage := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if pkg, below := strings.CutPrefix(fields[0], module+"/"); below {
			byPackage[pkg] = fields[1:]
		}
	}
	return byPackage
}

// maxFuncLines is the hard limit of a function's length, its signature included.
const maxFuncLines = 80

func TestFunctionsFitAScreen(t *testing.T) {
	eachFile(t, func(path string, fset *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if lines > maxFuncLines {
				t.Errorf("%s: %s has %d lines, want at most %d", path, fn.Name.Name, lines, maxFuncLines)
			}
		}
	})
}

func TestExportedNamesAreDocumented(t *testing.T) {
	eachFile(t, func(path string, fset *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no doc comment", fset.Position(d.Pos()), name)
			}
		}
	})
}

// undocumented lists the exported names that a declaration leaves without a
// comment. A comment on a group of constants or variables serves all of it.
func undocumented(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Names[0].Name)
				}
			}
		}
	}
	return names
}

// exportedReceiver reports whether a method belongs to an exported type and is
// not one that an interface of the standard library already describes.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	switch d.Name.Name {
	case "Error", "Unwrap", "String", "Len", "Less", "Swap", "MarshalJSON", "UnmarshalJSON":
		return false
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// eachFile visits the Go files of the module that are neither tests nor generated.
func eachFile(t *testing.T, visit func(path string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "node_modules" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		visit(path, fset, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
