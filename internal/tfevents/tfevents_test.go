package tfevents

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// Test vectors of RFC 3720, B.4, and the masked form by hand: rotated right by 15, plus 0xa282ead8.
func TestChecksum(t *testing.T) {
	ascending := make([]byte, 32)
	for i := range ascending {
		ascending[i] = byte(i)
	}
	for _, c := range []struct {
		name string
		data []byte
		want uint32
	}{
		{"zeros", make([]byte, 32), 0x8a9136aa},
		{"ones", bytes.Repeat([]byte{0xff}, 32), 0x62a8ab43},
		{"ascending", ascending, 0x46dd794e},
	} {
		if got := checksum(c.data); got != c.want {
			t.Errorf("%s: checksum is %#x, want %#x", c.name, got, c.want)
		}
	}
	// 0x8a9136aa = 1000 1010 1001 0001 0·011 0110 1010 1010; the low 15 bits, 0x36aa, go to the top:
	// 0x6d540000 | 0x8a9136aa>>15 = 0x11522 → 0x6d551522; plus 0xa282ead8 = 0x10fd7fffa.
	if got, want := mask(0x8a9136aa), uint32(0x0fd7fffa); got != want {
		t.Errorf("masked checksum is %#x, want %#x", got, want)
	}
}

// TestEvent compares an event with its bytes by hand; checksums are left to TestChecksum.
func TestEvent(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, time.Unix(2, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(time.Unix(1, 500_000_000), 300, []Scalar{{"kl", 0.5}}); err != nil {
		t.Fatal(err)
	}
	events := []string{
		// wall_time 2.0; file_version, 13 bytes
		"09 0000000000000040" + "1a 0d" + hex.EncodeToString([]byte("brain.Event:2")),
		// wall_time 1.5; step 300; summary of 11 bytes: value of 9 bytes: tag "kl", simple_value 0.5
		"09 000000000000f83f" + "10 ac02" + "2a 0b" + "0a 09" + "0a 02 6b6c" + "15 0000003f",
	}
	rest := file.Bytes()
	for i, text := range events {
		want, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if rest[0] != byte(len(want)) || !bytes.Equal(rest[1:8], make([]byte, 7)) {
			t.Fatalf("event %d: length is %x, want %d in 8 bytes", i, rest[:8], len(want))
		}
		if got := rest[12 : 12+len(want)]; !bytes.Equal(got, want) {
			t.Errorf("event %d is %x, want %x", i, got, want)
		}
		rest = rest[12+len(want)+4:]
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes behind the last event", len(rest))
	}
}
