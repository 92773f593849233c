package onnx

import (
	"math"
	"slices"
	"testing"
)

// TestDequantize works (q - zero)·scale by hand for every layout of scales. The levels are
// 1 2 3 / 4 5 6.
func TestDequantize(t *testing.T) {
	for _, c := range []struct {
		name   string
		scale  []float32
		zero   []byte
		axis   int64
		block  int64
		want   []float32
		refuse bool
	}{
		{"one scale", []float32{2}, nil, 1, 0, []float32{2, 4, 6, 8, 10, 12}, false},
		{"columns", []float32{1, 10, 100}, nil, 1, 0, []float32{1, 20, 300, 4, 50, 600}, false},
		{"rows, zero points", []float32{1, 10}, []byte{1, 4}, 0, 0, []float32{0, 1, 2, 0, 10, 20}, false},
		{"blocks of a row", []float32{1, 10, 2, 20}, nil, -1, 2, []float32{1, 2, 30, 8, 10, 120}, false},
		{"blocks of a column", []float32{1, 2, 3}, nil, 0, 2, []float32{1, 4, 9, 4, 10, 18}, false},
		{"too few", []float32{1, 2}, nil, 1, 0, nil, true},
		{"too few zero points", []float32{1, 10, 100}, []byte{1}, 1, 0, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := tail(func(g *Graph) {
				in := []string{"q", "s"}
				g.AddInitializer(NewTensor("q", Uint8, []int64{2, 3}, []byte{1, 2, 3, 4, 5, 6}))
				g.AddInitializer(Float32Tensor("s", c.scale, int64(len(c.scale))))
				if c.zero != nil {
					g.AddInitializer(NewTensor("z", Uint8, []int64{int64(len(c.zero))}, c.zero))
					in = append(in, "z")
				}
				g.Add("DequantizeLinear", in, []string{"dq"}, Int("axis", c.axis), Int("block_size", c.block))
				g.Add("MatMul", []string{"h", "dq"}, []string{"logits"})
			})
			h, err := m.FindHead()
			if err != nil {
				t.Fatal(err)
			}
			w, _, err := h.Dense()
			if (err != nil) != c.refuse {
				t.Fatal(err)
			}
			if err == nil && !slices.Equal(transpose(w, 3, 2), c.want) {
				t.Errorf("got %v, want %v", transpose(w, 3, 2), c.want)
			}
		})
	}
}

// TestLevels unpacks small integers, the first in the low bits.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		dt   DType
		b    []byte
		want []int32
	}{
		{Uint4, []byte{0xf1, 0x08}, []int32{1, 15, 8}},
		{Int4, []byte{0xf1, 0x08}, []int32{1, -1, -8}},
		{Int8, []byte{1, 0xff, 0x80}, []int32{1, -1, -128}},
		{Int16, []byte{1, 0, 0xff, 0xff, 0, 1}, []int32{1, -1, 256}},
		{Uint16, []byte{1, 0, 0xff, 0xff, 0, 1}, []int32{1, 65535, 256}},
	} {
		got, err := NewTensor("", c.dt, []int64{3}, c.b).levels()
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.dt, got, err, c.want)
		}
	}
}

// TestNBits: 8 bits, default and float zero points, a last block that is not full. Row 0 has
// levels 130, 131, …, scale 2; row 1 levels 128, scale 1.
func TestNBits(t *testing.T) {
	const d, block = 17, 16
	levels := make([]byte, 2*2*block)
	for i := range levels {
		levels[i] = 128
		if i < 2*block {
			levels[i] = byte(130 + i)
		}
	}
	for _, zero := range []*Tensor{nil, Float32Tensor("z", []float32{128, 128, 127, 127}, 4)} {
		m := tail(func(g *Graph) {
			in := []string{"h", "q", "s"}
			g.AddInitializer(NewTensor("q", Uint8, []int64{2, 2, block}, levels))
			g.AddInitializer(Float32Tensor("s", []float32{2, 2, 1, 1}, 4))
			if zero != nil {
				in = append(in, g.AddInitializer(zero))
			}
			g.Add("MatMulNBits", in, []string{"logits"}, Int("K", d), Int("N", 2), Int("bits", 8), Int("block_size", block)).In("com.microsoft")
		})
		m.Graph.Outputs = []*ValueInfo{NewValueInfo("logits", Float32, Free("B"), Free("T"), Fixed(2))}
		h, err := m.FindHead()
		if err != nil {
			t.Fatal(err)
		}
		w, _, err := h.Dense()
		if err != nil || len(w) != 2*d {
			t.Fatalf("%d values, %v", len(w), err)
		}
		rest := float32(0)
		if zero != nil {
			rest = 1
		}
		for i := range d {
			if w[i] != float32(2*(2+i)) || w[d+i] != rest {
				t.Fatalf("column %d is %g, %g", i, w[i], w[d+i])
			}
		}
	}
}

// TestNarrow: rounding to nearest even and back, worked by hand.
func TestNarrow(t *testing.T) {
	for _, c := range []struct {
		dt   DType
		in   float32
		want float32
	}{
		{Float16, 1 + 1.0/2048, 1},
		{Float16, 1 + 3.0/2048, 1 + 2.0/1024},
		{Float16, 1e-7, 1.1920929e-07},
		{Float16, 65504, 65504},
		{BFloat16, 1 + 1.0/256, 1},
		{BFloat16, 1 + 3.0/256, 1 + 2.0/128},
		{BFloat16, -3, -3},
		{Float64, 0.1, 0.1},
		{Float32, 0.1, 0.1},
	} {
		got, err := widen(narrow([]float32{c.in}, c.dt), c.dt)
		if err != nil || got[0] != c.want {
			t.Errorf("%g as %s is %g, want %g (%v)", c.in, c.dt, got[0], c.want, err)
		}
		v := []float32{c.in}
		if round(v, c.dt); v[0] != c.want {
			t.Errorf("%g rounded to %s is %g, want %g", c.in, c.dt, v[0], c.want)
		}
	}
	nan, _ := widen(narrow([]float32{float32(math.NaN())}, BFloat16), BFloat16)
	if nan[0] == nan[0] {
		t.Errorf("NaN became %g", nan[0])
	}
}

// TestTranspose crosses the block size.
func TestTranspose(t *testing.T) {
	for _, n := range []int{1, 31, 32, 33} {
		m := make([]float32, n*3)
		for i := range m {
			m[i] = float32(i)
		}
		for i, x := range transpose(m, n, 3) {
			if want := float32(i%n*3 + i/n); x != want {
				t.Fatalf("n %d: value %d is %g, want %g", n, i, x, want)
			}
		}
	}
}
