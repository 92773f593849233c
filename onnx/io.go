package onnx

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// IO says how a decoder is fed and what it gives, by the names and declared
// types of its inputs and outputs.
type IO struct {
	// InputIDs are the token ids [B,T], int64 or int32.
	InputIDs Port
	// AttentionMask is [B,P+T] (P cached positions), PositionIDs [B,T]; the
	// name is "" where the graph has none.
	AttentionMask, PositionIDs Port
	// KeepLogits is num_logits_to_keep or logits_to_keep: how many last
	// positions get logits, 0 for all. UseCache is use_cache_branch, a bool
	// that is false while there is no cache. Either name may be "".
	KeepLogits, UseCache Port
	// Cache holds the past_key_values.N.key and .value inputs, layer by layer, key
	// before value; empty for a graph without cache.
	Cache []CachePort
	// Logits are [B,T,V].
	Logits Port
	// V is the vocabulary the logits declare, 0 where it is free.
	V int
}

// Port is an input or output.
type Port struct {
	Name  string
	DType DType
	// Rank is the number of dimensions.
	Rank int
}

// CachePort is one half of a layer's cache, [B,Heads,P,HeadDim].
type CachePort struct {
	// Name is the input, Present the output that continues it; Present is "" where the
	// graph gives none.
	Name, Present  string
	Layer          int
	DType          DType
	Heads, HeadDim int
}

// VectorBytes is the size of what one head holds of one token.
func (c CachePort) VectorBytes() int { return c.HeadDim * int(c.DType.Bits()/8) }

// Presents returns the names of the outputs that continue the cache.
func (io *IO) Presents() []string {
	var names []string
	for _, c := range io.Cache {
		if c.Present != "" {
			names = append(names, c.Present)
		}
	}
	return names
}

// CacheOf returns the cache port whose output has that name.
func (io *IO) CacheOf(present string) (CachePort, bool) {
	for _, c := range io.Cache {
		if c.Present == present {
			return c, true
		}
	}
	return CachePort{}, false
}

var (
	pastName     = regexp.MustCompile(`^(past_key_values|past_key_value|past)\.(\d+)\.(?:decoder\.)?(key|value)$`)
	pastAltName  = regexp.MustCompile(`^past_(key|value)s?_(\d+)$`)
	combinedName = regexp.MustCompile(`^(past|past_key_values)[._]\d+$|\.key_value$`)
	encoderName  = regexp.MustCompile(`^(encoder_|decoder_input_ids$|decoder_attention_mask$|decoder_inputs_embeds$)|\.encoder\.(key|value)$`)
)

// keepNames are the names exporters give the number of positions with logits.
var keepNames = []string{"num_logits_to_keep", "logits_to_keep"}

// batchDependent are operations that take one scale from the whole input, so
// that a row's numbers depend on its batch mates and its padding.
var batchDependent = []string{
	"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
	"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
}

// IO classifies inputs and outputs. A [*RefusedError] says which of them, or which
// operation, can't be worked with.
func (m *Model) IO() (*IO, error) {
	io := &IO{}
	for _, v := range m.Graph.Inputs {
		if m.Graph.Initializer(v.Name) != nil {
			continue // a default that a caller may override
		}
		if reason := io.input(v); reason != "" {
			return nil, m.refuse("%s", reason)
		}
	}
	if io.InputIDs.Name == "" {
		return nil, m.refuse("no input %q; inputs are %s", "input_ids", names(m.Graph.Inputs))
	}
	if err := m.outputs(io); err != nil {
		return nil, err
	}
	if n := m.findOp(batchDependent); n != nil {
		return nil, m.refuse("dynamically quantised: node %q is %s, which makes a row's logits depend on "+
			"its batch; want a float or weight-only quantised model", n.Name, n.Op)
	}
	return io, nil
}

// input files one input under its role, or says why it can't.
func (io *IO) input(v *ValueInfo) (reason string) {
	ints := []DType{Int64, Int32}
	switch {
	case v.Name == "input_ids":
		return take(&io.InputIDs, v, 2, ints...)
	case v.Name == "attention_mask":
		return take(&io.AttentionMask, v, 2, ints...)
	case v.Name == "position_ids":
		return take(&io.PositionIDs, v, 2, ints...)
	case slices.Contains(keepNames, v.Name):
		return take(&io.KeepLogits, v, -1, ints...)
	case v.Name == "use_cache_branch":
		return take(&io.UseCache, v, -1, Bool)
	case encoderName.MatchString(v.Name):
		return fmt.Sprintf("input %q belongs to an encoder-decoder; want a decoder alone", v.Name)
	case combinedName.MatchString(v.Name) || strings.HasPrefix(v.Name, "past") && len(v.Shape) == 5:
		return fmt.Sprintf("input %q %s holds keys and values together (a combined cache); want "+
			"past_key_values.N.key and past_key_values.N.value", v.Name, shapeText(v.Shape))
	}
	if layer, _, ok := cacheName(v.Name); ok {
		return io.cache(v, layer)
	}
	return fmt.Sprintf("input %q %s %s is required and not known; known are input_ids, attention_mask, "+
		"position_ids, past_key_values.N.key and .value, %s, use_cache_branch",
		v.Name, v.DType, shapeText(v.Shape), strings.Join(keepNames, ", "))
}

// take fills p from v after checking type and rank; rank -1 is any.
func take(p *Port, v *ValueInfo, rank int, allowed ...DType) string {
	if !slices.Contains(allowed, v.DType) {
		return fmt.Sprintf("input %q has type %s, want %v", v.Name, v.DType, allowed)
	}
	if rank >= 0 && v.Shape != nil && len(v.Shape) != rank {
		return fmt.Sprintf("input %q has shape %s, want %d dimensions", v.Name, shapeText(v.Shape), rank)
	}
	*p = Port{Name: v.Name, DType: v.DType, Rank: len(v.Shape)}
	if rank >= 0 {
		p.Rank = rank
	}
	return ""
}

// cacheName reads the layer and "key" or "value" out of a cache input's name.
func cacheName(name string) (layer int, kind string, ok bool) {
	number, kind := "", ""
	if s := pastName.FindStringSubmatch(name); s != nil {
		number, kind = s[2], s[3]
	} else if s := pastAltName.FindStringSubmatch(name); s != nil {
		number, kind = s[2], s[1]
	}
	layer, err := strconv.Atoi(number)
	return layer, kind, err == nil
}

func (io *IO) cache(v *ValueInfo, layer int) string {
	if v.DType != Float32 && v.DType != Float16 && v.DType != BFloat16 {
		return fmt.Sprintf("cache input %q has type %s, want float32, float16 or bfloat16", v.Name, v.DType)
	}
	if len(v.Shape) != 4 || v.Shape[1].Size <= 0 || v.Shape[3].Size <= 0 {
		return fmt.Sprintf("cache input %q has shape %s, want [batch, heads, positions, head_dim] with "+
			"fixed heads and head_dim", v.Name, shapeText(v.Shape))
	}
	io.Cache = append(io.Cache, CachePort{
		Name: v.Name, Layer: layer, DType: v.DType,
		Heads: int(v.Shape[1].Size), HeadDim: int(v.Shape[3].Size),
	})
	slices.SortStableFunc(io.Cache, func(a, b CachePort) int {
		if a.Layer != b.Layer {
			return a.Layer - b.Layer
		}
		return strings.Compare(a.kind(), b.kind())
	})
	return ""
}

// kind is "key" or "value".
func (c CachePort) kind() string {
	_, kind, _ := cacheName(c.Name)
	return kind
}

// outputs finds the logits and pairs present.* with past_key_values.*.
func (m *Model) outputs(io *IO) error {
	v := m.Graph.Output("logits")
	if v == nil {
		return m.refuse("no output %q; outputs are %s", "logits", names(m.Graph.Outputs))
	}
	if v.DType != Float32 && v.DType != Float16 && v.DType != BFloat16 {
		return m.refuse("output %q has type %s, want float32, float16 or bfloat16", v.Name, v.DType)
	}
	io.Logits = Port{Name: v.Name, DType: v.DType, Rank: len(v.Shape)}
	if n := len(v.Shape); n > 0 && v.Shape[n-1].Size > 0 {
		io.V = int(v.Shape[n-1].Size)
	}
	for i := range io.Cache {
		c := &io.Cache[i]
		for _, name := range presentNames(c.Layer, c.kind()) {
			if m.Graph.Output(name) != nil {
				c.Present = name
				break
			}
		}
	}
	return nil
}

// presentNames are the names exporters give a cache output.
func presentNames(layer int, kind string) []string {
	return []string{
		fmt.Sprintf("present.%d.%s", layer, kind),
		fmt.Sprintf("present.%d.decoder.%s", layer, kind),
		fmt.Sprintf("present_key_values.%d.%s", layer, kind),
		fmt.Sprintf("present_%s_%d", kind, layer),
		fmt.Sprintf("present_%ss_%d", kind, layer),
	}
}

func names(vs []*ValueInfo) string {
	var b []string
	for _, v := range vs {
		b = append(b, strconv.Quote(v.Name))
	}
	if b == nil {
		return "none"
	}
	return strings.Join(b, ", ")
}

// shapeText writes a shape as [2,batch,64].
func shapeText(shape []Dim) string {
	s := make([]string, len(shape))
	for i, d := range shape {
		switch {
		case d.Size >= 0:
			s[i] = strconv.FormatInt(d.Size, 10)
		case d.Name != "":
			s[i] = d.Name
		default:
			s[i] = "?"
		}
	}
	return "[" + strings.Join(s, ",") + "]"
}
