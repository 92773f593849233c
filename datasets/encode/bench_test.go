package encode

import (
	"strings"
	"testing"
)

func BenchmarkEncode(b *testing.B) {
	e := testEncoder(b, testTokenizer(b, "", ""), chatML, nil)
	p := conversation(strings.Repeat("an answer ", 20), strings.Repeat("a reply ", 20), user(strings.Repeat("why not ", 20)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Encode(p); err != nil {
				b.Error(err)
			}
		}
	})
}
