package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

func TestUnusableCheckpoints(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"sound", nil, false},
		{"changed", fmt.Errorf("head: %w", checksum.ErrChanged), true},
		{"gone", &fs.PathError{Op: "open", Path: "head", Err: syscall.ENOENT}, true},
		{"unreadable disk", fmt.Errorf("head: %w", &fs.PathError{Op: "read", Path: "head", Err: syscall.EIO}), false},
		{"no permission", &fs.PathError{Op: "open", Path: "head", Err: syscall.EACCES}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := unusable("step-7", c.err)
			var resume *ResumeError
			if got := errors.As(err, &resume); got != c.want {
				t.Errorf("is a ResumeError: %t, want %t", got, c.want)
			}
			if !errors.Is(err, c.err) {
				t.Errorf("got %v, want it to wrap %v", err, c.err)
			}
		})
	}
}
