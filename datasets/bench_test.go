package datasets

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

func BenchmarkNext(b *testing.B) {
	rows := randomRows(rand.New(rand.NewPCG(1, 1)), 2000)
	for _, format := range []string{"rows.jsonl", "rows.json", "rows.jsonl.zst", "rows.arrow", "rows.parquet"} {
		path := writeRows(b, format, rows...)
		if isTable(format) {
			var buf bytes.Buffer
			writeTable(b, &buf, format, rows, 1000, 1<<20)
			path = writeFile(b, format, buf.Bytes())
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("format=%s", format), func(b *testing.B) {
			b.SetBytes(info.Size())
			b.ReportAllocs()
			for b.Loop() {
				r, err := Open([]string{path}, DefaultOptions())
				if err != nil {
					b.Fatal(err)
				}
				for err == nil || err != io.EOF {
					_, err = r.Next(b.Context())
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows)*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
