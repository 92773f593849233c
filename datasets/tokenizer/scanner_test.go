package tokenizer

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestScanners holds the hand-written scanners against the regular expressions
// they stand for, run by regexp2.
func TestScanners(t *testing.T) {
	t.Parallel()
	char := rapid.OneOf(
		rapid.SampledFrom([]rune(" \n\r\t'sStTrReEvVmMlLdDſ12½aé日!?-\u00a0\u3000\u0085\u2028\u0301👍")),
		rapid.Rune(),
	)
	for expr, s := range scanners {
		re, err := compileRegex("test", expr)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(expr, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				text := rapid.StringOf(char).Draw(t, "text")
				want, err := re.cuts(nil, text)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := s.cuts(nil, text)
				if !slices.Equal(got, want) {
					t.Fatalf("%q is cut\n%v, want\n%v", text, got, want)
				}
			})
		})
	}
}

// TestTimeout gives a pattern that backtracks exponentially a text it fails on.
func TestTimeout(t *testing.T) {
	p, err := compileRegex("pre_tokenizer", `(a|aa|a?)+\1b`)
	if err != nil {
		t.Fatal(err)
	}
	p.(regex).re.MatchTimeout = 20 * time.Millisecond
	_, err = p.cuts(nil, string(bytes.Repeat([]byte("a"), 200)))
	var late *TimeoutError
	if !errors.As(err, &late) || late.Bytes != 200 {
		t.Errorf("got %v, want a timeout", err)
	}
}
