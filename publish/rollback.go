package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Rollback makes an earlier version current: the one named to, or where that is "" the newest
// that is older than the current one and was not withdrawn. Its files are verified first
// (*[DamagedError]). Versions newer than it are withdrawn. A version may also be named to go
// forward again. The error is a *[NoVersionError] where there is none. Where a version's
// description is damaged, which may be the one before, the target must be named.
func (p *Place) Rollback(ctx context.Context, to string) (from, target string, err error) {
	if _, _, err := p.RollbackPlan(ctx, to); err != nil {
		return "", "", err // before anything, the lock too, is made
	}
	unlock, err := p.store.lock(ctx)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, v, err := p.target(ctx, to)
	if err != nil || v.Name == s.current {
		return s.current, v.Name, err
	}
	// Killed behind this, the old version is current still, and the same Rollback finishes.
	if err := p.withdraw(ctx, s.newer(v.Name)); err != nil {
		return "", "", err
	}
	if v.Withdrawn || v.Pending {
		v.Withdrawn, v.Pending = false, false
		if err := p.store.describe(ctx, v); err != nil {
			return "", "", err
		}
	}
	return s.current, v.Name, p.store.point(ctx, v.Name)
}

// RollbackPlan says what [Place.Rollback] would do and verifies that it can; nothing is changed.
func (p *Place) RollbackPlan(ctx context.Context, to string) (from, target string, err error) {
	s, v, err := p.target(ctx, to)
	if err != nil {
		return "", "", err
	}
	return s.current, v.Name, nil
}

// target finds the version to go back to, verified.
func (p *Place) target(ctx context.Context, to string) (state, Version, error) {
	s, err := p.state(ctx)
	_, astray := errors.AsType[*PlaceError](err)
	_, damaged := errors.AsType[*DamagedError](err)
	if err != nil && (to == "" || !astray && !damaged) {
		return state{}, Version{}, err
	}
	v, ok := s.find(to)
	if to == "" {
		if v, ok = s.previous(); len(s.damaged) > 0 {
			to = s.damaged[0].Name
		}
	}
	if err := p.damage(s, to); err != nil {
		return state{}, Version{}, err
	}
	if !ok {
		return state{}, Version{}, &NoVersionError{p.path, to}
	}
	return s, v, p.store.verify(ctx, v)
}

// previous is the version that a rollback goes to by default.
func (s state) previous() (Version, bool) {
	current, _ := s.find(s.current)
	for _, v := range slices.Backward(s.all) {
		if v.Sequence < current.Sequence && !v.Withdrawn {
			return v, true
		}
	}
	return Version{}, false
}

func (p *Place) withdraw(ctx context.Context, versions []Version) error {
	for _, v := range versions {
		if v.Withdrawn {
			continue
		}
		v.Withdrawn = true
		if err := p.store.describe(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// Retain removes versions until keep are left: withdrawn ones first, then the oldest. The
// current one and the one that a rollback would go to are never removed. It returns the
// names of those that were.
func (p *Place) Retain(ctx context.Context, keep int) (removed []string, err error) {
	if keep < 1 {
		return nil, fmt.Errorf("publish: keep %d versions, want 1 or more", keep)
	}
	if version, err := p.store.current(ctx); err != nil || version == "" {
		return nil, err
	}
	unlock, err := p.store.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := p.state(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range s.spare(keep) {
		if err := p.store.remove(ctx, v.Name); err != nil {
			return removed, err
		}
		removed = append(removed, v.Name)
	}
	return removed, nil
}

// spare are the versions to remove so that keep are left, in that order.
func (s state) spare(keep int) []Version {
	previous, _ := s.previous()
	var withdrawn, others []Version
	for _, v := range s.all {
		switch {
		case v.Name == s.current || v.Name == previous.Name:
		case v.Withdrawn:
			withdrawn = append(withdrawn, v)
		default:
			others = append(others, v)
		}
	}
	order := append(withdrawn, others...)
	return order[:min(len(order), max(0, len(s.all)-keep))]
}
