package pipeline

import "github.com/dpo-pipe/dpo-pipe/loss"

// objective parses the loss and its options. Settings that contradict each other,
// or that nothing in the mix uses, are refused with the reason.
func (c TrainConfig) objective() (*loss.Objective, error) {
	divergence, err := loss.ParseDivergence(c.FDivergence)
	if err != nil {
		return nil, &FieldError{"--f-divergence", c.FDivergence, err.Error()}
	}
	o, err := loss.Parse(c.Loss, loss.Options{
		Beta: c.Beta, LabelSmoothing: c.LabelSmoothing, Divergence: divergence, DivergenceAlpha: c.FAlpha,
		LDAlpha: c.LDAlpha, WPO: c.WPO, Gamma: c.Gamma, NLLWeight: c.NLLWeight, Lambda: c.Lambda, Temperature: c.Tau,
	})
	if err != nil {
		return nil, &FieldError{"--loss", c.Loss, "an objective that fits the other settings: " + err.Error()}
	}
	return o, nil
}
