package corpus

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// testPairs is enough pairs for shares to be near their expectation: the
// standard deviation of a third of them is 0.017.
const testPairs = 800

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	write := func(seed uint64) string {
		var b bytes.Buffer
		pairs := NewPairs(seed, 50)
		if err := WritePairs(&b, pairs); err != nil {
			t.Fatal(err)
		}
		if err := WriteCorpus(&b, seed, 200, pairs); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if write(1) != write(1) {
		t.Error("two runs with one seed differ")
	}
	if write(1) == write(2) {
		t.Error("two seeds give the same texts")
	}
}

func TestMorePairsKeepTheFirst(t *testing.T) {
	t.Parallel()
	few, many := NewPairs(Seed, 20), NewPairs(Seed, 40)
	for i := range few {
		if few[i] != many[i] {
			t.Fatalf("pair %d of 20 is %+v, of 40 %+v", i, few[i], many[i])
		}
	}
}

func TestPairsAreUsable(t *testing.T) {
	t.Parallel()
	prompts := map[string]bool{}
	for i, p := range NewPairs(Seed, testPairs) {
		if prompts[p.Prompt] {
			t.Errorf("pair %d: prompt %q is there twice", i, p.Prompt)
		}
		prompts[p.Prompt] = true
		if !strings.HasPrefix(p.Prompt, "Customer: ") || !strings.HasSuffix(p.Prompt, "\nAgent:") {
			t.Errorf("pair %d: prompt %q", i, p.Prompt)
		}
		for _, reply := range []string{p.Chosen, p.Rejected} {
			if !strings.HasPrefix(reply, " ") || !strings.ContainsAny(reply[len(reply)-1:], ".!?") {
				t.Errorf("pair %d: reply %q, want a space before and a full stop after", i, reply)
			}
			if n := sentences(reply); n < 1 || n > 4 {
				t.Errorf("pair %d: reply %q has %d sentences", i, reply, n)
			}
		}
		if all := p.Prompt + p.Chosen + p.Rejected; strings.ContainsAny(all, "{}") {
			t.Errorf("pair %d: a slot is left open in %q", i, all)
		}
	}
}

// sentences counts the marks that end one.
func sentences(text string) int {
	return strings.Count(text, ".") + strings.Count(text, "!") + strings.Count(text, "?")
}

func TestLengthTellsNothing(t *testing.T) {
	t.Parallel()
	shares := map[int]float64{}
	for i, p := range NewPairs(Seed, testPairs) {
		longer := units(p.Chosen) - units(p.Rejected)
		if longer < -1 || longer > 1 {
			t.Errorf("pair %d: chosen is %d units longer", i, longer)
		}
		shares[longer] += 1.0 / testPairs
	}
	for longer, share := range shares {
		if share < 0.28 || share > 0.39 {
			t.Errorf("chosen is %d units longer in %.3f of the pairs, want about a third", longer, share)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	cases := map[string]int{"": 0, " No.": 2, " Order 4821 is late, Sam.": 8, " 7 days": 2, " 123": 2, " a-b": 3}
	for text, want := range cases {
		if got := units(text); got != want {
			t.Errorf("units(%q) = %d, want %d", text, got, want)
		}
	}
}

// TestFactsCross checks what makes "wrong" worth learning: no figure is right or
// wrong by itself, and the two figures of a product name the product.
func TestFactsCross(t *testing.T) {
	t.Parallel()
	facts := map[string]func(Product) Fact{
		"return": func(p Product) Fact { return p.Return },
		"cover":  func(p Product) Fact { return p.Cover },
	}
	for name, of := range facts {
		isTrue, isOutdated, both := map[string]int{}, map[string]int{}, map[[2]string]string{}
		for _, p := range products {
			f := of(p)
			isTrue[f.True]++
			isOutdated[f.Outdated]++
			key := [2]string{min(f.True, f.Outdated), max(f.True, f.Outdated)}
			if other, ok := both[key]; ok || f.True == f.Outdated {
				t.Errorf("%s of the %s: %v, also that of the %q", name, p.Name, f, other)
			}
			both[key] = p.Name
		}
		for figure, n := range isTrue {
			if isOutdated[figure] != n {
				t.Errorf("%s: %s is true %d times and outdated %d times", name, figure, n, isOutdated[figure])
			}
		}
	}
}

func TestWrongStatesTheOutdatedFigure(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(Seed, 9))
	for range 500 {
		s := NewScene(rng)
		fact, ok := s.Fact()
		if !ok {
			continue
		}
		for style, want := range map[Style]string{Helpful: fact.True, Wrong: fact.Outdated} {
			reply := s.Reply(rng, style)
			if !strings.Contains(reply, " "+want+" ") {
				t.Fatalf("%s reply about the %s: %q, want %q in it", style, s.Product.Name, reply, want)
			}
		}
	}
}

func TestEveryProductIsNamedInItsLetter(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(Seed, 10))
	for range 2000 {
		s := NewScene(rng)
		if prompt := s.Prompt(rng); !strings.Contains(prompt, s.Product.Name) {
			t.Fatalf("letter %q does not name the %s", prompt, s.Product.Name)
		}
	}
}

func TestCorpusLeavesOutThePairs(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	if err := WriteCorpus(&all, Seed, 300, nil); err != nil {
		t.Fatal(err)
	}
	first := decodeTexts(t, all.Bytes())[0]
	prompt, _, _ := strings.Cut(first, "\nAgent:")
	prompt += "\nAgent:"

	var rest bytes.Buffer
	if err := WriteCorpus(&rest, Seed, 300, []Pair{{Prompt: prompt}}); err != nil {
		t.Fatal(err)
	}
	for _, text := range decodeTexts(t, rest.Bytes()) {
		if strings.HasPrefix(text, prompt) {
			t.Errorf("text %q answers an excluded prompt", text)
		}
	}
}

func decodeTexts(t *testing.T, lines []byte) []string {
	t.Helper()
	var texts []string
	for dec := json.NewDecoder(bytes.NewReader(lines)); dec.More(); {
		var row struct{ Text string }
		if err := dec.Decode(&row); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, row.Text)
	}
	return texts
}
