package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestHelp reads the help of every command: an example that runs it, and each flag
// with what it does and at most one default.
func TestHelp(t *testing.T) {
	_, help, _ := invoke("--help")
	for _, c := range (&app{}).commands() {
		t.Run(c.Name, func(t *testing.T) {
			if c.Usage == "" || !strings.Contains(help, c.Name+" ") || !strings.Contains(help, c.Usage) {
				t.Errorf("the program's help lacks %q: %q", c.Name, c.Usage)
			}
			code, text, _ := invoke(c.Name, "--help")
			if code != exitDone || !strings.Contains(text, "\n     dpo-pipe "+c.Name) {
				t.Errorf("no example in\n%s", text)
			}
			for line := range strings.Lines(text) {
				if strings.Count(line, "default") > 1 {
					t.Errorf("doubled default: %s", line)
				}
			}
			for _, f := range c.Flags {
				doc := f.(cli.DocGenerationFlag)
				if doc.GetUsage() == "" || !strings.Contains(text, "--"+f.Names()[0]) {
					t.Errorf("--%s is not explained", f.Names()[0])
				}
			}
		})
	}
}
