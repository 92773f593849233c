package datasets

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDescribe(t *testing.T) {
	good := `{"prompt":"Q","chosen":"A","rejected":"B","weight":2}`
	bad := `{"prompt":"Q","chosen":"A","rejected":"A","weight":2}`
	for _, c := range []struct {
		name, format, compression string
		rows                      int64
		columns                   string
	}{
		{"rows.parquet", "parquet", "", 3, "prompt:String chosen:String rejected:String weight:"},
		{"rows.arrow", "arrow file", "", -1, "prompt:utf8 chosen:utf8 rejected:utf8 weight:int64"},
		{"rows.arrows.zst", "arrow stream", "zstd", -1, "prompt:utf8 chosen:utf8 rejected:utf8 weight:int64"},
		{"rows.jsonl.gz", "jsonl", "gzip", -1, ""},
		{"rows.json", "json array", "", -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Describe(t.Context(), writeRows(t, c.name, good, bad, good), DefaultOptions(), 2)
			if err != nil {
				t.Fatal(err)
			}
			var columns []string
			for _, x := range d.Columns {
				columns = append(columns, x.Name+":"+x.Type)
			}
			if d.Format != c.format || d.Compression != c.compression || d.Rows != c.rows || !strings.HasPrefix(strings.Join(columns, " "), c.columns) {
				t.Errorf("got %+v", d)
			}
			if d.Looked != 2 || len(d.Sample) != 1 || d.Dropped.Count(IdenticalCompletions) != 1 {
				t.Errorf("looked at %d rows, sample %+v, dropped %+v", d.Looked, d.Sample, d.Dropped)
			}
			if diff := cmp.Diff([]string{"prompt text, chosen and rejected text"}, d.Layouts); diff != "" {
				t.Error(diff)
			}
		})
	}
}
