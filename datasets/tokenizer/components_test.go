package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// componentFile is testdata/components.json: small tokenizers with what the
// reference implementation makes of some texts.
type componentFile struct {
	Models map[string]map[string]any
	Texts  []string
	Cases  []struct {
		Name           string
		Model          string
		ModelParts     map[string]any `json:"model_parts"`
		File           map[string]any
		IDs            [][]int32
		Decoded, Plain []string
	}
}

func readComponents(t testing.TB) componentFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "components.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f componentFile
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// tokenizers returns the tokenizer.json of every case by name.
func (f componentFile) tokenizers(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, c := range f.Cases {
		model := map[string]any{}
		for _, part := range []map[string]any{f.Models[c.Model], c.ModelParts} {
			for k, v := range part {
				model[k] = v
			}
		}
		c.File["model"] = model
		data, err := json.Marshal(c.File)
		if err != nil {
			t.Fatal(err)
		}
		out[c.Name] = data
	}
	return out
}

func TestComponents(t *testing.T) {
	t.Parallel()
	f := readComponents(t)
	files := f.tokenizers(t)
	for _, c := range f.Cases {
		t.Run(c.Name, func(t *testing.T) {
			tok, err := Parse(files[c.Name])
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range f.Texts {
				checkIDs(t, tok, text, c.IDs[i])
				if got := tok.Decode(c.IDs[i], false); got != c.Decoded[i] {
					t.Errorf("Decode(%v, false) of %q = %q, want %q", c.IDs[i], text, got, c.Decoded[i])
				}
				if got := tok.Decode(c.IDs[i], true); got != c.Plain[i] {
					t.Errorf("Decode(%v, true) of %q = %q, want %q", c.IDs[i], text, got, c.Plain[i])
				}
			}
		})
	}
}

// checkIDs compares both encoders with want and checks the offsets.
func checkIDs(t *testing.T, tok *Tokenizer, text string, want []int32) {
	t.Helper()
	got, err := tok.Encode(text)
	if err != nil {
		t.Errorf("Encode(%q): %v", text, err)
		return
	}
	if !slices.Equal(got, want) {
		t.Errorf("Encode(%q) differs (-want +got):\n%s", text, cmp.Diff(want, got))
	}
	ids, offsets, err := tok.EncodeOffsets(text)
	if err != nil || !slices.Equal(ids, got) || len(offsets) != len(ids) {
		t.Errorf("EncodeOffsets(%q) = %d ids and %d offsets, %v; want the %d ids of Encode", text, len(ids), len(offsets), err, len(got))
	}
	for i, o := range offsets {
		if o[0] < 0 || o[0] > o[1] || o[1] > len(text) {
			t.Errorf("EncodeOffsets(%q): token %d is at %v, outside the text", text, i, o)
		}
		if i > 0 && o[0] < offsets[i-1][0] {
			t.Errorf("EncodeOffsets(%q): token %d at %v is before token %d at %v", text, i, o, i-1, offsets[i-1])
		}
	}
}
