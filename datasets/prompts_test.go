package datasets

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Rows without completions are prompts where they are asked for, and refused where not.
func TestPromptsAlone(t *testing.T) {
	rows := []string{
		`{"prompt": "a"}`,
		`{"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "b"}]}`,
		`{"prompt": "c", "chosen": " yes", "rejected": " no"}`,
		`{"prompt": "d", "chosen": " yes"}`,
		`{"prompt": " "}`, `{"prompt": []}`, `{"prompt": null}`, `{"prompt": 1}`, `{"text": "e"}`,
	}
	want := []Text{{Plain: "a"}, {Messages: []Message{{"system", "Be brief."}, {"user", "b"}}}, {Plain: "c"}}
	for _, name := range []string{"rows.jsonl", "rows.json", "rows.parquet", "rows.arrow"} {
		some := rows
		if isTable(name) {
			some = rows[:1] // a column has one type
		}
		opt := DefaultOptions()
		opt.PromptsAlone = true
		path := writeRows(t, name, some...)
		pairs, tally := readAll(t, opt, path)
		var got []Text
		for _, p := range pairs {
			got = append(got, p.Prompt)
		}
		if d := cmp.Diff(want[:len(got)], got); d != "" || len(got) != min(len(some), len(want)) {
			t.Errorf("%s: %d prompts, -want +got:\n%s", name, len(got), d)
		}
		if dropped := tally.Rows(); dropped != int64(len(some)-len(got)) {
			t.Errorf("%s: %d rows dropped, want %d", name, dropped, len(some)-len(got))
		}
		if pairs, _ := readAll(t, DefaultOptions(), path); len(pairs) != max(0, len(got)-2) {
			t.Errorf("%s: %d pairs where prompts alone are not asked for", name, len(pairs))
		}
	}
}
