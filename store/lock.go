package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// LockName is the object below a place that says who writes there.
const LockName = hiddenPrefix + "lock"

// Lease is how long a lock counts that is not renewed any more: its holder was killed.
const Lease = 15 * time.Minute

// renewEvery leaves a holder several attempts, and clocks some difference.
const renewEvery = Lease / 5

// A Lock is a place in a store, held for one writer by an object that stores write on a
// condition only. Its holder renews it; a killed holder's counts no more after [Lease], and
// anybody may break one by removing the object. It is safe for concurrent use.
type Lock struct {
	bucket *Bucket
	owner  string // process, host and time
	nonce  string // tells this lock from all others

	mu      sync.Mutex
	version string

	// base is the context of its requests, life ends when the lock is lost or given free.
	base, life context.Context
	end        context.CancelCauseFunc
	renewing   sync.WaitGroup
}

// Acquire holds the place that a URL names, without waiting for another holder's end. The
// error is a *[lockfile.LockedError] where it is held. The context's end does not end the lock.
func Acquire(ctx context.Context, url string) (*Lock, error) {
	b, err := Open(ctx, url)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?" // for people
	}
	l := &Lock{
		bucket: b, nonce: rand.Text(), base: context.WithoutCancel(ctx),
		owner: fmt.Sprintf("process %d on host %s since %s", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339)),
	}
	l.life, l.end = context.WithCancelCause(l.base)
	if err := l.take(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	l.renewing.Go(l.keep)
	return l, nil
}

// text is what the object holds: who has the lock, and when that was so last.
func (l *Lock) text() []byte {
	return fmt.Appendf(nil, "%s\nseen %s %s\n", l.owner, time.Now().UTC().Format(time.RFC3339Nano), l.nonce)
}

// take writes the object where there is none, or in the place of one that counts no more.
func (l *Lock) take(ctx context.Context) error {
	condition := Condition{Absent: true}
	for attempt := 1; ; attempt++ {
		mine := l.text()
		err := l.bucket.WritePointer(ctx, LockName, mine, condition)
		if kind := KindOf(err); err != nil && kind != Exists && kind != Changed {
			return err
		}
		// A write whose answer was lost is there and failed; and not every server knows conditions.
		text, version, err := l.bucket.ReadPointer(ctx, LockName)
		switch {
		case errors.Is(err, fs.ErrNotExist) && attempt < changes: // given free meanwhile
			condition = Condition{Absent: true}
			continue
		case err != nil:
			return err
		case string(text) == string(mine):
			l.version = version
			return nil
		case !expired(text) || attempt == changes:
			return &lockfile.LockedError{Path: l.bucket.at.String(), Holder: holderOf(text)}
		}
		condition = Condition{Version: version}
	}
}

// holderOf is who a lock's text names.
func holderOf(text []byte) string {
	owner, _, _ := strings.Cut(string(text), "\n")
	return strings.ToValidUTF8(owner, "?")
}

// expired reports a lock whose holder has not renewed it in a long time. One that is not
// understood is held.
func expired(text []byte) bool {
	_, seen, _ := strings.Cut(string(text), "\nseen ")
	at, _, _ := strings.Cut(seen, " ")
	last, err := time.Parse(time.RFC3339Nano, at)
	return err == nil && time.Since(last) > Lease
}

// Holder says who holds the place that a URL names; "" where nobody does.
func Holder(ctx context.Context, url string) (string, error) {
	b, err := Open(ctx, url)
	if err != nil {
		return "", err
	}
	defer b.Close()
	text, _, err := b.ReadPointer(ctx, LockName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && expired(text) {
		return "", nil
	}
	return holderOf(text), err
}

// keep renews the lock until it is lost or given free. A store that can't be reached for a
// while is no loss: nobody else could take it then either, or Renew will say so.
func (l *Lock) keep() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.life.Done():
			return
		case <-tick.C:
			_ = l.Renew(l.life)
		}
	}
}

// Renew makes sure that the lock is held still. Whoever writes under it asks before; the
// error is of kind [Changed] where another process has it, or somebody broke it.
func (l *Lock) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life.Err() != nil {
		return context.Cause(l.life)
	}
	mine := l.text()
	err := l.bucket.WritePointer(ctx, LockName, mine, Condition{Version: l.version})
	if err != nil && KindOf(err) != Changed {
		return err
	}
	text, version, err := l.bucket.ReadPointer(ctx, LockName)
	if err == nil && string(text) == string(mine) {
		l.version = version
		return nil
	}
	reason := "it was removed"
	switch {
	case err == nil:
		reason = holderOf(text) + " has it now"
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	lost := &Error{Op: "hold", URL: l.bucket.at.String(), Kind: Changed, Err: errors.New("the lock is lost: " + reason)}
	l.end(lost)
	return lost
}

// Guard returns a context that ends, with the error of Renew as its cause, when the lock is lost.
func (l *Lock) Guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.life, func() { cancel(context.Cause(l.life)) })
	return ctx, func() { stop(); cancel(nil) }
}

// Release gives the place free, unless the lock is lost.
func (l *Lock) Release() error {
	held := l.life.Err() == nil
	l.end(nil)
	l.renewing.Wait()
	var err error
	if held {
		err = l.remove()
	}
	return errors.Join(err, l.bucket.Close())
}

// remove removes the object if it is this lock's.
func (l *Lock) remove() error {
	text, _, err := l.bucket.ReadPointer(l.base, LockName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !strings.HasSuffix(string(text), " "+l.nonce+"\n") {
		return err
	}
	return l.bucket.Delete(l.base, LockName)
}
