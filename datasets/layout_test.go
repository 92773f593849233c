package datasets

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func plain(s string) Text { return Text{Plain: s} }

// chat makes messages of "role: content" strings.
func chat(turns ...string) Text {
	t := Text{Messages: []Message{}}
	for _, turn := range turns {
		role, content, _ := strings.Cut(turn, ": ")
		t.Messages = append(t.Messages, Message{role, content})
	}
	return t
}

func ref(x float64) *float64 { return &x }

// A rowCase is one row and what must become of it: a pair, or a refusal.
type rowCase struct {
	name     string
	row      string
	want     Pair // Weight 0 stands for 1
	reason   Reason
	column   string
	jsonOnly bool // a table can't say it
}

// rowCases has a case for every layout and every reason that the reader gives.
var rowCases = []rowCase{
	{name: "strings", row: `{"prompt":"Q","chosen":"A","rejected":"B"}`, want: Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "other key order", row: `{"rejected":"B","x":[1,{"y":"}"}],"chosen":"A","prompt":"Q"}`, want: Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "escapes", row: `{"prompt":"\u00e9\ud83d\ude00\t\"\\\/","chosen":" a\n","rejected":"\u0062"}`, want: Pair{Prompt: plain("é😀\t\"\\/"), Chosen: plain(" a\n"), Rejected: plain("b")}},
	{name: "a repeated prompt of text stays", row: `{"prompt":"Q","chosen":"Q A","rejected":"Q B"}`, want: Pair{Prompt: plain("Q"), Chosen: plain("Q A"), Rejected: plain("Q B")}},
	{name: "messages and strings", row: `{"prompt":[{"role":"user","content":"Q"}],"chosen":"A","rejected":"B"}`, want: Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "messages", row: `{"prompt":[{"role":"system","content":"S"},{"role":"user","content":"Q"}],"chosen":[{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("system: S", "user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "messages, repeated prompt", row: `{"prompt":[{"role":"user","content":"Q"}],"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"content":"Q","role":"user"},{"content":"B","role":"assistant"}]}`, want: Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "messages, prompt repeated once", row: `{"prompt":[{"role":"user","content":"Q"}],"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "text, repeated prompt", row: `{"prompt":"Q","chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "text, prompt repeated behind a system turn", row: `{"prompt":" Q\n","chosen":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("system: S", "user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "text, prompt not repeated", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "text, several shared turns", row: `{"prompt":"Q","chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"X"},{"role":"user","content":"R"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"X"},{"role":"user","content":"R"},{"role":"assistant","content":"B"}]}`, want: Pair{Prompt: chat("user: Q", "assistant: X", "user: R"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "implicit messages", row: `{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, want: Pair{PromptImplicit: true, Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "null prompt of messages", row: `{"prompt":null,"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, want: Pair{PromptImplicit: true, Prompt: chat("user: Q"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "implicit messages of several turns", row: `{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"X"},{"role":"user","content":"R"},{"role":"assistant","content":"A"},{"role":"user","content":"T"},{"role":"assistant","content":"A2"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"X"},{"role":"user","content":"R"},{"role":"assistant","content":"B"}]}`, want: Pair{PromptImplicit: true, Prompt: chat("user: Q", "assistant: X", "user: R"), Chosen: chat("assistant: A", "user: T", "assistant: A2"), Rejected: chat("assistant: B")}},
	{name: "implicit strings", row: `{"chosen":"The sky is blue.","rejected":"The sky is green."}`, want: Pair{PromptImplicit: true, Prompt: plain("The sky is"), Chosen: plain(" blue."), Rejected: plain(" green.")}},
	{name: "content parts", row: `{"prompt":[{"role":"user","content":[{"type":"text","text":"Q1 "},{"type":"text","text":"Q2"}]}],"chosen":[{"role":"assistant","content":[{"type":"text","value":"A"}]}],"rejected":[{"role":"assistant","content":[{"type":"text","text":"B"}]}]}`, want: Pair{Prompt: chat("user: Q1 Q2"), Chosen: chat("assistant: A"), Rejected: chat("assistant: B")}},
	{name: "optional columns", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":"x-1","weight":0.5,"score_chosen":3,"score_rejected":-1.25,"source":"web"}`, want: Pair{ID: hashID("x-1"), Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B"), Weight: 0.5, ScoreChosen: ref(3), ScoreRejected: ref(-1.25), Source: "web"}},
	{name: "optional nulls", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":null,"weight":null,"score_chosen":null,"source":null}`, want: Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "empty id", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":""}`, want: Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "integer id", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":17}`, want: Pair{ID: hashID("17"), Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "integer id written as a float", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":17.0}`, want: Pair{ID: hashID("17"), Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},
	{name: "source of another type", row: `{"prompt":"Q","chosen":"A","rejected":"B","source":3}`, want: Pair{Prompt: plain("Q"), Chosen: plain("A"), Rejected: plain("B")}},

	{name: "no chosen", row: `{"prompt":"Q","rejected":"B"}`, reason: MissingColumn, column: "chosen"},
	{name: "no rejected", row: `{"prompt":"Q","chosen":"A"}`, reason: MissingColumn, column: "rejected"},
	{name: "null chosen", row: `{"prompt":"Q","chosen":null,"rejected":"B"}`, reason: NullValue, column: "chosen"},
	{name: "null rejected", row: `{"prompt":"Q","chosen":"A","rejected":null}`, reason: NullValue, column: "rejected"},
	{name: "null prompt of strings", row: `{"prompt":null,"chosen":"The A","rejected":"The B"}`, reason: NullValue, column: "prompt"},
	{name: "chosen a number", row: `{"prompt":"Q","chosen":1,"rejected":"B"}`, reason: WrongType, column: "chosen"},
	{name: "prompt a boolean", row: `{"prompt":true,"chosen":"A","rejected":"B"}`, reason: WrongType, column: "prompt"},
	{name: "chosen one message", row: `{"prompt":"Q","chosen":{"role":"assistant","content":"A"},"rejected":"B"}`, reason: WrongType, column: "chosen"},
	{name: "list of strings", row: `{"prompt":"Q","chosen":["A"],"rejected":["B"]}`, reason: WrongType, column: "chosen"},
	{name: "two forms", row: `{"prompt":"Q","chosen":"A","rejected":[{"role":"assistant","content":"B"}]}`, reason: WrongType, column: "rejected"},
	{name: "ShareGPT turns", row: `{"prompt":"Q","chosen":[{"from":"gpt","value":"A"}],"rejected":[{"from":"gpt","value":"B"}]}`, reason: WrongType, column: "chosen"},
	{name: "no role", row: `{"prompt":"Q","chosen":[{"content":"A"}],"rejected":[{"content":"B"}]}`, reason: WrongType, column: "chosen"},
	{name: "empty role", row: `{"prompt":"Q","chosen":[{"role":"","content":"A"}],"rejected":[{"role":"","content":"B"}]}`, reason: WrongType, column: "chosen"},
	{name: "null content", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":null}]}`, reason: NullValue, column: "rejected"},
	{name: "tool calls", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"A","tool_calls":[{"f":"x"}]}],"rejected":[{"role":"assistant","content":"B","tool_calls":null}]}`, reason: WrongType, column: "chosen"},
	{name: "image part", row: `{"prompt":[{"role":"user","content":[{"type":"image","text":"x"}]}],"chosen":"A","rejected":"B"}`, reason: WrongType, column: "prompt"},
	{name: "part without text", row: `{"prompt":[{"role":"user","content":[{"type":"text","url":"x"}]}],"chosen":"A","rejected":"B"}`, reason: WrongType, column: "prompt", jsonOnly: true},
	{name: "empty chosen", row: `{"prompt":"Q","chosen":"","rejected":"B"}`, reason: EmptyCompletion, column: "chosen"},
	{name: "blank rejected", row: `{"prompt":"Q","chosen":"A","rejected":" \n\t"}`, reason: EmptyCompletion, column: "rejected"},
	{name: "no message", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"A"}],"rejected":[]}`, reason: EmptyCompletion, column: "rejected"},
	{name: "blank message", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"  "}],"rejected":[{"role":"assistant","content":"B"}]}`, reason: EmptyCompletion, column: "chosen"},
	{name: "blank message behind the prompt", row: `{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":""}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, reason: EmptyCompletion, column: "chosen"},
	{name: "one conversation ends in the shared turns", row: `{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"}]}`, reason: EmptyCompletion, column: "rejected"},
	{name: "identical strings", row: `{"prompt":"Q","chosen":"A","rejected":"A"}`, reason: IdenticalCompletions, column: "rejected"},
	{name: "identical strings without a prompt", row: `{"chosen":"same text","rejected":"same text"}`, reason: IdenticalCompletions, column: "rejected"},
	{name: "identical messages", row: `{"prompt":"Q","chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"assistant","content":"A"}]}`, reason: IdenticalCompletions, column: "rejected"},
	{name: "empty prompt", row: `{"prompt":"","chosen":"A","rejected":"B"}`, reason: NoPrompt, column: "prompt"},
	{name: "empty list of a prompt", row: `{"prompt":[],"chosen":"A","rejected":"B"}`, reason: NoPrompt, column: "prompt"},
	{name: "no shared word", row: `{"chosen":"abc","rejected":"abd"}`, reason: NoPrompt, column: "chosen"},
	{name: "no shared turn", row: `{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"R"},{"role":"assistant","content":"B"}]}`, reason: NoPrompt, column: "chosen"},
	{name: "other question", row: `{"prompt":"Q","chosen":[{"role":"user","content":"R"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"R"},{"role":"assistant","content":"B"}]}`, reason: PromptMismatch, column: "chosen"},
	{name: "other system turn", row: `{"prompt":"Q","chosen":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}`, reason: PromptMismatch, column: "rejected"},
	{name: "conversations part at a question", row: `{"chosen":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"system","content":"S"},{"role":"user","content":"R"},{"role":"assistant","content":"B"}]}`, reason: PromptMismatch, column: "chosen"},
	{name: "half a surrogate pair", row: `{"prompt":"Q","chosen":"A\ud83d","rejected":"B"}`, reason: InvalidText, column: "chosen", jsonOnly: true},
	{name: "half a pair before another escape", row: `{"prompt":"\ud83d\u0041","chosen":"A","rejected":"B"}`, reason: InvalidText, column: "prompt", jsonOnly: true},
	{name: "invalid UTF-8", row: "{\"prompt\":\"Q\",\"chosen\":\"A\",\"rejected\":\"B\xff\"}", reason: InvalidText, column: "rejected"},
	{name: "invalid UTF-8 in a message", row: "{\"prompt\":\"Q\",\"chosen\":[{\"role\":\"assistant\",\"content\":\"\xc3\"}],\"rejected\":[{\"role\":\"assistant\",\"content\":\"B\"}]}", reason: InvalidText, column: "chosen"},
	{name: "negative weight", row: `{"prompt":"Q","chosen":"A","rejected":"B","weight":-1}`, reason: InvalidNumber, column: "weight"},
	{name: "huge weight", row: `{"prompt":"Q","chosen":"A","rejected":"B","weight":1e39}`, reason: InvalidNumber, column: "weight"},
	{name: "infinite score", row: `{"prompt":"Q","chosen":"A","rejected":"B","score_chosen":1e999}`, reason: InvalidNumber, column: "score_chosen"},
	{name: "weight of text", row: `{"prompt":"Q","chosen":"A","rejected":"B","weight":"1"}`, reason: WrongType, column: "weight"},
	{name: "fractional id", row: `{"prompt":"Q","chosen":"A","rejected":"B","id":1.5}`, reason: WrongType, column: "id"},
	{name: "ShareGPT", row: `{"conversations":[{"from":"human","value":"Q"}],"chosen":{"from":"gpt","value":"A"},"rejected":{"from":"gpt","value":"B"}}`, reason: UnknownLayout, column: "conversations"},
	{name: "OpenAI", row: `{"input":{"messages":[{"role":"user","content":"Q"}]},"preferred_output":[{"role":"assistant","content":"A"}],"non_preferred_output":[{"role":"assistant","content":"B"}]}`, reason: UnknownLayout, column: "preferred_output"},
	{name: "instruction", row: `{"instruction":"Q","input":"","output":"A","chosen":"The A","rejected":"The B"}`, reason: UnknownLayout, column: "instruction"},
	{name: "question", row: `{"question":"Q","chosen":"The A","rejected":"The B"}`, reason: UnknownLayout, column: "question"},
	{name: "equal keys", row: `{"prompt":"Q","chosen":"A","rejected":"B","chosen":"C"}`, reason: Malformed, jsonOnly: true},
	{name: "equal keys in a message", row: `{"prompt":"Q","chosen":[{"role":"assistant","content":"A","content":"C"}],"rejected":[{"role":"assistant","content":"B"}]}`, reason: Malformed, jsonOnly: true},
	{name: "no object", row: `["Q","A","B"]`, reason: Malformed, jsonOnly: true},
	{name: "null row", row: `null`, reason: Malformed, jsonOnly: true},
}

// check holds what became of one row against c.
func (c *rowCase) check(t *testing.T, pairs []Pair, tally Tally) {
	t.Helper()
	if c.reason != "" {
		if len(pairs) != 0 || tally.Rows() != 1 || tally.Drops[0].Reason != c.reason || tally.Drops[0].First[0].Column != c.column {
			t.Errorf("got %+v and %+v, want one row refused for %s in column %q", pairs, tally, c.reason, c.column)
		}
		return
	}
	if len(pairs) != 1 {
		t.Fatalf("got %+v, want a pair", tally)
	}
	want := c.want
	if want.Weight == 0 {
		want.Weight = 1
	}
	if want.ID == (ID{}) {
		want.ID = contentID(&want)
	}
	if diff := cmp.Diff(want, pairs[0], cmpopts.IgnoreFields(Pair{}, "File", "Row", "FileRow")); diff != "" {
		t.Errorf("pair differs (-want +got):\n%s", diff)
	}
}

func TestRows(t *testing.T) {
	for _, c := range rowCases {
		t.Run(c.name, func(t *testing.T) {
			for _, format := range formats {
				if isTable(format) && c.jsonOnly {
					continue
				}
				if !strings.HasPrefix(c.row, "{") && format != "rows.json" && format != "rows.json.gz" {
					continue // the first byte of such lines means something else
				}
				t.Run(format, func(t *testing.T) {
					pairs, tally := readAll(t, DefaultOptions(), writeRows(t, format, c.row))
					c.check(t, pairs, tally)
				})
			}
		})
	}
}

// TestNoStateBetweenRows reads all cases from one file in several orders: what
// becomes of a row must not depend on the rows before it.
func TestNoStateBetweenRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, format := range []string{"rows.jsonl", "rows.json"} {
		for range 5 {
			cases := append([]rowCase{rowCases[0]}, rowCases...)
			rng.Shuffle(len(cases)-1, func(i, j int) { cases[i+1], cases[j+1] = cases[j+1], cases[i+1] })
			rows := make([]string, len(cases))
			for i, c := range cases {
				rows[i] = c.row
			}
			r, err := Open([]string{writeRows(t, format, rows...)}, DefaultOptions())
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range cases {
				p, err := r.Next(t.Context())
				var pairs []Pair
				var tally Tally
				if re, ok := err.(*RowError); ok {
					tally.Add(re)
					if re.Row != int64(i) {
						t.Errorf("%s: row %d, want %d", c.name, re.Row, i)
					}
				} else if err != nil {
					t.Fatal(err)
				} else {
					pairs = append(pairs, p)
					if p.Row != int64(i) || p.FileRow != int64(i) {
						t.Errorf("%s: rows %d and %d, want %d", c.name, p.Row, p.FileRow, i)
					}
				}
				c.check(t, pairs, tally)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
