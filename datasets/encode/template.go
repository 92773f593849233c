package encode

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// A chatTemplate turns messages into text.
//
// gonja runs the statements: if, for, set, macro. What gonja gets wrong (whitespace control, escapes, precedence of
// filters, inline if, undefined against none, methods, byte indices) never reaches it: scan and the parser of this
// package read the template, each literal text and each expression becomes a numbered call in the template that gonja
// sees, and the calls are answered here. A construct that is not known to be right is refused by name and line.
type chatTemplate struct {
	source   string
	date     time.Time
	special  map[string]string // bos_token, eos_token, …
	texts    []string
	exprs    []expr
	template *exec.Template
}

// variable is the name under which gonja keeps a template's variable: no name can mean anything to gonja itself.
func variable(name string) string { return "v_" + name }

// A box carries a value through gonja untouched.
type box struct{ value any }

func unwrap(v any) any {
	if value, ok := v.(*exec.Value); ok {
		v = value.Interface()
	}
	switch v := v.(type) {
	case *box:
		return v.value
	case exec.Macro:
		return macroFunction(v)
	default:
		return v
	}
}

// macroFunction makes a macro callable from an expression.
func macroFunction(m exec.Macro) function {
	return func(args []any, named map[string]any) (any, error) {
		params := &exec.VarArgs{KwArgs: map[string]*exec.Value{}}
		for _, arg := range args {
			params.Args = append(params.Args, exec.AsValue(&box{arg}))
		}
		for name, arg := range named {
			params.KwArgs[variable(name)] = exec.AsValue(&box{arg})
		}
		out := m(params)
		if out.IsError() {
			return nil, out
		}
		return out.String(), nil
	}
}

// newTemplate reads a chat template; special are the special tokens it can name.
func newTemplate(source string, special map[string]string, date time.Time) (*chatTemplate, error) {
	segments, err := scan(source)
	if err != nil {
		return nil, err
	}
	t := &chatTemplate{source: source, special: special, date: date}
	normal, err := t.normalise(segments)
	if err != nil {
		return nil, err
	}
	t.template, err = compile(normal)
	return t, err
}

// compile hands the normalised template to gonja. gonja panics on input it doesn't expect: that is fenced.
func compile(source string) (_ *exec.Template, err error) {
	defer fence(&err)
	loader, err := loaders.NewMemoryLoader(map[string]string{"/template": source})
	if err != nil {
		return nil, fmt.Errorf("encode: chat template: %w", err)
	}
	env := &exec.Environment{
		Filters:           exec.NewFilterSet(map[string]exec.FilterFunction{}),
		Tests:             exec.NewTestSet(map[string]exec.TestFunction{}),
		ControlStructures: builtins.ControlStructures,
		Methods:           builtins.Methods,
		Context:           exec.EmptyContext(),
	}
	conf := config.New()
	conf.KeepTrailingNewline = true
	template, err := exec.NewTemplate("/template", conf, loader, env)
	if err != nil {
		return nil, fmt.Errorf("encode: chat template: %w", err)
	}
	return template, nil
}

// fence turns a panic of gonja into an error: the template is the user's, so it must not end the process.
func fence(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("encode: chat template: the template engine broke off: %v", v)
	}
}

// render renders messages; generate adds the opening of the assistant's next turn. Safe for concurrent use.
func (t *chatTemplate) render(messages []datasets.Message, generate bool) (string, error) {
	out, _, err := t.renderSpent(messages, generate)
	return out, err
}

func (t *chatTemplate) renderSpent(messages []datasets.Message, generate bool) (out string, spent *spending, err error) {
	defer fence(&err)
	spent = &spending{date: t.date}
	var buf bytes.Buffer
	err = t.template.Execute(&buf, exec.NewContext(t.context(messages, generate, spent)))
	switch {
	case spent.err != nil:
		return "", spent, spent.err
	case err != nil:
		return "", spent, fmt.Errorf("encode: chat template: %w", err)
	}
	return buf.String(), spent, nil
}

// context is what the template can see: messages, the special tokens, and the calls it was normalised to.
func (t *chatTemplate) context(messages []datasets.Message, generate bool, spent *spending) map[string]any {
	list := make([]any, len(messages))
	for i, m := range messages {
		d := newDict()
		d.set("role", m.Role)
		d.set("content", m.Content)
		list[i] = d
	}
	ctx := map[string]any{
		variable("messages"):              &box{list},
		variable("add_generation_prompt"): &box{generate},
		variable("tools"):                 &box{nil},
		variable("documents"):             &box{nil},
	}
	for name, token := range t.special {
		ctx[variable(name)] = &box{token}
	}
	calls := map[string]func(*rendering, any) (any, error){
		"x_text": func(_ *rendering, v any) (any, error) { return v, nil },
		"x_out":  func(r *rendering, v any) (any, error) { return output(r, v) },
		"x_set":  func(_ *rendering, v any) (any, error) { return &box{v}, nil },
		"x_if":   func(_ *rendering, v any) (any, error) { return truth(v), nil },
		"x_for":  boxes,
		"x_for2": boxedPairs,
	}
	for name, fn := range calls {
		ctx[name] = t.call(spent, name == "x_text", fn)
	}
	return ctx
}

// call answers one numbered call of the normalised template.
func (t *chatTemplate) call(spent *spending, literal bool, fn func(*rendering, any) (any, error)) any {
	return func(e *exec.Evaluator, args *exec.VarArgs) *exec.Value {
		r := &rendering{ctx: e.Environment.Context, spent: spent}
		n := args.Args[0].Integer()
		var v any
		err := spent.err
		if err == nil && literal {
			v, err = t.texts[n], r.grow(len(t.texts[n]))
		} else if err == nil {
			v, err = t.exprs[n].eval(r)
		}
		if err == nil {
			v, err = fn(r, v)
		}
		if err != nil {
			if spent.err == nil {
				spent.err = err
			}
			return exec.AsValue(err)
		}
		return exec.AsValue(v)
	}
}

func output(r *rendering, v any) (any, error) {
	s, err := text(v)
	if err != nil {
		return nil, fmt.Errorf("encode: chat template: output: %w", err)
	}
	return s, r.grow(len(s))
}

// stepsPerTurn is the work of one turn of a loop in which nothing happens: gonja makes a scope for it, twice.
const stepsPerTurn = 16

// boxes lists what a for statement with one target runs over.
func boxes(r *rendering, v any) (any, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, fmt.Errorf("encode: chat template: for: %w", err)
	}
	out := make([]*box, len(items))
	for i, item := range items {
		out[i] = &box{item}
	}
	return out, r.step(stepsPerTurn * len(items))
}

// boxedPairs lists what a for statement with two targets runs over.
func boxedPairs(r *rendering, v any) (any, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, fmt.Errorf("encode: chat template: for: %w", err)
	}
	out := make([][]*box, len(items))
	for i, item := range items {
		pair, ok := item.([]any)
		if !ok || len(pair) != 2 {
			return nil, errors.New("encode: chat template: for with two names wants pairs")
		}
		out[i] = []*box{{pair[0]}, {pair[1]}}
	}
	return out, r.step(stepsPerTurn * len(items))
}

// normalise writes the template gonja runs, and collects the texts and expressions it refers to.
func (t *chatTemplate) normalise(segments []segment) (string, error) {
	var b strings.Builder
	s := &statements{t: t}
	for _, seg := range segments {
		var out string
		var err error
		switch seg.kind {
		case segmentText:
			out = "{{ x_text(" + strconv.Itoa(len(t.texts)) + ") }}"
			t.texts = append(t.texts, seg.text)
		case segmentOutput:
			p := &parser{tokens: seg.tokens}
			if out, err = t.expression(p, "x_out"); err == nil {
				out, err = "{{ "+out+" }}", p.end()
			}
		case segmentStatement:
			out, err = s.statement(seg)
		}
		if err != nil {
			return "", err
		}
		b.WriteString(out)
	}
	if n := len(s.open); n > 0 {
		return "", templateErrorf(s.open[n-1].line, "{%% %s %%} is not closed", s.open[n-1].name)
	}
	return b.String(), nil
}

// expression parses an expression and returns the call that stands for it.
func (t *chatTemplate) expression(p *parser, call string) (string, error) {
	x, err := p.expression()
	if err != nil {
		return "", err
	}
	t.exprs = append(t.exprs, x)
	return t.lastCall(call), nil
}

// lastCall is the call that stands for the expression added last.
func (t *chatTemplate) lastCall(call string) string {
	return call + "(" + strconv.Itoa(len(t.exprs)-1) + ")"
}
