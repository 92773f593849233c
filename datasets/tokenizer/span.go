package tokenizer

// An origin is the range of bytes of the original text that a byte stands for.
// It is empty for text that a component made up.
type origin struct{ start, end int32 }

// A span is a stretch of text on its way to the model, with the knowledge of
// where each byte came from.
type span struct {
	text  string
	at    int      // where text[0] came from while the text is unchanged
	align []origin // origin of every byte of text once it was changed; else nil
}

// slice returns the part of s from byte i to byte j.
func (s span) slice(i, j int) span {
	if s.align == nil {
		return span{text: s.text[i:j], at: s.at + i}
	}
	return span{text: s.text[i:j], align: s.align[i:j]}
}

// start returns where in the original text s begins.
func (s span) start() int {
	if len(s.align) > 0 {
		return int(s.align[0].start)
	}
	return s.at
}

// origin returns the range of the original text behind bytes i to j, i < j.
func (s span) origin(i, j int) [2]int {
	if s.align == nil {
		return [2]int{s.at + i, s.at + j}
	}
	return [2]int{int(s.align[i].start), int(s.align[j-1].end)}
}

// A rewriter builds the span that a component makes of src.
type rewriter struct {
	src   span
	text  []byte
	align []origin
}

func rewrite(src span) *rewriter {
	n := len(src.text) + len(src.text)/4 + 8
	return &rewriter{src: src, text: make([]byte, 0, n), align: make([]origin, 0, n)}
}

// keep copies bytes i to j of the source.
func (w *rewriter) keep(i, j int) {
	w.text = append(w.text, w.src.text[i:j]...)
	if w.src.align != nil {
		w.align = append(w.align, w.src.align[i:j]...)
		return
	}
	for at := w.src.at + i; at < w.src.at+j; at++ {
		w.align = append(w.align, origin{int32(at), int32(at + 1)})
	}
}

// put writes text in place of bytes i to j of the source. With i == j the text
// is new and stands for nothing, at the place of byte i.
func (w *rewriter) put(text string, i, j int) {
	var from origin
	switch {
	case i < j:
		r := w.src.origin(i, j)
		from = origin{int32(r[0]), int32(r[1])}
	case i < len(w.src.text):
		at := int32(w.src.origin(i, i+1)[0])
		from = origin{at, at}
	case i > 0:
		at := int32(w.src.origin(i-1, i)[1])
		from = origin{at, at}
	}
	w.text = append(w.text, text...)
	for range len(text) {
		w.align = append(w.align, from)
	}
}

func (w *rewriter) done() span {
	return span{text: string(w.text), at: w.src.at, align: w.align}
}
