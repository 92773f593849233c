package loss

import "math"

// lengthEdges are the lower ends of the buckets of n_c-n_r behind the first.
var lengthEdges = [...]int{-32, -8, 0, 1, 9, 33}

// lengthLabels name the buckets.
var lengthLabels = [len(lengthEdges) + 1]string{"< -32", "-32 to -9", "-8 to -1", "0", "1 to 8", "9 to 32", "> 32"}

// lengthSums hold what length bias is made of.
type lengthSums struct {
	pairs                                int
	margin, length, margin2, length2, ml float64
	buckets                              [len(lengthLabels)]lengthBucketSums
}

type lengthBucketSums struct{ pairs, accurate int }

// add counts a pair whose chosen completion is so many tokens longer.
func (l *lengthSums) add(longer int, margin float64) {
	x := float64(longer)
	l.pairs++
	l.margin += margin
	l.length += x
	l.margin2 += margin * margin
	l.length2 += x * x
	l.ml += margin * x
	at := 0
	for at < len(lengthEdges) && longer >= lengthEdges[at] {
		at++
	}
	l.buckets[at].pairs++
	if margin > 0 {
		l.buckets[at].accurate++
	}
}

func (l *lengthSums) repeat(n *lengthSums, times int) {
	k := float64(times)
	l.pairs += times * n.pairs
	l.margin += k * n.margin
	l.length += k * n.length
	l.margin2 += k * n.margin2
	l.length2 += k * n.length2
	l.ml += k * n.ml
	for i := range l.buckets {
		l.buckets[i].pairs += times * n.buckets[i].pairs
		l.buckets[i].accurate += times * n.buckets[i].accurate
	}
}

// varies is the share of a sum of squares that its variance must have: below, the
// difference is rounding.
const varies = 1e-12

// correlation is Pearson's r of margin and length difference.
func (l *lengthSums) correlation() float64 {
	if l.pairs < 2 {
		return 0
	}
	n := float64(l.pairs)
	vm, vl := l.margin2-l.margin*l.margin/n, l.length2-l.length*l.length/n
	if !(vm > varies*l.margin2 && vl > varies*l.length2) {
		return 0
	}
	r := (l.ml - l.margin*l.length/n) / math.Sqrt(vm*vl)
	return max(-1, min(1, r))
}

// A LengthBucket holds the pairs whose chosen completion is so many tokens longer
// than the rejected one.
type LengthBucket struct {
	// Difference is the range of n_c-n_r, for example "-8 to -1".
	Difference string `json:"difference"`
	Pairs      int    `json:"pairs"`
	// Accuracy is the share of pairs whose chosen reward is strictly higher.
	Accuracy float64 `json:"accuracy"`
}

// LengthBuckets returns reward accuracy by length difference, buckets without pairs
// left out.
func (m *Metrics) LengthBuckets() (buckets []LengthBucket) {
	for i, b := range m.lengths.buckets {
		if b.pairs > 0 {
			buckets = append(buckets, LengthBucket{lengthLabels[i], b.pairs, float64(b.accurate) / float64(b.pairs)})
		}
	}
	return buckets
}

// calibrationBins divide confidences in [½, 1].
const calibrationBins = 10

type calibrationSums struct {
	pairs             int
	confidence, right float64
}

func (c *calibrationSums) repeat(n *calibrationSums, times int) {
	c.pairs += times * n.pairs
	c.confidence += float64(times) * n.confidence
	c.right += float64(times) * n.right
}

// calibrate counts a pair: the policy prefers one side with probability σ(|margin|),
// which should be how often that side is the chosen one. A tie is right by half.
func (m *Metrics) calibrate(margin float64) {
	confidence, right := sigmoid(math.Abs(margin)), 0.5
	switch {
	case margin > 0:
		right = 1
	case margin < 0:
		right = 0
	}
	// NaN, of a head that has diverged, lands in the last bin and stays visible.
	at := calibrationBins - 1
	if x := (confidence - 0.5) * 2 * calibrationBins; x < calibrationBins {
		at = int(x)
	}
	m.bins[at].pairs++
	m.bins[at].confidence += confidence
	m.bins[at].right += right
}

// calibrationError is Σ_bins pairs/N · |mean right - mean confidence|
// (ECE, arXiv:1706.04599 Eq. 3).
func (m *Metrics) calibrationError() float64 {
	var sum float64
	for _, b := range m.bins {
		sum += math.Abs(b.right - b.confidence)
	}
	return ratio(sum, float64(m.pairs))
}

// A CalibrationBin holds the pairs that the policy is about as sure of.
type CalibrationBin struct {
	// From and To bound the confidence σ(|margin|).
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Pairs int     `json:"pairs"`
	// Confidence is the mean of σ(|margin|), Accuracy how often the side that the
	// policy prefers is the chosen one, ties counting half.
	Confidence float64 `json:"confidence"`
	Accuracy   float64 `json:"accuracy"`
}

// Calibration returns confidence against accuracy in ten bins of [½, 1], those
// without pairs left out.
func (m *Metrics) Calibration() (bins []CalibrationBin) {
	for i, b := range m.bins {
		if b.pairs > 0 {
			n := float64(b.pairs)
			bins = append(bins, CalibrationBin{
				From: 0.5 + float64(i)/(2*calibrationBins), To: 0.5 + float64(i+1)/(2*calibrationBins),
				Pairs: b.pairs, Confidence: b.confidence / n, Accuracy: b.right / n,
			})
		}
	}
	return bins
}
