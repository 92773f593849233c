package pipeline

import (
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// What is taken back is given out again, the last first, and is no more than there is room for.
func TestCachesKeepToTheirRoom(t *testing.T) {
	of := func(sizes ...int) *models.Cache {
		c := &models.Cache{}
		for _, n := range sizes {
			c.Data = append(c.Data, make([]byte, 1, n))
		}
		return c
	}
	c := spareCaches(10 * keptShare)
	a, b, large, small := of(2, 2), of(3, 2), of(2), of(1)
	for _, one := range []*models.Cache{a, nil, b, large, small} { // 4, 9, 11, 10 bytes
		c.put(one)
	}
	for i, want := range []*models.Cache{small, b, a, nil, nil} {
		if got := c.get(); got != want {
			t.Errorf("cache %d is %v, want %v", i, got, want)
		}
	}
	c.put(large)
	if got := c.get(); got != large {
		t.Error("what was given out still takes room")
	}
}
