package refcache

import (
	"iter"
	"maps"
)

// recent keeps the values used last, up to a limit.
type recent[K comparable, V any] struct {
	limit int
	items map[K]*item[V]
	clock int64
}

type item[V any] struct {
	value V
	used  int64
}

func newRecent[K comparable, V any](limit int) recent[K, V] {
	return recent[K, V]{limit: limit, items: make(map[K]*item[V], limit)}
}

func (r *recent[K, V]) get(key K) (value V, ok bool) {
	it, ok := r.items[key]
	if !ok {
		return value, false
	}
	r.clock++
	it.used = r.clock
	return it.value, true
}

// put adds a value and returns the one it displaces. The oldest is found by looking at all: a
// put costs file reads, beside which that is nothing.
func (r *recent[K, V]) put(key K, value V) (old V, displaced bool) {
	if len(r.items) >= r.limit {
		var oldest K
		used := r.clock + 1
		for k, it := range r.items {
			if it.used < used {
				oldest, used = k, it.used
			}
		}
		old, displaced = r.items[oldest].value, true
		delete(r.items, oldest)
	}
	r.clock++
	r.items[key] = &item[V]{value, r.clock}
	return old, displaced
}

// drain empties r and returns what was in it.
func (r *recent[K, V]) drain() iter.Seq[V] {
	items := maps.Values(r.items)
	r.items = make(map[K]*item[V])
	return func(yield func(V) bool) {
		for it := range items {
			if !yield(it.value) {
				return
			}
		}
	}
}
