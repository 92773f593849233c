package tokenizer

// mergeAll joins neighbours of symbols, first merge of the list first and from
// left to right, until no merge applies, and returns what is left, in the same
// memory. It takes O(n log n) for n symbols.
func (m *bpe) mergeAll(symbols []symbol, sc *scratch) []symbol {
	n := len(symbols)
	if n < 2 {
		return symbols
	}
	sc.links = sc.links[:0]
	sc.queue = sc.queue[:0]
	for i := range symbols {
		sc.links = append(sc.links, link{int32(i - 1), int32(i + 1)})
		if i > 0 {
			sc.queue = m.candidate(sc.queue, symbols, int32(i-1), int32(i))
		}
	}
	sc.queue.build()
	for len(sc.queue) > 0 {
		m.join(symbols, sc, sc.queue.pop())
	}
	out := symbols[:0]
	for i := int32(0); i < int32(n); i = sc.links[i].next {
		out = append(out, symbols[i])
	}
	return out
}

// join carries out c unless an earlier merge took one of its two symbols.
func (m *bpe) join(symbols []symbol, sc *scratch, c candidate) {
	left := c.at
	right := sc.links[left].next
	if symbols[left].id == missing || int(right) >= len(symbols) {
		return
	}
	now, ok := m.merges[pair{symbols[left].id, symbols[right].id}]
	if !ok || now.id != c.id {
		return
	}
	symbols[left] = symbol{c.id, symbols[left].size + symbols[right].size}
	symbols[right].id = missing
	next := sc.links[right].next
	sc.links[left].next = next
	if int(next) < len(symbols) {
		sc.links[next].prev = left
		sc.queue.push(m, symbols, left, next)
	}
	if prev := sc.links[left].prev; prev >= 0 {
		sc.queue.push(m, symbols, prev, left)
	}
}

// candidate appends the merge of the symbols at left and right, if there is one.
func (m *bpe) candidate(q queue, symbols []symbol, left, right int32) queue {
	if to, ok := m.merges[pair{symbols[left].id, symbols[right].id}]; ok {
		q = append(q, candidate{to.rank, left, to.id})
	}
	return q
}

// A link names the neighbours of a symbol that are still there.
type link struct{ prev, next int32 }

// A candidate is a merge that may be done: the symbol at index at and its next
// become id.
type candidate struct{ rank, at, id int32 }

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// A queue is a binary heap of candidates, the next one to do first.
type queue []candidate

func (q queue) build() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

func (q queue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(q[i]) {
			return
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}

func (q *queue) pop() candidate {
	h := *q
	top, last := h[0], len(h)-1
	h[0] = h[last]
	*q = h[:last]
	q.down(0)
	return top
}

// push adds the merge of the symbols at left and right, if there is one.
func (q *queue) push(m *bpe, symbols []symbol, left, right int32) {
	n := len(*q)
	*q = m.candidate(*q, symbols, left, right)
	if len(*q) == n {
		return
	}
	for h, i := *q, n; i > 0; {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}
