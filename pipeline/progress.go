package pipeline

import "time"

// Progress is one report of a stage that takes long.
type Progress struct {
	// Stage is what is being done, for example "precompute-ref" or "train".
	Stage string
	// Done of Total units are finished; Total is 0 while it is not known.
	Done, Total int64
	// Unit names what is counted: "pairs" or "steps".
	Unit string
	// Tokens is how many tokens have been run since the start.
	Tokens int64
	// Elapsed is the time since the stage began, and Fresh how many of Done were
	// finished in it: a resumed stage begins with Done > 0.
	Elapsed time.Duration
	Fresh   int64
	// Note carries the figures of the moment, for example the loss.
	Note string
}

// Rate is the number of units finished a second, 0 before the first.
func (p Progress) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Fresh) / p.Elapsed.Seconds()
}

// Left estimates the time to the end; it is 0 when that can't be told.
func (p Progress) Left() time.Duration {
	rate := p.Rate()
	if rate == 0 || p.Total <= p.Done {
		return 0
	}
	return time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
}

// A Reporter receives progress. It is called from one goroutine, often; it must
// be quick. A nil Reporter is silent.
type Reporter func(Progress)

func (r Reporter) report(p Progress) {
	if r != nil {
		r(p)
	}
}
