package loss

import "fmt"

// Metrics sums what preference training reports over a logging window. The zero value
// is an empty window.
type Metrics struct {
	pairs                          int
	weight, loss                   float64
	rewardChosen, rewardRejected   float64
	accurate, likelier, clamped    int
	logpsChosen, logpsRejected     float64
	tokens, chosenTokens, topRight int
	entropy, kl                    float64
	shiftChosen, shiftRejected     float64
	lowered                        int
	lengths                        lengthSums
	bins                           [calibrationBins]calibrationSums
}

// Means are the means over a window, under the names of TRL.
type Means struct {
	// Pairs is how many pairs the window holds.
	Pairs int
	// Loss is the weighted mean of the pairs' losses.
	Loss float64
	// RewardsChosen is the mean of β·u_c, RewardsRejected of β·u_r, RewardsMargins
	// of their difference.
	RewardsChosen, RewardsRejected, RewardsMargins float64
	// RewardsAccuracies is the share of pairs whose chosen reward is strictly higher.
	RewardsAccuracies float64
	// LogpsChosen and LogpsRejected are the means of s_c and s_r, nats.
	LogpsChosen, LogpsRejected float64
	// LogpsAccuracies is the share of pairs whose chosen completion is strictly
	// likelier, s_c > s_r: what the policy prefers by itself, whatever the reference.
	LogpsAccuracies float64
	// Entropy and KL are nats, means over completion tokens of both sides.
	Entropy, KL float64
	// MeanTokenAccuracy is the share of chosen tokens that the policy finds most probable.
	MeanTokenAccuracy float64
	// DriftChosen and DriftRejected are Σ(s-ρ)/Σn: how far training moved the
	// log-prob of a token of that side, nats.
	DriftChosen, DriftRejected float64
	// ChosenLowered is the share of pairs whose chosen completion the policy finds
	// strictly less likely than the reference does (likelihood displacement).
	ChosenLowered float64
	// LengthCorrelation is Pearson's correlation of the reward margin with n_c-n_r,
	// 0 where one of them does not vary.
	LengthCorrelation float64
	// CalibrationError is the expected calibration error of σ(|margin|) over the
	// bins of [Metrics.Calibration].
	CalibrationError float64
	// Clamped is the share of pairs whose exponents had to be bounded.
	Clamped float64
	// ChosenTokens and Tokens count the completion tokens that were added.
	ChosenTokens, Tokens int
}

// Add counts the pairs of p, whose terms are t.
func (m *Metrics) Add(o *Objective, p *Pairs, t *Terms) {
	for i := range p.PolicyChosen {
		m.AddPair(o, p, t, i)
	}
}

// AddPair counts pair i of p, whose terms are t.
func (m *Metrics) AddPair(o *Objective, p *Pairs, t *Terms, i int) {
	uc, ur := p.PolicyChosen[i], p.PolicyRejected[i]
	m.logpsChosen += uc
	m.logpsRejected += ur
	if uc > ur {
		m.likelier++
	}
	if p.RefChosen != nil {
		uc -= p.RefChosen[i]
		ur -= p.RefRejected[i]
	}
	m.rewardChosen += o.opts.Beta * uc
	m.rewardRejected += o.opts.Beta * ur
	if uc > ur {
		m.accurate++
	}
	m.weight += p.weight(i)
	m.loss += p.weight(i) * t.Loss[i]
	m.pairs++
	if t.bounded[i] {
		m.clamped++
	}
	margin := o.opts.Beta * (uc - ur)
	m.calibrate(margin)
	if p.ChosenTokens != nil {
		m.lengths.add(p.ChosenTokens[i]-p.RejectedTokens[i], margin)
	}
}

// AddDrift counts how far a pair's completions moved: token log-probs under policy
// and reference, nats, [n_c] and [n_r]. It panics where they differ in length.
func (m *Metrics) AddDrift(t *PairTokens) {
	nc, nr := len(t.Chosen), len(t.Rejected)
	if len(t.RefChosen) != nc || len(t.RefRejected) != nr {
		panic(fmt.Sprintf("loss: %d and %d policy tokens, %d and %d reference tokens", nc, nr, len(t.RefChosen), len(t.RefRejected)))
	}
	chosen := Sum(t.Chosen, 1, nc) - Sum(t.RefChosen, 1, nc)
	m.shiftChosen += chosen
	m.shiftRejected += Sum(t.Rejected, 1, nr) - Sum(t.RefRejected, 1, nr)
	if chosen < 0 {
		m.lowered++
	}
}

// AddTokens counts tokens of one side: entropy and kl [n] nats, or nil where not
// computed; right is how many of them the policy finds most probable.
func (m *Metrics) AddTokens(chosen bool, n, right int, entropy, kl []float64) {
	m.tokens += n
	if chosen {
		m.chosenTokens += n
		m.topRight += right
	}
	for _, h := range entropy {
		m.entropy += h
	}
	for _, d := range kl {
		m.kl += d
	}
}

// Merge adds the window n to m.
func (m *Metrics) Merge(n *Metrics) { m.Repeat(n, 1) }

// Repeat adds the window n to m so many times: what a resample does to its pairs.
func (m *Metrics) Repeat(n *Metrics, times int) {
	k := float64(times)
	m.pairs += times * n.pairs
	m.weight += k * n.weight
	m.loss += k * n.loss
	m.rewardChosen += k * n.rewardChosen
	m.rewardRejected += k * n.rewardRejected
	m.accurate += times * n.accurate
	m.likelier += times * n.likelier
	m.clamped += times * n.clamped
	m.logpsChosen += k * n.logpsChosen
	m.logpsRejected += k * n.logpsRejected
	m.tokens += times * n.tokens
	m.chosenTokens += times * n.chosenTokens
	m.topRight += times * n.topRight
	m.entropy += k * n.entropy
	m.kl += k * n.kl
	m.shiftChosen += k * n.shiftChosen
	m.shiftRejected += k * n.shiftRejected
	m.lowered += times * n.lowered
	m.lengths.repeat(&n.lengths, times)
	for i := range m.bins {
		m.bins[i].repeat(&n.bins[i], times)
	}
}

// Reset empties the window.
func (m *Metrics) Reset() { *m = Metrics{} }

// Means returns the means of what was added; a mean of nothing is 0.
func (m *Metrics) Means() Means {
	n, tokens := float64(m.pairs), float64(m.tokens)
	return Means{
		Pairs:             m.pairs,
		Loss:              ratio(m.loss, m.weight),
		RewardsChosen:     ratio(m.rewardChosen, n),
		RewardsRejected:   ratio(m.rewardRejected, n),
		RewardsMargins:    ratio(m.rewardChosen-m.rewardRejected, n),
		RewardsAccuracies: ratio(float64(m.accurate), n),
		LogpsChosen:       ratio(m.logpsChosen, n),
		LogpsRejected:     ratio(m.logpsRejected, n),
		LogpsAccuracies:   ratio(float64(m.likelier), n),
		Entropy:           ratio(m.entropy, tokens),
		KL:                ratio(m.kl, tokens),
		MeanTokenAccuracy: ratio(float64(m.topRight), float64(m.chosenTokens)),
		DriftChosen:       ratio(m.shiftChosen, float64(m.chosenTokens)),
		DriftRejected:     ratio(m.shiftRejected, float64(m.tokens-m.chosenTokens)),
		ChosenLowered:     ratio(float64(m.lowered), n),
		LengthCorrelation: m.lengths.correlation(),
		CalibrationError:  m.calibrationError(),
		Clamped:           ratio(float64(m.clamped), n),
		ChosenTokens:      m.chosenTokens,
		Tokens:            m.tokens,
	}
}

func ratio(sum, n float64) float64 {
	if n == 0 {
		return 0
	}
	return sum / n
}

// Named calls set for each mean under its metric name, TRL's where TRL has it.
func (m Means) Named(set func(name string, value float64)) {
	set("loss", m.Loss)
	set("rewards/chosen", m.RewardsChosen)
	set("rewards/rejected", m.RewardsRejected)
	set("rewards/margins", m.RewardsMargins)
	set("rewards/accuracies", m.RewardsAccuracies)
	set("logps/chosen", m.LogpsChosen)
	set("logps/rejected", m.LogpsRejected)
	set("logps/accuracies", m.LogpsAccuracies)
	set("entropy", m.Entropy)
	set("kl", m.KL)
	set("mean_token_accuracy", m.MeanTokenAccuracy)
	set("drift/chosen", m.DriftChosen)
	set("drift/rejected", m.DriftRejected)
	set("drift/chosen_lowered", m.ChosenLowered)
	set("length/correlation", m.LengthCorrelation)
	set("calibration/error", m.CalibrationError)
	set("clamped", m.Clamped)
}
