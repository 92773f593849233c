package encode

import "strconv"

// postfix parses .name, [key], [from:to] and (arguments) behind x.
func (p *parser) postfix(x expr) (expr, error) {
	for {
		line := p.peek().line
		var err error
		switch {
		case p.accept(tokenOp, "."):
			x, err = p.attribute(x, line)
		case p.accept(tokenOp, "["):
			x, err = p.subscript(x, line)
		case p.accept(tokenOp, "("):
			call := &callExpr{fn: x, line: line}
			call.args, err = p.arguments()
			x = call
		default:
			return x, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) attribute(x expr, line int) (expr, error) {
	switch t := p.take(); t.kind {
	case tokenName:
		return &attrExpr{x: x, name: t.text, line: line}, nil
	case tokenInt:
		n, err := strconv.Atoi(t.text)
		if err != nil {
			return nil, templateErrorf(line, "number %s is out of range", t.text)
		}
		return &itemExpr{x: x, key: &constExpr{n}, line: line}, nil
	default:
		return nil, templateErrorf(line, "unexpected %s, want a name behind %q", t, ".")
	}
}

func (p *parser) subscript(x expr, line int) (expr, error) {
	var parts [3]expr
	n := 0
	for {
		if !p.is(tokenOp, ":") && !p.is(tokenOp, "]") {
			part, err := p.expression()
			if err != nil {
				return nil, err
			}
			parts[n] = part
		}
		if n == 2 || !p.accept(tokenOp, ":") {
			break
		}
		n++
	}
	if err := p.expect(tokenOp, "]"); err != nil {
		return nil, err
	}
	if n > 0 {
		return &sliceExpr{x: x, from: parts[0], to: parts[1], step: parts[2], line: line}, nil
	}
	if parts[0] == nil {
		return nil, templateErrorf(line, "empty subscript")
	}
	return &itemExpr{x: x, key: parts[0], line: line}, nil
}

// arguments parses what follows "(" of a call.
func (p *parser) arguments() (args arguments, err error) {
	for n := 0; !p.accept(tokenOp, ")"); n++ {
		if n > 0 {
			if err := p.expect(tokenOp, ","); err != nil {
				return args, err
			}
			if p.accept(tokenOp, ")") {
				break
			}
		}
		name := ""
		if t := p.peek(); t.kind == tokenName && p.tokens[p.pos+1].kind == tokenOp && p.tokens[p.pos+1].text == "=" {
			name = t.text
			p.pos += 2
		} else if len(args.names) > 0 {
			return args, templateErrorf(t.line, "positional argument behind a named one")
		}
		value, err := p.expression()
		if err != nil {
			return args, err
		}
		if name == "" {
			args.positional = append(args.positional, value)
		} else {
			args.names, args.named = append(args.names, name), append(args.named, value)
		}
	}
	return args, nil
}

// filtersAndTests parses |filter, "is test" and (arguments) behind x.
func (p *parser) filtersAndTests(x expr) (expr, error) {
	for {
		line := p.peek().line
		var err error
		switch {
		case p.accept(tokenOp, "|"):
			x, err = p.filter(x, line)
		case p.accept(tokenName, "is"):
			x, err = p.test(x, line)
		default:
			return x, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) filter(x expr, line int) (expr, error) {
	t := p.take()
	fn, ok := filters[t.text]
	if t.kind != tokenName || !ok {
		return nil, templateErrorf(line, "filter %s isn't supported", t)
	}
	f := &filterExpr{x: x, name: t.text, fn: fn, line: line}
	var err error
	if p.accept(tokenOp, "(") {
		f.args, err = p.arguments()
	}
	return f, err
}

func (p *parser) test(x expr, line int) (expr, error) {
	negate := p.accept(tokenName, "not")
	t := p.take()
	fn, ok := tests[t.text]
	if t.kind != tokenName || !ok {
		return nil, templateErrorf(line, "test %s isn't supported", t)
	}
	test := &testExpr{x: x, fn: fn, negate: negate, line: line}
	if p.accept(tokenOp, "(") {
		var err error
		test.args, err = p.arguments()
		return test, err
	}
	if p.startsArgument() {
		arg, err := p.primary()
		if err == nil {
			arg, err = p.postfix(arg)
		}
		test.args.positional = []expr{arg}
		return test, err
	}
	return test, nil
}

// startsArgument reports whether the next token begins a test's argument without brackets: x is divisibleby 3.
func (p *parser) startsArgument() bool {
	switch t := p.peek(); t.kind {
	case tokenName:
		return t.text != "else" && t.text != "or" && t.text != "and" && t.text != "is" && t.text != "if" && t.text != "not" && t.text != "in"
	case tokenOp:
		return t.text == "[" || t.text == "{"
	case tokenEnd:
		return false
	default:
		return true
	}
}
