package checksum

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSealFindsEveryChange flips every bit of a sealed text: what is accepted still is the
// object, but for a field that nobody knows.
func TestSealFindsEveryChange(t *testing.T) {
	for _, text := range []string{"{\n  \"a\": 1\n}\n", "{\n \"a\": {\n  \"b\": [\n   1.5\n  ]\n }\n}\n"} {
		sealed := Seal([]byte(text))
		var fields map[string]any
		if err := json.Unmarshal(sealed, &fields); err != nil || len(fields) != 2 {
			t.Fatalf("sealed %q is no object of two fields: %v", sealed, err)
		}
		if got, err := Open(sealed); err != nil || string(got) != text {
			t.Fatalf("opened %q, %v, want %q", got, err, text)
		}
		for i := range 8 * len(sealed) {
			bad := bytes.Clone(sealed)
			bad[i/8] ^= 1 << (i % 8)
			got, err := Open(bad)
			if err != nil {
				if !errors.Is(err, ErrChanged) {
					t.Fatalf("%q: error is %v", bad, err)
				}
				continue
			}
			var have map[string]any
			if json.Unmarshal(got, &have) != nil {
				continue // refused by whoever decodes it
			}
			want, _ := json.Marshal(fields["a"])
			if a, _ := json.Marshal(have["a"]); !bytes.Equal(a, want) {
				t.Errorf("%q is accepted, a is %s, want %s", bad, a, want)
			}
		}
	}
	if text := []byte("{}\n"); !bytes.Equal(Seal(text), text) {
		t.Error("an object without fields was sealed")
	}
}

func TestSums(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "onnx"), 0o777); err != nil {
		t.Fatal(err)
	}
	write("a b.json", "{}")
	write("onnx/model.onnx", "graph")
	if err := VerifySums(dir); err != nil {
		t.Errorf("without a list: %v", err)
	}
	if err := WriteSums(dir); err != nil {
		t.Fatal(err)
	}
	if path, err := exec.LookPath("sha256sum"); err == nil {
		cmd := exec.Command(path, "--check", "--strict", SumsFile)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("sha256sum: %v: %s", err, out)
		}
	}
	if err := VerifySums(dir); err != nil {
		t.Error(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, SumsFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ file, text string }{
		"another file":       {"onnx/model.onnx", "grapH"},
		"longer":             {"a b.json", "{} "},
		"a sum changed":      {SumsFile, "0" + string(list[1:])},
		"cut short":          {SumsFile, string(list[:len(list)-3])},
		"no sum":             {SumsFile, "abc  a b.json\n"},
		"outside the folder": {SumsFile, string(list[:64]) + "  ../x\n"},
		"a name changed":     {SumsFile, strings.Replace(string(list), "a b", "a c", 1)},
		"cut behind a line":  {SumsFile, string(list[:bytes.IndexByte(list, '\n')+1])},
		"empty":              {SumsFile, "\n"},
		"a line taken out":   {SumsFile, string(list[bytes.IndexByte(list, '\n')+1:])},
	} {
		before, err := os.ReadFile(filepath.Join(dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		write(c.file, c.text)
		if err := VerifySums(dir); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: error is %v, want %v", name, err, ErrChanged)
		}
		write(c.file, string(before))
	}
	write("added later", "")
	if err := errors.Join(VerifySums(dir), VerifyAll(dir)); err != nil {
		t.Errorf("a file that came later: %v", err)
	}
	for _, name := range []string{"a b.json", SumsFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := VerifySums(dir); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
		if err := VerifyAll(dir); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is gone and must be there: %v", name, err)
		}
	}
}

// TestSumsOfOtherMake reads lists as sha256sum writes them, of all files and of some. The sums
// are those of sha256sum for "a" and "b".
func TestSumsOfOtherMake(t *testing.T) {
	const a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a\n"
	const b = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b\n"
	dir := t.TempDir()
	for file, text := range map[string]string{"a": "a", "b": "b", SumsFile: a + b} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := VerifySums(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, SumsFile), []byte(a), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := VerifySums(dir); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), `b" is not in`) {
		t.Errorf("a list without b: %v", err)
	}
}
