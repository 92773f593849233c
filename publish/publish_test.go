package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// policy writes a folder with the given files.
func policy(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, text := range files {
		at := filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(at), 0o777))
		must(t, os.WriteFile(at, []byte(text), 0o666))
	}
	return dir
}

// named is a policy whose files say its name.
func named(t *testing.T, name string) string {
	return policy(t, map[string]string{"model.onnx": name, "adapter/adapter_config.json": "{" + name + "}"})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Place {
	t.Helper()
	p, err := Open(path)
	must(t, err)
	return p
}

// tree lists the files below dir with their content, links with their target.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			files[rel], err = os.Readlink(path)
			return err
		}
		text, err := os.ReadFile(path)
		files[rel] = string(text)
		return err
	}))
	return files
}

func TestPublish(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new", "place")
	p := open(t, dir)
	if version, _, ok, err := p.Current(); ok || err != nil {
		t.Fatalf("an absent place has current %q, %v", version, err)
	}
	if all, err := p.Versions(); len(all) != 0 || err != nil {
		t.Fatalf("an absent place has versions %v, %v", all, err)
	}
	from := policy(t, map[string]string{"model.onnx": "abc", "onnx/data": "", "version.json": "of elsewhere", ".dpo-pipe-tmp-1": "half"})
	must(t, os.WriteFile(filepath.Join(filepath.Dir(from), "blob"), []byte("abc"), 0o666))
	must(t, os.Symlink(filepath.Join("..", "blob"), filepath.Join(from, "linked")))
	must(t, p.Publish(ctx, "v1", from, map[string]string{"run": "7"}))

	got := tree(t, dir)
	var described map[string]any
	must(t, json.Unmarshal([]byte(got["versions/v1/version.json"]), &described))
	delete(described, "time")
	delete(described, "sha256") // the seal, which internal/checksum tests
	delete(got, "versions/v1/version.json")
	if d := cmp.Diff(map[string]string{
		"current": "versions/v1", "versions/v1/model.onnx": "abc", "versions/v1/onnx/data": "", "versions/v1/linked": "abc",
	}, got); d != "" {
		t.Errorf("the place (-want +got):\n%s", d)
	}
	// The example of FIPS 180-2, and the sum of nothing.
	const abc, none = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if d := cmp.Diff(map[string]any{
		"format": 1.0, "version": "v1", "sequence": 1.0, "meta": map[string]any{"run": "7"},
		"files": []any{
			map[string]any{"path": "linked", "bytes": 3.0, "sha256": abc},
			map[string]any{"path": "model.onnx", "bytes": 3.0, "sha256": abc},
			map[string]any{"path": "onnx/data", "bytes": 0.0, "sha256": none},
		},
	}, described); d != "" {
		t.Errorf("version.json (-want +got):\n%s", d)
	}
	version, folder, ok, err := p.Current()
	if want := filepath.Join(dir, "versions", "v1"); version != "v1" || folder != want || !ok || err != nil {
		t.Errorf("current is %q in %q, %v, %v", version, folder, ok, err)
	}
	all, err := p.Versions()
	if err != nil || len(all) != 1 || all[0].Bytes() != 6 || all[0].Time.IsZero() {
		t.Errorf("versions are %+v, %v", all, err)
	}
}

// TestHistories does what is listed one after the other, and wants the current version and the
// others, the oldest first, withdrawn ones in brackets and damaged ones behind a !. Where refused
// is set, the last step ends with that error and changes nothing.
func TestHistories(t *testing.T) {
	for _, tc := range []struct {
		name, steps, want string
		refused           func(error) bool
	}{
		{"first", "publish a", "a: a", nil},
		{"three", "publish a, publish b, publish c", "c: a b c", nil},
		{"again", "publish a, publish b, publish b", "b: a b", nil},
		{"again, older", "publish a, publish b, publish a", "a: a b", nil},
		{"back", "publish a, publish b, rollback", "a: a [b]", nil},
		{"back twice", "publish a, publish b, publish c, rollback, rollback", "a: a [b] [c]", nil},
		{"back and on", "publish a, publish b, rollback, publish c", "c: a [b] c", nil},
		{"not back to what was withdrawn", "publish a, publish b, rollback, publish c, rollback", "a: a [b] [c]", nil},
		{"back by name", "publish a, publish b, publish c, rollback a", "a: a [b] [c]", nil},
		{"back by name and on", "publish a, publish b, publish c, rollback a, publish d, rollback", "a: a [b] [c] [d]", nil},
		{"forward by name", "publish a, publish b, publish c, rollback a, rollback b", "b: a b [c]", nil},
		{"to where it is", "publish a, publish b, rollback b", "b: a b", nil},
		{"by hand, then on", "publish a, publish b, publish c, link a, publish d", "d: a [b] [c] d", nil},
		{"astray, then back by name", "publish a, publish b, link x, rollback a", "a: a [b]", nil},
		{"keep", "publish a, publish b, publish c, publish d, retain 3", "d: b c d", nil},
		{"keep more than there are", "publish a, publish b, retain 5", "b: a b", nil},
		{"keep one", "publish a, publish b, publish c, retain 1", "c: b c", nil},
		{"keep the one to go back to", "publish a, publish b, publish c, rollback, publish d, retain 2", "d: b d", nil},
		{"withdrawn go first", "publish a, publish b, publish c, publish d, rollback, retain 3", "c: a b c", nil},
		{"keep of nothing", "retain 1", ":", nil},
		{"numbers go on", "publish a, publish b, publish c, retain 1, publish a, rollback", "c: b c [a]", nil},

		{"over a damaged one", "publish a, publish b, damage a, publish c", "c: b c !a", nil},
		{"over one that lost its description", "publish a, publish b, lose a, publish c", "c: b c !a", nil},
		{"numbers leave room for a damaged one", "publish a, publish b, rollback, damage b, publish c, mend b, rollback b", "b: a b [c]", nil},
		{"not what is damaged", "publish a, publish b, publish c, publish d, damage b, retain 1", "d: c d !b", nil},
		{"from a damaged one by name", "publish a, publish b, damage b, rollback a", "a: a !b", nil},
		{"past a damaged one by name", "publish a, publish b, publish c, damage b, rollback a", "a: a [c] !b", nil},
		{"without a pointer, by name", "publish a, publish b, publish c, unlink, rollback b", "b: a b [c]", nil},
		{"without a pointer, the first", "publish a, unlink, rollback a", "a: a", nil},

		{"damaged current", "publish a, publish b, damage b, publish c", "b: a !b", is[*DamagedError]},
		{"damaged current, retain", "publish a, publish b, damage b, retain 1", "b: a !b", is[*DamagedError]},
		{"damaged current, again", "publish a, damage a, publish a", "a: !a", is[*DamagedError]},
		{"damaged current, back", "publish a, publish b, damage b, rollback", "b: a !b", is[*DamagedError]},
		{"current lost its description", "publish a, publish b, lose b, publish c", "b: a !b", is[*DamagedError]},
		{"damaged, again", "publish a, publish b, damage a, publish a", "b: b !a", is[*DamagedError]},
		{"damaged, back", "publish a, publish b, publish c, damage b, rollback", "c: a c !b", is[*DamagedError]},
		{"damaged, back by name", "publish a, publish b, publish c, damage b, rollback b", "c: a c !b", is[*DamagedError]},
		{"without a pointer", "publish a, unlink, publish b", "?: a", is[*PlaceError]},
		{"without a pointer, again", "publish a, unlink, publish a", "?: a", is[*PlaceError]},
		{"without a pointer behind a rollback", "publish a, publish b, rollback, unlink, publish c", "?: a [b]", is[*PlaceError]},
		{"without a pointer, back", "publish a, publish b, unlink, rollback", "?: a b", is[*PlaceError]},

		{"withdrawn again", "publish a, publish b, rollback, publish b", "a: a [b]", is[*WithdrawnError]},
		{"other content", "publish a, publish a other", "a: a", is[*ExistsError]},
		{"nothing to go back to", "publish a, rollback", "a: a", is[*NoVersionError]},
		{"nothing older to go back to", "publish a, publish b, rollback, rollback", "a: a [b]", is[*NoVersionError]},
		{"no such version", "publish a, rollback x", "a: a", is[*NoVersionError]},
		{"back before all", "rollback", ":", is[*NoVersionError]},
		{"keep none", "publish a, retain 0", "a: a", is[error]},
		{"astray", "publish a, publish b, link x, rollback", "x: a b", is[*PlaceError]},
		{"astray, then on", "publish a, publish b, link x, publish c", "x: a b", is[*PlaceError]},
		{"bad name", "publish ../a", ":", is[*NameError]},
		{"hidden name", "publish .a", ":", is[*NameError]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := open(t, dir)
			steps := strings.Split(tc.steps, ", ")
			for i, step := range steps {
				err := do(t, p, dir, step)
				if i < len(steps)-1 || tc.refused == nil {
					must(t, err)
				} else if !tc.refused(err) {
					t.Errorf("%s: got %v, want another error", step, err)
				}
			}
			if got := history(t, p); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if version, _, _, _ := p.Current(); version != "x" && version != "" {
				if text, err := os.ReadFile(filepath.Join(dir, "current", "model.onnx")); err != nil || string(text) != version {
					t.Errorf("current/model.onnx is %q, %v", text, err)
				}
			}
		})
	}
}

// do takes one step of a history.
func do(t *testing.T, p *Place, dir, step string) (err error) {
	t.Helper()
	ctx := context.Background()
	words := append(strings.Fields(step), "", "")
	switch words[0] {
	case "publish":
		err = p.Publish(ctx, words[1], named(t, words[1]+words[2]), nil)
	case "rollback":
		_, _, err = p.Rollback(ctx, words[1])
	case "retain":
		_, err = p.Retain(ctx, int(words[1][0]-'0'))
	case "link":
		link := filepath.Join(dir, "current")
		must(t, os.Remove(link))
		err = os.Symlink("versions/"+words[1], link)
	case "unlink":
		err = os.Remove(filepath.Join(dir, "current"))
	case "damage":
		err = changeDescription(p, words[1], func(text []byte) []byte { return bytes.Replace(text, []byte("sequence"), []byte("seqience"), 1) })
	case "mend":
		err = changeDescription(p, words[1], func(text []byte) []byte { return bytes.Replace(text, []byte("seqience"), []byte("sequence"), 1) })
	case "lose":
		err = os.Remove(filepath.Join(p.store.where(words[1]), versionFile))
	}
	return err
}

// changeDescription rewrites version.json.
func changeDescription(p *Place, version string, change func([]byte) []byte) error {
	path := filepath.Join(p.store.where(version), versionFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(text), 0o666)
}

func history(t *testing.T, p *Place) string {
	t.Helper()
	current, _, _, err := p.Current()
	if is[*PlaceError](err) {
		current, err = "?", nil
	}
	must(t, err)
	all, err := p.Versions()
	must(t, err)
	text := current + ":"
	for _, v := range all {
		switch {
		case v.Damage != "":
			text += " !" + v.Name
		case v.Withdrawn:
			text += " [" + v.Name + "]"
		default:
			text += " " + v.Name
		}
	}
	return text
}

// TestRollbackVerifies damages the version to go back to: the place must stay as it is.
func TestRollbackVerifies(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		damage     func(file string) error
	}{
		{"changed", "SHA-256", func(file string) error { return os.WriteFile(file, []byte("b"), 0o666) }},
		{"cut", "0 bytes", func(file string) error { return os.Truncate(file, 0) }},
		{"missing", "is missing", os.Remove},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir)
			must(t, do(t, p, dir, "publish a"))
			must(t, do(t, p, dir, "publish b"))
			must(t, tc.damage(filepath.Join(dir, "versions", "a", "model.onnx")))
			before := tree(t, dir)
			_, _, err := p.Rollback(context.Background(), "")
			if d, ok := errors.AsType[*DamagedError](err); !ok || d.Version != "a" || !strings.Contains(d.Problem, tc.want) {
				t.Errorf("got %v, want a DamagedError with %q", err, tc.want)
			}
			if d := cmp.Diff(before, tree(t, dir)); d != "" {
				t.Errorf("it changed the place:\n%s", d)
			}
		})
	}
}

func TestRollbackPlanChangesNothing(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	must(t, do(t, p, dir, "publish a"))
	must(t, do(t, p, dir, "publish b"))
	before := tree(t, dir)
	from, to, err := p.RollbackPlan(context.Background(), "")
	if from != "b" || to != "a" || err != nil {
		t.Errorf("it would go from %q to %q, %v; want b to a", from, to, err)
	}
	if d := cmp.Diff(before, tree(t, dir)); d != "" {
		t.Errorf("it changed the place:\n%s", d)
	}
}

// TestDamagedDescription wants a version listed as damaged whose version.json can't be trusted.
func TestDamagedDescription(t *testing.T) {
	for name, text := range map[string]string{
		"empty":        "",
		"other format": `{"format":2,"version":"a","sequence":1,"files":[]}`,
		"other name":   `{"format":1,"version":"b","sequence":1,"files":[]}`,
		"no number":    `{"format":1,"version":"a","files":[]}`,
		"path leaves":  `{"format":1,"version":"a","sequence":1,"files":[{"path":"../../b"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir)
			must(t, do(t, p, dir, "publish a"))
			must(t, os.WriteFile(filepath.Join(dir, "versions", "a", "version.json"), []byte(text), 0o666))
			wantDamage(t, p)
		})
	}
}

// wantDamage wants version a alone, damaged in its version.json, and current nevertheless.
func wantDamage(t *testing.T, p *Place) {
	t.Helper()
	all, err := p.Versions()
	if err != nil || len(all) != 1 || all[0].Name != "a" || !strings.Contains(all[0].Damage, "version.json: ") {
		t.Errorf("got %+v and %v, want version a with its damage", all, err)
	}
	if version, _, ok, err := p.Current(); version != "a" || !ok || err != nil {
		t.Errorf("current is %q, %v, %v, want a", version, ok, err)
	}
}

// TestEveryDamageOfADescriptionIsSeen flips every bit of a version.json and cuts it everywhere. What
// is read still is what was written.
func TestEveryDamageOfADescriptionIsSeen(t *testing.T) {
	v := Version{Name: "a", Sequence: 12, Meta: map[string]string{"run": "7"}, Files: []File{{"model.onnx", 3, strings.Repeat("ab", 32)}}}
	text, err := encodeVersion(v)
	must(t, err)
	check := func(what string, bad []byte) {
		t.Helper()
		if got, err := decodeVersion("a", bad); err == nil && !cmp.Equal(got, v, cmp.AllowUnexported(Version{})) {
			t.Errorf("%s: read %+v, want %+v or an error", what, got, v)
		}
	}
	check("whole", text)
	for i := range 8 * len(text) {
		bad := bytes.Clone(text)
		bad[i/8] ^= 1 << (i % 8)
		check(fmt.Sprintf("bit %d flipped", i), bad)
	}
	for n := range len(text) {
		check(fmt.Sprintf("cut to %d bytes", n), text[:n])
	}
}

// TestMade finds versions by what their publisher said of them.
func TestMade(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	for _, v := range []string{"a1", "b1", "a2", "b2"} {
		must(t, p.Publish(context.Background(), v, named(t, v), map[string]string{"kind": v[:1]}))
	}
	must(t, do(t, p, dir, "rollback a1"))
	must(t, do(t, p, dir, "damage b2"))
	for kind, want := range map[string]string{"a": "a2", "b": "b1", "c": "", "": ""} {
		if got, err := p.Made("kind", kind); got != want || err != nil {
			t.Errorf("of kind %q: %q, %v, want %q", kind, got, err, want)
		}
	}
	if got, err := p.Made("other", ""); got != "" || err != nil {
		t.Errorf("of another key: %q, %v, want none", got, err)
	}
}

// TestVerify wants damage below the folder that is asked about told, and of version.json, and no other.
func TestVerify(t *testing.T) {
	for name, want := range map[string]string{"model.onnx": "", "adapter/adapter_config.json": "adapter_config.json", "version.json": "version.json"} {
		dir := t.TempDir()
		p := open(t, dir)
		must(t, do(t, p, dir, "publish a"))
		version, folder, _, err := p.Current()
		must(t, err)
		must(t, p.Verify(context.Background(), version, folder, "adapter"))
		must(t, os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o666))
		err = p.Verify(context.Background(), version, folder, "adapter")
		if (err != nil) != (want != "") || err != nil && (!is[*DamagedError](err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s is damaged: %v, want %q", name, err, want)
		}
	}
}

// TestFoldersThatAreNoVersion lie among versions: an empty one, and a file.
func TestFoldersThatAreNoVersion(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	must(t, do(t, p, dir, "publish a"))
	must(t, os.Mkdir(filepath.Join(dir, "versions", "lost+found"), 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "versions", "notes"), nil, 0o666))
	if got := history(t, p); got != "a: a" {
		t.Errorf("got %q, want version a alone", got)
	}
}

// is reports whether err is or wraps an error of type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func TestPlacesThatCannotBeUsed(t *testing.T) {
	ctx := context.Background()
	for _, path := range []string{"", "ftp://host/place"} {
		if _, err := Open(path); err == nil {
			t.Errorf("%q can be opened", path)
		}
	}
	for name, make := range map[string]func(link string) error{
		"current is a folder":  func(link string) error { return os.Mkdir(link, 0o777) },
		"current leads abroad": func(link string) error { return os.Symlink("/elsewhere/a", link) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, make(filepath.Join(dir, "current")))
			err := open(t, dir).Publish(ctx, "a", named(t, "a"), nil)
			if !is[*PlaceError](err) {
				t.Errorf("got %v, want a PlaceError", err)
			}
		})
	}
	t.Run("locked", func(t *testing.T) {
		dir := t.TempDir()
		p := open(t, dir)
		must(t, do(t, p, dir, "publish a"))
		must(t, do(t, p, dir, "publish b"))
		l, err := lockfile.Acquire(dir)
		must(t, err)
		defer l.Release()
		for _, step := range []string{"publish c", "rollback", "retain 1"} {
			if err := do(t, p, dir, step); !is[*lockfile.LockedError](err) {
				t.Errorf("%s: got %v, want a LockedError", step, err)
			}
		}
		if got := history(t, p); got != "b: a b" {
			t.Errorf("now %q", got)
		}
	})
}

func TestPoliciesThatCannotBePublished(t *testing.T) {
	odd := policy(t, map[string]string{"a": "a"})
	must(t, os.Symlink(t.TempDir(), filepath.Join(odd, "b")))
	for name, from := range map[string]string{
		"absent": filepath.Join(odd, "absent"), "empty": t.TempDir(), "link to a folder": odd,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := open(t, dir).Publish(context.Background(), "v", from, nil); err == nil {
				t.Error("it was published")
			}
			if left := tree(t, dir); len(left) != 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		dir := t.TempDir()
		if err := open(t, dir).Publish(ctx, "v", named(t, "v"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if left := tree(t, dir); len(left) != 0 {
			t.Errorf("it left %v", left)
		}
	})
}

func TestNoLinks(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{&os.LinkError{Op: "symlink", Err: syscall.EPERM}, true},
		{&os.LinkError{Op: "symlink", Err: syscall.ENOTSUP}, true},
		{&os.LinkError{Op: "symlink", Err: syscall.ENOSPC}, false},
		{&os.LinkError{Op: "rename", Err: syscall.EPERM}, false},
		{nil, false},
	} {
		if got := noLinks(tc.err); got != tc.want {
			t.Errorf("noLinks(%v) is %v", tc.err, got)
		}
	}
}
