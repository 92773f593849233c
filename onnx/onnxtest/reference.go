package onnxtest

import "math"

const (
	normEps   = 1e-5
	ropeTheta = 10000.0
)

// Logits computes the decoder in float64 for one sequence: logits[t] [V] predict
// the token after position t.
func (d *Decoder) Logits(ids []int32) [][]float64 {
	var logits [][]float64
	for _, h := range d.Hidden(ids) {
		logits = append(logits, d.logits(h))
	}
	return logits
}

// Logps returns the log-probs, nats, of ids[from:] each given what precedes it;
// from must be 1 or more.
func (d *Decoder) Logps(ids []int32, from int) []float64 {
	var logps []float64
	for t, z := range d.Logits(ids)[from-1 : len(ids)-1] {
		most, sum := math.Inf(-1), 0.0
		for _, x := range z {
			most = math.Max(most, x)
		}
		for _, x := range z {
			sum += math.Exp(x - most)
		}
		logps = append(logps, z[ids[from+t]]-most-math.Log(sum))
	}
	return logps
}

// Hidden computes the states that feed the head, [T][D].
func (d *Decoder) Hidden(ids []int32) [][]float64 {
	x := make([][]float64, len(ids))
	for t, id := range ids {
		x[t] = make([]float64, d.D)
		for i, e := range d.embed[int(id)*d.D : (int(id)+1)*d.D] {
			x[t][i] = float64(e)
		}
	}
	for _, l := range d.layers {
		d.attention(l, x)
		for t := range x {
			h := rms(x[t], l.norm2)
			gate, up := times(h, l.gate), times(h, l.up)
			for i, g := range gate {
				gate[i] = g / (1 + math.Exp(-g)) * up[i]
			}
			add(x[t], times(gate, l.down))
		}
	}
	for t := range x {
		x[t] = rms(x[t], d.norm)
	}
	return x
}

// attention adds causal grouped-query attention to x in place.
func (d *Decoder) attention(l layer, x [][]float64) {
	hd := d.headDim()
	var keys, values [][]float64
	for t := range x {
		h := rms(x[t], l.norm1)
		q, k := times(h, l.q), times(h, l.k)
		rotate(q, hd, t)
		rotate(k, hd, t)
		keys, values = append(keys, k), append(values, times(h, l.v))
		out := make([]float64, d.D)
		for head := range d.Heads {
			kv := head / (d.Heads / d.KVHeads) * hd
			attend(out[head*hd:(head+1)*hd], q[head*hd:(head+1)*hd], keys, values, kv)
		}
		add(x[t], times(out, l.o))
	}
}

// attend fills out with the softmax-weighted values of one head, whose keys and values
// start at index kv of each row.
func attend(out, q []float64, keys, values [][]float64, kv int) {
	weights, sum := make([]float64, len(keys)), 0.0
	for s, k := range keys {
		for i := range q {
			weights[s] += q[i] * k[kv+i]
		}
		weights[s] = math.Exp(weights[s] / math.Sqrt(float64(len(q))))
		sum += weights[s]
	}
	for s, v := range values {
		for i := range out {
			out[i] += weights[s] / sum * v[kv+i]
		}
	}
}

// rotate turns each head of v by its position t: element i with i + hd/2.
func rotate(v []float64, hd, t int) {
	for head := 0; head < len(v); head += hd {
		for i := range hd / 2 {
			sin, cos := math.Sincos(float64(t) * invFreq(i, hd))
			a, b := v[head+i], v[head+i+hd/2]
			v[head+i], v[head+i+hd/2] = a*cos-b*sin, b*cos+a*sin
		}
	}
}

func invFreq(i, hd int) float64 { return math.Pow(ropeTheta, -2*float64(i)/float64(hd)) }

func (d *Decoder) logits(h []float64) []float64 {
	z := make([]float64, d.V)
	for v := range z {
		for i, x := range h {
			z[v] += float64(d.head[v*d.D+i]) * x
		}
		if d.bias != nil {
			z[v] += float64(d.bias[v])
		}
		z[v] *= float64(d.Scale)
		if c := float64(d.Softcap); c > 0 {
			z[v] = c * math.Tanh(z[v]/c)
		}
	}
	return z
}

func rms(x []float64, w []float32) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v / math.Sqrt(sum/float64(len(x))+normEps) * float64(w[i])
	}
	return out
}

// times returns x W, W being [in,out].
func times(x []float64, w []float32) []float64 {
	out := make([]float64, len(w)/len(x))
	for i, v := range x {
		for j := range out {
			out[j] += v * float64(w[i*len(out)+j])
		}
	}
	return out
}

func add(dst, x []float64) {
	for i, v := range x {
		dst[i] += v
	}
}
