package refcache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// encoder turns rows into record batches, reusing its buffers.
type encoder struct {
	shape
	schema  *arrow.Schema
	data    [numColumns][]byte // values, little-endian
	offsets [numColumns][]byte // int32 offsets of lists
	items   [numColumns]int    // list items so far
}

func newEncoder(s shape) *encoder { return &encoder{shape: s, schema: s.schema()} }

// write writes rows as one Arrow IPC file in batches of at most batchRows.
func (e *encoder) write(w io.Writer, rows []Row, batchRows int) error {
	f, err := ipc.NewFileWriter(&forward{w: w}, ipc.WithSchema(e.schema))
	if err != nil {
		return fmt.Errorf("refcache: write part: %w", err)
	}
	for len(rows) > 0 {
		n := min(batchRows, len(rows))
		rec := e.record(rows[:n])
		err := f.Write(rec)
		rec.Release()
		if err != nil {
			return fmt.Errorf("refcache: write part: %w", err)
		}
		rows = rows[n:]
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("refcache: write part: %w", err)
	}
	return nil
}

// record returns rows as a record batch, valid until the next call.
func (e *encoder) record(rows []Row) arrow.Record {
	for c := range numColumns {
		e.data[c], e.offsets[c], e.items[c] = e.data[c][:0], e.offsets[c][:0], 0
		e.endList(c)
	}
	for i := range rows {
		e.add(&rows[i])
	}
	var columns []arrow.Array
	for c := range e.columns() {
		data := e.column(c, e.schema.Field(len(columns)).Type, len(rows))
		columns = append(columns, array.MakeFromData(data))
		data.Release()
	}
	rec := array.NewRecord(e.schema, columns, int64(len(rows)))
	for _, col := range columns {
		col.Release()
	}
	return rec
}

func (e *encoder) add(r *Row) {
	e.data[colID] = append(e.data[colID], r.ID[:]...)
	e.data[colWeight] = binary.LittleEndian.AppendUint32(e.data[colWeight], math.Float32bits(r.Weight))
	e.data[colPromptKey] = append(e.data[colPromptKey], r.PromptKey[:]...)
	e.addIds(colPrompt, r.Prompt)
	e.addIds(colChosen, r.Chosen)
	e.addIds(colRejected, r.Rejected)
	e.addFloats(colChosenLogps, F32, len(r.ChosenRefLogps), r.ChosenRefLogps)
	e.addFloats(colRejectedLogps, F32, len(r.RejectedRefLogps), r.RejectedRefLogps)
	e.addFloats(colChosenFeatures, e.dtype, len(r.Chosen), r.ChosenFeatures)
	e.addFloats(colRejectedFeatures, e.dtype, len(r.Rejected), r.RejectedFeatures)
}

func (e *encoder) addIds(c int, ids []int32) {
	for _, id := range ids {
		e.data[c] = binary.LittleEndian.AppendUint32(e.data[c], uint32(id))
	}
	e.items[c] += len(ids)
	e.endList(c)
}

func (e *encoder) addFloats(c int, dt DType, items int, values []float32) {
	e.data[c] = dt.appendValues(e.data[c], values)
	e.items[c] += items
	e.endList(c)
}

func (e *encoder) endList(c int) {
	e.offsets[c] = binary.LittleEndian.AppendUint32(e.offsets[c], uint32(e.items[c]))
}

// column returns column c of n rows over the encoder's buffers.
func (e *encoder) column(c int, typ arrow.DataType, n int) arrow.ArrayData {
	values := memory.NewBufferBytes(e.data[c])
	list, ok := typ.(*arrow.ListType)
	if !ok {
		return array.NewData(typ, n, []*memory.Buffer{nil, values}, nil, 0, 0)
	}
	items := leaf(list.Elem(), e.items[c], values)
	offsets := memory.NewBufferBytes(e.offsets[c])
	return array.NewData(typ, n, []*memory.Buffer{nil, offsets}, []arrow.ArrayData{items}, 0, 0)
}

// leaf returns n list items, which are values or fixed-size lists of them.
func leaf(typ arrow.DataType, n int, values *memory.Buffer) arrow.ArrayData {
	fixed, ok := typ.(*arrow.FixedSizeListType)
	if !ok {
		return array.NewData(typ, n, []*memory.Buffer{nil, values}, nil, 0, 0)
	}
	inner := array.NewData(fixed.Elem(), n*int(fixed.Len()), []*memory.Buffer{nil, values}, nil, 0, 0)
	return array.NewData(typ, n, []*memory.Buffer{nil}, []arrow.ArrayData{inner}, 0, 0)
}

// forward is the io.WriteSeeker that Arrow's file writer asks for; it only ever asks
// where it is.
type forward struct {
	w  io.Writer
	at int64
}

func (f *forward) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.at += int64(n)
	return n, err
}

func (f *forward) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("refcache: part is written forward only")
	}
	return f.at, nil
}
