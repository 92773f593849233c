package encode

import "strconv"

// A parser reads the tokens of one tag, with Jinja2's grammar and precedence.
type parser struct {
	tokens []token
	pos    int
	depth  int
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) take() token {
	t := p.tokens[p.pos]
	if t.kind != tokenEnd {
		p.pos++
	}
	return t
}

func (p *parser) is(kind tokenKind, text string) bool {
	t := p.peek()
	return t.kind == kind && t.text == text
}

func (p *parser) accept(kind tokenKind, text string) bool {
	if p.is(kind, text) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(kind tokenKind, text string) error {
	if !p.accept(kind, text) {
		return templateErrorf(p.peek().line, "unexpected %s, want %q", p.peek(), text)
	}
	return nil
}

func (p *parser) end() error {
	if t := p.peek(); t.kind != tokenEnd {
		return templateErrorf(t.line, "unexpected %s, want end of tag", t)
	}
	return nil
}

// expression parses a whole expression, inline if included.
func (p *parser) expression() (expr, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxNesting {
		return nil, templateErrorf(p.peek().line, "expression is nested more than %d deep", maxNesting)
	}
	x, err := p.or()
	for err == nil && p.accept(tokenName, "if") {
		cond := &condExpr{then: x}
		if cond.test, err = p.or(); err != nil {
			return nil, err
		}
		if p.accept(tokenName, "else") {
			if cond.otherwise, err = p.expression(); err != nil {
				return nil, err
			}
		}
		x = cond
	}
	return x, err
}

func (p *parser) or() (expr, error) {
	x, err := p.and()
	for err == nil && p.accept(tokenName, "or") {
		var y expr
		y, err = p.and()
		x = &boolExpr{or: true, x: x, y: y}
	}
	return x, err
}

func (p *parser) and() (expr, error) {
	x, err := p.not()
	for err == nil && p.accept(tokenName, "and") {
		var y expr
		y, err = p.not()
		x = &boolExpr{x: x, y: y}
	}
	return x, err
}

func (p *parser) not() (expr, error) {
	n := 0
	for p.accept(tokenName, "not") {
		n++
	}
	x, err := p.compare()
	for ; n > 0; n-- {
		x = &notExpr{x}
	}
	return x, err
}

func (p *parser) compare() (expr, error) {
	x, err := p.sum()
	c := &compareExpr{x: x, line: p.peek().line}
	for err == nil {
		op := p.compareOp()
		if op == "" {
			break
		}
		var y expr
		y, err = p.sum()
		c.ops, c.ys = append(c.ops, op), append(c.ys, y)
	}
	if err != nil || len(c.ops) == 0 {
		return x, err
	}
	return c, nil
}

// compareOp takes a comparison operator, or returns "".
func (p *parser) compareOp() string {
	switch t := p.peek(); {
	case t.kind == tokenOp && (t.text == "==" || t.text == "!=" || t.text == "<" || t.text == "<=" || t.text == ">" || t.text == ">="):
		p.pos++
		return t.text
	case t.kind == tokenName && t.text == "in":
		p.pos++
		return "in"
	case t.kind == tokenName && t.text == "not" && p.tokens[p.pos+1].kind == tokenName && p.tokens[p.pos+1].text == "in":
		p.pos += 2
		return "not in"
	}
	return ""
}

func (p *parser) sum() (expr, error)    { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() (expr, error) { return p.binary(p.product, "~") }
func (p *parser) product() (expr, error) {
	return p.binary(func() (expr, error) { return p.unary(true) }, "*", "/", "//", "%")
}

// binary parses a left-associative chain of operators over operand.
func (p *parser) binary(operand func() (expr, error), ops ...string) (expr, error) {
	x, err := operand()
next:
	for err == nil {
		for _, op := range ops {
			line := p.peek().line
			if p.accept(tokenOp, op) {
				var y expr
				y, err = operand()
				x = &binaryExpr{op: op, x: x, y: y, line: line}
				continue next
			}
		}
		break
	}
	return x, err
}

// unary parses signs, then a primary with what follows it; filters bind looser than a sign.
func (p *parser) unary(filters bool) (expr, error) {
	p.depth++
	defer func() { p.depth-- }()
	line := p.peek().line
	if p.depth > maxNesting {
		return nil, templateErrorf(line, "expression is nested more than %d deep", maxNesting)
	}
	var x expr
	var err error
	if p.accept(tokenOp, "-") {
		x, err = p.unary(false)
		x = &negExpr{x: x, line: line}
	} else if x, err = p.primary(); err == nil {
		x, err = p.postfix(x)
	}
	if err == nil && p.is(tokenOp, "**") {
		return nil, templateErrorf(line, "operator ** isn't supported")
	}
	if err != nil || !filters {
		return x, err
	}
	return p.filtersAndTests(x)
}

func (p *parser) primary() (expr, error) {
	switch t := p.take(); t.kind {
	case tokenName:
		switch t.text {
		case "true", "True":
			return &constExpr{true}, nil
		case "false", "False":
			return &constExpr{false}, nil
		case "none", "None":
			return &constExpr{nil}, nil
		}
		return &nameExpr{name: t.text, line: t.line}, nil
	case tokenString:
		text := t.text
		for p.peek().kind == tokenString {
			text += p.take().text
		}
		return &constExpr{text}, nil
	case tokenInt:
		n, err := strconv.Atoi(t.text)
		if err != nil {
			return nil, templateErrorf(t.line, "number %s is out of range", t.text)
		}
		return &constExpr{n}, nil
	case tokenFloat:
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return nil, templateErrorf(t.line, "number %s is out of range", t.text)
		}
		return &constExpr{f}, nil
	default:
		switch t.text {
		case "(":
			return p.tuple()
		case "[":
			items, _, err := p.sequence("]")
			return &listExpr{items}, err
		case "{":
			return p.dict()
		}
		return nil, templateErrorf(t.line, "unexpected %s, want an expression", t)
	}
}

// tuple parses what follows "(": a bracketed expression, or a tuple.
func (p *parser) tuple() (expr, error) {
	items, comma, err := p.sequence(")")
	if err == nil && len(items) == 1 && !comma {
		return items[0], nil
	}
	return &listExpr{items}, err
}

// sequence parses expressions up to the closing bracket; comma says that one stood behind the last.
func (p *parser) sequence(closing string) (items []expr, comma bool, err error) {
	for !p.accept(tokenOp, closing) {
		if len(items) > 0 && !comma {
			return nil, false, p.expect(tokenOp, closing)
		}
		item, err := p.expression()
		if err != nil {
			return nil, false, err
		}
		items, comma = append(items, item), p.accept(tokenOp, ",")
	}
	return items, comma, nil
}

func (p *parser) dict() (expr, error) {
	d := &dictExpr{}
	for !p.accept(tokenOp, "}") {
		if len(d.keys) > 0 {
			if err := p.expect(tokenOp, ","); err != nil {
				return nil, err
			}
			if p.accept(tokenOp, "}") {
				break
			}
		}
		key, err := p.expression()
		if err == nil {
			err = p.expect(tokenOp, ":")
		}
		if err != nil {
			return nil, err
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.keys, d.values = append(d.keys, key), append(d.values, value)
	}
	return d, nil
}
