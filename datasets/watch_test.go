package datasets

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	var reads atomic.Int64
	patient, hasty := watch{&reads, time.Hour}, watch{&reads, time.Millisecond}
	cause := errors.New("cause")
	if err := patient.call(func() error { return cause }); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	if err := patient.call(func() error { panic("odd") }); err == nil || !strings.Contains(err.Error(), "corrupted data: odd") {
		t.Errorf("got %v, want the panic", err)
	}
	stuck := make(chan struct{})
	if err := hasty.call(func() error { <-stuck; return nil }); err != errStuck {
		t.Errorf("got %v, want %v", err, errStuck)
	}
	close(stuck)
	// A read that has not ended is not being stuck.
	reads.Store(1)
	if err := hasty.call(func() error { time.Sleep(20 * time.Millisecond); return nil }); err != nil {
		t.Errorf("during a read: %v", err)
	}
}
