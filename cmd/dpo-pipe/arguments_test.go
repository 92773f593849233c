package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArrange(t *testing.T) {
	for _, tc := range []struct{ name, line, want string }{
		{"nothing", "", ""},
		{"only flags of the program", "--version", "--version"},
		{"no such command", "no-such --json a", "no-such"},
		{"in order already", "train --cache c --out r", "train --cache c --out r"},
		{"flag behind a word", "inspect c --json", "inspect --json -- c"},
		{"value behind a word", "inspect c --rows 3", "inspect --rows 3 -- c"},
		{"value after =", "inspect c --rows=3", "inspect --rows=3 -- c"},
		{"one dash", "inspect c -rows 3 -json", "inspect -rows 3 -json -- c"},
		{"value of a bool", "inspect c --json=false d", "inspect --json=false -- c d"},
		{"no flags behind --", "inspect --json -- --rows", "inspect --json -- --rows"},
		{"a dash is a word", "inspect - --json", "inspect --json -- -"},
		{"several files of data", "train --data a b c --out r", "train --data a --data=b --data=c --out r"},
		{"more files behind =", "train --data=a b --out r", "train --data=a --data=b --out r"},
		{"data ends at a flag", "precompute-ref --data a b --out c d", "precompute-ref --data a --data=b --out c -- d"},
		{"data ends at a bool flag", "precompute-ref --data a --dry-run b", "precompute-ref --data a --dry-run -- b"},
		{"data twice", "precompute-ref --data a b --out c --data d e", "precompute-ref --data a --data=b --out c --data d --data=e"},
		{"data ends at --", "precompute-ref --data a -- b", "precompute-ref --data a -- b"},
		{"a file with =", "precompute-ref --data a x=y", "precompute-ref --data a --data=x=y"},
		{"only --data takes more", "compare --prompt a b", "compare --prompt a -- b"},
		{"negative number", "train --lr -1 --out r", "train --lr -1 --out r"},
		{"value like an unknown flag", "compare --prompt -x", "compare --prompt -x"},
		{"unknown flag", "train r --no-such v", "train --no-such -- r v"},
		{"help behind words", "inspect c --rows --help", "inspect --help"},
		{"help of a command", "--help train", "train --help"},
		{"help of no command", "--help no-such", "no-such"},
		{"help as a command", "help", "--help"},
		{"help as a command of a command", "help train", "train --help"},
		{"help behind all", "precompute-ref --data a b -h", "precompute-ref --help"},
		{"help is a file", "inspect help", "inspect -- help"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"dpo-pipe"}, strings.Fields(tc.line)...)
			given := strings.Join(args, " ")
			got, err := arrange((&app{}).cli(), args)
			if err != nil {
				t.Fatal(err)
			}
			want := append([]string{"dpo-pipe"}, strings.Fields(tc.want)...)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("arrange(%q) (-want +got):\n%s", tc.line, d)
			}
			if strings.Join(args, " ") != given {
				t.Errorf("arrange changed its argument to %q", args)
			}
		})
	}
}

func TestArrangeWantsValues(t *testing.T) {
	for _, line := range []string{"train --data", "train stray --out", "precompute-ref --data --out c", "inspect c --rows --json=true"} {
		_, err := arrange((&app{}).cli(), append([]string{"dpo-pipe"}, strings.Fields(line)...))
		var usage *usageErr
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "flag needs an argument") {
			t.Errorf("arrange(%q) = %v, want a usage error", line, err)
		}
	}
}
