package encode

import "strconv"

// An expr is one node of a template expression.
type expr interface {
	eval(r *rendering) (any, error)
}

type (
	constExpr struct{ value any }
	nameExpr  struct {
		name string
		line int
	}
	listExpr struct{ items []expr }
	dictExpr struct{ keys, values []expr }
	condExpr struct{ test, then, otherwise expr } // otherwise may be nil
	notExpr  struct{ x expr }
	negExpr  struct {
		x    expr
		line int
	}
	boolExpr struct { // and, or
		or   bool
		x, y expr
	}
	binaryExpr struct {
		op   string
		x, y expr
		line int
	}
	compareExpr struct { // x ops[0] ys[0] ops[1] ys[1] …
		x    expr
		ops  []string
		ys   []expr
		line int
	}
	attrExpr struct { // x.name
		x    expr
		name string
		line int
	}
	itemExpr struct { // x[key]
		x, key expr
		line   int
	}
	sliceExpr struct { // x[from:to:step]
		x, from, to, step expr // nil where left out
		line              int
	}
	callExpr struct {
		fn   expr
		args arguments
		line int
	}
	filterExpr struct {
		x    expr
		name string
		fn   filterFunc
		args arguments
		line int
	}
	testExpr struct {
		x      expr
		fn     testFunc
		args   arguments
		negate bool
		line   int
	}
	arguments struct {
		positional []expr
		names      []string
		named      []expr
	}
)

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
