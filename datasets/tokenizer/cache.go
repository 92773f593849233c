package tokenizer

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	cacheSlots   = 1 << 15 // at most about 6 MB with typical words
	cachePiece   = 48      // bytes; longer pieces rarely come again
	cacheSymbols = 48
)

// A cache remembers the tokens of pieces seen lately. Each piece has one slot,
// which the last one to come keeps, so its size is bounded and goroutines share
// it without a lock. It never moves an id: a hit is what would be computed.
type cache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cached]
}

type cached struct {
	piece   string
	symbols []symbol
}

func newCache() cache {
	return cache{maphash.MakeSeed(), make([]atomic.Pointer[cached], cacheSlots)}
}

func (c *cache) slot(piece string) *atomic.Pointer[cached] {
	return &c.slots[maphash.String(c.seed, piece)%cacheSlots]
}

// get returns the tokens of piece, or nil. They must not be changed.
func (c *cache) get(piece string) []symbol {
	if len(piece) > cachePiece {
		return nil
	}
	if e := c.slot(piece).Load(); e != nil && e.piece == piece {
		return e.symbols
	}
	return nil
}

func (c *cache) put(piece string, symbols []symbol) {
	if len(piece) > cachePiece || len(symbols) > cacheSymbols || len(symbols) == 0 {
		return
	}
	c.slot(piece).Store(&cached{strings.Clone(piece), slices.Clone(symbols)})
}
