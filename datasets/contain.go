package datasets

import (
	"fmt"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// maxAllocation is the largest single buffer the Arrow and Parquet readers may
// ask for: a corrupted length is then an error and not the end of the process.
// A page or a column of a record batch must fit into it.
const maxAllocation = 2 << 30

// maxItems is how many list items a row of a table may have: a few bytes can say
// that there are billions of nulls.
const maxItems = 1 << 20

var errTooManyItems = fmt.Errorf("the row has more than %d list items", maxItems)

// A cappedAllocator panics with an error where more than limit bytes are wanted;
// contain turns that into an error.
type cappedAllocator struct {
	memory.Allocator
	limit int64
}

func (a cappedAllocator) Allocate(size int) []byte {
	a.check(size)
	return a.Allocator.Allocate(size)
}

func (a cappedAllocator) Reallocate(size int, b []byte) []byte {
	a.check(size)
	return a.Allocator.Reallocate(size, b)
}

func (a cappedAllocator) check(size int) {
	if size < 0 || int64(size) > a.limit {
		panic(fmt.Errorf("a buffer of %d bytes is wanted, at most %d are granted", size, a.limit))
	}
}

// contain turns a panic into *err. The Arrow and Parquet libraries panic on much
// corrupted input; this package calls only those of their parts that work in the
// caller's goroutine, where it can be caught.
func contain(err *error) {
	if r := recover(); r != nil {
		if cause, ok := r.(error); ok {
			*err = fmt.Errorf("corrupted data: %w", cause)
		} else {
			*err = fmt.Errorf("corrupted data: %v", r)
		}
	}
}
