package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// AdapterName is the folder of the PEFT adapter in an exported model folder. [Evaluate] takes
// it as a checkpoint.
const AdapterName = "adapter"

// ExportConfig says what to export.
type ExportConfig struct {
	// Checkpoint is a PEFT adapter folder, Model the model it was trained for.
	Checkpoint string `json:"checkpoint" yaml:"checkpoint"`
	Model      string `json:"model" yaml:"model"`
	ModelFile  string `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	// Out is the model folder to write; it must not exist.
	Out string `json:"out" yaml:"out"`
	// Cache holds the pairs to verify on; empty means the one trained on.
	Cache string `json:"cache,omitempty" yaml:"cache,omitempty"`
	// VerifyPairs is how many held-out pairs are run through the exported model.
	VerifyPairs int `json:"verify_pairs" yaml:"verify_pairs"`
	// Engine multiplies the head's matrices: ort or gonum.
	Engine string `json:"engine" yaml:"engine"`
}

// DefaultExportConfig holds the defaults of export.
func DefaultExportConfig() ExportConfig { return ExportConfig{VerifyPairs: 16, Engine: "ort"} }

// Validate reports every setting that can't be used, joined.
func (c ExportConfig) Validate() error {
	var k check
	k.that(c.Checkpoint != "", "--checkpoint", "", "a checkpoint folder")
	k.that(c.Model != "", "--model", "", "the model folder that the cache was made from")
	k.that(c.Out != "", "--out", "", "the folder to write the policy to")
	k.that(c.VerifyPairs >= 1, "--verify-pairs", c.VerifyPairs, "1 or more pairs")
	k.engine(c.Engine)
	if c.Out != "" {
		k.that(!exists(c.Out), "--out", c.Out, "a new folder; that one exists")
	}
	return k.err()
}

// ExportResult says what was written and how well it agrees with the head.
type ExportResult struct {
	Out string `json:"out"`
	// ONNX is the model file in it, Adapter the PEFT folder.
	ONNX    string `json:"onnx"`
	Adapter string `json:"adapter"`
	// Form says how the head went in: "merged weight", "low-rank branch", "logit bias" or
	// "adapter in front".
	Form     string       `json:"form"`
	Verified Verification `json:"verified"`
}

// Export writes a complete model folder with the trained head inside, runs it on
// held-out pairs, and leaves nothing behind if its log-probs are not the head's.
func Export(ctx context.Context, cfg ExportConfig, rt Runtime, report Reporter) (ExportResult, error) {
	if err := cfg.Validate(); err != nil {
		return ExportResult{}, err
	}
	cfg.Out = filepath.Clean(cfg.Out)
	x, err := openExport(cfg)
	if err != nil {
		return ExportResult{}, err
	}
	defer x.close()
	if err := os.MkdirAll(filepath.Dir(cfg.Out), 0o777); err != nil {
		return ExportResult{}, fmt.Errorf("pipeline: export: %w", err)
	}
	dir, err := atomicfile.CreateDir(cfg.Out)
	if err != nil {
		return ExportResult{}, err
	}
	defer dir.Abort()
	onnxFile, err := x.write(dir.Path)
	if err != nil {
		return ExportResult{}, err
	}
	verified, err := x.verify(ctx, rt, filepath.Join(dir.Path, onnxFile), report)
	if err != nil {
		return ExportResult{}, err
	}
	if err := dir.Commit(); err != nil {
		return ExportResult{}, err
	}
	return ExportResult{
		Out: cfg.Out, ONNX: filepath.Join(cfg.Out, onnxFile), Adapter: filepath.Join(cfg.Out, AdapterName),
		Form: x.form(), Verified: verified,
	}, nil
}

// exporter holds what goes into a policy folder.
type exporter struct {
	cfg  ExportConfig
	base *splitModel
	head models.Head
	// cache holds the pairs to verify on.
	cache *refcache.Reader
	// state is of the checkpoint; its Step is 0 where it has none.
	state trainerState
}

func openExport(cfg ExportConfig) (*exporter, error) {
	x := &exporter{cfg: cfg}
	var err error
	if x.state, err = readState(cfg.Checkpoint); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if x.head, _, err = models.ReadAdapter(cfg.Checkpoint); err != nil {
		return nil, err
	}
	if x.base, err = openSplit(cfg.Model, cfg.ModelFile); err != nil {
		return nil, err
	}
	if err := x.fits(); err != nil {
		return nil, errors.Join(err, x.close())
	}
	if x.cache, err = x.openCache(); err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

func (x *exporter) close() error {
	err := x.base.model.Close()
	if x.cache != nil {
		err = errors.Join(err, x.cache.Close())
	}
	return err
}

// fits checks that the adapter was trained for this model.
func (x *exporter) fits() error {
	if err := models.Fits(x.head, x.base.vocabulary); err != nil {
		return &ModelError{x.cfg.Model, fmt.Sprintf("adapter %q: %v", x.cfg.Checkpoint, err)}
	}
	want, known := x.state.Identity["model"]
	if !known {
		return nil
	}
	have, err := x.base.model.SHA256()
	if err != nil {
		return err
	}
	if have != want {
		return &ModelError{x.cfg.Model, fmt.Sprintf("its SHA-256 is %s, the adapter was trained for %s", have, want)}
	}
	return x.fitsTokenizer()
}

// fitsTokenizer checks that the tokenizer which goes with the policy is the one of the cache.
func (x *exporter) fitsTokenizer() error {
	texts, err := x.base.files.TextFiles()
	if err != nil {
		return err
	}
	want, known := x.state.Identity["tokenizer_sha256"]
	i := slices.IndexFunc(texts, func(path string) bool { return filepath.Base(path) == tokenizerName })
	if !known {
		return nil
	}
	if i < 0 {
		return &ModelError{x.cfg.Model, fmt.Sprintf("has no %s, the cache was made with one", tokenizerName)}
	}
	text, err := os.ReadFile(texts[i])
	if err != nil {
		return fmt.Errorf("pipeline: export: %w", err)
	}
	if have := fmt.Sprintf("%x", sha256.Sum256(text)); have != want {
		return &ModelError{x.cfg.Model, fmt.Sprintf("the SHA-256 of its %s is %s, the cache was made with %s", tokenizerName, have, want)}
	}
	return nil
}

// policy is the model with the trained head in it.
func (x *exporter) policy() (*onnx.Model, error) {
	m, head := x.base.model, x.base.head
	switch h := x.head.(type) {
	case *models.LoRA:
		weights := onnx.LoRAWeights{R: h.R, A: h.A, B: h.B, Scale: h.Scale()}
		if branched(head) {
			return m.BranchLoRA(head, weights)
		}
		return m.MergeLoRA(head, weights)
	case *models.Bias:
		return m.AddBias(head, h.C)
	case *models.Adapter:
		return m.AdaptHidden(head, onnx.AdapterWeights{R: h.R, A: h.A, U: h.U, Scale: h.Scale()})
	}
	return nil, fmt.Errorf("pipeline: a head of kind %q can't be exported", x.head.Kind())
}

// form names what policy does.
func (x *exporter) form() string {
	switch {
	case x.head.Kind() == "bias":
		return "logit bias"
	case x.head.Kind() == "adapter":
		return "adapter in front"
	case branched(x.base.head):
		return "low-rank branch"
	}
	return "merged weight"
}

// write fills the folder and returns the path of the model file below it.
func (x *exporter) write(dir string) (onnxFile string, err error) {
	policy, err := x.policy()
	if err != nil {
		return "", err
	}
	// The layout is the base model's: model.onnx under onnx/, or else at the root.
	below := "."
	if filepath.Dir(x.base.files.ONNX) == filepath.Join(x.base.files.Root, "onnx") {
		below = "onnx"
	}
	if err := os.MkdirAll(filepath.Join(dir, below), 0o777); err != nil {
		return "", fmt.Errorf("pipeline: write policy: %w", err)
	}
	onnxFile = filepath.Join(below, "model.onnx")
	if err := policy.WriteDir(filepath.Join(dir, below), "model.onnx"); err != nil {
		return "", err
	}
	texts, err := x.base.files.TextFiles()
	if err != nil {
		return "", err
	}
	for _, path := range texts {
		if err := atomicfile.CopyFile(filepath.Join(dir, filepath.Base(path)), path); err != nil {
			return "", err
		}
	}
	adapter := filepath.Join(dir, AdapterName)
	if err := os.Mkdir(adapter, 0o777); err != nil {
		return "", fmt.Errorf("pipeline: write adapter: %w", err)
	}
	if err := models.WriteAdapter(adapter, x.head, baseName(x.state.Identity)); err != nil {
		return "", err
	}
	if x.state.Step > 0 {
		// With it the adapter is a checkpoint that a later one can be compared with.
		if err := atomicfile.CopyFile(filepath.Join(adapter, stateName), filepath.Join(x.cfg.Checkpoint, stateName)); err != nil {
			return "", err
		}
	}
	return onnxFile, checksum.WriteSums(dir)
}

// branched reports whether the trained part goes beside the stored matrix: into
// one of integers it can't be added, in one of 16 bits the product of which is
// taken in 32 it would be rounded away, and one with an earlier part beside it is
// not all of the head.
func branched(h *onnx.Head) bool {
	return h.Quantized || h.Branched() || half(h.DType) && !half(h.Compute)
}

func half(t onnx.DType) bool { return t == onnx.Float16 || t == onnx.BFloat16 }
