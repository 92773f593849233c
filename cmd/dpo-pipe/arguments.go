package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// dataFlag takes every word behind it, up to the next flag: a shell puts the files
// of a glob there one by one.
const dataFlag = "data"

// arrange orders a command line as the flag package reads it, which stops at the
// first word that is no flag: the command's flags with their values first, then --
// and the other words. Words behind --data become more --data, and --help
// anywhere asks for the help of the command.
func arrange(app *cli.App, args []string) ([]string, error) {
	at := slices.IndexFunc(args[1:], func(word string) bool { return !isFlag(word) }) + 1
	if at == 0 {
		return args, nil
	}
	if args[at] == "help" {
		return arrange(app, append([]string{args[0], "--help"}, args[at+1:]...))
	}
	command := app.Command(args[at])
	if command == nil {
		return []string{args[0], args[at]}, nil
	}
	s := sorter{values: valueFlags(command), help: slices.ContainsFunc(args[1:at], asksHelp)}
	if err := s.sort(args[at+1:]); err != nil && !s.help {
		return nil, &usageErr{err}
	}
	if s.help {
		return []string{args[0], command.Name, "--help"}, nil
	}
	flags := append(args[:at+1:at+1], s.flags...)
	if len(s.words) == 0 {
		return flags, nil
	}
	return append(append(flags, "--"), s.words...), nil
}

// sorter takes the words behind a command apart.
type sorter struct {
	values map[string]bool // by name: whether the flag has a value
	help   bool            // was asked for
	flags  []string
	words  []string
}

func (s *sorter) sort(args []string) error {
	more := false // words are more --data
	for i := 0; i < len(args); i++ {
		word := args[i]
		name, _, whole := strings.Cut(strings.TrimLeft(word, "-"), "=")
		switch {
		case word == "--":
			s.words = append(s.words, args[i+1:]...)
			return nil
		case !isFlag(word) && more:
			s.flags = append(s.flags, "--"+dataFlag+"="+word)
		case !isFlag(word):
			s.words = append(s.words, word)
		case asksHelp(word):
			s.help = true
			return nil
		case whole || !s.values[name]:
			s.flags, more = append(s.flags, word), name == dataFlag
		case i+1 == len(args) || s.known(args[i+1]):
			s.help = slices.ContainsFunc(args[i+1:], asksHelp)
			return fmt.Errorf("flag needs an argument: --%s", name)
		default:
			i++
			s.flags, more = append(s.flags, word, args[i]), name == dataFlag
		}
	}
	return nil
}

// known reports whether word is a flag of the command, so that it is not the
// value of the flag in front of it. A negative number is none.
func (s *sorter) known(word string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	_, known := s.values[name]
	return known && isFlag(word) || asksHelp(word)
}

func isFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

func asksHelp(word string) bool {
	return word == "--help" || word == "-help" || word == "-h" || word == "--h"
}

// valueFlags says by name which flags a command has, and whether they take a value.
func valueFlags(c *cli.Command) map[string]bool {
	flags := map[string]bool{}
	for _, f := range c.Flags {
		doc, ok := f.(cli.DocGenerationFlag)
		for _, name := range f.Names() {
			flags[name] = ok && doc.TakesValue()
		}
	}
	return flags
}
