package loss

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
	// Clamped is the share of pairs whose exponents had to be bounded.
	Clamped float64
	// ChosenTokens and Tokens count the completion tokens that were added.
	ChosenTokens, Tokens int
}

// Add counts the pairs of p, whose terms are t.
func (m *Metrics) Add(o *Objective, p *Pairs, t *Terms) {
	beta := o.opts.Beta
	for i := range p.PolicyChosen {
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
		m.rewardChosen += beta * uc
		m.rewardRejected += beta * ur
		if uc > ur {
			m.accurate++
		}
		m.weight += p.weight(i)
		m.loss += p.weight(i) * t.Loss[i]
	}
	m.pairs += p.Len()
	m.clamped += t.Clamped
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
func (m *Metrics) Merge(n *Metrics) {
	m.pairs += n.pairs
	m.weight += n.weight
	m.loss += n.loss
	m.rewardChosen += n.rewardChosen
	m.rewardRejected += n.rewardRejected
	m.accurate += n.accurate
	m.likelier += n.likelier
	m.clamped += n.clamped
	m.logpsChosen += n.logpsChosen
	m.logpsRejected += n.logpsRejected
	m.tokens += n.tokens
	m.chosenTokens += n.chosenTokens
	m.topRight += n.topRight
	m.entropy += n.entropy
	m.kl += n.kl
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

// Named calls set for each mean under TRL's metric name.
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
	set("clamped", m.Clamped)
}
