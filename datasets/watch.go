package datasets

import (
	"errors"
	"sync/atomic"
	"time"
)

// patience is how long a library may work on what it has read before it reads more or
// is done: minutes more than any page or batch takes.
const patience = 2 * time.Minute

// errStuck ends the reading of a file over which a library doesn't come to an end.
var errStuck = errors.New("corrupted data: decoding makes no progress")

// A watch bounds calls into a library that decodes.
type watch struct {
	reads    *atomic.Int64 // see guardedFile
	patience time.Duration
}

// call runs do in a goroutine of its own, where a panic is an error. A call that neither
// ends nor reads for as long as patience is left behind with errStuck: it holds a processor until
// the process ends, which is why that error is fatal.
func (w watch) call(do func() error) error {
	ended := make(chan error, 1)
	go func() {
		var err error
		defer func() { ended <- err }()
		defer contain(&err)
		err = do()
	}()
	timer := time.NewTimer(w.patience)
	defer timer.Stop()
	for before := w.reads.Load(); ; {
		select {
		case err := <-ended:
			return err
		case <-timer.C:
		}
		now := w.reads.Load()
		// An odd number is a read that has not ended: the disk or the network is slow.
		if now == before && now%2 == 0 {
			return errStuck
		}
		before = now
		timer.Reset(w.patience)
	}
}
