package pipeline

import "testing"

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "512m": 512 << 20, "4g": 4 << 30, "4G": 4 << 30, "2GiB": 2 << 30, "2GB": 2 << 30, "7b": 7, "3k": 3072, "1t": 1 << 40,
		"8388607t": 8388607 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "g", "1.5g", "-1", "-4g", "8388608t", "9999999999999999999", "4gg", "4 g"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}
