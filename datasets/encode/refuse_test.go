package encode

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

func TestTemplateRefused(t *testing.T) {
	for _, c := range []struct {
		source string
		line   int
		text   string
	}{
		{"\n{% include 'x' %}", 2, "include"},
		{"{% extends 'x' %}", 1, "extends"},
		{"{% import 'x' as y %}", 1, "import"},
		{"{% call f() %}{% endcall %}", 1, "call"},
		{"{% filter trim %}{% endfilter %}", 1, "filter"},
		{"{% raw %}{% endraw %}", 1, "raw"},
		{"{% for m in messages recursive %}{% endfor %}", 1, "recursive"},
		{"{% for a, b, c in x %}{% endfor %}", 1, "\"in\""},
		{"a\nb{{ x|pprint }}", 2, "pprint"},
		{"{{ x is sameas y }}", 1, "sameas"},
		{"{{ 2 ** 3 }}", 1, "**"},
		{"{{ 1e5 }}", 1, "number"},
		{"{{ '\\N{DASH}' }}", 1, "escape"},
		{"{{ x", 1, "not closed"},
		{"{% if x %}\n", 1, "not closed"},
		{"{# x", 1, "not closed"},
		{"{{ 'x }}", 1, "not closed"},
		{"{% else %}", 1, "out of place"},
		{"{% if x %}{% endfor %}", 1, "out of place"},
		{"{% break %}", 1, "outside a loop"},
		{"{{ (1 }}", 1, "unbalanced"},
		{"{{ }}", 1, "want an expression"},
		{"{{ a b }}", 1, "end of tag"},
		{"{% set loop = 1 %}", 1, "want a name"},
		{"{% set a, b = x %}", 1, "want \"=\""},
		{"{{ é }}", 1, "ASCII"},
		{strings.Repeat("{% if x %}", 65), 1, "nested"},
		{"{{ " + strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200) + " }}", 1, "nested"},
		{"{{ " + strings.Repeat("-", 200) + "1 }}", 1, "nested"},
	} {
		_, err := newTemplate(c.source, nil, DefaultDate)
		refused, ok := errors.AsType[*templateError](err)
		if !ok || refused.Line != c.line || !strings.Contains(refused.Text, c.text) {
			t.Errorf("%.40q: got %v, want line %d and %q", c.source, err, c.line, c.text)
		}
	}
}

// What is only known to be unsupported when it runs is an error of the rendering.
func TestRenderingRefused(t *testing.T) {
	for source, want := range map[string]string{
		"{{ [1] }}":                       "list",
		"{{ messages }}":                  "list",
		"{{ 1.5 }}":                       "number",
		"\n{{ 'a%s' % 'b' }}":             "line 2: operator %",
		"{{ messages.append(1) }}":        "append",
		"{{ messages[0].items }}":         "method",
		"{{ 'x'.encode() }}":              "encode",
		"{{ nothing.attribute }}":         "undefined",
		"{{ nothing() }}":                 "can't be called",
		"{{ 1 + 'a' }}":                   "operator +",
		"{{ 'a' < 1 }}":                   "ordered",
		"{{ 1 // 0 }}":                    "zero",
		"{{ raise_exception('no way') }}": "no way",
		"{{ strftime_now('%Q') }}":        "%Q",
		"{% for x in 3 %}{% endfor %}":    "iterated",
		"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}":                                                          "nested",
		"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}":                                                              "expected only 1",
		"{% for i in range(100000000) %}{% endfor %}":                                                              "limit",
		"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}":                           "limit",
		"{% set ns = namespace(s='0123456789') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}": "limit",
		"{{ 'x' * 99999999999 }}":                                                                                  "operator *",
	} {
		tmpl, err := newTemplate(source, nil, DefaultDate)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		got, err := tmpl.render([]datasets.Message{user("q")}, true)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %.40q, %v, want %q", source, got, err, want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for source, want := range map[string]string{
		"{{ messages[0].content }}":                                                         "drops or reorders",
		"{% for m in messages | reverse %}{{ m.content }}{% endfor %}":                      "drops or reorders",
		"{{ messages | length }}" + chatML:                                                  "can't be told",
		"{% for m in messages %}{{ m.content | upper }}{% endfor %}":                        "drops or reorders",
		"{% for m in messages %}{{ m.content }}{{ raise_exception('always') }}{% endfor %}": "always",
	} {
		_, err := New(testTokenizer(t, "", ""), Config{Special: testSpecial, ChatTemplate: source, TemplateFile: "here.jinja"}, DefaultOptions())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "here.jinja") {
			t.Errorf("%s: got %v, want %q and the file", source, err, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, source := range []string{
		chatML, "{%- macro f(a, b=1) -%}{{ a ~ b }}{%- endmacro -%}{{ f(1) }}", "{{ 'a\\x41' | trim }}{# c #}",
		"{% set ns = namespace(a=1) %}{% for i in range(3) if i %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
		"{{ messages[::-1][0].content[1:] | tojson(indent=2) }}", "{% set x %}a{% endset %}{{ x if x else 'y' }}",
	} {
		f.Add(source, "hello {{ x }}")
	}
	f.Fuzz(func(t *testing.T, source, content string) {
		start := time.Now()
		tmpl, err := newTemplate(source, testSpecial, DefaultDate)
		if err != nil {
			return
		}
		messages := []datasets.Message{user(content), {Role: "assistant", Content: content}}
		first, err1 := tmpl.render(messages, true)
		second, err2 := tmpl.render(messages, true)
		if first != second || (err1 == nil) != (err2 == nil) {
			t.Errorf("%q, %v then %q, %v", first, err1, second, err2)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestTemplatesStayInside writes templates that reach for files, other templates, the
// environment or Python's objects, and content that looks like a template.
func TestTemplatesStayInside(t *testing.T) {
	dir := t.TempDir()
	secret := dir + "/secret"
	if err := os.WriteFile(secret, []byte("the secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DPO_PIPE_SECRET", "the secret")
	for _, source := range []string{
		"{% include '" + secret + "' %}", "{% include 'secret' ignore missing %}", "{% import '" + secret + "' as x %}{{ x }}",
		"{% from '" + secret + "' import x %}", "{% extends '" + secret + "' %}", "{% block b %}{% endblock %}", "{% raw %}x{% endraw %}",
		"{% filter upper %}x{% endfilter %}", "{% with a=1 %}{% endwith %}", "{% call f() %}{% endcall %}", "{% do f() %}", "{% debug %}",
		"{{ open('" + secret + "').read() }}", "{{ '" + secret + "' | file }}", "{{ '*' | fileset }}", "{{ 'DPO_PIPE_SECRET' | env }}",
		"{{ env.DPO_PIPE_SECRET }}", "{{ environ('DPO_PIPE_SECRET') }}", "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}",
		"{{ self._TemplateReference__context }}", "{{ lipsum() }}", "{{ messages.__class__ }}", "{{ config }}{{ x_text(0) }}", "{{ x_out(999) }}",
	} {
		tmpl, err := newTemplate(source, testSpecial, DefaultDate)
		if err != nil {
			continue
		}
		if got, err := tmpl.render([]datasets.Message{user("q")}, true); err == nil && got != "" || strings.Contains(got, "secret") {
			t.Errorf("%s gives %q, %v, want an error or nothing", source, got, err)
		}
	}
	tmpl, err := newTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", nil, DefaultDate)
	if err != nil {
		t.Fatal(err)
	}
	content := "{{ 7 * 7 }}{% include '" + secret + "' %}{# gone #}{{ x_text(0) }}"
	if got, err := tmpl.render([]datasets.Message{user(content)}, true); err != nil || got != "<user>"+content {
		t.Errorf("content that looks like a template became %q, %v", got, err)
	}
}
