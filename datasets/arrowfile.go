package datasets

import (
	"context"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// arrowMagic opens and ends an Arrow IPC file.
const arrowMagic = "ARROW1"

// arrowFile reads Arrow IPC, one record batch at a time.
type arrowFile struct {
	schema  *arrow.Schema
	advance func() (arrow.Record, error) // the next batch, which the caller releases; io.EOF behind the last
	release func()

	batch   arrow.Record
	at      int             // next row of batch
	columns [numColumns]int // index in the schema, -1 for absent
	foreign int             // as row.foreign
}

// openArrowFile reads the footer of an IPC file.
func openArrowFile(in ipc.ReadAtSeeker, x index, alloc memory.Allocator) (s *arrowFile, err error) {
	defer contain(&err)
	if err := checkArrowFile(in); err != nil {
		return nil, err
	}
	reader, err := ipc.NewFileReader(in, ipc.WithAllocator(alloc))
	if err != nil {
		return nil, unexpected(err)
	}
	i := 0
	s = &arrowFile{schema: reader.Schema(), release: func() { reader.Close() }}
	s.advance = func() (arrow.Record, error) {
		if i == reader.NumRecords() {
			return nil, io.EOF
		}
		i++
		batch, err := reader.RecordAt(i - 1)
		return batch, unexpected(err)
	}
	return s, s.find(x)
}

// openArrowStream reads the schema at the head of an IPC stream.
func openArrowStream(in io.Reader, x index, alloc cappedAllocator) (s *arrowFile, err error) {
	defer contain(&err)
	if in, err = checkArrowStream(in); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	reader, err := ipc.NewReader(&frameReader{in: in, limit: alloc.limit}, ipc.WithAllocator(alloc))
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", unexpected(err))
	}
	s = &arrowFile{schema: reader.Schema(), release: reader.Release}
	s.advance = func() (arrow.Record, error) {
		if reader.Next() {
			batch := reader.Record()
			batch.Retain()
			return batch, nil
		}
		if err := reader.Err(); err != nil { // io.EOF at an orderly end too
			return nil, err
		}
		return nil, io.EOF
	}
	if err := s.find(x); err != nil {
		reader.Release()
		return nil, err
	}
	return s, nil
}

// unexpected makes the end of the file inside a structure what it is.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// find looks for the columns in the schema.
func (s *arrowFile) find(x index) error {
	var r row
	for i := range s.columns {
		s.columns[i] = -1
	}
	for i, field := range s.schema.Fields() {
		role, wanted := x[field.Name]
		if !wanted {
			r.note(field.Name)
			continue
		}
		if s.columns[role] >= 0 {
			return fmt.Errorf("column %q occurs twice", field.Name)
		}
		s.columns[role] = i
	}
	s.foreign = r.foreign
	return nil
}

func (s *arrowFile) next(ctx context.Context, r *row) (err error) {
	defer contain(&err)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for s.batch == nil || s.at == int(s.batch.NumRows()) {
		s.drop()
		if s.batch, err = s.advance(); err != nil {
			s.batch = nil // not the typed nil that may come with an error
			return err
		}
		s.at = 0
	}
	*r = row{foreign: s.foreign}
	items := itemBudget(maxItems)
	for role, i := range s.columns {
		if i >= 0 {
			r.cells[role] = items.value(s.batch.Column(i), s.at)
		}
	}
	s.at++
	return nil
}

// drop gives the current batch back.
func (s *arrowFile) drop() {
	if s.batch != nil {
		s.batch.Release()
		s.batch = nil
	}
}

func (s *arrowFile) close() (err error) {
	defer contain(&err)
	s.drop()
	s.release()
	return nil
}

// types describes the columns.
func (s *arrowFile) types() []ColumnType {
	var all []ColumnType
	for _, f := range s.schema.Fields() {
		all = append(all, ColumnType{Name: f.Name, Type: f.Type.String()})
	}
	return all
}
