package pipeline

import "fmt"

// An Alarm is a finding that spoils a policy whatever its accuracy.
type Alarm struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

const (
	// displacedDrift is the drift of chosen tokens, nats, below which likelihood
	// displacement is called strong: each is then e^-0.1, a tenth, less probable than
	// under the reference. Weaker drift comes with most preference training.
	displacedDrift = -0.1
	// displacedShare of the pairs must show it, or a few outliers make the mean.
	displacedShare = 0.5
)

// alarms lists what is wrong; it is empty, not nil, where nothing is.
func alarms(metrics Values) []Alarm {
	found := []Alarm{}
	drift, lowered := metrics.Get("drift/chosen"), metrics.Get("drift/chosen_lowered")
	if drift < displacedDrift && lowered > displacedShare {
		found = append(found, Alarm{"likelihood displacement", fmt.Sprintf(
			"chosen completions became less likely, by %.2f nats a token, in %.0f %% of the pairs; "+
				"add sft to the loss or take dpop, raise beta or train less", -drift, 100*lowered)})
	}
	return found
}
