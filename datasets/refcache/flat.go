package refcache

import (
	"encoding/binary"
	"fmt"
)

// flat reads Arrow's FlatBuffers metadata within bounds: a read outside gives 0 and is
// remembered, so that hostile bytes end in an error and never in a panic. Only the few
// forms that Arrow's footer and record batches use are here.
type flat struct {
	b   []byte
	bad string // the first read out of bounds
}

// at returns n bytes at position pos, or zeros.
func (f *flat) at(pos, n int) []byte {
	if pos < 0 || n < 0 || pos > len(f.b)-n {
		if f.bad == "" {
			f.bad = fmt.Sprintf("metadata points %d bytes at %d of %d", n, pos, len(f.b))
		}
		return zeros[:n]
	}
	return f.b[pos : pos+n]
}

var zeros [8]byte

func (f *flat) u16(pos int) int   { return int(binary.LittleEndian.Uint16(f.at(pos, 2))) }
func (f *flat) i32(pos int) int   { return int(int32(binary.LittleEndian.Uint32(f.at(pos, 4)))) }
func (f *flat) u32(pos int) int   { return int(binary.LittleEndian.Uint32(f.at(pos, 4))) }
func (f *flat) i64(pos int) int64 { return int64(binary.LittleEndian.Uint64(f.at(pos, 8))) }

// table is a FlatBuffers table; the zero table has no fields.
type table struct {
	*flat
	pos int
}

// root returns the outermost table.
func (f *flat) root() table { return table{f, f.u32(0)} }

// field returns where field number slot is, or 0 where it has its default value.
func (t table) field(slot int) int {
	if t.pos == 0 {
		return 0
	}
	vtable := t.pos - t.i32(t.pos)
	entry := 4 + 2*slot
	if entry >= t.u16(vtable) {
		return 0
	}
	if offset := t.u16(vtable + entry); offset != 0 {
		return t.pos + offset
	}
	return 0
}

// child returns the table in field slot.
func (t table) child(slot int) table {
	pos := t.field(slot)
	if pos == 0 {
		return table{t.flat, 0}
	}
	return table{t.flat, pos + t.u32(pos)}
}

// vector returns where the elements of the vector in field slot start and how many
// there are, size bytes each.
func (t table) vector(slot, size int) (start, n int) {
	pos := t.field(slot)
	if pos == 0 {
		return 0, 0
	}
	pos += t.u32(pos)
	n = t.u32(pos)
	if n > (len(t.b)-pos-4)/size {
		t.at(len(t.b), 1) // remembered as out of bounds
		return 0, 0
	}
	return pos + 4, n
}

// element returns table number i of the vector of tables that starts at start.
func (f *flat) element(start, i int) table {
	pos := start + 4*i
	return table{f, pos + f.u32(pos)}
}

// text returns the string in field slot.
func (t table) text(slot int) string {
	start, n := t.vector(slot, 1)
	if n == 0 {
		return ""
	}
	return string(t.b[start : start+n])
}

// num32 returns the 32-bit number in field slot, 0 where absent.
func (t table) num32(slot int) int {
	if pos := t.field(slot); pos != 0 {
		return t.i32(pos)
	}
	return 0
}

// num16 returns the 16-bit number in field slot, 0 where absent.
func (t table) num16(slot int) int {
	if pos := t.field(slot); pos != 0 {
		return t.u16(pos)
	}
	return 0
}

// num8 returns the byte in field slot, 0 where absent.
func (t table) num8(slot int) int {
	if pos := t.field(slot); pos != 0 {
		return int(t.at(pos, 1)[0])
	}
	return 0
}

// num64 returns the 64-bit number in field slot, 0 where absent.
func (t table) num64(slot int) int64 {
	if pos := t.field(slot); pos != 0 {
		return t.i64(pos)
	}
	return 0
}
