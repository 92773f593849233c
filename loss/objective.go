package loss

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// An Objective is a weighted sum of entries of the table under one set of options. It
// is immutable and safe for concurrent use.
type Objective struct {
	opts  Options
	terms []term
}

type term struct {
	*entry
	weight float64
}

// Parse reads "name" or a mix "name:weight,name:weight" (weight 1 where none is
// given) and checks it against the options. An option that no part of the mix uses,
// such as label smoothing for ipo alone, is refused rather than ignored.
func Parse(spec string, opts Options) (*Objective, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	o := &Objective{opts: opts}
	for part := range strings.SplitSeq(spec, ",") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if o.has(func(e *entry) bool { return e == t.entry }) {
			return nil, fmt.Errorf("loss: %q names %s twice", spec, t.Name)
		}
		o.terms = append(o.terms, t)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return o, nil
}

func parseTerm(part string) (term, error) {
	name, text, weighted := strings.Cut(part, ":")
	weight := 1.0
	if weighted {
		var err error
		if weight, err = strconv.ParseFloat(text, 64); err != nil || !(weight > 0) || math.IsInf(weight, 0) {
			return term{}, fmt.Errorf("loss: weight of %s is %q, want a finite number > 0", name, text)
		}
	}
	for i := range table {
		if table[i].Name == name {
			return term{&table[i], weight}, nil
		}
	}
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].Name
	}
	return term{}, fmt.Errorf("loss: unknown objective %q, want one of %s", name, strings.Join(names, ", "))
}

// check refuses options that don't fit the mix.
func (o *Objective) check() error {
	var errs []error
	for _, t := range o.terms {
		if t.check != nil {
			errs = append(errs, t.check(&o.opts))
		}
	}
	if o.opts.LabelSmoothing > 0 && !o.has(func(e *entry) bool { return e.Smooths }) {
		errs = append(errs, fmt.Errorf("loss: %s does not use label smoothing (%v given)", o, o.opts.LabelSmoothing))
	}
	if o.opts.Divergence != ReverseKL && !o.has(func(e *entry) bool { return e.Scores }) {
		errs = append(errs, fmt.Errorf("loss: %s does not use a divergence (%v given)", o, o.opts.Divergence))
	}
	if (o.opts.LDAlpha != 1 || o.opts.WPO) && !o.has(func(e *entry) bool { return !e.plain }) {
		errs = append(errs, fmt.Errorf("loss: %s takes neither ld_alpha nor WPO", o))
	}
	return errors.Join(errs...)
}

func (o *Objective) has(is func(*entry) bool) bool {
	for _, t := range o.terms {
		if is(t.entry) {
			return true
		}
	}
	return false
}

// String returns the spec in its shortest form.
func (o *Objective) String() string {
	parts := make([]string, len(o.terms))
	for i, t := range o.terms {
		parts[i] = t.Name
		if t.weight != 1 {
			parts[i] += ":" + strconv.FormatFloat(t.weight, 'g', -1, 64)
		}
	}
	return strings.Join(parts, ",")
}

// Options returns the options the objective was parsed with.
func (o *Objective) Options() Options { return o.opts }

// Infos returns the table's entries that the objective mixes.
func (o *Objective) Infos() []Info {
	infos := make([]Info, len(o.terms))
	for i, t := range o.terms {
		infos[i] = t.Info
	}
	return infos
}

// Separable reports whether the batch loss is a sum over pairs, so that
// [Objective.Terms] may be called on micro-batches with the batch's Totals.
func (o *Objective) Separable() bool {
	return !o.has(func(e *entry) bool { return e.WholeBatch })
}

// NeedsReference reports whether Pairs must hold the reference's log-probs.
func (o *Objective) NeedsReference() bool {
	return o.has(func(e *entry) bool { return e.Reference })
}

// NeedsLengths reports whether Pairs must hold the numbers of tokens.
func (o *Objective) NeedsLengths() bool {
	return o.has(func(e *entry) bool { return e.Lengths })
}

// InitialLoss returns the loss of a policy equal to the reference, and whether the
// objective has one whatever the data: ln 2 for sigmoid. A trainer whose fresh head
// gives another value has a fault somewhere between cache and loss.
func (o *Objective) InitialLoss() (float64, bool) {
	if o.opts.WPO || o.has(func(e *entry) bool { return !e.Reference || e.WholeBatch }) {
		return 0, false
	}
	p := Pairs{
		PolicyChosen: []float64{-1}, PolicyRejected: []float64{-1}, RefChosen: []float64{-1}, RefRejected: []float64{-1},
		ChosenTokens: []int{1}, RejectedTokens: []int{1},
	}
	var t Terms
	o.Terms(&t, &p, p.Totals())
	return t.Batch, true
}
