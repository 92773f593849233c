package datasets

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
	"strconv"
	"strings"
)

// setExtras reads the optional columns. Null is as good as absent.
func setExtras(r *row, names [numColumns]string, p *Pair) (re *RowError) {
	p.Weight = 1
	weight, re := numberOf(r.cells[colWeight], names[colWeight])
	if re != nil {
		return re
	}
	if weight != nil {
		p.Weight = float32(*weight)
		if !(p.Weight >= 0) || math.IsInf(float64(p.Weight), 0) {
			return refuse(names[colWeight], InvalidNumber, "is %v, want a finite float32 >= 0", *weight)
		}
	}
	if p.ScoreChosen, re = numberOf(r.cells[colScoreChosen], names[colScoreChosen]); re != nil {
		return re
	}
	if p.ScoreRejected, re = numberOf(r.cells[colScoreRejected], names[colScoreRejected]); re != nil {
		return re
	}
	if source, re := stringOf(r.cells[colSource], names[colSource], ""); re == nil {
		p.Source = source // for reports only: not worth a row
	}
	p.ID, re = idOf(r.cells[colID], names[colID], p)
	return re
}

// numberOf reads a finite number, nil where there is none.
func numberOf(v value, name string) (*float64, *RowError) {
	switch v.kind {
	case absent, null:
		return nil, nil
	case number:
		f, err := strconv.ParseFloat(v.str, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, refuse(name, InvalidNumber, "is %s, want a finite number", v.str)
		}
		return &f, nil
	}
	return nil, refuse(name, WrongType, "is %v, want a number", v)
}

// idOf hashes the id column's text, or the content where the row has no id.
func idOf(v value, name string, p *Pair) (ID, *RowError) {
	switch v.kind {
	case absent, null:
		return contentID(p), nil
	case number:
		if digits, ok := integer(v.str); ok {
			return hashID(digits), nil
		}
		return ID{}, refuse(name, WrongType, "is %s, want text or an integer", v.str)
	}
	s, re := stringOf(v, name, "")
	switch {
	case re != nil:
		return ID{}, re
	case s == "":
		return contentID(p), nil
	}
	return hashID(s), nil
}

// integer returns the decimal digits of a number that is whole. Tools that know
// no missing integer write 17 as 17.0; both name the same pair.
func integer(s string) (string, bool) {
	if !strings.ContainsAny(s, ".eE") {
		return s, s != "NaN" && !strings.Contains(s, "Inf")
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return "", false
	}
	return strconv.FormatInt(int64(f), 10), true
}

// hashID names a pair by its id column, whatever else the row says: two rows of
// one id are one pair to the reference cache even where their contents differ.
func hashID(s string) (id ID) {
	sum := sha256.Sum256([]byte(s))
	copy(id[:], sum[:])
	return id
}

// contentID names a pair by what it says: prompt, chosen and rejected, each as
// its form (0 text, 1 messages), the number of its strings, and the strings, each
// behind its length; numbers are 64-bit little-endian. No two contents have the
// same encoding. Weight, scores and source are not part of it. The reference
// cache stores these ids: the encoding never changes.
func contentID(p *Pair) (id ID) {
	h := sha256.New()
	for _, t := range []*Text{&p.Prompt, &p.Chosen, &p.Rejected} {
		if !t.IsChat() {
			writeNumbers(h, 0, 1)
			writeString(h, t.Plain)
			continue
		}
		writeNumbers(h, 1, 2*uint64(len(t.Messages)))
		for _, m := range t.Messages {
			writeString(h, m.Role)
			writeString(h, m.Content)
		}
	}
	copy(id[:], h.Sum(nil))
	return id
}

func writeNumbers(h hash.Hash, numbers ...uint64) {
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
}

func writeString(h hash.Hash, s string) {
	writeNumbers(h, uint64(len(s)))
	h.Write([]byte(s))
}
