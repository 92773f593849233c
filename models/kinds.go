package models

import "fmt"

// A Kind describes one kind of policy head.
type Kind struct {
	// Name is what --head calls it.
	Name string `json:"name"`
	// Doc says in a line what it is, Formula what it makes of a hidden state h.
	Doc     string `json:"doc"`
	Formula string `json:"formula"`
	// Source is where it comes from.
	Source string `json:"source"`
	// Ranked says that it has a rank, and a scale made of that and α.
	Ranked bool `json:"ranked"`
	// Objectives says which objectives train it, Export how it goes into a model file.
	Objectives string `json:"objectives"`
	Export     string `json:"export"`

	fresh func(o HeadOptions) Head
	// peft is its peft_type in adapter_config.json.
	peft string
}

// HeadOptions say what head to make.
type HeadOptions struct {
	// Kind is one of Kinds.
	Kind string
	// V and D are the size of the frozen head, R the rank.
	V, D, R int
	// Alpha is α; Stabilised makes the scale α/√r instead of α/r.
	Alpha      float64
	Stabilised bool
	// Seed is of the initial weights.
	Seed uint64
}

// Kinds lists the kinds of policy heads. Command line, documents and tests go through it.
var Kinds = []Kind{
	{
		Name: "lora", Doc: "low-rank change of the LM head", Formula: "z = W h + s · B (A h)", Source: "arXiv:2106.09685",
		Ranked: true, Objectives: "all", peft: "LORA",
		Export: "merged into the matrix; beside it where that is quantised or 16 bits wide",
		fresh: func(o HeadOptions) Head {
			h := NewLoRA(o.D, o.V, o.R, o.Alpha, o.Seed)
			h.RSLoRA = o.Stabilised
			return h
		},
	},
	{
		Name: "bias", Doc: "one logit a token of the vocabulary", Formula: "z = W h + c", Source: "the smallest policy there is",
		Objectives: "all", Export: "added behind the product", peft: "DPO_PIPE_BIAS",
		fresh: func(o HeadOptions) Head { return NewBias(o.V) },
	},
	{
		Name: "adapter", Doc: "residual bottleneck in front of the LM head", Formula: "z = W (h + s · U gelu(A h))", Source: "arXiv:1902.00751",
		Ranked: true, Objectives: "all", peft: "DPO_PIPE_ADAPTER",
		Export: "nodes in front of the LM head; not where an earlier policy left a branch beside it",
		fresh: func(o HeadOptions) Head {
			h := NewAdapter(o.D, o.R, o.Alpha, o.Seed)
			h.Stabilised = o.Stabilised
			return h
		},
	},
}

// KindOf returns the kind of that name; nil where there is none.
func KindOf(name string) *Kind {
	for i := range Kinds {
		if Kinds[i].Name == name {
			return &Kinds[i]
		}
	}
	return nil
}

// NewHead returns a fresh head, whose policy is the reference. It panics where the kind
// is unknown or a size is below 1.
func NewHead(o HeadOptions) Head {
	k := KindOf(o.Kind)
	if k == nil {
		panic(fmt.Sprintf("models: head of kind %q", o.Kind))
	}
	return k.fresh(o)
}

// Assign copies the weights of src to dst, a head of the same kind and size.
func Assign(dst, src Head) error {
	to, from := dst.Params(), src.Params()
	if dst.Kind() != src.Kind() {
		return fmt.Errorf("models: the head is of kind %q, want %q", src.Kind(), dst.Kind())
	}
	for k := range to {
		for i, n := range to[k].Shape {
			if from[k].Shape[i] != n {
				return fmt.Errorf("models: %s is %v, want %v", from[k].Name, from[k].Shape, to[k].Shape)
			}
		}
	}
	for k := range to {
		copy(to[k].Value, from[k].Value)
	}
	return nil
}
