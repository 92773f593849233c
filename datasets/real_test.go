package datasets

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sharedData returns a path under the folder of real data, which a fresh clone
// does not have.
func sharedData(t *testing.T, path ...string) string {
	t.Helper()
	full := filepath.Join(append([]string{"..", "..", "shared", "data"}, path...)...)
	if _, err := os.Stat(full); err != nil {
		t.Skipf("real data are not here: %v", err)
	}
	return full
}

// rasbtColumns names the prompt of the instruction/input/output layout.
func rasbtColumns() Columns {
	c := DefaultColumns()
	c.Prompt = "instruction"
	return c
}

// v1Columns names the columns of LLaMA-Factory's message lists.
func v1Columns() Columns {
	c := DefaultColumns()
	c.Chosen, c.Rejected = "chosen_messages", "rejected_messages"
	return c
}

// TestRealData holds the pairs and the unusable rows of published data against
// counts taken from the files with Python's json module.
func TestRealData(t *testing.T) {
	cases := []struct {
		name    string
		path    []string
		columns Columns
		pairs   int
		drops   map[Reason]int64
	}{
		{"tinystories", []string{"tinystories-synthetic", "pairs.jsonl"}, DefaultColumns(), 400, nil},
		{"stories train", []string{"stories-sentiment", "train.jsonl"}, DefaultColumns(), 1460, nil},
		{"stories test", []string{"stories-sentiment", "test.jsonl"}, DefaultColumns(), 353, nil},
		{"stories folder", []string{"stories-sentiment"}, DefaultColumns(), 1813, nil},
		{"hh", []string{"hh-helpful-conversational"}, DefaultColumns(), 708, map[Reason]int64{EmptyCompletion: 1, IdenticalCompletions: 1791}},
		{"hh parquet", []string{"parquet", "hh-helpful-val.nested.duckdb.snappy.parquet"}, DefaultColumns(), 708, map[Reason]int64{EmptyCompletion: 1, IdenticalCompletions: 1791}},
		{"rasbt", []string{"rasbt-instruction-preference"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 1094, IdenticalCompletions: 6}},
		{"rasbt named", []string{"rasbt-instruction-preference"}, rasbtColumns(), 1094, map[Reason]int64{IdenticalCompletions: 6}},
		{"rasbt parquet", []string{"parquet", "rasbt-1100.duckdb.snappy.parquet"}, rasbtColumns(), 1094, map[Reason]int64{IdenticalCompletions: 6}},
		{"sharegpt en", []string{"llama-factory", "dpo_en_demo.json"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 300}},
		{"sharegpt zh", []string{"llama-factory", "dpo_zh_demo.json"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 300}},
		{"llama-factory v1", []string{"llama-factory", "v1_dpo_demo.jsonl"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 10}},
		{"llama-factory v1 named", []string{"llama-factory", "v1_dpo_demo.jsonl"}, v1Columns(), 10, nil},
		{"openai", []string{"foundry-orca-dpo"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 284}},
		{"openai parquet", []string{"parquet", "orca-dpo-284.nested-openai.duckdb.zstd.parquet"}, DefaultColumns(), 0, map[Reason]int64{UnknownLayout: 284}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opt := DefaultOptions()
			opt.Columns = c.columns
			pairs, tally := readAll(t, opt, sharedData(t, c.path...))
			got := map[Reason]int64{}
			for _, d := range tally.Drops {
				got[d.Reason] = d.Rows
			}
			if c.drops == nil {
				c.drops = map[Reason]int64{}
			}
			if diff := cmp.Diff(c.drops, got); diff != "" || len(pairs) != c.pairs {
				t.Errorf("%d pairs, want %d; drops (-want +got):\n%s%+v", len(pairs), c.pairs, diff, tally)
			}
		})
	}
}

// TestRealParquetEqualsJSON reads two of the sources and the Parquet files that
// DuckDB made of them: the pairs and the refusals must be the same. The third,
// of the OpenAI layout, is compared cell by cell.
func TestRealParquetEqualsJSON(t *testing.T) {
	cases := []struct {
		name          string
		json, parquet []string
		columns       Columns
	}{
		{"hh", []string{"hh-helpful-conversational", "dpo_helpfulness_val.jsonl"}, []string{"parquet", "hh-helpful-val.nested.duckdb.snappy.parquet"}, DefaultColumns()},
		{"rasbt", []string{"rasbt-instruction-preference", "instruction-data-with-preference.json"}, []string{"parquet", "rasbt-1100.duckdb.snappy.parquet"}, rasbtColumns()},
		{"orca", []string{"foundry-orca-dpo", "orca_dpo_pairs", "validation.jsonl"}, []string{"parquet", "orca-dpo-284.nested-openai.duckdb.zstd.parquet"}, Columns{Prompt: "input", Chosen: "preferred_output", Rejected: "non_preferred_output"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want := rawRows(t, c.columns, sharedData(t, c.json...))
			got := rawRows(t, c.columns, sharedData(t, c.parquet...))
			if len(want) != len(got) {
				t.Fatalf("%d rows, want %d", len(got), len(want))
			}
			for i := range want {
				if !reflect.DeepEqual(want[i], got[i]) {
					t.Errorf("row %d is %+v, want %+v", i, got[i], want[i])
				}
			}
		})
	}
}
