package datasets

import (
	"fmt"
	"io"
	"strconv"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// maxParquetDepth is how deep a column may be nested; preferences need five.
const maxParquetDepth = 16

// A parquetNode is a column or a part of one. Rows are put together from it as
// in the Dremel paper (Melnik et al. 2010, section 4): an entry's definition level says
// how much of the path to its leaf is there, its repetition level at which list it
// goes on.
type parquetNode struct {
	name   string
	leaves []int // column indexes in the file
	first  int   // index of the first leaf among the column's cursors

	def      int16 // definition level from which on the node is not null
	element  *parquetNode
	present  int16 // list: definition level from which on it has an element
	repeat   int16 // list: repetition level of its next element
	children []*parquetNode
	decode   func(value) value // leaf, see decoderOf
}

// A parquetBuilder builds the trees of a file's columns, one after the other.
type parquetBuilder struct {
	leaf int // column index of the next leaf
	root int // that of the column's first
}

// column builds the tree of a top-level column.
func (b *parquetBuilder) column(n schema.Node) (*parquetNode, error) {
	b.root = b.leaf
	return b.node(n, 0, 0, 0)
}

// node builds the tree under n, whose parent is present from the definition
// level def on and inside rep lists.
func (b *parquetBuilder) node(n schema.Node, def, rep int16, depth int) (*parquetNode, error) {
	switch n.RepetitionType() {
	case parquet.Repetitions.Optional:
		def++
	case parquet.Repetitions.Repeated: // a list without the list's wrapping
		return b.list(n.Name(), n, false, def, rep, depth)
	}
	return b.body(n, def, rep, depth)
}

// body builds the tree under n as if n were required.
func (b *parquetBuilder) body(n schema.Node, def, rep int16, depth int) (*parquetNode, error) {
	if depth > maxParquetDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxParquetDepth)
	}
	node := &parquetNode{name: n.Name(), first: b.leaf - b.root, def: def}
	group, ok := n.(*schema.GroupNode)
	if !ok {
		node.leaves, node.decode = []int{b.leaf}, decoderOf(n)
		b.leaf++
		return node, nil
	}
	if inner, ok := listOf(group); ok {
		return b.list(n.Name(), inner, true, def, rep, depth)
	}
	for i := range group.NumFields() {
		child, err := b.node(group.Field(i), def, rep, depth+1)
		if err != nil {
			return nil, err
		}
		node.leaves = append(node.leaves, child.leaves...)
		node.children = append(node.children, child)
	}
	if len(node.children) == 0 {
		return nil, fmt.Errorf("group %q has no fields", n.Name())
	}
	return node, nil
}

// list builds a list of the repeated node n. Where n is wrapped in a group and is
// itself a group of one field, that field is the element (the three-level form of
// today); older writers made n the element, and named it so that it can be told.
func (b *parquetBuilder) list(name string, n schema.Node, wrapped bool, def, rep int16, depth int) (node *parquetNode, err error) {
	node = &parquetNode{name: name, first: b.leaf - b.root, def: def, present: def + 1, repeat: rep + 1}
	group, ok := n.(*schema.GroupNode)
	if wrapped && ok && group.NumFields() == 1 && n.Name() != "array" && n.Name() != name+"_tuple" {
		node.element, err = b.node(group.Field(0), def+1, rep+1, depth+1)
	} else {
		node.element, err = b.body(n, def+1, rep+1, depth+1)
	}
	if err != nil {
		return nil, err
	}
	node.leaves = node.element.leaves
	return node, nil
}

// decoderOf returns what a leaf's logical type makes of its physical value, nil
// for nothing.
func decoderOf(n schema.Node) func(value) value {
	switch kind := n.LogicalType().(type) {
	case schema.DecimalLogicalType:
		return func(value) value { return value{kind: other, str: "a decimal"} }
	case schema.IntLogicalType:
		if kind.IsSigned() {
			return nil
		}
		mask := ^uint64(0) >> (64 - uint(kind.BitWidth()))
		return func(v value) value {
			n, _ := strconv.ParseInt(v.str, 10, 64) // made by intValue
			return uintValue(uint64(n) & mask)
		}
	}
	return nil
}

// listOf returns the repeated node inside a group that is marked as a list.
func listOf(group *schema.GroupNode) (schema.Node, bool) {
	_, logical := group.LogicalType().(schema.ListLogicalType)
	if !logical && group.ConvertedType() != schema.ConvertedTypes.List || group.NumFields() != 1 {
		return nil, false
	}
	inner := group.Field(0)
	return inner, inner.RepetitionType() == parquet.Repetitions.Repeated
}

// row assembles the next row of the column.
func (node *parquetNode) row(cursors []*parquetValue) (value, error) {
	for _, c := range cursors {
		more, err := c.peek()
		switch {
		case err != nil:
			return value{}, err
		case !more:
			return value{}, fmt.Errorf("fewer values than rows: %w", io.ErrUnexpectedEOF)
		case c.rep[c.at] != 0:
			return value{}, fmt.Errorf("the row begins inside a list")
		}
		c.taken = 0
	}
	return node.assemble(cursors)
}

// assemble puts the node's next value together.
func (node *parquetNode) assemble(cursors []*parquetValue) (value, error) {
	first := cursors[node.first]
	if more, err := first.peek(); err != nil || !more {
		_, err = first.next()
		return value{}, err
	}
	switch def := first.def[first.at]; {
	case def < node.def:
		return value{kind: null}, node.skip(cursors)
	case node.element != nil && def < node.present:
		return value{kind: list}, node.skip(cursors)
	case node.element != nil:
		return node.list(cursors)
	case node.children != nil:
		return node.object(cursors)
	}
	v, err := first.next()
	if node.decode != nil && v.kind != null {
		v = node.decode(v)
	}
	return v, err
}

// skip consumes the entry by which every leaf says that the node has no value.
func (node *parquetNode) skip(cursors []*parquetValue) error {
	for i := range node.leaves {
		if _, err := cursors[node.first+i].next(); err != nil {
			return err
		}
	}
	return nil
}

func (node *parquetNode) list(cursors []*parquetValue) (value, error) {
	v := value{kind: list}
	first := cursors[node.first]
	for {
		item, err := node.element.assemble(cursors)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
		more, err := first.peek()
		if err != nil || !more || first.rep[first.at] < node.repeat {
			return v, err
		}
	}
}

func (node *parquetNode) object(cursors []*parquetValue) (value, error) {
	v := value{kind: object, items: make([]value, 0, len(node.children)), keys: make([]string, 0, len(node.children))}
	for _, child := range node.children {
		item, err := child.assemble(cursors)
		if err != nil {
			return v, err
		}
		v.keys, v.items = append(v.keys, child.name), append(v.items, item)
	}
	return v, nil
}

// parquetType describes n as Arrow would.
func parquetType(n schema.Node, depth int) string {
	group, ok := n.(*schema.GroupNode)
	switch {
	case depth > maxParquetDepth:
		return "…"
	case !ok:
		kind := n.(*schema.PrimitiveNode).PhysicalType().String()
		if logical := n.LogicalType(); logical != nil && !logical.IsNone() {
			kind = logical.String()
		}
		return kind
	}
	if inner, ok := listOf(group); ok {
		if g, ok := inner.(*schema.GroupNode); ok && g.NumFields() == 1 {
			inner = g.Field(0)
		}
		return "list<" + parquetType(inner, depth+1) + ">"
	}
	s := "struct<"
	for i := range group.NumFields() {
		if i > 0 {
			s += ", "
		}
		s += group.Field(i).Name() + ": " + parquetType(group.Field(i), depth+1)
	}
	return s + ">"
}
