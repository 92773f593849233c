package loss

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// window counts pairs given as rows of log-ratios u_c, u_r and lengths n_c, n_r;
// β is 1, so that margins are differences of log-ratios.
func window(t testing.TB, rows [][4]float64) *Metrics {
	t.Helper()
	m := new(Metrics)
	if len(rows) == 0 {
		return m
	}
	opts := DefaultOptions()
	opts.Beta = 1
	o := mustParse(t, "sigmoid", opts)
	var p Pairs
	for _, r := range rows {
		p.PolicyChosen, p.PolicyRejected = append(p.PolicyChosen, r[0]-20), append(p.PolicyRejected, r[1]-30)
		p.RefChosen, p.RefRejected = append(p.RefChosen, -20), append(p.RefRejected, -30)
		p.ChosenTokens, p.RejectedTokens = append(p.ChosenTokens, int(r[2])), append(p.RejectedTokens, int(r[3]))
	}
	var terms Terms
	o.Terms(&terms, &p, p.Totals())
	m.Add(o, &p, &terms)
	return m
}

func TestLengthBuckets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		longer int
		want   string
	}{
		{-1000, "< -32"},
		{-33, "< -32"},
		{-32, "-32 to -9"},
		{-9, "-32 to -9"},
		{-8, "-8 to -1"},
		{-1, "-8 to -1"},
		{0, "0"},
		{1, "1 to 8"},
		{8, "1 to 8"},
		{9, "9 to 32"},
		{32, "9 to 32"},
		{33, "> 32"},
		{1000, "> 32"},
	} {
		got := window(t, [][4]float64{{1, 0, float64(2000 + tt.longer), 2000}}).LengthBuckets()
		if diff := cmp.Diff(got, []LengthBucket{{tt.want, 1, 1}}); diff != "" {
			t.Errorf("%d tokens longer: %s", tt.longer, diff)
		}
	}
	// Of four pairs whose chosen completion is longer by 1 to 8, one is right, one a tie.
	got := window(t, [][4]float64{{1, 0, 9, 8}, {0, 1, 9, 8}, {1, 1, 9, 1}, {-3, 1, 5, 1}, {2, 1, 7, 7}}).LengthBuckets()
	if diff := cmp.Diff(got, []LengthBucket{{"0", 1, 1}, {"1 to 8", 4, 0.25}}); diff != "" {
		t.Error(diff)
	}
}

func TestLengthCorrelation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		rows [][4]float64
		want float64
	}{
		{"nothing", nil, 0},
		{"one pair", [][4]float64{{1, 0, 5, 3}}, 0},
		{"the same margin", [][4]float64{{0.1, 0, 5, 3}, {0.1, 0, 9, 3}, {0.1, 0, 2, 3}}, 0},
		{"the same length", [][4]float64{{1, 0, 5, 3}, {2, 0, 5, 3}}, 0},
		{"longer wins", [][4]float64{{1, 0, 5, 3}, {2, 0, 7, 3}, {3, 0, 9, 3}}, 1},
		{"shorter wins", [][4]float64{{3, 0, 5, 3}, {2, 0, 7, 3}, {1, 0, 9, 3}}, -1},
		// Margins 1 2 6 against lengths 0 1 2: deviations -2 -1 3 and -1 0 1, so 5/√(14·2).
		{"by hand", [][4]float64{{1, 0, 3, 3}, {2, 0, 4, 3}, {6, 0, 5, 3}}, 5 / math.Sqrt(28)},
	} {
		near(t, tt.name, window(t, tt.rows).Means().LengthCorrelation, tt.want, goldenTol64)
	}
}

// momentTol is for variances that come from sums of squares, not from deviations.
const momentTol = 1e-9

func TestLengthCorrelationAgainstDeviations(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "N")
		rows := make([][4]float64, n)
		var mx, my float64
		for i := range rows {
			u := rapid.Float64Range(-20, 20).Draw(t, "u")
			rows[i] = [4]float64{u, 0, float64(rapid.IntRange(1, 900).Draw(t, "n_c")), float64(rapid.IntRange(1, 900).Draw(t, "n_r"))}
			mx += rows[i][0] / float64(n)
			my += (rows[i][2] - rows[i][3]) / float64(n)
		}
		var xx, yy, xy float64
		for _, r := range rows {
			dx, dy := r[0]-mx, r[2]-r[3]-my
			xx, yy, xy = xx+dx*dx, yy+dy*dy, xy+dx*dy
		}
		// Where next to nothing varies, no sum tells the correlation.
		if xx < 1e-3 || yy < 1e-3 {
			return
		}
		m := new(Metrics)
		for _, r := range rows {
			m.lengths.add(int(r[2]-r[3]), r[0])
		}
		near(t, "correlation", m.Means().LengthCorrelation, xy/math.Sqrt(xx*yy), momentTol)
	})
}

func TestCalibration(t *testing.T) {
	t.Parallel()
	// logit gives the margin at which σ has that value.
	logit := func(p float64) float64 { return math.Log(p / (1 - p)) }
	// Confidence 0.62, twice right and once wrong; 0.97, wrong; a tie at ½.
	m := window(t, [][4]float64{
		{logit(0.62), 0, 1, 1}, {logit(0.62), 0, 1, 1}, {0, logit(0.62), 1, 1}, {0, logit(0.97), 1, 1}, {2, 2, 1, 1},
	})
	bins := m.Calibration()
	want := []CalibrationBin{
		{0.5, 0.55, 1, 0.5, 0.5}, {0.6, 0.65, 3, 0.62, 2. / 3}, {0.95, 1, 1, 0.97, 0},
	}
	if len(bins) != len(want) {
		t.Fatalf("bins are %+v, want %+v", bins, want)
	}
	for i, w := range want {
		b := bins[i]
		for _, v := range [][2]float64{{b.From, w.From}, {b.To, w.To}, {b.Confidence, w.Confidence}, {b.Accuracy, w.Accuracy}} {
			near(t, fmt.Sprintf("bin %d", i), v[0], v[1], goldenTol64)
		}
		if b.Pairs != w.Pairs {
			t.Errorf("bin %d has %d pairs, want %d", i, b.Pairs, w.Pairs)
		}
	}
	near(t, "error", m.Means().CalibrationError, (3*(2./3-0.62)+0.97)/5, goldenTol64)
}

// Far margins and NaN have a bin.
func TestCalibrationAtTheEnds(t *testing.T) {
	t.Parallel()
	for _, margin := range []float64{1e6, -1e6, math.Inf(1), math.NaN()} {
		var m Metrics
		m.calibrate(margin)
		if got := m.bins[calibrationBins-1].pairs; got != 1 {
			t.Errorf("margin %v: the last bin has %d pairs, want 1", margin, got)
		}
	}
	if got := new(Metrics).Means().CalibrationError; got != 0 {
		t.Errorf("error of nothing is %v, want 0", got)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	var m Metrics
	// Pair 1: chosen falls by 1 in 3 tokens, rejected by 4 in 2; pair 2: chosen rises by
	// ½ in 1 token, rejected by 1 in 1.
	for _, p := range []PairTokens{
		{Chosen: []float64{-1, -2, -3}, RefChosen: []float32{-1, -1.5, -2.5}, Rejected: []float64{-5, -3}, RefRejected: []float32{-2, -2}},
		{Chosen: []float64{-1}, RefChosen: []float32{-1.5}, Rejected: []float64{-3}, RefRejected: []float32{-4}},
	} {
		m.AddDrift(&p)
		m.AddTokens(true, len(p.Chosen), 0, nil, nil)
		m.AddTokens(false, len(p.Rejected), 0, nil, nil)
	}
	m.pairs = 2
	got := m.Means()
	near(t, "chosen", got.DriftChosen, -0.5/4, goldenTol64)
	near(t, "rejected", got.DriftRejected, -3./3, goldenTol64)
	near(t, "lowered", got.ChosenLowered, 0.5, goldenTol64)
}

// A window that is repeated is one whose pairs came so many times.
func TestRepeat(t *testing.T) {
	t.Parallel()
	rows := [][4]float64{{1, -2, 3, 5}, {-0.5, 0.25, 40, 2}, {0, 0, 7, 7}}
	tokens := PairTokens{Chosen: []float64{-1, -4}, RefChosen: []float32{-1, -2}, Rejected: []float64{-3}, RefRejected: []float32{-2}}
	one := func() *Metrics {
		m := window(t, rows)
		m.AddTokens(true, 2, 1, []float64{0.5, 2}, []float64{0.25, 0.5})
		m.AddTokens(false, 1, 0, []float64{1}, []float64{0.75})
		m.AddDrift(&tokens)
		m.clamped = 1
		return m
	}
	var merged, repeated Metrics
	for range 3 {
		merged.Merge(one())
	}
	repeated.Repeat(one(), 3)
	repeated.Repeat(one(), 0)
	a, b := fields(&merged), fields(&repeated)
	for i := range a {
		near(t, fmt.Sprintf("sum %d", i), b[i], a[i], goldenTol64)
	}
}

// fields lists what a window tells.
func fields(m *Metrics) (v []float64) {
	means := m.Means()
	means.Named(func(_ string, x float64) { v = append(v, x) })
	v = append(v, float64(means.Pairs), float64(means.Tokens), float64(means.ChosenTokens))
	for _, b := range m.LengthBuckets() {
		v = append(v, float64(b.Pairs), b.Accuracy)
	}
	for _, b := range m.Calibration() {
		v = append(v, float64(b.Pairs), b.Confidence, b.Accuracy)
	}
	return v
}
