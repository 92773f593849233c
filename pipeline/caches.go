package pipeline

import (
	"sync"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// caches are keys and values that nothing waits for any more, up to room bytes: what runs keep is
// written over them, as new memory costs more than the copy.
type caches struct {
	room int64

	mu   sync.Mutex
	free []*models.Cache
	size int64 // of all that are free
}

// spareCaches takes back as much as may be kept: that is what the garbage of it would come to.
func spareCaches(memory int64) *caches { return &caches{room: memory / keptShare} }

// get returns a cache to write over; nil where none is free.
func (c *caches) get() *models.Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.free)
	if n == 0 {
		return nil
	}
	last := c.free[n-1]
	c.free = c.free[:n-1]
	c.size -= bytesOf(last)
	return last
}

// put takes a cache back; nil is none.
func (c *caches) put(one *models.Cache) {
	if one == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if size := bytesOf(one); c.size+size <= c.room {
		c.free = append(c.free, one)
		c.size += size
	}
}

// bytesOf is the memory that c has, used or not.
func bytesOf(c *models.Cache) (n int64) {
	for _, data := range c.Data {
		n += int64(cap(data))
	}
	return n
}
