package datasets

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTally(t *testing.T) {
	var a, b Tally
	for i := range int64(5) {
		a.Add(&RowError{File: "f", Row: i, Column: "chosen", Reason: PromptTooLong, Detail: "d"})
		b.Add(&RowError{File: "g", Row: i, Reason: Malformed, Detail: "e"})
	}
	a.Add(&RowError{File: "f", Row: 9, Reason: "of_a_later_version", Detail: "x"})
	a.Add(&RowError{File: "f", Row: 8, Reason: NullValue, Detail: "n"})
	b.Add(&RowError{File: "g", Row: 7, Reason: NullValue, Detail: "m"})
	a.Merge(b)
	want := `{"drops":[` +
		`{"reason":"malformed","rows":5,"first":[{"file":"g","row":0,"detail":"e"},{"file":"g","row":1,"detail":"e"},{"file":"g","row":2,"detail":"e"}]},` +
		`{"reason":"null_value","rows":2,"first":[{"file":"f","row":8,"detail":"n"},{"file":"g","row":7,"detail":"m"}]},` +
		`{"reason":"prompt_too_long","rows":5,"first":[{"file":"f","row":0,"column":"chosen","detail":"d"},{"file":"f","row":1,"column":"chosen","detail":"d"},{"file":"f","row":2,"column":"chosen","detail":"d"}]},` +
		`{"reason":"of_a_later_version","rows":1,"first":[{"file":"f","row":9,"detail":"x"}]}]}`
	got, err := json.Marshal(a)
	if err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
	if a.Rows() != 13 || a.Count(PromptTooLong) != 5 || a.Count(WrongType) != 0 {
		t.Errorf("%d rows, %d too long", a.Rows(), a.Count(PromptTooLong))
	}
	var back Tally
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, back); diff != "" {
		t.Error(diff)
	}
	if len(Reasons()) != 14 {
		t.Errorf("%d reasons, want 14: a new one needs its place in Reasons", len(Reasons()))
	}
}

// TestTallyJSON writes a tally as a part of a file, with and without the escapes of HTML.
func TestTallyJSON(t *testing.T) {
	type file struct {
		Dropped Tally `json:"dropped"`
	}
	var tagged file
	tagged.Dropped.Add(&RowError{File: "f", Reason: NullValue, Detail: "<s>"})
	for _, c := range []struct {
		in   file
		html bool
		want string
	}{
		{file{}, false, `{"dropped":{"drops":[]}}`},
		{tagged, false, `{"dropped":{"drops":[{"reason":"null_value","rows":1,"first":[{"file":"f","row":0,"detail":"<s>"}]}]}}`},
		{tagged, true, `{"dropped":{"drops":[{"reason":"null_value","rows":1,"first":[{"file":"f","row":0,"detail":"\u003cs\u003e"}]}]}}`},
	} {
		var out strings.Builder
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(c.html)
		if err := enc.Encode(c.in); err != nil || out.String() != c.want+"\n" {
			t.Errorf("got %s (%v), want %s", out.String(), err, c.want)
		}
		var back file
		if err := json.Unmarshal([]byte(c.want), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.in, back, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRowErrorText(t *testing.T) {
	p := Pair{File: "train.parquet", Row: 5000, FileRow: 1841}
	got := p.RowError("chosen", NullValue, "is null, want text").Error()
	if want := `datasets: train.parquet row 1841: column "chosen": is null, want text`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestContentID holds ids that were worked out with Python's hashlib over the
// encoding that contentID documents; the reference cache depends on them.
func TestContentID(t *testing.T) {
	a := Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}
	b := Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: é"), Rejected: chat("assistant: B")}
	for _, c := range []struct {
		p    Pair
		want string
	}{{a, "ceee4556c789460aad22f5bad7f3ec4a"}, {b, "a18fd4733bdd802e55c90a7f23836ad7"}} {
		if got := contentID(&c.p).String(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.p, got, c.want)
		}
	}
	seen := map[ID]Pair{}
	for _, p := range []Pair{
		a, b,
		{Prompt: plain("QA"), Chosen: plain(""), Rejected: plain("B")},
		{Prompt: plain("Q"), Chosen: plain("AB"), Rejected: plain("")},
		{Prompt: chat("user: Q", "user: Q"), Chosen: chat("assistant: é"), Rejected: chat("assistant: B")},
		{Prompt: chat("userQ: "), Chosen: chat("assistant: é"), Rejected: chat("assistant: B")},
	} {
		id := contentID(&p)
		if other, ok := seen[id]; ok {
			t.Errorf("%+v and %+v have one id", p, other)
		}
		seen[id] = p
	}
}
