package encode

import (
	"slices"
	"strings"
)

// statements translates {% … %} into the form gonja runs, and checks that they nest.
type statements struct {
	t    *chatTemplate
	open []openStatement
}

type openStatement struct {
	name   string
	line   int
	silent bool // no statement for gonja: {% generation %}
}

// statement translates one statement.
func (s *statements) statement(seg segment) (string, error) {
	p := &parser{tokens: seg.tokens}
	name := p.take()
	if name.kind != tokenName {
		return "", templateErrorf(seg.line, "unexpected %s, want a statement", name)
	}
	out, err := s.translate(name.text, p, seg.line)
	if err != nil {
		return "", err
	}
	if err := p.end(); err != nil {
		return "", err
	}
	return out, nil
}

func (s *statements) translate(name string, p *parser, line int) (string, error) {
	switch name {
	case "if":
		return s.begin(name, line, p, "x_if")
	case "elif":
		if err := s.inside(name, line, "if"); err != nil {
			return "", err
		}
		cond, err := s.t.expression(p, "x_if")
		return "{% elif " + cond + " %}", err
	case "else":
		return "{% else %}", s.inside(name, line, "if", "for")
	case "for":
		return s.loop(p, line)
	case "set":
		return s.set(p, line)
	case "macro":
		return s.macro(p, line)
	case "break", "continue":
		return "{% " + name + " %}", s.inLoop(name, line)
	case "generation": // marks the assistant's tokens for others; its content is rendered as it stands
		return "", s.push(openStatement{name: name, line: line, silent: true})
	}
	if strings.HasPrefix(name, "end") {
		return s.close(strings.TrimPrefix(name, "end"), line)
	}
	return "", templateErrorf(line, "statement {%% %s %%} isn't supported", name)
}

func (s *statements) push(o openStatement) error {
	if len(s.open) >= maxNesting {
		return templateErrorf(o.line, "statements are nested more than %d deep", maxNesting)
	}
	s.open = append(s.open, o)
	return nil
}

// begin opens a statement with one expression.
func (s *statements) begin(name string, line int, p *parser, call string) (string, error) {
	if err := s.push(openStatement{name: name, line: line}); err != nil {
		return "", err
	}
	x, err := s.t.expression(p, call)
	return "{% " + name + " " + x + " %}", err
}

// inside checks that the innermost open statement is one of names.
func (s *statements) inside(name string, line int, names ...string) error {
	if n := len(s.open); n > 0 {
		for _, want := range names {
			if s.open[n-1].name == want {
				return nil
			}
		}
	}
	return templateErrorf(line, "{%% %s %%} is out of place", name)
}

func (s *statements) inLoop(name string, line int) error {
	for _, o := range slices.Backward(s.open) {
		if o.name == "for" {
			return nil
		}
		if o.name == "macro" || o.name == "set" {
			break
		}
	}
	return templateErrorf(line, "{%% %s %%} is outside a loop", name)
}

func (s *statements) close(name string, line int) (string, error) {
	if err := s.inside("end"+name, line, name); err != nil {
		return "", err
	}
	last := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	if last.silent {
		return "", nil
	}
	return "{% end" + name + " %}", nil
}

// target takes a name that can be assigned to.
func target(p *parser) (string, error) {
	t := p.take()
	if t.kind != tokenName || reserved[t.text] {
		return "", templateErrorf(t.line, "unexpected %s, want a name", t)
	}
	return t.text, nil
}

var reserved = map[string]bool{
	"true": true, "false": true, "none": true, "True": true, "False": true, "None": true, "loop": true,
	"if": true, "else": true, "not": true, "and": true, "or": true, "in": true, "is": true, "self": true, "caller": true,
}

// loop translates {% for a, b in iterable if condition %}.
func (s *statements) loop(p *parser, line int) (string, error) {
	if err := s.push(openStatement{name: "for", line: line}); err != nil {
		return "", err
	}
	bracket := p.accept(tokenOp, "(")
	first, err := target(p)
	if err != nil {
		return "", err
	}
	names, call := variable(first), "x_for"
	if p.accept(tokenOp, ",") {
		second, err := target(p)
		if err != nil {
			return "", err
		}
		names, call = names+", "+variable(second), "x_for2"
	}
	if bracket {
		if err := p.expect(tokenOp, ")"); err != nil {
			return "", err
		}
	}
	if !p.accept(tokenName, "in") {
		return "", templateErrorf(line, "for wants one or two names and \"in\"")
	}
	// the "if" behind the iterable filters the elements: it is no inline if
	x, err := p.or()
	if err != nil {
		return "", err
	}
	s.t.exprs = append(s.t.exprs, x)
	out := "{% for " + names + " in " + s.t.lastCall(call)
	if p.accept(tokenName, "if") {
		cond, err := s.t.expression(p, "x_if")
		if err != nil {
			return "", err
		}
		out += " if " + cond
	}
	return out + " %}", nil
}

// set translates {% set name = value %}, {% set name %}…{% endset %} and {% set ns.name = value %}.
func (s *statements) set(p *parser, line int) (string, error) {
	name, err := target(p)
	if err != nil {
		return "", err
	}
	if p.accept(tokenOp, ".") {
		return s.setAttribute(name, p, line)
	}
	if p.peek().kind == tokenEnd {
		return "{% set " + variable(name) + " %}", s.push(openStatement{name: "set", line: line})
	}
	if err := p.expect(tokenOp, "="); err != nil {
		return "", err
	}
	x, err := s.t.expression(p, "x_set")
	return "{% set " + variable(name) + " = " + x + " %}", err
}

func (s *statements) setAttribute(name string, p *parser, line int) (string, error) {
	attr, err := target(p)
	if err != nil {
		return "", err
	}
	if err := p.expect(tokenOp, "="); err != nil {
		return "", err
	}
	x, err := p.expression()
	if err != nil {
		return "", err
	}
	s.t.exprs = append(s.t.exprs, &assignExpr{namespace: &nameExpr{name: name, line: line}, attr: attr, x: x, line: line})
	return "{{ " + s.t.lastCall("x_out") + " }}", nil
}

// assignExpr is ns.attr = x; it prints as nothing.
type assignExpr struct {
	namespace *nameExpr
	attr      string
	x         expr
	line      int
}

func (e *assignExpr) eval(r *rendering) (any, error) {
	target, err := e.namespace.eval(r)
	if err != nil {
		return nil, err
	}
	ns, ok := target.(*namespace)
	if !ok {
		return nil, templateErrorf(e.line, "%q is %s, want a namespace", e.namespace.name, kindOf(target))
	}
	v, err := e.x.eval(r)
	ns.values[e.attr] = v
	return "", err
}

// macro translates {% macro name(a, b=default) %}. A parameter without default is undefined where it is not given.
func (s *statements) macro(p *parser, line int) (string, error) {
	if err := s.push(openStatement{name: "macro", line: line}); err != nil {
		return "", err
	}
	name, err := target(p)
	if err != nil {
		return "", err
	}
	if err := p.expect(tokenOp, "("); err != nil {
		return "", err
	}
	var params []string
	for !p.accept(tokenOp, ")") {
		if len(params) > 0 {
			if err := p.expect(tokenOp, ","); err != nil {
				return "", err
			}
		}
		param, err := target(p)
		if err != nil {
			return "", err
		}
		var value expr = &constExpr{undefined{param}}
		if p.accept(tokenOp, "=") {
			if value, err = p.expression(); err != nil {
				return "", err
			}
		}
		s.t.exprs = append(s.t.exprs, value)
		params = append(params, variable(param)+"="+s.t.lastCall("x_set"))
	}
	return "{% macro " + variable(name) + "(" + strings.Join(params, ", ") + ") %}", nil
}
