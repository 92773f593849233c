package models

// Run is a stretch of tokens that a backbone, the frozen transformer in front of the
// LM head, reads in one row of a batch: a whole text, or what follows stretches that
// were run before.
type Run struct {
	// Past are the caches of the runs that precede this one, first to last; none at
	// the beginning of a text.
	Past []*Cache
	// IDs are the tokens, one or more.
	IDs []int32
	// From is the first of IDs whose hidden state is wanted, len(IDs) for none.
	From int
	// Hidden receives the states [len(IDs)-From, D], float32, row-major; it is grown
	// where it is too small.
	Hidden []float32
	// Keep asks for Cache, which runs that follow this one need. One that is there is written
	// over, and its memory used where that is enough.
	Keep  bool
	Cache *Cache
}

// PastTokens is how many tokens precede the run.
func (r *Run) PastTokens() (n int) {
	for _, c := range r.Past {
		n += c.Tokens
	}
	return n
}

// Cache holds the keys and values of the tokens of one run. Data is as the backbone
// that made it lays them out, and is of use to no other.
type Cache struct {
	Tokens int
	Data   [][]byte
}

// Continuation says which runs may follow others in one batch. Each kind includes
// those before it.
type Continuation int

// The kinds.
const (
	NoContinuation Continuation = iota // every run is a whole text: there is no cache
	OneByOne                           // a run with a past is a batch of its own
	EqualPast                          // runs of a batch have pasts of one length
	AnyPast                            // runs of a batch have pasts of any length
)

func (c Continuation) String() string {
	return [...]string{"none", "one by one", "equal past", "any past"}[c]
}

// Traits are what a backbone can do.
type Traits struct {
	Continuation Continuation
	// CacheBytes is the size of one token's keys and values.
	CacheBytes int64
	// Lanes is how many batches are best run at once.
	Lanes int
}
