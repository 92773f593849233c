package pipeline

// background is one thing that goes on while others are done.
type background struct{ done chan error }

// start begins f; what was started before must have been waited for.
func (b *background) start(f func() error) {
	done := make(chan error, 1)
	b.done = done
	go func() { done <- f() }()
}

// wait returns what became of the thing that was started, nil where there is none.
func (b *background) wait() error {
	if b.done == nil {
		return nil
	}
	err := <-b.done
	b.done = nil
	return err
}
