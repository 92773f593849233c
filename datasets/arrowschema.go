package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	flatbuffers "github.com/google/flatbuffers/go"
)

// The Arrow library makes room for as many fields and metadata entries as a
// schema says it has, outside its allocator: one corrupted number runs the
// process out of memory. So the schema is walked here before the library sees it.
const (
	maxSchemaBytes = 16 << 20 // of the message or footer that holds a schema
	maxSchemaParts = 1 << 18  // fields and metadata entries together
	maxSchemaDepth = 64
)

// Slots of the tables of Arrow's Schema.fbs, Message.fbs and File.fbs: the n-th
// member of a table has slot 4+2n.
const (
	slotFooterSchema      = 6
	slotMessageHeaderType = 6
	slotMessageHeader     = 8
	slotMessageBody       = 10
	slotSchemaFields      = 6
	slotSchemaMetadata    = 8
	slotFieldChildren     = 14
	slotFieldMetadata     = 16

	headerIsSchema = 1
)

// checkArrowFile walks the schema in the footer of an IPC file. What else may be
// wrong with the footer is left to the library.
func checkArrowFile(in io.ReadSeeker) (err error) {
	defer contain(&err)
	tail := make([]byte, 4+len(arrowMagic))
	end, err := in.Seek(-int64(len(tail)), io.SeekEnd)
	if err != nil {
		return fmt.Errorf("the file ends in its first bytes: %w", io.ErrUnexpectedEOF)
	}
	if _, err := io.ReadFull(in, tail); err != nil {
		return unexpected(err)
	}
	if string(tail[4:]) != arrowMagic {
		return fmt.Errorf("ends with %q, want %q: the file is cut short or damaged", tail[4:], arrowMagic)
	}
	size := int64(binary.LittleEndian.Uint32(tail))
	if size < 8 || size > min(maxSchemaBytes, end) {
		return fmt.Errorf("the footer says it has %d bytes, want 8 to %d", size, min(maxSchemaBytes, end))
	}
	if _, err := in.Seek(end-size, io.SeekStart); err != nil {
		return err
	}
	footer := make([]byte, size)
	if _, err := io.ReadFull(in, footer); err != nil {
		return unexpected(err)
	}
	return checkSchema(member(root(footer), slotFooterSchema))
}

// checkArrowStream walks the schema of the first message of an IPC stream and
// returns a reader of the whole stream.
func checkArrowStream(in io.Reader) (_ io.Reader, err error) {
	defer contain(&err)
	var seen bytes.Buffer
	kept := io.TeeReader(in, &seen)
	var word [4]byte
	if _, err := io.ReadFull(kept, word[:]); err != nil {
		return nil, unexpected(err)
	}
	if word == [4]byte{0xff, 0xff, 0xff, 0xff} { // absent before Arrow 0.15
		if _, err := io.ReadFull(kept, word[:]); err != nil {
			return nil, unexpected(err)
		}
	}
	size := int64(binary.LittleEndian.Uint32(word[:]))
	if size < 8 || size > maxSchemaBytes {
		return nil, fmt.Errorf("the schema says it has %d bytes, want 8 to %d", size, maxSchemaBytes)
	}
	message, err := io.ReadAll(io.LimitReader(kept, size))
	if err != nil {
		return nil, err
	}
	if int64(len(message)) < size {
		return nil, io.ErrUnexpectedEOF
	}
	m := root(message)
	if at := m.Offset(slotMessageHeaderType); at != 0 && m.GetByte(m.Pos+flatbuffers.UOffsetT(at)) == headerIsSchema {
		err = checkSchema(member(m, slotMessageHeader))
	}
	return io.MultiReader(&seen, in), err
}

// checkSchema walks a schema; nil is left to the library.
func checkSchema(schema *flatbuffers.Table) error {
	if schema == nil {
		return nil
	}
	left := maxSchemaParts
	if err := spend(schema, slotSchemaMetadata, &left); err != nil {
		return err
	}
	return checkFields(schema, slotSchemaFields, 0, &left)
}

// checkFields walks the fields that t lists, of which left may be met.
func checkFields(t *flatbuffers.Table, slot flatbuffers.VOffsetT, depth int, left *int) error {
	if depth > maxSchemaDepth {
		return fmt.Errorf("the schema is nested more than %d levels deep", maxSchemaDepth)
	}
	if err := spend(t, slot, left); err != nil {
		return err
	}
	at := t.Offset(slot)
	if at == 0 {
		return nil
	}
	first := t.Vector(flatbuffers.UOffsetT(at))
	for i := range t.VectorLen(flatbuffers.UOffsetT(at)) {
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(first + 4*flatbuffers.UOffsetT(i))}
		if err := spend(&field, slotFieldMetadata, left); err != nil {
			return err
		}
		if err := checkFields(&field, slotFieldChildren, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

// spend takes the length of a vector off left.
func spend(t *flatbuffers.Table, slot flatbuffers.VOffsetT, left *int) error {
	at := t.Offset(slot)
	if at == 0 {
		return nil
	}
	n := t.VectorLen(flatbuffers.UOffsetT(at))
	if n > *left {
		return fmt.Errorf("the schema says it has %d more fields or metadata entries, want at most %d", n, *left)
	}
	*left -= n
	return nil
}

// root returns the table that a buffer holds.
func root(data []byte) *flatbuffers.Table {
	return &flatbuffers.Table{Bytes: data, Pos: flatbuffers.GetUOffsetT(data)}
}

// member returns the table at a slot of t, nil for none.
func member(t *flatbuffers.Table, slot flatbuffers.VOffsetT) *flatbuffers.Table {
	at := t.Offset(slot)
	if at == 0 {
		return nil
	}
	return &flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(t.Pos + flatbuffers.UOffsetT(at))}
}
