package demo

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// Names of what [WriteTo] lays out and [FS] holds.
const (
	ModelDir = "model"
	DataFile = "preferences.jsonl"
)

//go:embed assets
var assets embed.FS

// Prompts are three letters of none of the pairs and none of the training
// texts, whose replies show what the preferences teach: a fault, a question whose
// answer is a figure, and a late delivery.
var Prompts = []string{
	"Customer: Hi, this is Maria. My kettle stopped heating after two days. Order 4821.\nAgent:",
	"Customer: How many days do I have to return a blender? Order 7306.\nAgent:",
	"Customer: Hello, Sam here. Where is my camera? Order 2954.\nAgent:",
}

// FS returns the embedded files: the folder [ModelDir] and the file [DataFile].
func FS() fs.FS {
	sub, err := fs.Sub(assets, "assets")
	if err != nil {
		panic("demo: " + err.Error()) // only a name that isn't a valid path makes Sub fail
	}
	return sub
}

// WriteTo lays out dir/model and dir/preferences.jsonl, each whole or not at all,
// replacing what is there. dir is made if need be.
func WriteTo(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := writeModel(filepath.Join(dir, ModelDir)); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := copyOut(DataFile, filepath.Join(dir, DataFile)); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

func writeModel(path string) error {
	out, err := atomicfile.CreateDir(path)
	if err != nil {
		return err
	}
	defer out.Abort()
	entries, err := fs.ReadDir(FS(), ModelDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyOut(ModelDir+"/"+e.Name(), filepath.Join(out.Path, e.Name())); err != nil {
			return err
		}
	}
	return out.Commit()
}

// copyOut writes the embedded file name to path.
func copyOut(name, path string) error {
	return atomicfile.WriteFile(path, func(w io.Writer) error {
		data, err := fs.ReadFile(FS(), name)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
