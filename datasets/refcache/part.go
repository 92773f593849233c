package refcache

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// part finds the bytes of any row of an Arrow IPC file without reading the rest.
type part struct {
	shape
	r         io.ReaderAt
	name      string
	size      int64
	rows      int64
	batchRows int
	blocks    []block
	file      io.Closer // nil where the caller keeps it
}

// block is where a record batch lies: metadata, then body.
type block struct{ offset, meta, body int64 }

// batch is the index of a record batch.
type batch struct {
	rows    int
	offsets [numColumns][]int32 // of lists: row k is items offsets[k] to offsets[k+1]
	data    [numColumns]int64   // where in the file the values start
}

const (
	arrowMagic = "ARROW1"
	// trailer is the length of the footer, then the magic.
	trailer = 4 + len(arrowMagic)
	// prefix comes before a message's metadata: a marker, then its length.
	prefix = 8
	// Numbers of Arrow's metadata: version 5, kind of message.
	metadataV5  = 4
	recordBatch = 3
)

// openPart reads the footer of a part that should hold rows rows.
func openPart(r io.ReaderAt, name string, size, rows int64, batchRows int, s shape) (*part, error) {
	p := &part{shape: s, r: r, name: name, size: size, rows: rows, batchRows: batchRows}
	tail := make([]byte, trailer)
	if size < int64(trailer) {
		return nil, p.corrupt(0, "%d bytes are no Arrow file", size)
	}
	if err := p.read(tail, size-int64(trailer)); err != nil {
		return nil, err
	}
	if string(tail[4:]) != arrowMagic {
		return nil, p.corrupt(size-int64(len(arrowMagic)), "ends in %q, want %q", tail[4:], arrowMagic)
	}
	length := int64(int32(binary.LittleEndian.Uint32(tail)))
	start := size - int64(trailer) - length
	if length < 8 || start < 0 {
		return nil, p.corrupt(size-int64(trailer), "footer of %d bytes in a file of %d", length, size)
	}
	footer := make([]byte, length)
	if err := p.read(footer, start); err != nil {
		return nil, err
	}
	if err := p.parseFooter(&flat{b: footer}, start); err != nil {
		return nil, err
	}
	return p, nil
}

// corrupt returns an ErrCorrupt at a position in the file.
func (p *part) corrupt(at int64, format string, args ...any) error {
	return fmt.Errorf("refcache: %s at byte %d: %s: %w", p.name, at, fmt.Sprintf(format, args...), ErrCorrupt)
}

func (p *part) read(dst []byte, at int64) error {
	if n, err := p.r.ReadAt(dst, at); n < len(dst) {
		if err == io.EOF {
			return p.corrupt(at, "ends after %d of %d bytes", n, len(dst))
		}
		return fmt.Errorf("refcache: %s at byte %d: %w", p.name, at, err)
	}
	return nil
}

// parseFooter checks the schema and takes over the list of record batches.
func (p *part) parseFooter(f *flat, at int64) error {
	root := f.root()
	if v := root.num16(0); v != metadataV5 {
		return p.corrupt(at, "metadata version %d, want %d", v, metadataV5)
	}
	if err := p.checkSchema(root.child(1), at); err != nil {
		return err
	}
	start, n := root.vector(3, 24)
	if want := (p.rows + int64(p.batchRows) - 1) / int64(p.batchRows); int64(n) != want {
		return p.corrupt(at, "%d record batches, want %d for %d rows", n, want, p.rows)
	}
	p.blocks = make([]block, n)
	for i := range p.blocks {
		pos := start + 24*i
		b := block{f.i64(pos), int64(f.i32(pos + 8)), f.i64(pos + 16)}
		// Subtracting keeps the sums from overflowing.
		if b.offset < 0 || b.meta < prefix || b.body < 0 || b.offset > p.size || b.meta > p.size-b.offset || b.body > p.size-b.offset-b.meta {
			return p.corrupt(at, "record batch %d at %d of %d + %d bytes in a file of %d", i, b.offset, b.meta, b.body, p.size)
		}
		p.blocks[i] = b
	}
	if f.bad != "" {
		return p.corrupt(at, "%s", f.bad)
	}
	return nil
}

// checkSchema compares the columns' names and types with the format's.
func (p *part) checkSchema(schema table, at int64) error {
	if order := schema.num16(0); order != 0 {
		return p.corrupt(at, "big-endian")
	}
	start, n := schema.vector(1, 4)
	if want := len(slices.Collect(p.columns())); n != want {
		return p.corrupt(at, "%d columns, want %d", n, want)
	}
	types, i := p.types(), 0
	for c := range p.columns() {
		field := schema.element(start, i)
		i++
		if name, have := field.text(0), describeField(field, 0); name != columnNames[c] || have != types[c] {
			return p.corrupt(at, "column %d is %.40q of %s, want %q of %s", c, name, have, columnNames[c], types[c])
		}
	}
	return nil
}

// describeField names the Arrow type of a field, as far as the format uses it.
func describeField(field table, depth int) string {
	typ := field.child(3)
	inner := func() string {
		start, n := field.vector(5, 4)
		if n != 1 || depth > 2 {
			return fmt.Sprintf("%d children", n)
		}
		return describeField(field.element(start, 0), depth+1)
	}
	switch kind := field.num8(2); kind {
	case 2:
		return fmt.Sprintf("%sint%d", map[int]string{0: "u"}[typ.num8(1)], typ.num32(0))
	case 3:
		return fmt.Sprintf("float%d", 16<<(typ.num16(0)&3))
	case 12:
		return "list<" + inner() + ">"
	case 15:
		return fmt.Sprintf("binary[%d]", typ.num32(0))
	case 16:
		return fmt.Sprintf("%s[%d]", inner(), typ.num32(0))
	default:
		return fmt.Sprintf("type %d", kind)
	}
}

// batch reads the index of record batch i.
func (p *part) batch(i int) (*batch, error) {
	b := p.blocks[i]
	meta := make([]byte, b.meta)
	if err := p.read(meta, b.offset); err != nil {
		return nil, err
	}
	if length := int64(binary.LittleEndian.Uint32(meta[4:])); binary.LittleEndian.Uint32(meta) != math.MaxUint32 || length > b.meta-prefix {
		return nil, p.corrupt(b.offset, "not an Arrow message of %d bytes", b.meta)
	}
	rows := p.batchRows
	if i == len(p.blocks)-1 {
		rows = int(p.rows - int64(i)*int64(p.batchRows))
	}
	return p.parseBatch(&flat{b: meta[prefix:]}, b, rows)
}

// span is a buffer's place in the file.
type span struct{ at, size int64 }

// parseBatch reads the metadata of the record batch at b, which should hold rows rows.
func (p *part) parseBatch(f *flat, b block, rows int) (*batch, error) {
	msg := f.root()
	rec := msg.child(2)
	if kind := msg.num8(1); kind != recordBatch || rec.num64(0) != int64(rows) || rec.field(3) != 0 {
		return nil, p.corrupt(b.offset, "not an uncompressed record batch of %d rows", rows)
	}
	nodes, numNodes := rec.vector(1, 16)
	bufs, numBufs := rec.vector(2, 16)
	wantBufs, wantNodes := 0, 0
	for c := range p.columns() {
		n, m := buffers(c)
		wantBufs, wantNodes = wantBufs+n, wantNodes+m
	}
	if numBufs != wantBufs || numNodes != wantNodes {
		return nil, p.corrupt(b.offset, "%d buffers and %d nodes, want %d and %d", numBufs, numNodes, wantBufs, wantNodes)
	}
	for i := range numNodes {
		if nulls := f.i64(nodes + 16*i + 8); nulls != 0 {
			return nil, p.corrupt(b.offset, "%d nulls", nulls)
		}
	}
	out := &batch{rows: rows}
	for c := range p.columns() {
		n, _ := buffers(c)
		if err := p.locate(out, c, f, bufs, n, b); err != nil {
			return nil, err
		}
		bufs += 16 * n
	}
	if f.bad != "" {
		return nil, p.corrupt(b.offset, "%s", f.bad)
	}
	return out, nil
}

// locate finds column c, whose n buffers are described from bufs on: the last holds the
// values, the second the offsets of a list.
func (p *part) locate(out *batch, c int, f *flat, bufs, n int, b block) error {
	place := func(i int) (s span, ok bool) {
		s = span{f.i64(bufs + 16*i), f.i64(bufs + 16*i + 8)}
		ok = s.at >= 0 && s.size >= 0 && s.at <= b.body && s.size <= b.body-s.at
		s.at += b.offset + b.meta
		return s, ok
	}
	values, ok := place(n - 1)
	if !ok {
		return p.corrupt(b.offset, "values of %s lie outside the batch", columnNames[c])
	}
	items := int64(out.rows)
	if isList(c) {
		offsets, ok := place(1)
		if !ok || offsets.size < 4*int64(out.rows+1) {
			return p.corrupt(b.offset, "offsets of %s lie outside the batch", columnNames[c])
		}
		var err error
		if out.offsets[c], err = p.readOffsets(offsets.at, out.rows+1, c); err != nil {
			return err
		}
		items = int64(out.offsets[c][out.rows])
	}
	if values.size/int64(p.width(c)) < items {
		return p.corrupt(values.at, "%d bytes for %d values of %s", values.size, items, columnNames[c])
	}
	out.data[c] = values.at
	return nil
}

// readOffsets reads n list offsets, which must not fall.
func (p *part) readOffsets(at int64, n, c int) ([]int32, error) {
	raw := make([]byte, 4*n)
	if err := p.read(raw, at); err != nil {
		return nil, err
	}
	offsets := make([]int32, n)
	last := int32(0)
	for i := range offsets {
		offsets[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
		if offsets[i] < last {
			return nil, p.corrupt(at+4*int64(i), "offset %d of %s after %d", offsets[i], columnNames[c], last)
		}
		last = offsets[i]
	}
	return offsets, nil
}
