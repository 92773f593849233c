package pipeline

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

const (
	// resamples is how many times the pairs are drawn again for an interval.
	resamples = 1000
	// coverage of intervals.
	coverage = 0.95
	// bootstrapSeed is fixed: an evaluation is the same whenever it is repeated, and
	// two checkpoints are compared on the same resamples.
	bootstrapSeed = 0x64706f
)

// bootstrap draws prompts with replacement as the pairs stream by (Poisson
// bootstrap, Chamandy et al., Google 2012): each resample takes a prompt k times, k
// from a Poisson distribution of mean 1, which is what drawing n of n tends to.
// Nothing is kept of a pair but 1,000 sums, so memory does not grow with the data.
// The counts follow from the key of the prompt: the pairs of one prompt, which are
// not independent, come and go together, and batches and order don't matter.
type bootstrap struct {
	counts  [resamples]uint8 // of the current prompt
	samples []loss.Metrics   // [resamples]
}

func newBootstrap() *bootstrap { return &bootstrap{samples: make([]loss.Metrics, resamples)} }

// add puts the metrics of one pair into every resample, as often as that holds its
// prompt.
func (b *bootstrap) add(prompt [16]byte, pair *loss.Metrics) {
	b.draw(prompt)
	for i, k := range b.counts {
		if k > 0 {
			b.samples[i].Repeat(pair, int(k))
		}
	}
}

// draw fills counts with the multiplicities of a prompt.
func (b *bootstrap) draw(prompt [16]byte) {
	r := rand.NewPCG(binary.LittleEndian.Uint64(prompt[:8])^bootstrapSeed, binary.LittleEndian.Uint64(prompt[8:]))
	for i := range b.counts {
		b.counts[i] = poisson(r.Uint64())
	}
}

// poissonSteps are the cumulative probabilities of 0, 1, … at mean 1, as shares of 2^64.
var poissonSteps = func() (steps []uint64) {
	p, sum := math.Exp(-1), 0.0
	for k := 1; sum+p < 1 && k < 16; k++ {
		sum += p
		steps = append(steps, uint64(sum*(1<<63))<<1)
		p /= float64(k)
	}
	return steps
}()

// poisson turns 64 uniform bits into a count with mean 1.
func poisson(u uint64) uint8 {
	k := 0
	for k < len(poissonSteps) && u >= poissonSteps[k] {
		k++
	}
	return uint8(k)
}

// table holds the metrics of every resample: [metric][resample], resamples without a
// pair left out.
func (b *bootstrap) table() [][]float64 {
	var columns [][]float64
	for i := range b.samples {
		m := b.samples[i].Means()
		if m.Pairs == 0 {
			continue
		}
		at := 0
		m.Named(func(_ string, v float64) {
			if at == len(columns) {
				columns = append(columns, nil)
			}
			columns[at] = append(columns[at], v)
			at++
		})
	}
	return columns
}

// An Interval holds a figure's true value in 95 of 100 evaluations (percentile
// bootstrap over prompts).
type Interval struct {
	Name      string
	Low, High float64
}

// Intervals are in the order of their figures. In JSON they are one object of
// [low, high].
type Intervals []Interval

// Get returns the interval of that name, NaN where there is none.
func (v Intervals) Get(name string) Interval {
	for _, x := range v {
		if x.Name == name {
			return x
		}
	}
	return Interval{name, math.NaN(), math.NaN()}
}

// MarshalJSON writes one object, keys in order; ends that are not finite are null.
func (v Intervals) MarshalJSON() ([]byte, error) {
	return objectOf(v, func(b *bytes.Buffer, x Interval) string {
		b.WriteByte('[')
		writeNumber(b, x.Low)
		b.WriteByte(',')
		writeNumber(b, x.High)
		b.WriteByte(']')
		return x.Name
	}), nil
}

// UnmarshalJSON reads one object in its order; null is an end that is not finite.
func (v *Intervals) UnmarshalJSON(data []byte) error {
	*v = nil
	return eachField(data, "intervals", func(name string, dec *json.Decoder) error {
		var ends [2]*float64
		if err := dec.Decode(&ends); err != nil {
			return err
		}
		*v = append(*v, Interval{name, orNaN(ends[0]), orNaN(ends[1])})
		return nil
	})
}

// intervalsOf takes the middle of each figure's resamples; columns are in the order of
// the figures.
func intervalsOf(figures Values, columns [][]float64) Intervals {
	out := make(Intervals, len(columns))
	for i, column := range columns {
		out[i] = Interval{figures[i].Name, quantile(column, (1-coverage)/2), quantile(column, (1+coverage)/2)}
	}
	return out
}

// quantile returns the q-quantile of x, between order statistics linearly; x is sorted
// in place. It is NaN where x holds NaN or nothing.
func quantile(x []float64, q float64) float64 {
	slices.Sort(x)
	if len(x) == 0 || math.IsNaN(x[0]) { // NaN sorts first
		return math.NaN()
	}
	at := q * float64(len(x)-1)
	low := int(at)
	if low+1 >= len(x) {
		return x[len(x)-1]
	}
	f := at - float64(low)
	return x[low]*(1-f) + x[low+1]*f
}
