package enginetest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

const (
	// goldenTol bounds relative errors against the golden numbers, which are float64: float32 logits
	// of size 1 leave 1e-7 per token.
	goldenTol = 5e-7
	// trajectoryTol bounds absolute errors of weights after 5 steps of 0.05. Adam divides by
	// √v, so entries with small gradients magnify the rounding of float32.
	trajectoryTol = 2e-5
)

// goldenSpecs says what a case's name means where it isn't an objective's name.
//
// The file does not record which weight sft has in sigmoid+sft. At weight 1 loss and
// gradients disagree; at 1/2 the loss and all 24 gradients agree to the tolerance.
// That is the weight, not another denominator: the file's case of sft alone, on
// this very batch of 5 chosen and 5 rejected tokens, is the mean over the 5
// chosen. The weight is thus inferred, and the case checks everything but it.
var goldenSpecs = map[string]string{"sigmoid+sft": "sigmoid,sft:0.5", "wpo": "sigmoid"}

// golden is part C of trl_golden.json.
type golden struct {
	Batch struct {
		IDs  [][]int32 `json:"input_ids"`
		Mask [][]int   `json:"completion_mask"`
	} `json:"B_collated"`
	Cases []struct {
		Loss        string             `json:"loss_type"`
		Fresh       bool               `json:"B_zero_init"`
		RefChosen   []float64          `json:"ref_chosen_logps"`
		RefRejected []float64          `json:"ref_rejected_logps"`
		Want        float64            `json:"loss"`
		GradA       [][]float64        `json:"grad_A"`
		GradB       [][]float64        `json:"grad_B"`
		Metrics     map[string]float64 `json:"metrics"`
	} `json:"C_lora_lm_head"`
	Trajectory struct {
		Steps []struct {
			Loss float64 `json:"loss"`
			Norm float64 `json:"grad_norm_before_clip"`
		} `json:"steps"`
		FinalA [][]float64 `json:"final_A"`
		FinalB [][]float64 `json:"final_B"`
	} `json:"C_adamw_trajectory"`
}

// Golden compares loss, gradients, metrics and a training run with the numbers
// of another implementation, for a LoRA head on a vocabulary of 8. It skips where
// the shared folder is not beside the repository.
func Golden(t *testing.T, open Open) {
	g := readGolden(t)
	y := g.toy()
	e := openToy(t, open, y)
	ref := y.reference(t, e)
	for _, c := range g.Cases {
		name := c.Loss
		if c.Fresh {
			name += ",fresh"
		}
		t.Run(name, func(t *testing.T) {
			opts := loss.DefaultOptions()
			spec := c.Loss
			if s, ok := goldenSpecs[c.Loss]; ok {
				spec = s
			}
			opts.WPO = c.Loss == "wpo"
			h := goldenHead(c.Fresh)
			got, batch := y.pass(t, e, h, mustParse(t, spec, opts), ref, len(y.pairs))
			w := worst{t: t, tol: goldenTol}
			w.compare("loss", batch, c.Want)
			for i := range y.pairs {
				w.compare("reference chosen", got.pairs.RefChosen[i], c.RefChosen[i])
				w.compare("reference rejected", got.pairs.RefRejected[i], c.RefRejected[i])
			}
			params := h.Params()
			w.matrix("∂L/∂A", params[0].Grad, c.GradA)
			w.matrix("∂L/∂B", params[1].Grad, c.GradB)
			got.means.Named(func(name string, value float64) {
				if want, ok := c.Metrics[name]; ok {
					w.compare(name, value, want)
				}
			})
			t.Logf("%d numbers, greatest error %.2g", w.count, w.err)
		})
	}
	t.Run("AdamW", func(t *testing.T) { g.train(t, y, e, ref) })
}

// train repeats the golden run: 5 steps at a constant rate, gradients clipped to 0.05.
func (g *golden) train(t *testing.T, y *toy, e models.Engine, ref []float32) {
	opts := loss.DefaultOptions()
	opts.Beta = 0.5
	o := mustParse(t, "sigmoid", opts)
	h := goldenHead(true)
	opt := models.NewAdamW(h.Params())
	w := worst{t: t, tol: trajectoryTol}
	for _, step := range g.Trajectory.Steps {
		_, batch := y.pass(t, e, h, o, ref, len(y.pairs))
		w.compare("loss", batch, step.Loss)
		norm, err := models.ClipGradNorm(h.Params(), 0.05)
		if err != nil {
			t.Fatal(err)
		}
		w.compare("norm", norm, step.Norm)
		opt.Step(0.05)
	}
	w.matrix("A", h.A, g.Trajectory.FinalA)
	w.matrix("B", h.B, g.Trajectory.FinalB)
	t.Logf("%d numbers, greatest error %.2g", w.count, w.err)
}

// worst compares numbers and keeps the greatest error, relative to 1 or the number.
type worst struct {
	t     *testing.T
	tol   float64
	err   float64
	count int
}

func (w *worst) compare(what string, got, want float64) {
	w.t.Helper()
	err := math.Abs(got-want) / max(1, math.Abs(want))
	w.count++
	w.err = max(w.err, err)
	if !(err <= w.tol) {
		w.t.Errorf("%s is %v, want %v: error %.2g, at most %.2g", what, got, want, err, w.tol)
	}
}

func (w *worst) matrix(what string, got []float32, want [][]float64) {
	w.t.Helper()
	k := 0
	for _, row := range want {
		for _, x := range row {
			w.compare(what, float64(got[k]), x)
			k++
		}
	}
	if k != len(got) {
		w.t.Errorf("%s has %d values, want %d", what, len(got), k)
	}
}

// readGolden finds the shared folder beside the folder that holds go.mod.
func readGolden(t *testing.T) *golden {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "..", "shared", "golden", "trl_golden.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("golden numbers are not there: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return &g
}

// toy builds the golden batch: 4 collated rows, the chosen of two pairs, then
// their rejected; the formulas are the golden file's.
func (g *golden) toy() *toy {
	const v, d = 8, 4
	y := &toy{voc: models.Vocabulary{V: v, D: d, Scale: 1}}
	for i := range v {
		for k := range d {
			y.voc.Weight = append(y.voc.Weight, float32((3*i+7*k)%13-6)/8)
		}
	}
	side := func(b int) (c completion) {
		for t := 1; t < len(g.Batch.IDs[b]); t++ {
			if g.Batch.Mask[b][t] == 0 {
				continue
			}
			c.targets = append(c.targets, g.Batch.IDs[b][t])
			for k := range d {
				c.hidden = append(c.hidden, float32((13*b+7*(t-1)+5*k)%11-5)/8)
			}
		}
		return c
	}
	pairs := len(g.Batch.IDs) / 2
	for i := range pairs {
		y.pairs = append(y.pairs, [2]completion{side(i), side(pairs + i)})
	}
	return y
}

// goldenHead has rank 2 and scale 2.
func goldenHead(fresh bool) *models.LoRA {
	h := models.NewLoRA(4, 8, 2, 4, 0)
	for i := range 2 {
		for k := range 4 {
			h.A[i*4+k] = float32((5*i+3*k)%7-3) / 16
		}
	}
	for v := range 8 {
		for i := range 2 {
			if !fresh {
				h.B[v*2+i] = float32((2*v+3*i)%5-2) / 16
			}
		}
	}
	return h
}
