package encode

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
