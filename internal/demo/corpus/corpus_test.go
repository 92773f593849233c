package corpus

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// testPairs is how many pairs the tests look at; it divides by three.
const testPairs = 600

// words counts for tokens here: the tokenizer is trained on what this package writes.
func words(text string) int { return len(strings.Fields(text)) }

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	write := func(seed uint64) string {
		var b bytes.Buffer
		prompts, err := WriteCorpus(&b, seed, 200)
		if err != nil {
			t.Fatal(err)
		}
		if err := WritePairs(&b, NewPairs(seed, 50, prompts, words)); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first, again := write(1), write(1)
	if first != again {
		t.Error("two runs with one seed differ")
	}
	if first == write(2) {
		t.Error("two seeds give the same texts")
	}
}

func TestMorePairsKeepTheFirst(t *testing.T) {
	t.Parallel()
	few, many := NewPairs(Seed, 20, nil, words), NewPairs(Seed, 40, nil, words)
	for i := range few {
		if few[i] != many[i] {
			t.Fatalf("pair %d of 20 is %+v, of 40 %+v", i, few[i], many[i])
		}
	}
}

func TestPairsAreUsable(t *testing.T) {
	t.Parallel()
	prompts := map[string]bool{}
	for i, p := range NewPairs(Seed, testPairs, nil, words) {
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
			if n := sentences(reply); n < 2 || n > 3 {
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
	counts := map[int]int{}
	for _, p := range NewPairs(Seed, testPairs, nil, words) {
		counts[words(p.Chosen)-words(p.Rejected)]++
		if c, r := sentences(p.Chosen), sentences(p.Rejected); c != r {
			t.Errorf("pair %s: %d sentences chosen, %d rejected", p.ID, c, r)
		}
	}
	want := map[int]int{-1: testPairs / 3, 0: testPairs / 3, 1: testPairs / 3}
	if !maps.Equal(counts, want) {
		t.Errorf("pairs by how much longer the chosen reply is: %v, want %v", counts, want)
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
			reply := s.Reply(rng, style, true)
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

func TestNoPairHasAPromptOfTheCorpus(t *testing.T) {
	t.Parallel()
	free := NewPairs(Seed, 3, nil, words)
	for _, p := range NewPairs(Seed, 3, map[string]bool{free[1].Prompt: true}, words) {
		if p.Prompt == free[1].Prompt {
			t.Errorf("pair %s has the taken prompt %q", p.ID, p.Prompt)
		}
	}
}

func TestCorpusReturnsItsPrompts(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	prompts, err := WriteCorpus(&b, Seed, 100)
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(&b); dec.More(); {
		var row struct{ Text string }
		if err := dec.Decode(&row); err != nil {
			t.Fatal(err)
		}
		letter, _, _ := strings.Cut(row.Text, "\nAgent:")
		if !prompts[letter+"\nAgent:"] {
			t.Errorf("letter %q is not among the prompts", letter)
		}
	}
}
