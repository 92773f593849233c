package pipeline

import "github.com/dpo-pipe/dpo-pipe/loss"

// lossSettings are those that the loss of a pair depends on, apart from the head: losses
// compare where they are equal.
type lossSettings struct {
	name string
	loss.Options
}

// lossSettings fails where the divergence has no such name.
func (c TrainConfig) lossSettings() (lossSettings, error) {
	divergence, err := loss.ParseDivergence(c.FDivergence)
	if err != nil {
		return lossSettings{}, &FieldError{"--f-divergence", c.FDivergence, err.Error()}
	}
	return lossSettings{c.Loss, loss.Options{
		Beta: c.Beta, LabelSmoothing: c.LabelSmoothing, Divergence: divergence, DivergenceAlpha: c.FAlpha,
		LDAlpha: c.LDAlpha, WPO: c.WPO, Gamma: c.Gamma, NLLWeight: c.NLLWeight, Lambda: c.Lambda, Temperature: c.Tau,
	}}, nil
}

// objective parses the loss and its options. Settings that contradict each other,
// or that nothing in the mix uses, are refused with the reason.
func (c TrainConfig) objective() (*loss.Objective, error) {
	s, err := c.lossSettings()
	if err != nil {
		return nil, err
	}
	o, err := loss.Parse(s.name, s.Options)
	if err != nil {
		return nil, &FieldError{"--loss", c.Loss, "an objective that fits the other settings: " + err.Error()}
	}
	return o, nil
}
